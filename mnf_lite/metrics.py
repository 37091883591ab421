"""Scores of predicted probabilities: are they right, do they know when not, do they notice strangers.

Probabilities are ``[B, C]``, or ``[S, B, C]`` with one sample of the posterior for each s; what judges a
prediction judges the mean over s. Those of the classes of pixels are ``[B, C, H, W]`` or ``[S, B, C, H, W]``
with labels ``[B, H, W]``, and each pixel counts as an example. ``likelihoods.Bernoulli.classes`` makes two
classes of the probability of 1. Results keep the floating type of what came in; entropies are in nats.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mnf_lite._extras import sklearn
from mnf_lite.likelihoods import Likelihood

__all__ = [
    "ReliabilityCurve",
    "accuracy",
    "auroc",
    "brier_score",
    "expected_calibration_error",
    "fpr95",
    "mutual_information",
    "negative_log_likelihood",
    "predictive_entropy",
    "reliability_curve",
]


class ReliabilityCurve(NamedTuple):
    """Predictions gathered in bins of like confidence; where a bin is empty, its two means are NaN.

    Attributes:
        confidence: mean probability of the predicted class, ``[n_bins]``.
        accuracy: share of right predictions, ``[n_bins]``.
        counts: number of predictions, int64 ``[n_bins]``.

    Example:
        >>> curve = reliability_curve(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]), n_bins=2)
        >>> curve.counts
        tensor([0, 2])
    """

    confidence: Tensor
    accuracy: Tensor
    counts: Tensor


def accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the share of examples whose most probable class is the right one.

    Args:
        probabilities: ``[S, B, C]`` or ``[B, C]``; of pixels ``[S, B, C, H, W]`` or ``[B, C, H, W]``.
        labels: the right classes, integers ``[B]``; of pixels ``[B, H, W]``.

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: probabilities that are not floating-point, labels that are not integers.
        ValueError: a wrong shape, labels out of range, rows that are no probabilities.

    Example:
        >>> round(accuracy(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([0, 1])).item(), 2)
        0.5
    """
    p, labels = _flat(probabilities, labels)
    return (p.argmax(1) == labels).double().mean().to(probabilities.dtype)


def negative_log_likelihood(
    probabilities: Tensor, labels: Tensor, likelihood: Likelihood | None = None
) -> Tensor:
    r"""Return the mean over the examples of the negative log-probability of the right class, in nats.

    .. math:: -\frac1B \sum_b \log p_b(\mathrm{right\ class})

    A right class that was given probability 0 makes it infinite: nothing is clipped.

    Args:
        probabilities: as in :func:`accuracy`; with a likelihood whatever ``predict`` gave, ``[S, B, ...]``.
        labels: as in :func:`accuracy`; with a likelihood its targets.
        likelihood: for other predictions than classes, such as ``likelihoods.Gaussian``: the log density of
            each target is then that of the mean density of the samples, noise included.

    Raises:
        TypeError, ValueError: as in :func:`accuracy`, or as the likelihood says.

    Example:
        >>> p = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
        >>> round(negative_log_likelihood(p, torch.tensor([0, 1])).item(), 4)
        0.4904
    """
    if likelihood is not None:
        return _negative_log_density(probabilities, labels, likelihood)
    p, labels = _flat(probabilities, labels)
    return -p.gather(1, labels.unsqueeze(1)).log().mean().to(probabilities.dtype)


