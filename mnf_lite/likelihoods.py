r"""Likelihoods: what the output of a network says about y.

``fit`` minimises :math:`-\log p(y \mid \mathrm{output})`, ``predict`` turns outputs into predictions. Which
likelihood is meant is said, never guessed from a shape: by the model (an attribute ``likelihood``, or a
likelihood as the last layer of an ``nn.Sequential``) or by the argument ``likelihood`` of ``fit`` and
``predict``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite._inputs import unwrapped

__all__ = ["Bernoulli", "Categorical", "Gaussian", "Likelihood", "likelihood_of"]

LOG_2PI = math.log(2 * math.pi)
KNOWN = "likelihoods.Categorical(), likelihoods.Gaussian(), likelihoods.Bernoulli()"


class Likelihood(nn.Module, ABC):
    """A distribution of y given the output of a network. One of your own needs ``log_prob`` and ``predict``.

    As a layer it passes its input on, so that it may stand last in an ``nn.Sequential``.

    Example:
        >>> class Poisson(Likelihood):
        ...     def log_prob(self, output, y):
        ...         return torch.distributions.Poisson(output.exp()).log_prob(y).sum(-1)
        ...
        ...     def predict(self, output):
        ...         return output.exp()
        >>> Poisson().log_prob(torch.zeros(4, 2), torch.ones(4, 2)).shape
        torch.Size([4])
    """

    #: Whether y is a class, so that predictions have an accuracy.
    classifies = False

    @abstractmethod
    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the log density of each example, ``[B]`` in nats; of all parts of a y together."""

    @abstractmethod
    def predict(self, output: Tensor) -> Tensor:
        """Return what outputs ``[B, ...]`` predict: probabilities, or the outputs themselves."""

    def output(self, prediction: Tensor) -> Tensor:
        """Return an output whose prediction this is: the inverse of ``predict``, here the identity."""
        return prediction

    def right(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the share of each example's parts that are classified rightly, ``[B]``."""
        raise TypeError(f"{type(self).__name__} does not classify: there is no right and wrong")

    def check_output(self, output: Tensor) -> None:
        """Raise unless the likelihood can read this output of a network."""

    def check(self, output: Tensor, y: Tensor) -> None:
        """Raise unless y ``[B, ...]`` can be targets for outputs like these, which may have fewer rows."""

    def log_predictive(self, predictions: Tensor, y: Tensor) -> Tensor:
        r"""Return the log density of y under the mean of many predictions.

        .. math:: \log \frac1S \sum_s p(y \mid \mathrm{output}_s)

        Args:
            predictions: as ``predict`` gives them, ``[S, B, ...]``.
            y: ``[B, ...]``.

        Returns:
            In nats, ``[B]``.

        Example:
            >>> draws = torch.tensor([[[-1.0]], [[1.0]]])  # two functions that disagree, one example
            >>> log_p = Gaussian().log_predictive(draws, torch.zeros(1, 1))
            >>> round(log_p.exp().item(), 4)  # the density of N(0, 1) at 1
            0.242
        """
        log_p = torch.stack([self.log_prob(self.output(prediction), y) for prediction in predictions])
        return log_p.logsumexp(0) - math.log(len(predictions))  # [S, B] -> [B]

    def forward(self, output: Tensor) -> Tensor:
        """Return the output as it is."""
        return output


class Categorical(Likelihood):
    r"""One of C classes for each example, or for each pixel of it; the network gives logits.

    .. math:: p(y \mid \mathrm{output}) = \operatorname{softmax}(\mathrm{output})_y

    Shape:
        output ``[B, C]`` with labels ``[B]``, or ``[B, C, H, W]`` with labels ``[B, H, W]``: classes lie
        along axis 1, as in ``nn.functional.cross_entropy``. Predictions are probabilities of the output's
        shape.

    Raises:
        TypeError: labels that are not int64.
        ValueError: fewer than two classes, labels of another shape or out of range.

    Example:
        >>> Categorical().predict(torch.zeros(2, 4))[0]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    classifies = True

    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        return -_sum(F.cross_entropy(output, y, reduction="none"))

    def predict(self, output: Tensor) -> Tensor:
        return output.softmax(1)

    def output(self, prediction: Tensor) -> Tensor:
        return prediction.log()

    def right(self, output: Tensor, y: Tensor) -> Tensor:
        return _mean(output.argmax(1) == y)

    def check_output(self, output: Tensor) -> None:
        if output.ndim < 2:
            raise ValueError(
                f"Categorical expects logits [batch, classes], got {_shape(output)}; "
                "a single example needs a batch axis: x[None]"
            )
        if output.shape[1] < 2:
            raise ValueError(
                f"Categorical expects at least two classes along axis 1 of the logits, got {_shape(output)}; "
                "a single logit is for Bernoulli, a mean for Gaussian"
            )

    def check(self, output: Tensor, y: Tensor) -> None:
        self.check_output(output)
        _check_tensor(y)
        shape, classes = [len(y), *output.shape[2:]], output.shape[1]
        if y.dtype != torch.int64:
            raise TypeError(f"labels must be int64 of shape {shape}, got {y.dtype} of shape {list(y.shape)}")
        if list(y.shape) != shape:
            raise ValueError(f"labels must be int64 of shape {shape}, got shape {list(y.shape)}")
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(f"labels must be in 0..{classes - 1}, got {y.min().item()}..{y.max().item()}")


class Bernoulli(Likelihood):
    r"""Yes or no, once or many times for each example; the network gives a logit for each.

    .. math:: \log p(y \mid \mathrm{output}) = \sum_k \log \sigma(\pm\,\mathrm{output}_k)

    with + where :math:`y_k = 1` and − where :math:`y_k = 0`.

    Shape:
        output ``[B]``, ``[B, K]`` or ``[B, ...]``, and y of the same shape: 0 or 1, of any dtype. Predictions
        are the probabilities of 1, of that shape too.

    Raises:
        ValueError: y of another shape, or with values other than 0 and 1.

    Example:
        >>> Bernoulli().predict(torch.zeros(2, 3))[0]
        tensor([0.5000, 0.5000, 0.5000])
    """

    classifies = True

    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        return _sum(F.logsigmoid(torch.where(y.bool(), output, -output)))

    def predict(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def output(self, prediction: Tensor) -> Tensor:
        return prediction.logit()

    def right(self, output: Tensor, y: Tensor) -> Tensor:
        return _mean((output > 0) == y.bool())

    def check_output(self, output: Tensor) -> None:
        if output.ndim < 1:
            raise ValueError(
                f"Bernoulli expects logits [batch, ...], got {_shape(output)}; "
                "a single example needs a batch axis: x[None]"
            )

    def check(self, output: Tensor, y: Tensor) -> None:
        self.check_output(output)
        _check_tensor(y)
        _same_shape(output, y)
        if not ((y == 0) | (y == 1)).all():
            raise ValueError(f"y must hold 0 and 1 alone, got {y.min().item()}..{y.max().item()}")

    @staticmethod
    def classes(prediction: Tensor) -> Tensor:
        """Return probabilities of 0 and of 1, as ``metrics`` takes them, each logit an example of its own.

        Args:
            prediction: probabilities of 1, ``[S, B, ...]``; their labels are ``y.flatten()``.

        Returns:
            ``[S, B ..., 2]``

        Example:
            >>> Bernoulli.classes(torch.full((5, 4, 1), 0.25))[0, 0]
            tensor([0.7500, 0.2500])
        """
        return torch.stack((1 - prediction, prediction), -1).flatten(1, -2)


class Gaussian(Likelihood):
    r"""Independent Gaussian noise around the outputs, learned: one for each output, or one that depends on x.

    .. math:: p(y \mid \mathrm{output}) = \prod_o \mathcal N(y_o;\; f_o,\; e^{\lambda_o})

    Predictions are the outputs themselves, draws of the function without noise: ``log_predictive`` adds it.

    Args:
        outputs: number of noises :math:`\lambda` (``noise_log_var``, point estimates without a prior); 1 is
            one noise for all outputs.
        noise_std: its standard deviation at the start, in the units of y. None: the network says it, the
            second half of its outputs are the log variances :math:`\lambda(x)`.

    Shape:
        output ``[B, out]`` (with ``noise_std=None`` ``[B, 2 out]``: means, then log variances), y ``[B,
        out]``.

    Raises:
        TypeError: y of another dtype than the output.
        ValueError: a noise that is not positive, a shape that does not fit, y that is not finite.

    Source:
        Nix and Weigend (1994), for a noise that depends on x, https://doi.org/10.1109/ICNN.1994.374138.

    Example:
        >>> likelihood = Gaussian(outputs=2, noise_std=0.5)
        >>> likelihood.noise_std.tolist()
        [0.5, 0.5]
        >>> Gaussian(noise_std=None).log_prob(torch.zeros(3, 4), torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    noise_log_var: nn.Parameter | None

    def __init__(self, outputs: int = 1, noise_std: float | None = 1.0) -> None:
        super().__init__()
        if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < 1:
            raise ValueError(f"outputs must be an integer of at least 1, got {outputs!r}")
        if noise_std is None:
            self.register_parameter("noise_log_var", None)
        elif isinstance(noise_std, int | float) and 0 < noise_std < math.inf:
            self.noise_log_var = nn.Parameter(torch.full((outputs,), float(noise_std)).log() * 2)
        else:
            raise ValueError(
                "noise_std must be a positive finite number, or None where the network gives log variances, "
                f"got {noise_std!r}"
            )

    @classmethod
    def of(cls, noise_log_var: nn.Parameter) -> "Gaussian":
        """Make the likelihood of a model that holds the log variances ``[out]`` itself."""
        likelihood = cls()
        likelihood.noise_log_var = noise_log_var
        return likelihood

    @property
    def noise_std(self) -> Tensor | None:
        """Standard deviations of the noise ``[outputs]``; None where they depend on x."""
        return None if self.noise_log_var is None else (self.noise_log_var / 2).exp()

    def _moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances."""
        if self.noise_log_var is not None:
            return output, self.noise_log_var
        mean, log_var = output.chunk(2, -1)
        return mean, log_var

    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        mean, log_var = self._moments(output)
        return -_sum(LOG_2PI + log_var + (y - mean).square() * (-log_var).exp()) / 2

    def predict(self, output: Tensor) -> Tensor:
        return output

    def check_output(self, output: Tensor) -> None:
        if output.ndim < 2:
            raise ValueError(
                f"Gaussian expects outputs [batch, out], got {_shape(output)}; "
                "a single example needs a batch axis: x[None]"
            )
        if self.noise_log_var is None and output.shape[-1] % 2:
            raise ValueError(
                "Gaussian(noise_std=None) expects means and as many log variances along the last axis, "
                f"got {_shape(output)}"
            )
        if self.noise_log_var is not None and len(self.noise_log_var) not in (1, output.shape[-1]):
            raise ValueError(
                f"Gaussian has the noise of {len(self.noise_log_var)} outputs, "
                f"the network's outputs are {_shape(output)}"
            )

    def check(self, output: Tensor, y: Tensor) -> None:
        self.check_output(output)
        _check_tensor(y)
        mean, _ = self._moments(output)
        if y.dtype != mean.dtype:
            raise TypeError(f"the noise is Gaussian: y must be {mean.dtype}, got {y.dtype}")
        _same_shape(mean, y)
        if not y.isfinite().all():
            raise ValueError("y must be finite, got infinities or NaNs")

    def extra_repr(self) -> str:
        if self.noise_log_var is None:
            return "noise_std=None"
        return f"outputs={len(self.noise_log_var)}"


def likelihood_of(model: nn.Module, named: Likelihood | None = None) -> Likelihood:
    """Return the likelihood that was named, else the one that the model says.

    A model says its own by the attribute ``likelihood``; one inside ``DataParallel``,
    ``DistributedDataParallel`` or ``torch.compile`` is found, and in an ``nn.Sequential`` the last one
    behind which no layer has parameters.

    Raises:
        TypeError: something named that is no likelihood.
        ValueError: none was named, and the model says none.

    Example:
        >>> likelihood_of(nn.Sequential(nn.Linear(3, 1), Bernoulli()))
        Bernoulli()
        >>> likelihood_of(nn.Linear(3, 1), Categorical())
        Categorical()
    """
    found: Any = named if named is not None else _said(model)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} does not say what its outputs mean: name one of {KNOWN} as "
            "likelihood=..., or set model.likelihood"
        )
    if not isinstance(found, Likelihood):
        came = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise TypeError(
            f"likelihood must be one of {KNOWN} or a likelihoods.Likelihood of your own, got {came}"
        )
    return found


def _said(model: nn.Module) -> Likelihood | None:
    """What a model says of itself, wrappers opened."""
    model = unwrapped(model)
    if isinstance(model, Likelihood):
        return model
    if (said := getattr(model, "likelihood", None)) is not None:
        return said  # type: ignore[no-any-return]
    if isinstance(model, nn.Sequential):
        for layer in reversed(model):
            if (said := _said(layer)) is not None or any(True for _ in layer.parameters()):
                return said
    return None


def _sum(parts: Tensor) -> Tensor:
    """Sum over all axes but the first: ``[B, ...] -> [B]``."""
    return parts if parts.ndim == 1 else parts.flatten(1).sum(1)


def _mean(parts: Tensor) -> Tensor:
    """Mean over all axes but the first: ``[B, ...] -> [B]``."""
    return parts.float() if parts.ndim == 1 else parts.flatten(1).float().mean(1)


def _shape(output: Tensor) -> Sequence[int]:
    return list(output.shape)


def _check_tensor(y: Tensor) -> None:
    if not isinstance(y, Tensor):
        raise TypeError(f"y must be a tensor, got {type(y).__name__}")


def _same_shape(output: Tensor, y: Tensor) -> None:
    if y.shape[1:] != output.shape[1:]:
        expected = [len(y), *output.shape[1:]]
        raise ValueError(f"y must have the outputs' shape {expected}, got {_shape(y)}")
