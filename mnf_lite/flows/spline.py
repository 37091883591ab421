"""Neural spline flows: every coordinate moves along a monotone curve that a network bends."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mnf_lite.flows.base import Flow
from mnf_lite.flows.coupling import Coupling
from mnf_lite.nets import MADE, beside, check_parity, layer_sizes, positive_int, positive_number

EPSILON = 1e-3  # least width and height of a bin, as a fraction of the box, and least slope at a knot
STEEPEST = 1 / EPSILON  # greatest slope at a knot, about that of the steepest bin: its square stays finite
UNIT_SLOPE = math.log(math.exp(1 - EPSILON) - 1)  # where the slope is 1


class Spline(nn.Module):
    r"""Monotone curves given by raw numbers, one for every coordinate of every point.

    Inside the box :math:`[-B, B]^2` a curve runs through K + 1 knots :math:`(x_k, y_k)` with slopes
    :math:`d_k`, by one rational quadratic in each bin; at its ends and outside it is the identity.

    - Widths and heights of the bins, as fractions of the box: :math:`\varepsilon + (1 - K \varepsilon)\,
      \mathrm{softmax}(\cdot)`.
    - Slopes at the K - 1 inner knots: :math:`\varepsilon + \mathrm{softplus}(\cdot + \log(e^{1-\varepsilon}
      - 1))`; at the outer knots 1, where the curve meets the identity.

    Raw numbers of 0 make the identity.

    Args:
        bins: number K of bins.
        bound: half the side, B, of the box.
        owner: the class named in the messages.

    Shape:
        ``x [...]`` and ``raw [..., 3 bins - 1]`` ``-> [...]`` and log-derivatives ``[...]``

    Raises:
        ValueError: no bin, or so many that their least widths fill the box; a bound that is not positive.

    Source:
        Durkan et al. (2019), section 3.1, https://arxiv.org/abs/1906.04032

    Example:
        >>> spline, x = Spline(8, 3.0), torch.tensor([-4.0, -3.0, 0.3, 3.0])
        >>> y, log_slope = spline(x, torch.randn(4, spline.size))
        >>> y[[0, 1, 3]]  # the ends stay where they are
        tensor([-4., -3.,  3.])
    """

    corners: Tensor

    def __init__(self, bins: int, bound: float, owner: str = "Spline") -> None:
        super().__init__()
        self.bins = bins = positive_int(bins, f"{owner}'s bins")
        if bins * EPSILON >= 1:
            raise ValueError(f"{owner}'s bins times their least width {EPSILON} must be < 1, got {bins} bins")
        bound = positive_number(bound, f"{owner}'s bound")
        self.size = 3 * bins - 1
        # A knot is the sum of the bins before it and all bins sum to 1, so one matrix product makes the knots
        # from the softmax, least widths and the box's corner included.
        k, j = torch.arange(bins)[:, None], torch.arange(bins + 1)
        fraction = EPSILON * j + (1 - bins * EPSILON) * (k < j)  # [K, K + 1]
        self.register_buffer("corners", bound * (2 * fraction - 1))
        self.bound = float(self.corners[0, -1])  # as the buffer's dtype has it

    def forward(self, x: Tensor, raw: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Move ``x [...]`` along the curves ``raw [..., 3 bins - 1]``; also return the log-derivative."""
        curve = inverse_rational_quadratic if inverse else rational_quadratic
        inner = x.clamp(-self.bound, self.bound)
        y, log_slope = curve(inner, *self.bin(inner, raw, axis=1 if inverse else 0))
        inside = x.abs() < self.bound
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0)

    def bin(self, x: Tensor, raw: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Return corner, size and end slopes of the bin in which ``x [...]`` lies on the axis."""
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
    r"""Return the height of the monotone curve through a bin, and the logarithm of its slope.

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
        Gregory & Delbourgo (1982), https://doi.org/10.1093/imanum/2.2.123; Durkan et al. (2019), eqs. 4-5,
        https://arxiv.org/abs/1906.04032

    Example:
        >>> bin = torch.tensor([0.0, 1.0, 2.0, 4.0, 1.0, 3.0]).double()  # x_0, y_0, w, h, d_0, d_1
        >>> y, log_slope = rational_quadratic(torch.tensor([0.0, 2.0]).double(), *bin)
        >>> y.tolist(), [round(slope, 3) for slope in log_slope.exp().tolist()]
        ([1.0, 5.0], [1.0, 3.0])
    """
    s, xi = h / w, (x - x_0) / w
    A, beta, log_slope = slope_terms(xi, s, d_0, d_1)
    return y_0 + h * xi * A / beta, log_slope


def inverse_rational_quadratic(
    y: Tensor, x_0: Tensor, y_0: Tensor, w: Tensor, h: Tensor, d_0: Tensor, d_1: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return where the curve of :func:`rational_quadratic` has the height y, and log dx/dy there.

    With :math:`v = (y - y_0)/h` and :math:`\delta = d_0 + d_1 - 2 s`, :math:`\xi` is a root of
    :math:`a \xi^2 + b \xi + c`:

    .. math:: a = s - d_0 + v \delta, \quad b = d_0 - v \delta, \quad c = -s v, \qquad
              \xi = \frac{2c}{-b - \sqrt{b^2 - 4ac}}

    The arguments after y are those of :func:`rational_quadratic`.

    Source:
        Durkan et al. (2019), eqs. 6-8 and 25-29, https://arxiv.org/abs/1906.04032

    Example:
        >>> bin = torch.tensor([0.0, 1.0, 2.0, 4.0, 1.0, 3.0]).double()  # x_0, y_0, w, h, d_0, d_1
        >>> y, _ = rational_quadratic(torch.tensor(0.7).double(), *bin)
        >>> round(inverse_rational_quadratic(y, *bin)[0].item(), 6)
        0.7
    """
    s, v = h / w, (y - y_0) / h
    b = d_0 - v * (d_0 + d_1 - 2 * s)
    a, c = s - b, -s * v
    # The floor, not 0 itself, keeps the slope of the square root finite where rounding reaches 0.
    root = torch.sqrt((b * b - 4 * a * c).clamp(min=torch.finfo(y.dtype).tiny))
    xi = 2 * c / (-b - root)
    _, _, log_slope = slope_terms(xi, s, d_0, d_1)
    return x_0 + xi * w, -log_slope


def slope_terms(xi: Tensor, s: Tensor, d_0: Tensor, d_1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``A``, ``beta`` and log dy/dx of :func:`rational_quadratic`."""
    eta = 1 - xi
    A = s * xi + d_0 * eta
    beta = s + (d_0 + d_1 - 2 * s) * xi * eta
    return A, beta, torch.log((s / beta).square() * (xi * (d_1 * xi + s * eta) + eta * A))


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
        hidden: sizes of the hidden layers of the network, each followed by a ReLU; ``()`` for none.
        context: size of the last axis of the context, which the network reads too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1; a bound that is not
            positive.

    Source:
        Durkan et al. (2019), section 3, https://arxiv.org/abs/1906.04032

    Example:
        >>> flow, z = SplineCoupling(3), torch.randn(5, 3)
        >>> x, log_det = flow(z)
        >>> torch.allclose(flow.inverse(x)[0], z, atol=1e-4)
        True
    """

    def __init__(
        self,
        dim: int,
        parity: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (16, 16, 16),
        *,
        context: int = 0,
    ) -> None:
        spline = Spline(bins, bound, type(self).__name__)
        super().__init__(dim, parity, hidden, nets=1, outputs=spline.size, context=context)
        self.spline = spline

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x_2 = g^-1(z_2)``: a quadratic is solved."""
        return self.move(z, context, inverse=True)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z_2 = g(x_2)``."""
        return self.move(x, context, inverse=False)

    def move(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """Apply g or its inverse to the half that moves."""
        kept, moving = self.split(x, context)
        (raw,) = self.net(beside(kept, context))
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
        hidden: sizes of the hidden layers of the network, each followed by a ReLU; ``()`` for none.
        context: size of the last axis of the context, which the network reads too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1; a bound that is not
            positive.

    Source:
        Durkan et al. (2019), section 3, https://arxiv.org/abs/1906.04032

    Example:
        >>> flow, z = SplineAutoregressive(3), torch.randn(5, 3)
        >>> x, log_det = flow(z)
        >>> torch.allclose(flow.inverse(x)[0], z, atol=1e-4)
        True
    """

    def __init__(
        self,
        dim: int,
        parity: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (16, 16, 16),
        *,
        context: int = 0,
    ) -> None:
        super().__init__(dim, context)
        name = type(self).__name__
        self.parity = check_parity(parity, name)
        self.spline = Spline(bins, bound, name)
        self.net = MADE(dim, layer_sizes(hidden, name), self.spline.size, parity, context)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x_i = g_i^-1(z_i)``, one coordinate after the other."""

        def step(z_i: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            x_i, log_slope = self.spline(z_i, raw, inverse=True)
            return x_i, log_slope

        x, log_slope = self.net.solve(self.check(z, self.net.theta, context), step, context)
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z_i = g_i(x_i)``, all coordinates at once."""
        x = self.check(x, self.net.theta, context)
        z, log_slope = self.spline(x, self.net(x, context))
        return z, log_slope.sum(-1)

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"{super().extra_repr()}, parity={self.parity}"