def brier_score(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Return the squared distance of the probabilities from the truth, 0 to 2, mean over the examples.

    .. math:: \frac1B \sum_b \sum_c \bigl(p_{bc} - [c \ \mathrm{is\ right}]\bigr)^2

    Arguments and errors as in :func:`accuracy`.

    Source:
        Brier (1950), https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Example:
        >>> brier_score(torch.tensor([[0.5, 0.5]]), torch.tensor([0])).item()
        0.5
    """
    p, labels = _flat(probabilities, labels)
    target = one_hot(labels, p.shape[1])
    return (p - target).square().sum(1).mean().to(probabilities.dtype)


def reliability_curve(probabilities: Tensor, labels: Tensor, n_bins: int = 15) -> ReliabilityCurve:
    """Return confidence against accuracy in ``n_bins`` bins of equal width, ``(0, 1/n], …, (1 - 1/n, 1]``.

    Arguments and errors as in :func:`accuracy`; ``n_bins`` has to be at least 1.

    Source:
        Guo et al. (2017), section 2, https://arxiv.org/abs/1706.04599.

    Example:
        >>> p = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
        >>> curve = reliability_curve(p, torch.tensor([1, 1]), n_bins=2)
        >>> curve.counts.tolist()
        [1, 1]
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, int) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer of at least 1, got {n_bins!r}")
    p, labels = _flat(probabilities, labels)
    confidence, predicted = p.max(1)
    edges = torch.linspace(0, 1, n_bins + 1, dtype=p.dtype, device=p.device)
    bins = torch.bucketize(confidence, edges[1:-1])  # [B]
    counts = bins.bincount(minlength=n_bins)
    confidences = bins.bincount(confidence, n_bins) / counts
    accuracies = bins.bincount((predicted == labels).to(p.dtype), n_bins) / counts
    return ReliabilityCurve(confidences.to(probabilities.dtype), accuracies.to(probabilities.dtype), counts)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, n_bins: int = 15) -> Tensor:
    r"""Return the gap between accuracy and confidence in the bins of :func:`reliability_curve`, weighted.

    .. math:: \mathrm{ECE} = \sum_{\mathrm{bins}} \frac{\mathrm{count}}{B}\,
              \bigl|\mathrm{accuracy} - \mathrm{confidence}\bigr|

    Arguments and errors as in :func:`reliability_curve`.

    Source:
        Guo et al. (2017), equation 3, https://arxiv.org/abs/1706.04599.

    Example:
        >>> p = torch.tensor([[0.25, 0.75], [0.25, 0.75]])
        >>> expected_calibration_error(p, torch.tensor([1, 0])).item()
        0.25
    """
    # torchmetrics has this number, without the curve, and gives confidences of exactly 1 a bin of their own.
    curve = reliability_curve(probabilities, labels, n_bins)
    gap = (curve.accuracy - curve.confidence).abs().nan_to_num()  # an empty bin weighs nothing
    return (curve.counts / curve.counts.sum() * gap).sum().to(probabilities.dtype)


def predictive_entropy(probabilities: Tensor) -> Tensor:
    r"""Return the entropy of each mean prediction, ``[S, B, C]`` or ``[B, C] -> [B]``, in nats.

    .. math:: H = -\sum_c p_c \log p_c

    The total uncertainty: exactly 0 for a certain prediction, log C for one that knows nothing.  Errors as in
    :func:`accuracy`.

    Example:
        >>> predictive_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).div(torch.tensor(2.0).log()).tolist()
        [0.0, 1.0]
    """
    return _entropy(_mean(probabilities)).to(probabilities.dtype)


def mutual_information(probabilities: Tensor) -> Tensor:
    r"""Return how much knowing the weights would tell about each class, ``[S, B, C] -> [B]``, in nats.

    .. math:: I = H\Bigl[\frac1S \sum_s p_s\Bigr] - \frac1S \sum_s H[p_s]

    The part of the entropy that comes from samples that disagree.

    Raises:
        TypeError: as in :func:`accuracy`.
        ValueError: as in :func:`accuracy`, or no axis of samples.

    Source:
        Houlsby et al. (2011), https://arxiv.org/abs/1112.5745.

    Example:
        >>> disagree = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> mutual_information(disagree).div(torch.tensor(2.0).log()).tolist()
        [1.0]
    """
    p = _checked(probabilities)
    if p.ndim % 2 == 0:
        raise ValueError(f"mutual information needs samples [S, B, C], got {list(probabilities.shape)}")
    # Never negative in exact arithmetic (Jensen), so what lies below 0 is rounding.
    return (_entropy(p.mean(0)) - _entropy(p).mean(0)).clamp(min=0).to(probabilities.dtype)


