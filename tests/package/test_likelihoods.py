"""Likelihoods against torch.distributions, and what a stranger brings: each walk under ten lines."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Independent, Normal, Poisson
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mnf_lite import fit, layers, likelihoods, metrics, models, predict

B = 6


def test_categorical_is_that_of_torch():
    logits, y = torch.randn(B, 5), torch.randint(5, (B,))
    expected = Categorical(logits=logits).log_prob(y)
    assert torch.allclose(likelihoods.Categorical().log_prob(logits, y), expected, atol=1e-6)
    assert torch.allclose(likelihoods.Categorical().predict(logits), Categorical(logits=logits).probs)


def test_categorical_of_pixels_sums_over_them_and_has_its_classes_along_axis_1():
    logits, y = torch.randn(B, 3, 4, 5), torch.randint(3, (B, 4, 5))
    expected = Categorical(logits=logits.movedim(1, -1)).log_prob(y).sum((1, 2))
    likelihood = likelihoods.Categorical()
    assert torch.allclose(likelihood.log_prob(logits, y), expected, atol=1e-5)
    assert torch.allclose(likelihood.predict(logits).sum(1), torch.ones(B, 4, 5))
    assert torch.allclose(likelihood.right(logits, y), (logits.argmax(1) == y).float().mean((1, 2)))


@pytest.mark.parametrize("shape", [(B,), (B, 1), (B, 3), (B, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_bernoulli_is_that_of_torch(shape, dtype):
    logits, y = torch.randn(shape), torch.randint(2, shape).to(dtype)
    each = Bernoulli(logits=logits).log_prob(y.float()).reshape(B, -1)
    likelihood = likelihoods.Bernoulli()
    likelihood.check(logits, y)
    assert torch.allclose(likelihood.log_prob(logits, y), each.sum(1), atol=1e-5)
    assert torch.allclose(
        likelihood.right(logits, y), ((logits > 0) == y.bool()).reshape(B, -1).float().mean(1)
    )


@pytest.mark.parametrize("outputs", [1, 2])
def test_gaussian_is_that_of_torch(outputs):
    f, y = torch.randn(B, 2), torch.randn(B, 2)
    likelihood = likelihoods.Gaussian(outputs, noise_std=0.3)
    assert likelihood.noise_std.tolist() == pytest.approx([0.3] * outputs)
    expected = Independent(Normal(f, 0.3), 1).log_prob(y)
    assert torch.allclose(likelihood.log_prob(f, y), expected, atol=1e-5)


def test_a_noise_that_depends_on_x_is_the_second_half_of_the_outputs():
    f, y = torch.randn(B, 4), torch.randn(B, 2)
    expected = Independent(Normal(f[:, :2], (f[:, 2:] / 2).exp()), 1).log_prob(y)
    assert torch.allclose(likelihoods.Gaussian(noise_std=None).log_prob(f, y), expected, atol=1e-5)


def test_the_predictive_density_is_the_mean_of_those_of_the_draws():
    draws, y = torch.randn(7, B, 2), torch.randn(B, 2)
    density = torch.stack([Independent(Normal(f, 0.5), 1).log_prob(y).exp() for f in draws]).mean(0)
    likelihood = likelihoods.Gaussian(noise_std=0.5)
    assert torch.allclose(likelihood.log_predictive(draws, y).exp(), density, atol=1e-6)
    nll = metrics.negative_log_likelihood(draws, y, likelihood)
    assert nll.item() == pytest.approx(-density.log().mean().item(), abs=1e-5)


def test_the_predictive_density_of_classes_is_the_mean_probability():
    p, y = torch.randn(7, B, 3).softmax(-1), torch.randint(3, (B,))
    expected = metrics.negative_log_likelihood(p, y)
    by_likelihood = metrics.negative_log_likelihood(p, y, likelihoods.Categorical())
    assert by_likelihood.item() == pytest.approx(expected.item(), abs=1e-5)
    certain = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert likelihoods.Categorical().log_predictive(certain, torch.tensor([0])).exp().item() == 0.5


def test_bernoulli_probabilities_become_those_of_two_classes_for_the_metrics():
    p, y = torch.rand(7, B, 1), torch.randint(2, (B, 1))
    nll = metrics.negative_log_likelihood(likelihoods.Bernoulli.classes(p), y.flatten())
    assert nll.item() == pytest.approx(
        metrics.negative_log_likelihood(p, y, likelihoods.Bernoulli()).item(), abs=1e-5
    )
    extreme = torch.tensor([[[0.0]], [[1.0]]])
    log_p = likelihoods.Bernoulli().log_predictive(extreme, torch.tensor([[1]]))
    assert log_p.exp().item() == 0.5, "certain draws do not make NaN"


def test_a_likelihood_is_the_last_layer_of_a_sequence_or_an_attribute():
    gaussian = likelihoods.Gaussian(2)
    assert likelihoods.likelihood_of(nn.Sequential(nn.Linear(3, 2), gaussian)) is gaussian
    network = nn.Sequential(nn.Linear(3, 2))
    network.likelihood = gaussian
    assert likelihoods.likelihood_of(network) is gaussian
    assert network(torch.ones(4, 3)).shape == (4, 2)
    other = likelihoods.Categorical()
    assert likelihoods.likelihood_of(network, other) is other
    head = nn.Sequential(models.LeNet(), nn.Linear(10, 1))  # ten logits no more
    with pytest.raises(ValueError, match="does not say what its outputs mean"):
        likelihoods.likelihood_of(head)


# ----------------------------------------------------------------------- in training, prediction and metrics


def line(n: int = 200) -> TensorDataset:
    x = torch.linspace(-1, 1, n, dtype=torch.float32)[:, None]
    return TensorDataset(x, 2 * x + (0.1 + 0.4 * (x > 0)) * torch.randn(n, 1))


def quick(network: nn.Module, dataset: Dataset, **options: object) -> object:
    return fit(network, dataset, **{"epochs": 60, "batch_size": 50, "lr": 0.03, "progress": False} | options)


def test_a_noise_named_beside_the_model_is_learned_and_continued(tmp_path):
    network, likelihood, dataset = nn.Linear(1, 1), likelihoods.Gaussian(), line()
    quick(network, dataset, likelihood=likelihood, checkpoint=tmp_path / "c", epochs=150)
    residual = (dataset.tensors[1] - network(dataset.tensors[0])).std().item()
    assert likelihood.noise_std.item() == pytest.approx(residual, rel=0.1)
    kept = likelihoods.Gaussian()
    quick(nn.Linear(1, 1), dataset, likelihood=kept, checkpoint=tmp_path / "c", epochs=150)
    assert torch.equal(kept.noise_log_var, likelihood.noise_log_var)


def test_a_noise_that_depends_on_x_is_learned():
    network = nn.Sequential(
        nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 2), likelihoods.Gaussian(noise_std=None)
    )
    quick(network, line(600))
    outputs = predict(network, torch.tensor([[-0.5], [0.5]]), 1)[0]
    std = (outputs[:, 1] / 2).exp()
    assert std[0] < 0.2 < 0.35 < std[1]


def test_one_logit_trains_and_has_an_accuracy():
    x = torch.randn(200, 2)
    history = quick(
        nn.Linear(2, 1), TensorDataset(x, (x[:, :1] > 0).float()), likelihood=likelihoods.Bernoulli()
    )
    assert history.accuracy[-1] > 0.9
    assert history.nll[-1] < history.nll[0]


def test_classes_of_pixels_train_and_are_scored():
    x = torch.rand(40, 1, 6, 6)
    y = (x[:, 0] > 0.5).long()
    network = layers.bayesian(nn.Conv2d(1, 2, 1), "mean-field")
    history = quick(network, TensorDataset(x, y), likelihood=likelihoods.Categorical(), kl_weight=0, lr=0.1)
    assert history.accuracy[-1] > 0.9
    p = predict(network, x, 5, likelihoods.Categorical())
    assert p.shape == (5, 40, 2, 6, 6)
    flat = p.movedim(2, -1).flatten(1, 3), y.flatten()
    for score in (metrics.accuracy, metrics.negative_log_likelihood, metrics.brier_score):
        assert score(p, y).item() == pytest.approx(score(*flat).item(), abs=1e-6)
    assert metrics.predictive_entropy(p).shape == (40, 6, 6)
    assert metrics.mutual_information(p).shape == (40, 6, 6)


# ------------------------------------------------------------------------------------- walks of a stranger


def test_a_likelihood_of_ones_own():
    class Counts(likelihoods.Likelihood):
        def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
            return Poisson(output.exp()).log_prob(y).sum(-1)

        def predict(self, output: Tensor) -> Tensor:
            return output.exp()

    x = torch.rand(300, 1)
    network = layers.bayesian(nn.Linear(1, 1), "mean-field")
    quick(network, TensorDataset(x, torch.poisson((1 + 2 * x).exp())), likelihood=Counts())
    rate = predict(network, torch.tensor([[0.5]]), 50, Counts()).mean().item()
    assert rate == pytest.approx(math.exp(2), rel=0.15)


def test_a_loader_of_ones_own():
    class Doubled:  # every batch with its mirror images
        def __init__(self, dataset: TensorDataset) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return 4

        def __iter__(self):
            for x, y in zip(*(t.split(50) for t in self.dataset.tensors), strict=True):
                yield torch.cat((x, -x)), torch.cat((y, -y))

    network = nn.Linear(1, 1)
    quick(network, Doubled(line()), likelihood=likelihoods.Gaussian())
    assert network.weight.item() == pytest.approx(2, abs=0.2)
    assert abs(network.bias.item()) < 0.1


def test_an_optimizer_and_a_schedule_of_ones_own():
    network = nn.Linear(1, 1)
    quick(
        network,
        line(),
        likelihood=likelihoods.Gaussian(),
        optimizer=lambda groups: torch.optim.SGD(groups, momentum=0.9),
        decay=lambda done: (1 + math.cos(math.pi * done)) / 2,
    )
    assert network.weight.item() == pytest.approx(2, abs=0.2)


def test_a_layer_of_ones_own():
    class Scale(layers.MeanFieldLinear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.tanh())

    network = nn.Sequential(nn.Linear(1, 4), Scale(4, 1), likelihoods.Gaussian(noise_std=0.2))
    history = quick(network, line())
    assert history.kl[-1] > 0
    assert predict(network, torch.zeros(3, 1), 7).shape == (7, 3, 1)


def test_augmentation_is_drawn_anew_in_every_epoch_and_a_loader_does_it_too():
    seen = []

    class Jittered(Dataset):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            x = torch.randn(1)
            seen.append(x.item())
            return x, 2 * x

    for dataset in (Jittered(), DataLoader(Jittered(), 10, shuffle=True)):
        seen.clear()
        network = nn.Linear(1, 1)
        quick(network, dataset, likelihood=likelihoods.Gaussian(), epochs=3, batch_size=10)
        assert len(set(seen)) == len(seen) >= 60


def test_what_does_not_classify_says_so():
    with pytest.raises(TypeError, match="Gaussian does not classify"):
        likelihoods.Gaussian().right(torch.zeros(2, 1), torch.zeros(2, 1))
