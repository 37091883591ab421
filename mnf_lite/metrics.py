"""Scores of predicted probabilities: are they right, do they know when not, do they notice strangers.

Probabilities are ``[B, C]``, or ``[S, B, C]`` with one sample of the posterior for each s; what judges a
prediction judges the mean over s.  Results keep the floating type of what came in; entropies are in nats.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mnf_lite._extras import sklearn

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
    """

    confidence: Tensor
    accuracy: Tensor
    counts: Tensor


def accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Share of examples whose most probable class is the right one.

    Args:
        probabilities: ``[S, B, C]`` or ``[B, C]``.
        labels: the right classes, integers ``[B]``.

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: probabilities that are not floating-point, labels that are not integers.
        ValueError: a wrong shape, labels out of range, rows that are no probabilities.
    """
    p, labels = _mean(probabilities), _checked_labels(labels, probabilities)
    return (p.argmax(1) == labels).double().mean().to(probabilities.dtype)


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Mean over the examples of the negative log-probability of the right class, in nats.

    .. math:: -\frac1B \sum_b \log p_b(\mathrm{right\ class})

    A right class that was given probability 0 makes it infinite: nothing is clipped.
    Arguments and errors as in :func:`accuracy`.
    """
    p, labels = _mean(probabilities), _checked_labels(labels, probabilities)
    return -p.gather(1, labels.unsqueeze(1)).log().mean().to(probabilities.dtype)


def brier_score(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Squared distance of the probabilities from the truth, between 0 and 2, mean over the examples.

    .. math:: \frac1B \sum_b \sum_c \bigl(p_{bc} - [c \ \mathrm{is\ right}]\bigr)^2

    Arguments and errors as in :func:`accuracy`.

    Source:
        Brier (1950), in its original form, the sum over all classes.
    """
    p, labels = _mean(probabilities), _checked_labels(labels, probabilities)
    target = one_hot(labels, p.shape[1])
    return (p - target).square().sum(1).mean().to(probabilities.dtype)


def reliability_curve(probabilities: Tensor, labels: Tensor, n_bins: int = 15) -> ReliabilityCurve:
    """Confidence against accuracy in ``n_bins`` bins of equal width, ``(0, 1/n], …, (1 - 1/n, 1]``.

    Arguments and errors as in :func:`accuracy`; ``n_bins`` has to be at least 1.

    Source:
        Guo, Pleiss, Sun and Weinberger (2017), ``arXiv:1706.04599``.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    p, labels = _mean(probabilities), _checked_labels(labels, probabilities)
    confidence, predicted = p.max(1)
    edges = torch.linspace(0, 1, n_bins + 1, dtype=p.dtype, device=p.device)
    bins = torch.bucketize(confidence, edges[1:-1])  # [B]
    counts = bins.bincount(minlength=n_bins)
    confidences = bins.bincount(confidence, n_bins) / counts
    accuracies = bins.bincount((predicted == labels).to(p.dtype), n_bins) / counts
    return ReliabilityCurve(confidences.to(probabilities.dtype), accuracies.to(probabilities.dtype), counts)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, n_bins: int = 15) -> Tensor:
    r"""Gap between accuracy and confidence, mean over the examples, in the bins of :func:`reliability_curve`.

    .. math:: \mathrm{ECE} = \sum_{\mathrm{bins}} \frac{\mathrm{count}}{B}\,
              \bigl|\mathrm{accuracy} - \mathrm{confidence}\bigr|

    Arguments and errors as in :func:`reliability_curve`.

    Source:
        Naeini, Cooper and Hauskrecht (2015); Guo et al. (2017), equation 3.
    """
    # torchmetrics has this number, without the curve, and gives confidences of exactly 1 a bin of their own.
    curve = reliability_curve(probabilities, labels, n_bins)
    gap = (curve.accuracy - curve.confidence).abs().nan_to_num()  # an empty bin weighs nothing
    return (curve.counts / curve.counts.sum() * gap).sum().to(probabilities.dtype)