def auroc(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the probability that a stranger's score exceeds that of a known example, ties counted half.

    1/2 is a score that tells nothing, 1 one that separates the two perfectly.

    Args:
        inside: scores of examples of the known kind, ``[N]``, such as their entropies.
        outside: scores of strangers, ``[M]``, which ought to be higher.

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: scores that are not floating-point.
        ValueError: scores that are not a vector, none at all, or not finite.

    Source:
        Hendrycks and Gimpel (2017), section 2, https://arxiv.org/abs/1610.02136.

    Example:
        >>> auroc(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.15])).item()
        0.75
    """
    scores, strange = _detection(inside, outside)
    return inside.new_tensor(sklearn("metrics").roc_auc_score(strange, scores))


def fpr95(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the share of strangers that pass as known where at least 95 % of the known do.

    Known examples are the positives here, as in ODIN: 0 is a perfect separation, 0.95 a score that tells
    nothing.
    Arguments, result and errors as in :func:`auroc`.

    Source:
        Liang et al. (2018), section 3, https://arxiv.org/abs/1706.02690.

    Example:
        >>> fpr95(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.15])).item()
        0.5
    """
    scores, strange = _detection(inside, outside)
    false_positives, true_positives, _ = sklearn("metrics").roc_curve(
        ~strange, -scores, drop_intermediate=False
    )
    return inside.new_tensor(false_positives[(true_positives >= 0.95).argmax()])


def _mean(probabilities: Tensor) -> Tensor:
    """Probabilities without samples, classes last: ``[B, C]`` or ``[B, H, W, C]``."""
    p = _checked(probabilities)
    return p.mean(0) if p.ndim % 2 else p


def _flat(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities ``[N, C]`` and labels ``[N]``, each pixel an example."""
    p = _mean(probabilities)
    return p.flatten(0, -2), _checked_labels(labels, p).flatten()


def _negative_log_density(predictions: Tensor, y: Tensor, likelihood: Likelihood) -> Tensor:
    """Mean of minus the log predictive density."""
    if not isinstance(likelihood, Likelihood):
        raise TypeError(f"likelihood must be a likelihoods.Likelihood, got {type(likelihood).__name__}")
    _check_tensor(predictions, "predictions")
    _check_tensor(y, "y")
    if predictions.ndim < 2 or 0 in predictions.shape or predictions.shape[1] != len(y):
        shapes = f"{list(predictions.shape)} with y {list(y.shape)}"
        raise ValueError(f"predictions must be samples [S, B, ...], as many B as targets, got {shapes}")
    likelihood.check(likelihood.output(predictions[0]), y)
    return -likelihood.log_predictive(predictions, y).mean().detach()


def _entropy(p: Tensor) -> Tensor:
    h: Tensor = torch.special.entr(p).sum(-1)  # 0 log 0 = 0
    return h


def _check_tensor(value: Tensor, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def _checked(probabilities: Tensor) -> Tensor:
    _check_tensor(probabilities, "probabilities")
    if not probabilities.is_floating_point():
        raise TypeError(f"probabilities must be floating-point, got {probabilities.dtype}")
    if probabilities.ndim not in (2, 3, 4, 5) or 0 in probabilities.shape:
        raise ValueError(
            "probabilities must be [S, B, C] or [B, C], or [S, B, C, H, W] or [B, C, H, W], with no axis "
            f"empty, got {list(probabilities.shape)}"
        )
    p = probabilities.detach().double()
    if p.ndim > 3:
        p = p.movedim(-3, -1)  # classes last
    if p.isnan().any():
        raise ValueError("probabilities hold NaN")
    if p.min() < 0:
        raise ValueError(
            f"probabilities must not be negative, got {p.min():.4g}; log-probabilities or logits?"
        )
    total = p.sum(-1).flatten()
    worst = total[(total - 1).abs().argmax()]
    if abs(worst - 1) > 1e-3:  # wide enough for float16
        raise ValueError(f"probabilities must sum to 1 over the classes, got a sum of {worst:.6g}")
    return p


def _checked_labels(labels: Tensor, p: Tensor) -> Tensor:
    """Labels of the probabilities ``[B, C]`` or ``[B, H, W, C]``."""
    _check_tensor(labels, "labels")
    shape, classes = list(p.shape[:-1]), p.shape[-1]
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if list(labels.shape) != shape:
        raise ValueError(f"labels must be {shape}, one for each example, got {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    return labels.long().to(p.device)


def _detection(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    for name, scores in (("inside", inside), ("outside", outside)):
        _check_tensor(scores, name)
        if not scores.is_floating_point():
            raise TypeError(f"{name} must hold floating-point scores, got {scores.dtype}")
        if scores.ndim != 1 or len(scores) == 0:
            raise ValueError(f"{name} must be scores [N] with N > 0, got {list(scores.shape)}")
        if not scores.isfinite().all():
            raise ValueError(f"{name} holds scores that are not finite")
    strange = torch.cat((torch.zeros(len(inside)), torch.ones(len(outside)))).bool()
    return torch.cat((inside, outside)).detach().double().cpu(), strange
