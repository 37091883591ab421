"""Predict: every sample is one network, whatever the batch, and memory stays bounded."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from mnf_lite import layers, likelihoods, models, predict
from mnf_lite.prediction import FEW_INPUTS, INPUTS_AT_A_TIME, WEIGHTS_AT_A_TIME

SMALL = (4, 6, 8, 5)
RANDOM = [models.MNFLeNet, models.MeanFieldLeNet, models.DropoutLeNet]
BATCHES = [1, FEW_INPUTS, FEW_INPUTS + 1, INPUTS_AT_A_TIME + 3]


def noisy(kind: type[nn.Module]) -> nn.Module:
    """A model whose posterior is wide enough for samples to differ clearly."""
    torch.manual_seed(1)
    model = kind(SMALL)
    for layer in model.modules():
        if isinstance(layer, layers.BayesianLayer):
            nn.init.constant_(layer.weight_log_var, -3.0)
    return model


@pytest.mark.parametrize("kind", [*RANDOM, models.LeNet])
@pytest.mark.parametrize("batch", BATCHES)
def test_probabilities_have_shape_samples_batch_classes(kind, batch):
    p = predict(kind(SMALL), torch.rand(batch, 1, 28, 28), n_samples=7)
    assert p.shape == (7, batch, 5)
    assert torch.allclose(p.sum(-1), torch.ones(7, batch))
    assert not p.requires_grad


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("batch", BATCHES[1:])
def test_a_sample_is_one_network_shared_by_the_batch(kind, batch):
    x = torch.rand(1, 1, 28, 28).expand(batch, -1, -1, -1)  # the same image, again and again
    p = predict(noisy(kind), x, n_samples=6)
    assert torch.allclose(p, p[:, :1].expand_as(p), atol=1e-5)
    assert (p[:, None, 0] - p[None, :, 0]).abs().sum(-1).add(torch.eye(6)).min() > 1e-3  # samples all differ


@pytest.mark.parametrize("kind", RANDOM)
def test_the_same_seed_gives_the_same_networks_whatever_the_batch(kind):
    model, x = noisy(kind), torch.rand(INPUTS_AT_A_TIME + 30, 1, 28, 28)
    torch.manual_seed(3)
    p = predict(model, x, n_samples=20)
    torch.manual_seed(3)
    assert torch.equal(predict(model, x, n_samples=20), p)
    torch.manual_seed(3)
    assert torch.allclose(predict(model, x[260:263], n_samples=20), p[:, 260:263], atol=1e-5)
    assert not torch.allclose(predict(model, x, n_samples=20), p, atol=1e-3)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_sample_equals_the_plain_network_with_the_drawn_weights(kind):
    model, plain, x = noisy(kind), models.LeNet(SMALL), torch.rand(3, 1, 28, 28)
    torch.manual_seed(5)
    p = predict(model, x, n_samples=4)
    torch.manual_seed(5)
    layers.plain(model)
    weights = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "sample_weights"):
            weights[f"{name}.weight"], weights[f"{name}.bias"] = layer.sample_weights(4)
    for s in range(4):
        plain.load_state_dict({name: w[s] for name, w in weights.items()}, strict=False)
        if kind is models.DropoutLeNet:
            plain.conv1.load_state_dict(model.conv1.state_dict())
        assert torch.allclose(plain(x).softmax(-1), p[s], atol=1e-6)


def test_samples_agree_with_the_distribution_of_the_training_forward():
    """A dense network of one layer: local reparametrisation is exact, so both ways have the same moments."""
    torch.manual_seed(0)
    model = models.MNFMLP((3, 1))
    nn.init.constant_(model[0].weight_log_var, -1.0)
    x = torch.rand(1, 3)
    by_weights = predict(model, x, n_samples=20_000)[:, 0, 0]
    by_outputs = model(x.expand(20_000, -1))[:, 0].detach()
    assert by_weights.mean().item() == pytest.approx(by_outputs.mean().item(), abs=0.05)
    assert by_weights.var().item() == pytest.approx(by_outputs.var().item(), rel=0.05)


def test_a_plain_network_gives_identical_samples_of_its_softmax():
    model, x = models.LeNet(SMALL), torch.rand(9, 1, 28, 28)
    p = predict(model, x, n_samples=3)
    assert torch.allclose(p, model(x).softmax(-1).expand(3, -1, -1), atol=1e-6)
    p[0] = 0  # samples do not share memory
    assert p[1].sum() > 0


def test_an_ensemble_gives_its_members_in_turn():
    members, x = [models.LeNet(SMALL) for _ in range(3)], torch.rand(2, 1, 28, 28)
    for ensemble in (members, nn.ModuleList(members)):
        p = predict(ensemble, x, n_samples=5)
        for s in range(5):
            assert torch.allclose(p[s], members[s % 3](x).softmax(-1), atol=1e-6)


def test_an_ensemble_may_be_larger_than_the_number_of_samples():
    members, x = [models.MNFLeNet(SMALL) for _ in range(3)], torch.rand(2, 1, 28, 28)
    assert predict(members, x, n_samples=2).sum(-1).allclose(torch.ones(2, 2))


def test_regression_gives_draws_of_the_function_not_probabilities():
    model = models.MNFMLP((1, 8, 2))
    f = predict(model, torch.linspace(-3, 3, 40)[:, None], n_samples=6)
    assert f.shape == (6, 40, 2)
    assert f.min() < 0
    steps = f.diff(dim=1).abs().max()
    assert steps < f.std(), "a draw is a continuous function, not a cloud of points"


def test_a_layer_alone_is_a_model():
    p = predict(layers.MNFLinear(3, 2, bias=False), torch.rand(4, 3), 5, likelihoods.Categorical())
    assert p.shape == (5, 4, 2)


def test_groups_of_samples_join_without_a_gap():
    model = models.MeanFieldLeNet(SMALL)
    n = 2 * WEIGHTS_AT_A_TIME // sum(p.numel() for p in layers.plain(model).parameters()) + 1
    p = predict(model, torch.rand(2, 1, 28, 28), n_samples=n)
    assert torch.allclose(p.sum(-1), torch.ones(n, 2))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_left_as_it_was_and_not_used(training):
    model, x = nn.Sequential(models.LeNet(SMALL), nn.Dropout(0.9)).train(training), torch.rand(2, 1, 28, 28)
    p = predict(model, x, n_samples=2)
    assert model.training is training
    assert torch.allclose(p, model.eval()(x).softmax(-1).expand(2, -1, -1), atol=1e-6)


def test_float64_in_gives_float64_out():
    assert (
        predict(models.MNFLeNet(SMALL).double(), torch.rand(2, 1, 28, 28).double(), 2).dtype == torch.float64
    )


X = torch.rand(2, 1, 28, 28)


@pytest.mark.parametrize(
    ("model", "x", "n", "error", "message"),
    [
        (models.LeNet(SMALL), X, 0, ValueError, "n_samples must be an integer of at least 1, got 0"),
        (models.LeNet(SMALL), X, 2.0, ValueError, "n_samples"),
        ([], X, 1, TypeError, "list of at least one, got none$"),
        ([models.LeNet(SMALL), 3], X, 1, TypeError, "list of at least one, got LeNet, int$"),
        ("lenet", X, 1, TypeError, "list of at least one, got str$"),
        (None, X, 1, TypeError, "list of at least one, got NoneType$"),
        (
            models.LeNet(SMALL),
            X.numpy(),
            1,
            TypeError,
            "a tensor, or a dict.*got ndarray; tensors must be of torch.float32",
        ),
        (models.LeNet(SMALL), X.byte(), 1, TypeError, "got torch.uint8"),
        (models.LeNet(SMALL), X.double(), 1, TypeError, "got torch.float64"),
        (models.LeNet(SMALL), X[:0], 1, ValueError, "at least one input"),
        (models.MNFLeNet(SMALL), X[:, :, :5], 1, ValueError, r"\[B, 1, 28, 28\], got \[1, 1, 5, 28\]"),
        (models.MNFMLP((3, 2)), torch.rand(2, 4), 3, ValueError, r"shape \[\.\.\., 3\], got \[1, 4\]"),
        (models.MNFMLP((3, 2)), torch.rand(99, 4), 3, ValueError, r"shape \[\.\.\., 3\], got \[1, 4\]"),
        ([models.LeNet((2, 2, 2)), models.LeNet((2, 2, 3))], X, 2, ValueError, r"agree.*\[2\] and \[3\]"),
    ],
)
def test_predict_says_what_it_expected(model, x, n, error, message):
    with pytest.raises(error, match=message):
        predict(model, x, n_samples=n)


@pytest.mark.parametrize(
    ("model", "inputs", "samples"),
    [
        ("models.MNFLeNet((32, 2, 4, 10))", (150, 1, 28, 28), 80),
        ("models.MNFLeNet((32, 2, 4, 10))", (9, 1, 28, 28), 800),
        ("layers.MNFLinear(1000, 1000)", (20, 1000), 150),
    ],
)
def test_memory_stays_bounded_whatever_samples_and_inputs(model, inputs, samples):
    """Beyond model and output under 512 MB, where all at once would take more than 1 GB."""
    script = f"""
        import resource, torch
        from mnf_lite import layers, likelihoods, models, predict

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

        model, x = {model}, torch.rand({inputs})
        predict(model, x[:1], 1, likelihoods.Categorical())
        before = peak()
        p = predict(model, x, {samples}, likelihoods.Categorical())
        print(peak() - before - p.nbytes / 2**20)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 512


