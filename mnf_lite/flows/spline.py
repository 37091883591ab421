"""Neural spline flows: every coordinate moves along a monotone curve that a network bends."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mnf_lite.flows.base import Flow, check_parity
from mnf_lite.flows.coupling import Coupling
from mnf_lite.nets import MADE

EPSILON = 1e-3  # least width and height of a bin, as a fraction of the box, and least slope at a knot
STEEPEST = 1 / EPSILON  # greatest slope at a knot, about that of the steepest bin: its square stays finite
UNIT_SLOPE = math.log(math.exp(1 - EPSILON) - 1)  # where the slope is 1


class Spline(nn.Module):
    r"""Monotone curves given by raw numbers, one for every coordinate of every point.

    Inside the box :math:`[-B, B]^2` a curve runs through K + 1 knots :math:`(x_k, y_k)` with slopes
    :math:`d_k`, by one rational quadratic in each bin; outside it is the identity.

    - Widths and heights of the bins, as fractions of the box: :math:`\varepsilon + (1 - K \varepsilon)\,
      \mathrm{softmax}(\cdot)`.
    - Slopes at the K - 1 inner knots: :math:`\varepsilon + \mathrm{softplus}(\cdot + \log(e^{1-\varepsilon}
      - 1))`; at the outer knots 1, where the curve meets the identity.

    Raw numbers of 0 make the identity.

    Args:
        bins: number K of bins.
        bound: half the side, B, of the box.

    Raises:
        ValueError: no bin, or so many that their least widths fill the box; a bound that is not positive.

    Source:
        Durkan et al. (2019), section 3.1.
    """

    corners: Tensor

    def __init__(self, bins: int, bound: float) -> None:
        if not isinstance(bins, int) or bins < 1:
            raise ValueError(f"bins must be an integer of at least 1, got {bins!r}")
        if bins * EPSILON >= 1:
            raise ValueError(f"bins times the least width {EPSILON} must be less than 1, got {bins} bins")
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite, got {bound!r}")
        super().__init__()
        self.bins = bins
        self.size = 3 * bins - 1
        # A knot is the sum of the bins before it and all bins sum to 1, so one matrix product makes the knots
        # from the softmax, least widths and the box's corner included.
        k, j = torch.arange(bins)[:, None], torch.arange(bins + 1)
        fraction = EPSILON * j + (1 - bins * EPSILON) * (k < j)  # [K, K + 1]
        self.register_buffer("corners", bound * (2 * fraction - 1))
        self.bound = float(self.corners[0, -1])  # as the buffer's dtype has it

    def forward(self, x: Tensor, raw: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Move ``x [...]`` along the curves ``raw [..., 3 bins - 1]``; also the log-derivative, ``[...]``."""
        inner = x.clamp(-self.bound, self.bound)
        y, log_slope = (inverse_rational_quadratic if inverse else rational_quadratic)(
            inner, *self.bin(inner, raw, axis=1 if inverse else 0)
        )
        inside = inner == x
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0)

    def bin(self, x: Tensor, raw: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Corner, size and end slopes of the bin in which the coordinate ``x [...]`` on the axis lies."""
        bars, slopes = torch.split(raw, [2 * self.bins, self.bins - 1], -1)
        knots = bars.view(*x.shape, 2, self.bins).softmax(-1) @ self.corners  # [..., 2 axes, K + 1]
        inner_knots = knots.detach()[..., axis, 1:-1].clone()
        left = torch.searchsorted(inner_knots, x.detach()[..., None], right=True)  # [..., 1]
        ends = torch.cat((left, left + 1), -1)  # [..., 2]
        lower, upper = knots.gather(-1, ends[..., None, :].expand(*left.shape[:-1], 2, 2)).unbind(-1)
        a = nn.functional.pad(slopes, (1, 1)).gather(-1, ends).clamp(max=STEEPEST)
        d_0, d_1 = (EPSILON + nn.functional.softplus(a + UNIT_SLOPE)).unbind(-1)
        return *lower.unbind(-1), *(upper - lower).unbind(-1), d_0, d_1


def rational_quadratic(
    x: Tensor, x_0: Tensor, y_0: Tensor, w: Tensor, h: Tensor, d_0: Tensor, d_1: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The monotone curve through a bin.

    .. math:: y = y_0 + h\, \frac{\xi A}{\beta}, \qquad
              \frac{dy}{dx} = \frac{s^2}{\beta^2} \bigl(\xi\, (d_1 \xi + s \eta) + \eta A\bigr)

    with :math:`\xi = (x - x_0)/w`, :math:`\eta = 1 - \xi`, :math:`s = h/w`, :math:`A = s \xi + d_0 \eta` and
    :math:`\beta = s + (d_0 + d_1 - 2 s)\, \xi \eta`. In this form no two large numbers cancel.

    Args:
        x: where to evaluate, ``[...]`` like all that follow.
        x_0: left end of the bin.
        y_0: lower end.
        w: width.
        h: height.
        d_0: slope at the left end.
        d_1: slope at the right end.

    Returns:
        y and log dy/dx.

    Source:
        Gregory & Delbourgo (1982); Durkan et al. (2019), eqs. 4-5.
    """
    s, xi = h / w, (x - x_0) / w
    A, beta, log_slope = slope_terms(xi, s, d_0, d_1)
    return torch.addcdiv(y_0, h * xi * A, beta), log_slope


def inverse_rational_quadratic(
    y: Tensor, x_0: Tensor, y_0: Tensor, w: Tensor, h: Tensor, d_0: Tensor, d_1: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Where the curve of :func:`rational_quadratic` reaches the height y, and log dx/dy there.

    With :math:`v = (y - y_0)/h` and :math:`\delta = d_0 + d_1 - 2 s`, :math:`\xi` is a root of
    :math:`a \xi^2 + b \xi + c`:

    .. math:: a = s - d_0 + v \delta, \quad b = d_0 - v \delta, \quad c = -s v, \qquad
              \xi = \frac{2c}{-b - \sqrt{b^2 - 4ac}}

    Source:
        Durkan et al. (2019), eqs. 6-8 and 25-29.
    """
    s, v = h / w, (y - y_0) / h
    b = d_0 - v * (d_0 + d_1 - 2 * s)
    minus_c = s * v
    # a = s - b. The floor, not 0 itself, keeps the slope of the square root finite where rounding reaches 0.
    root = torch.sqrt((b * b + 4 * (s - b) * minus_c).clamp(min=torch.finfo(y.dtype).tiny))
    xi = 2 * minus_c / (b + root)
    _, _, log_slope = slope_terms(xi, s, d_0, d_1)
    return torch.addcmul(x_0, xi, w), -log_slope


def slope_terms(xi: Tensor, s: Tensor, d_0: Tensor, d_1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``A``, ``beta`` and log dy/dx of :func:`rational_quadratic`."""
    eta = 1 - xi
    A = torch.addcmul(s * xi, d_0, eta)
    beta = torch.addcmul(s, torch.sub(d_0 + d_1, s, alpha=2), xi * eta)
    slope = torch.addcmul(eta * A, xi, torch.addcmul(s * eta, d_1, xi))
    return A, beta, torch.log(slope * (s / beta).square())


class SplineCoupling(Coupling):
    r"""Neural spline coupling: one half of the coordinates moves along curves that the other half bends.

    .. math:: x_1 = z_1, \qquad z_2 = g_{z_1}(x_2), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = -\sum_i \log g_i'

    with g the curves of :class:`.Spline`. The published layer NSF-CL is two of these, one of each parity.

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            curve of the one coordinate is learned directly.
        parity: 0 moves the second half, 1 the first.
        bins: number of bins of every curve.
        bound: half the side of the box outside of which curves are the identity.
        hidden: sizes of the hidden layers of the network, each followed by a ReLU.

    Source:
        Durkan et al. (2019), section 3.
    """

    def __init__(
        self,
        dim: int,
        parity: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (16, 16, 16),
    ) -> None:
        spline = Spline(bins, bound)
        super().__init__(dim, parity, hidden, nets=1, outputs=spline.size)
        self.spline = spline

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_2 = g^-1(z_2)``: a quadratic is solved."""
        return self.move(z, inverse=True)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z_2 = g(x_2)``."""
        return self.move(x, inverse=False)

    def move(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Apply g or its inverse to the half that moves."""
        kept, moving = self.split(x)
        (raw,) = self.net(kept)
        moved, log_slope = self.spline(moving, raw.unflatten(-1, (-1, self.spline.size)), inverse)
        return self.join(kept, moved), log_slope.sum(-1)


class SplineAutoregressive(Flow):
    r"""Neural spline flow on MADE: every coordinate moves along a curve that the coordinates before it bend.

    .. math:: z_i = g_i(x_i), \quad g_i \ \text{bent by}\ \mathrm{MADE}(x)_i \ \text{of}\ x_{<i}, \qquad
              \log\Bigl|\det\frac{\partial z}{\partial x}\Bigr| = \sum_i \log g_i'(x_i)

    with g the curves of :class:`.Spline`. As in :class:`MAF`, ``inverse`` is one pass of the network at every
    dimension and ``forward`` takes dim passes.

    Args:
        dim: number of coordinates; with ``dim = 1`` the curve of the one coordinate is learned directly.
        parity: 0 takes the coordinates in their order, 1 in the reverse.
        bins: number of bins of every curve.
        bound: half the side of the box outside of which curves are the identity.
        hidden: sizes of the hidden layers of the network, each followed by a ReLU.

    Source:
        Durkan et al. (2019), section 3.
    """

    def __init__(
        self,
        dim: int,
        parity: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (16, 16, 16),
    ) -> None:
        super().__init__(dim)
        self.parity = check_parity(parity)
        self.spline = Spline(bins, bound)
        self.net = MADE(dim, hidden, outputs=self.spline.size, parity=parity)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_i = g_i^-1(z_i)``, one coordinate after the other."""
        x, log_slope = self.net.solve(self.check(z), lambda z_i, raw: self.spline(z_i, raw, inverse=True))
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z_i = g_i(x_i)``, all coordinates at once."""
        z, log_slope = self.spline(x, self.net(self.check(x)))
        return z, log_slope.sum(-1)

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"dim={self.dim}, parity={self.parity}"
