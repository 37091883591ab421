"""Fixed maps of every coordinate onto an interval or a half-line: the last flow of a bounded density."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mnf_lite.flows.base import Flow


class Sigmoid(Flow):
    r"""Map every coordinate onto the interval (0, 1).

    .. math:: x = \sigma(z), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i \log\sigma(z_i) + \log\sigma(-z_i)

    As the last flow of a chain it gives a density that is supported on the unit cube. Samples stay inside it
    where :math:`\sigma(z)` rounds to 0 or 1. Outside there is no density: there ``inverse`` answers with the
    log-determinant :math:`-\infty`, and z = 0 for want of a point that is mapped to x.

    Args:
        dim: number of coordinates.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Source:
        Papamakarios et al. (2021), section 2.1, https://arxiv.org/abs/1912.02762; Kucukelbir et al. (2017),
        section 2.3, https://arxiv.org/abs/1603.00788

    Example:
        >>> from mnf_lite.flows import NormalizingFlow
        >>> density = NormalizingFlow(Sigmoid(2))
        >>> x = density.sample(1000)
        >>> bool((x > 0).all() and (x < 1).all())
        True
        >>> density.log_prob(torch.tensor([0.5, 1.5]))
        tensor(-inf)
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = 1 / (1 + e^-z)``."""
        z = self.check(z, context=context)
        limits = torch.finfo(z.dtype)
        x = torch.sigmoid(z).clamp(limits.tiny, 1 - limits.eps / 2)
        return x, (logsigmoid(z) + logsigmoid(-z)).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = log x - log(1 - x)``."""
        x = self.check(x, context=context)
        outside = (x <= 0) | (x >= 1)
        x = torch.where(outside, 0.5, x)
        log_x, log_rest = torch.log(x), torch.log1p(-x)
        return log_x - log_rest, torch.where(outside, -torch.inf, -log_x - log_rest).sum(-1)


class Exp(Flow):
    r"""Map every coordinate onto the positive half-line.

    .. math:: x = e^z, \qquad \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i z_i

    As the last flow of a chain it gives a density of positive numbers. Samples stay positive and finite where
    :math:`e^z` rounds to 0 or overflows. Elsewhere there is no density: there ``inverse`` answers with the
    log-determinant :math:`-\infty`, and z = 0 for want of a point that is mapped to x.

    Args:
        dim: number of coordinates.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Source:
        Papamakarios et al. (2021), section 2.1, https://arxiv.org/abs/1912.02762; Kucukelbir et al. (2017),
        section 2.3, https://arxiv.org/abs/1603.00788

    Example:
        >>> from mnf_lite.flows import NormalizingFlow
        >>> density = NormalizingFlow(Exp(1))  # the log-normal distribution
        >>> bool((density.sample(1000) > 0).all())
        True
        >>> density.log_prob(torch.tensor([-1.0]))
        tensor(-inf)
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = e^z``."""
        z = self.check(z, context=context)
        limits = torch.finfo(z.dtype)
        return torch.exp(z).clamp(limits.tiny, limits.max), z.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = log x``."""
        x = self.check(x, context=context)
        outside = (x <= 0) | (x == torch.inf)
        z = torch.log(torch.where(outside, 1, x))
        return z, torch.where(outside, -torch.inf, -z).sum(-1)