def predictive_entropy(probabilities: Tensor) -> Tensor:
    r"""Entropy of each mean prediction: ``[S, B, C]`` or ``[B, C] -> [B]``, in nats.

    .. math:: H = -\sum_c p_c \log p_c

    The total uncertainty: exactly 0 for a certain prediction, log C for one that knows nothing.  Errors as in
    :func:`accuracy`.
    """
    return _entropy(_mean(probabilities)).to(probabilities.dtype)


def mutual_information(probabilities: Tensor) -> Tensor:
    r"""How much knowing the weights would tell about each class: ``[S, B, C] -> [B]``, in nats.

    .. math:: I = H\Bigl[\frac1S \sum_s p_s\Bigr] - \frac1S \sum_s H[p_s]

    The part of the entropy that comes from samples that disagree.

    Raises:
        TypeError: as in :func:`accuracy`.
        ValueError: as in :func:`accuracy`, or no axis of samples.

    Source:
        Houlsby et al. (2011), ``arXiv:1112.5745``.
    """
    if probabilities.ndim != 3:
        raise ValueError(f"mutual information needs samples [S, B, C], got {list(probabilities.shape)}")
    p = _checked(probabilities)
    # Never negative in exact arithmetic (Jensen), so what lies below 0 is rounding.
    return (_entropy(p.mean(0)) - _entropy(p).mean(0)).clamp(min=0).to(probabilities.dtype)


def auroc(inside: Tensor, outside: Tensor) -> Tensor:
    """Probability that a stranger's score exceeds that of a known example, ties counted half.

    1/2 is a score that tells nothing, 1 one that separates the two perfectly.

    Args:
        inside: scores of examples of the known kind, ``[N]``, such as their entropies.
        outside: scores of strangers, ``[M]``, which ought to be higher.

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: scores that are not floating-point.
        ValueError: scores that are not a vector, none at all, or not finite.
    """
    scores, strange = _detection(inside, outside)
    return inside.new_tensor(sklearn("metrics").roc_auc_score(strange, scores))


def fpr95(inside: Tensor, outside: Tensor) -> Tensor:
    """Share of strangers that pass as known where the threshold lets at least 95 % of the known pass.

    Known examples are the positives here, as in ODIN: 0 is a perfect separation, 0.95 a score that tells
    nothing.
    Arguments, result and errors as in :func:`auroc`.

    Source:
        Liang, Li and Srikant (2018), ``arXiv:1706.02690``.
    """
    scores, strange = _detection(inside, outside)
    false_positives, true_positives, _ = sklearn("metrics").roc_curve(
        ~strange, -scores, drop_intermediate=False
    )
    return inside.new_tensor(false_positives[(true_positives >= 0.95).argmax()])


def _mean(probabilities: Tensor) -> Tensor:
    p = _checked(probabilities)
    return p.mean(0) if p.ndim == 3 else p


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
    if probabilities.ndim not in (2, 3) or 0 in probabilities.shape:
        raise ValueError(
            f"probabilities must be [S, B, C] or [B, C] with no axis empty, got {list(probabilities.shape)}"
        )
    p = probabilities.detach().double()
    if p.isnan().any():
        raise ValueError("probabilities hold NaN")
    if p.min() < 0:
        raise ValueError(
            f"probabilities must not be negative, got {p.min():.4g}; log-probabilities or logits?"
        )
    total = p.sum(-1).flatten()
    worst = total[(total - 1).abs().argmax()]
    if abs(worst - 1) > 1e-3:  # wide enough for float16
        raise ValueError(f"probabilities must sum to 1 over the last axis, got a sum of {worst:.6g}")
    return p


def _checked_labels(labels: Tensor, probabilities: Tensor) -> Tensor:
    _check_tensor(labels, "labels")
    batch, classes = probabilities.shape[-2:]
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != (batch,):
        raise ValueError(f"labels must be [{batch}], one for each example, got {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    return labels.long().to(probabilities.device)


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