# ----------------------------------------------------------------------------- what the outputs mean, and x


def test_nothing_is_guessed_from_a_shape():
    """A converted regression network was once a classifier of one class."""
    x = torch.linspace(-1, 1, 64)[:, None]
    network = layers.bayesian(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)))
    with pytest.raises(ValueError, match=r"Categorical\(\).*Gaussian\(\).*Bernoulli\(\) as likelihood"):
        predict(network, x)
    assert len(predict(network, x, 3, likelihoods.Gaussian()).unique()) > 64
    with pytest.raises(
        ValueError, match=r"at least two classes.*got \[1, 1\]; a single logit is for Bernoulli"
    ):
        predict(network, x, 3, likelihoods.Categorical())


@pytest.mark.parametrize("convert", [layers.bayesian, lambda network: network])
def test_classes_of_pixels_lie_along_axis_1_of_the_output(convert):
    network = convert(nn.Conv2d(1, 3, 1))
    p = predict(network, torch.randn(20, 1, 8, 8), 5, likelihoods.Categorical())
    assert p.shape == (5, 20, 3, 8, 8)
    assert torch.allclose(p.sum(2), torch.ones(5, 20, 8, 8))


def test_one_logit_is_a_probability():
    p = predict(layers.bayesian(nn.Linear(3, 1)), torch.randn(4, 3), 6, likelihoods.Bernoulli())
    assert p.shape == (6, 4, 1)
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: nn.Sequential(nn.Identity(), model, nn.Dropout(0.5)),
        nn.DataParallel,
        lambda model: nn.DataParallel(nn.Sequential(model)),
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.Sequential(torch.compile(model, backend="eager")),
    ],
    ids=["Sequential", "DataParallel", "both", "compile", "compile in Sequential"],
)
def test_a_likelihood_is_found_inside_wrappers(wrap):
    model, x = models.MNFMLP((3, 2)), torch.rand(4, 3)
    torch.manual_seed(0)
    expected = predict(model, x, 3)
    torch.manual_seed(0)
    assert torch.equal(predict(wrap(model), x, 3), expected)


