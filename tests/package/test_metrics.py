"""The scores of predictions against hand-made cases, scikit-learn, scipy and torchmetrics."""

import math

import pytest
import scipy.stats
import sklearn.metrics
import torch
from torch import Tensor

from mnf_lite import metrics
from mnf_lite._extras import torchvision

SCORES = [
    metrics.accuracy,
    metrics.negative_log_likelihood,
    metrics.brier_score,
    metrics.expected_calibration_error,
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Probabilities of the given shape, and labels that follow them half of the time."""
    generator = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1).to(dtype)
    mean = p.mean(0) if len(shape) == 3 else p
    labels = mean.double().multinomial(1, generator=generator).squeeze(1)
    return p, labels


def test_scores_of_three_predictions_worked_out_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.75, 0.25], [0.5, 0.5, 0.0]], dtype=torch.float64)
    y = torch.tensor([0, 2, 1])
    assert metrics.accuracy(p, y) == pytest.approx(1 / 3)
    assert metrics.negative_log_likelihood(p, y) == pytest.approx(
        (math.log(2) + math.log(4) + math.log(2)) / 3
    )
    assert metrics.brier_score(p, y) == pytest.approx((0.375 + 1.125 + 0.5) / 3)
    # two bins, (0, 1/2] with one of two right and (1/2, 1] with none of one
    assert metrics.expected_calibration_error(p, y, n_bins=2) == pytest.approx((2 * 0.0 + 0.75) / 3)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_scikit_learn(seed: int) -> None:
    p, y = draw(500, 4, seed=seed)
    classes = list(range(4))
    assert metrics.accuracy(p, y) == pytest.approx(sklearn.metrics.accuracy_score(y, p.argmax(1)), abs=1e-12)
    expected = sklearn.metrics.log_loss(y, p, labels=classes)
    assert metrics.negative_log_likelihood(p, y) == pytest.approx(expected, abs=1e-12)
    by_class = sum(sklearn.metrics.brier_score_loss(y == c, p[:, c]) for c in classes)
    assert metrics.brier_score(p, y) == pytest.approx(by_class, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 2, 15, 40])
def test_calibration_error_equals_torchmetrics(n_bins: int) -> None:
    torchvision()  # torchmetrics imports torchvision
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = draw(1000, 5)
    expected = multiclass_calibration_error(p, y, num_classes=5, n_bins=n_bins)
    assert metrics.expected_calibration_error(p, y, n_bins) == pytest.approx(
        float(expected), abs=1e-6
    )  # it works in float32


def test_reliability_curve_counts_every_example_once_and_its_means_lie_in_their_bins() -> None:
    p, y = draw(400, 3)
    curve = metrics.reliability_curve(p, y, n_bins=10)
    edges = torch.linspace(0, 1, 11, dtype=torch.float64)
    full = curve.counts > 0
    assert curve.counts.sum() == 400
    assert (curve.confidence > edges[:-1])[full].all()
    assert (curve.confidence <= edges[1:])[full].all()
    assert curve.confidence[~full].isnan().all()
    assert curve.accuracy[~full].isnan().all()
    right = (curve.accuracy * curve.counts)[full].sum() / 400
    assert right == pytest.approx(float(metrics.accuracy(p, y)))


def test_confidence_on_an_edge_belongs_to_the_bin_below_and_confidence_1_to_the_last() -> None:
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    curve = metrics.reliability_curve(p, torch.tensor([0, 1]), n_bins=2)
    assert curve.counts.tolist() == [1, 1]
    assert curve.accuracy.tolist() == [1.0, 0.0]


def test_calibrated_predictions_have_a_small_calibration_error_and_overconfident_ones_a_large_one() -> None:
    p, y = draw(20_000, 3)
    sharper = p.pow(3) / p.pow(3).sum(1, keepdim=True)
    assert metrics.expected_calibration_error(p, y) < 0.02
    assert metrics.expected_calibration_error(sharper, y) > 0.1


@pytest.mark.parametrize("score", SCORES)
def test_samples_are_judged_by_their_mean(score) -> None:
    p, y = draw(7, 50, 4)
    assert score(p, y) == pytest.approx(float(score(p.mean(0), y)), abs=1e-14)
    assert score(p, y) != pytest.approx(float(score(p[0], y)), abs=1e-6)


def test_probability_0_for_the_right_class_costs_infinity() -> None:
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert metrics.negative_log_likelihood(p, torch.tensor([0, 1])) == math.inf
    assert metrics.negative_log_likelihood(p, torch.tensor([0, 0])) == 0


def test_entropy_equals_scipy_and_knows_its_two_ends() -> None:
    p, _ = draw(100, 6)
    torch.testing.assert_close(
        metrics.predictive_entropy(p), torch.from_numpy(scipy.stats.entropy(p.numpy(), axis=1))
    )
    ends = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    certain, ignorant = metrics.predictive_entropy(ends)
    assert certain == 0
    assert ignorant == pytest.approx(math.log(4), abs=1e-15)


def test_entropy_of_samples_is_that_of_their_mean() -> None:
    p = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    assert metrics.predictive_entropy(p).tolist() == pytest.approx([math.log(2)])


def test_mutual_information_is_log_2_for_two_sure_samples_that_disagree_and_0_for_agreement() -> None:
    apart = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    assert metrics.mutual_information(apart).tolist() == pytest.approx([math.log(2)])
    p, _ = draw(20, 5)
    assert metrics.mutual_information(p.expand(9, -1, -1)).max() < 1e-14


def test_mutual_information_is_the_mean_divergence_of_the_samples_from_their_mean() -> None:
    p, _ = draw(8, 30, 4)
    mean = p.mean(0)
    divergence = (p * (p / mean).log()).sum(-1).mean(0)
    torch.testing.assert_close(metrics.mutual_information(p), divergence)
    assert (metrics.mutual_information(p) <= metrics.predictive_entropy(p)).all()


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(300, generator=generator, dtype=torch.float64)
    outside = torch.randn(200, generator=generator, dtype=torch.float64) + 1
    outside[:50] = inside[:50]  # ties
    difference = outside[:, None] - inside
    pairs = ((difference > 0).double() + 0.5 * (difference == 0).double()).mean()
    assert metrics.auroc(inside, outside) == pytest.approx(float(pairs), abs=1e-12)
    assert metrics.auroc(inside, inside) == pytest.approx(0.5)
    assert metrics.auroc(inside, inside + 100) == 1


def test_fpr95_is_the_share_of_strangers_below_the_threshold_that_95_percent_of_the_known_pass() -> None:
    inside = torch.arange(100, dtype=torch.float64)  # 95 of 100 lie at or below 94
    outside = torch.tensor([0.0, 93.5, 94.0, 94.5, 200.0], dtype=torch.float64)
    assert metrics.fpr95(inside, outside) == pytest.approx(3 / 5)
    assert metrics.fpr95(inside, inside + 1000) == 0
    assert metrics.fpr95(inside, inside) == pytest.approx(0.95)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_floating_type(dtype: torch.dtype) -> None:
    p, y = draw(3, 40, 4, dtype=dtype)
    for score in SCORES:
        assert score(p, y).dtype == dtype
        assert score(p, y).shape == ()
    for uncertainty in (metrics.predictive_entropy, metrics.mutual_information):
        assert uncertainty(p).dtype == dtype
        assert uncertainty(p).shape == (40,)
    h = metrics.predictive_entropy(p)
    assert metrics.auroc(h, h).dtype == metrics.fpr95(h, h).dtype == dtype
    assert metrics.reliability_curve(p, y).accuracy.dtype == dtype


def test_float32_scores_equal_float64_scores() -> None:
    p, y = draw(100, 10, dtype=torch.float32)
    for score in SCORES:
        assert score(p, y) == pytest.approx(float(score(p.double(), y)), abs=1e-6)


@pytest.mark.parametrize(
    ("p", "y", "error", "words"),
    [
        (torch.full((2, 3), 1), torch.tensor([0, 1]), TypeError, "floating-point, got torch.int64"),
        (torch.full((3,), 1 / 3), torch.tensor([0]), ValueError, r"\[B, C\].*got \[3\]"),
        (torch.empty(0, 3), torch.empty(0, dtype=torch.long), ValueError, r"empty, got \[0, 3\]"),
        (torch.full((2, 3), 0.3), torch.tensor([0, 1]), ValueError, "sum to 1.*got a sum of 0.9"),
        (torch.tensor([[1.5, -0.5]]), torch.tensor([0]), ValueError, "not be negative, got -0.5"),
        (torch.tensor([[math.nan, 0.5]]), torch.tensor([0]), ValueError, "NaN"),
        (torch.full((2, 4), 0.25), torch.tensor([0, 4]), ValueError, r"0\.\.3, got 0\.\.4"),
        (torch.full((2, 4), 0.25), torch.tensor([-1, 0]), ValueError, r"0\.\.3, got -1\.\.0"),
        (torch.full((2, 4), 0.25), torch.tensor([0, 1, 2]), ValueError, r"must be \[2\].*got \[3\]"),
        (torch.full((2, 4), 0.25), torch.tensor([0.0, 1.0]), TypeError, "integers, got torch.float32"),
        (torch.full((2, 4), 0.25), torch.tensor([True, False]), TypeError, "integers, got torch.bool"),
        (torch.full((2, 4), 0.25).numpy(), torch.tensor([0, 1]), TypeError, "must be a tensor, got ndarray"),
        (torch.full((2, 4), 0.25), [0, 1], TypeError, "labels must be a tensor, got list"),
    ],
)
@pytest.mark.parametrize("score", SCORES)
def test_wrong_input_is_named(score, p: Tensor, y: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        score(p, y)


def test_mutual_information_needs_samples() -> None:
    with pytest.raises(ValueError, match=r"samples \[S, B, C\], got \[2, 4\]"):
        metrics.mutual_information(torch.full((2, 4), 0.25))


def test_a_curve_needs_a_bin() -> None:
    with pytest.raises(ValueError, match="n_bins must be an integer of at least 1, got 0"):
        metrics.reliability_curve(*draw(5, 3), n_bins=0)


@pytest.mark.parametrize("detect", [metrics.auroc, metrics.fpr95])
def test_wrong_scores_of_strangers_are_named(detect) -> None:
    fine = torch.rand(5)
    with pytest.raises(ValueError, match=r"outside must be scores \[N\].*got \[0\]"):
        detect(fine, torch.empty(0))
    with pytest.raises(ValueError, match=r"inside must be scores \[N\].*got \[5, 1\]"):
        detect(fine.unsqueeze(1), fine)
    with pytest.raises(ValueError, match="outside holds scores that are not finite"):
        detect(fine, torch.tensor([math.nan]))
    with pytest.raises(TypeError, match=r"inside must hold floating-point scores, got torch\.int64"):
        detect(torch.arange(3), fine)
    with pytest.raises(TypeError, match="outside must be a tensor, got list"):
        detect(fine, [0.5])