class Words(nn.Module):
    """Tokens and their mask in a dict or a pair; logits of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(7, 4), layers.MNFLinear(4, 2)
        self.likelihood = likelihoods.Categorical()

    def forward(self, x):
        ids, mask = (x["ids"], x["mask"]) if isinstance(x, dict) else x
        return self.last((self.table(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


@pytest.mark.parametrize("size", [3, INPUTS_AT_A_TIME + 5])
def test_inputs_may_be_tokens_dicts_and_tuples(size):
    model, ids, mask = Words(), torch.randint(7, (size, 5)), torch.ones(size, 5)
    torch.manual_seed(0)
    p = predict(model, {"ids": ids, "mask": mask}, 4)
    assert p.shape == (4, size, 2)
    torch.manual_seed(0)
    assert torch.equal(predict(model, (ids, mask), 4), p)


def test_a_single_example_is_told_from_a_batch():
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    for meaning in (likelihoods.Categorical(), likelihoods.Gaussian()):
        with pytest.raises(ValueError, match="does not take x of shape"):
            predict(network, torch.rand(3), likelihood=meaning)
    convolution = nn.Conv2d(3, 2, 3)  # torch takes [3, 9, 9] as one image, and its rows as channels
    with pytest.raises(ValueError, match="does not take x of shape"):
        predict(convolution, torch.rand(3, 9, 9), likelihood=likelihoods.Categorical())
    with pytest.raises(ValueError, match=r"needs a batch axis: x\[None\]"):
        predict(nn.Linear(1, 1), torch.rand(1), likelihood=likelihoods.Gaussian())
    with pytest.raises(ValueError, match=r"gives shape \[4, 9, 9\].*needs a batch axis: x\[None\]"):
        predict(nn.Conv2d(1, 4, 1), torch.rand(1, 9, 9), likelihood=likelihoods.Categorical())


def test_a_model_is_neither_copied_nor_run_again_after_an_error_of_its_own():
    calls = []

    class Tired(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            if len(calls) == 2:
                raise RuntimeError("no memory left")
            return super().forward(x)

    with pytest.raises(RuntimeError, match=r"^no memory left$"):
        predict(Tired(3, 2), torch.rand(5, 3), likelihood=likelihoods.Categorical())
    assert calls == [1, 5]


def test_the_mode_of_every_layer_is_left_as_it_was():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2).eval(), nn.Dropout()).train()
    network[1].eval()
    predict(network, torch.rand(4, 3), 2, likelihoods.Gaussian())
    assert [layer.training for layer in network] == [True, False, True]
