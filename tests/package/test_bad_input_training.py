"""Bad input to fit, predict, likelihoods, metrics and models: an error in our words, never silence."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mnf_lite import fit, flows, layers, likelihoods, metrics, models, predict
from mnf_lite.training import maximum_likelihood

X, Y = torch.rand(8, 3), torch.arange(8) % 2
CLASSES, NORMAL, YESNO = likelihoods.Categorical(), likelihoods.Gaussian(), likelihoods.Bernoulli()
P, LABELS = torch.full((2, 4, 3), 1 / 3), torch.tensor([0, 1, 2, 0])
SCORES = (metrics.accuracy, metrics.negative_log_likelihood, metrics.brier_score)


def net(out: int = 2) -> nn.Module:
    return nn.Linear(3, out)


def train(x: object = X, y: object = Y, model: object = None, **options: object) -> object:
    dataset = options.pop("dataset", None)
    dataset = TensorDataset(x, y) if dataset is None else dataset
    options = {"epochs": 1, "likelihood": CLASSES, "progress": False} | options
    return fit(net() if model is None else model, dataset, **options)


def ask(model: object = None, x: object = X, n: object = 2, likelihood: object = CLASSES) -> object:
    return predict(net() if model is None else model, x, n, likelihood)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Batchless(likelihoods.Likelihood):
    def log_prob(self, output, y):
        return output.mean()

    def predict(self, output):
        return output


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = net()

    def forward(self, x):
        return self.layer(x), 0


def density() -> nn.Module:
    return flows.NormalizingFlow(flows.AffineConstant(2))


CASES: dict[str, tuple[Callable[[], object], str]] = {
    # options of fit
    "epochs 0": (lambda: train(epochs=0), "epochs must be an integer of at least 1, got 0"),
    "epochs True": (lambda: train(epochs=True), "epochs .* got True"),
    "epochs text": (lambda: train(epochs="3"), "epochs .* got '3'"),
    "batch 0": (lambda: train(batch_size=0), "batch_size .* got 0"),
    "batch float": (lambda: train(batch_size=2.5), "batch_size .* got 2.5"),
    "seed": (lambda: train(seed=-1), "seed .* got -1"),
    "lr 0": (lambda: train(lr=0), "lr must be a positive finite number, got 0"),
    "lr NaN": (lambda: train(lr=math.nan), "lr .* got nan"),
    "lr text": (lambda: train(lr="fast"), "lr .* got 'fast'"),
    "lr None": (lambda: train(lr=None), "lr .* got None"),
    "lr_log_var": (lambda: train(lr_log_var=-1.0), "lr_log_var .* got -1.0"),
    "decay 2": (lambda: train(decay=2), r"decay must be in \[0, 1\].* got 2"),
    "decay text": (lambda: train(decay="cosine"), "decay .* got 'cosine'"),
    "decay negative": (lambda: train(decay=lambda t: -1.0), "decay must give finite factors"),
    "decay None": (lambda: train(decay=lambda t: None), "decay must give finite factors"),
    "kl_weight": (lambda: train(kl_weight=-1), "kl_weight .* got -1"),
    "kl_weight text": (lambda: train(kl_weight="auto"), "kl_weight .* got 'auto'"),
    "warm-up": (lambda: train(kl_warmup_epochs=math.inf), "kl_warmup_epochs .* got inf"),
    "warm-up None": (lambda: train(kl_warmup_epochs=None), "kl_warmup_epochs .* got None"),
    "optimizer object": (
        lambda: train(optimizer=torch.optim.SGD(net().parameters(), lr=1)),
        "callable that makes a torch.optim.Optimizer.* got SGD",
    ),
    "optimizer text": (lambda: train(optimizer="adam"), "callable .* got str"),
    "optimizer None made": (lambda: train(optimizer=lambda groups: None), "callable .* got NoneType"),
    "optimizer closure": (
        lambda: train(optimizer=torch.optim.LBFGS),
        "LBFGS: its step needs a closure|groups",
    ),
    # model and likelihood of fit
    "model text": (lambda: train(model="lenet"), "model must be one network, got str"),
    "model list": (lambda: train(model=[net()]), "model must be one network, got list"),
    "model class": (lambda: train(model=nn.Linear), "model must be one network, got type"),
    "model bare": (lambda: train(model=nn.Flatten()), "Flatten has no parameters to train"),
    "model frozen": (lambda: train(model=net().requires_grad_(False)), "no parameters to train"),
    "model pair": (lambda: train(model=Pair()), "Pair must give a tensor, got tuple"),
    "likelihood none": (
        lambda: train(likelihood=None),
        "Linear does not say what its outputs mean: name one",
    ),
    "likelihood text": (lambda: train(likelihood="gaussian"), "likelihood must be one of .* got str"),
    "likelihood class": (
        lambda: train(likelihood=likelihoods.Categorical),
        "likelihood must be one of .* got the class Categorical",
    ),
    "likelihood torch": (lambda: train(likelihood=nn.MSELoss()), "likelihood must be one of .* got MSELoss"),
    "likelihood of a mean": (
        lambda: train(likelihood=Batchless()),
        r"Batchless.log_prob must give one .* got \[\]",
    ),
    # data of fit
    "data int": (lambda: train(dataset=3), "the data set must have a length.* got int"),
    "data generator": (lambda: train(dataset=iter([])), "the data set must have a length"),
    "data stream": (lambda: train(dataset=Stream()), "the data set must have a length.* got Stream"),
    "loader of a stream": (
        lambda: train(dataset=DataLoader(Stream())),
        "must have a length.* got DataLoader",
    ),
    "data empty": (lambda: train(X[:0], Y[:0]), "the data set is empty"),
    "data list empty": (lambda: train(dataset=[]), "the data set is empty"),
    "data x alone": (lambda: train(dataset=TensorDataset(X)), r"must be a pair \(x, y\), got 1 entries"),
    "data three": (lambda: train(dataset=TensorDataset(X, Y, Y)), r"must be a pair \(x, y\), got 3 entries"),
    "data tensor": (lambda: train(dataset=X), r"must be a pair \(x, y\), got Tensor"),
    "data words": (lambda: train(dataset=[("nine", 9)]), "x must be a tensor, or a dict.* got str"),
    "data objects": (lambda: train(dataset=[(object(), 9)]), "the examples do not make a batch"),
    "data of sizes": (
        lambda: train(dataset=[(X[0], 0), (X[0, :2], 1)]),
        "the examples do not make a batch",
    ),
    "loader and batch": (
        lambda: train(dataset=DataLoader(TensorDataset(X, Y), 4), batch_size=2),
        "loader's own, 4",
    ),
    "x float64": (lambda: train(X.double()), "x must be torch.float32.* got torch.float64"),
    "x bytes": (lambda: train(X.byte()), "Linear does not take x of shape .*torch.uint8"),
    "x NaN": (lambda: train(X / 0 * 0), "x must be finite"),
    "x wide": (lambda: train(torch.rand(8, 4)), r"Linear does not take x of shape \[1, 4\]"),
    "x flat": (lambda: train(torch.rand(8)), r"Linear does not take x of shape \[1\]"),
    "y float": (lambda: train(y=Y.float()), r"labels must be int64 of shape \[8\], got torch.float32"),
    "y int32": (lambda: train(y=Y.int()), "labels must be int64 .* got torch.int32"),
    "y columns": (lambda: train(y=Y[:, None]), r"labels must be int64 of shape \[8\], got shape \[8, 1\]"),
    "y too large": (lambda: train(y=Y + 1), r"labels must be in 0\.\.1, got 1\.\.2"),
    "y negative": (lambda: train(y=Y - 1), r"labels must be in 0\.\.1, got -1\.\.0"),
    "y late": (
        lambda: train(dataset=list(zip(X, [0, 1] * 3 + [0, 7], strict=True)), batch_size=4),
        r"labels must be in 0\.\.1, got 0\.\.7",
    ),
    "y of one class": (lambda: train(model=net(1)), r"at least two classes .* got \[1, 1\]"),
    "y dict": (lambda: train(dataset=[(X[0], {"a": 1})]), "y must be a tensor, got dict"),
    "y Gaussian int": (lambda: train(likelihood=NORMAL), "y must be torch.float32, got torch.int64"),
    "y Gaussian shape": (
        lambda: train(y=torch.rand(8), likelihood=NORMAL),
        r"y must have the outputs' shape \[8, 2\], got \[8\]",
    ),
    "y Gaussian inf": (lambda: train(y=X[:, :2] / 0, likelihood=NORMAL), "y must be finite"),
    "y Bernoulli": (
        lambda: train(y=Y[:, None] + 1, model=net(1), likelihood=YESNO),
        r"0 and 1 alone, got 1\.\.2",
    ),
    "y Bernoulli shape": (
        lambda: train(model=net(1), likelihood=YESNO),
        r"outputs' shape \[8, 1\], got \[8\]",
    ),
    "noises": (
        lambda: train(y=X, model=net(3), likelihood=likelihoods.Gaussian(2)),
        "has the noise of 2 outputs",
    ),
    "odd outputs": (
        lambda: train(y=X, model=net(3), likelihood=likelihoods.Gaussian(noise_std=None)),
        "as many log variances",
    ),
    "validation": (lambda: train(validation=3), "validation: the data set must have a length"),
    "validation labels": (lambda: train(validation=TensorDataset(X, Y + 5)), "validation: labels must be in"),
    # predict
    "predict nothing": (lambda: ask([]), "model must be a network or a list of at least one, got none"),
    "predict text": (lambda: ask("lenet"), "model must be a network .* got str"),
    "predict mixed": (lambda: ask([net(), 3]), "got Linear, int"),
    "predict 0": (lambda: ask(n=0), "n_samples .* got 0"),
    "predict 1.5": (lambda: ask(n=1.5), "n_samples .* got 1.5"),
    "predict array": (lambda: ask(x=X.numpy()), "x must be a tensor, or a dict.* got ndarray"),
    "predict None": (lambda: ask(x=None), "x must be a tensor, or a dict.* got NoneType"),
    "predict float64": (lambda: ask(x=X.double()), "x must be of torch.float32.* got torch.float64"),
    "predict int": (lambda: ask(x=X.long()), "Linear does not take x of .* torch.int64"),
    "predict no row": (lambda: ask(x=X[:0]), "at least one input"),
    "predict no tensor": (lambda: ask(x={}), "at least one input"),
    "predict ragged": (lambda: ask(x=(X, X[:3])), r"equally many rows, got shapes \(\[8, 3\], \[3, 3\]\)"),
    "predict single": (lambda: ask(x=X[0]), "does not take x of shape"),
    "predict wide": (lambda: ask(x=torch.rand(2, 4)), r"Linear does not take x of shape \[1, 4\]"),
    "predict dict": (lambda: ask(x={"x": X}), "Linear does not take x"),
    "predict unsaid": (lambda: ask(likelihood=None), "Linear does not say what its outputs mean"),
    "predict wrong": (lambda: ask(likelihood="softmax"), "likelihood must be one of .* got str"),
    "predict one class": (lambda: ask(net(1)), "at least two classes"),
    "predict pair": (lambda: ask(Pair()), "Pair must give a tensor, got tuple"),
    "predict ensemble": (lambda: ask([net(2), net(3)]), r"agree .* \[2\] and \[3\]"),
    # maximum likelihood
    "density none": (lambda: maximum_likelihood(None, [X]), "model must be one network, got NoneType"),
    "density linear": (lambda: maximum_likelihood(net(), [X]), r"must have log_prob\(x\).* got Linear"),
    "density batches": (lambda: maximum_likelihood(density(), 3), "points of each step, got int"),
    "density points": (lambda: maximum_likelihood(density(), [[1.0, 2.0]]), "must be points .* got list"),
    "density flat": (
        lambda: maximum_likelihood(density(), torch.rand(5)),
        r"must be points .* got shape \[\]",
    ),
    "density lr": (lambda: maximum_likelihood(density(), [X], lr=0), "lr must be a positive"),
    "density clip": (lambda: maximum_likelihood(density(), [X], clip=-1), "clip must be a finite"),
    # likelihoods
    "outputs 0": (lambda: likelihoods.Gaussian(0), "outputs must be an integer of at least 1, got 0"),
    "outputs float": (lambda: likelihoods.Gaussian(1.5), "outputs .* got 1.5"),
    "noise 0": (lambda: likelihoods.Gaussian(noise_std=0), "noise_std must be a positive .* got 0"),
    "noise text": (lambda: likelihoods.Gaussian(noise_std="learned"), "noise_std .* got 'learned'"),
    # metrics
    **{
        f"{score.__name__} {name}": (lambda score=score, p=p, y=y: score(p, y), message)
        for score in SCORES
        for name, p, y, message in (
            ("list", [[0.5, 0.5]], LABELS, "probabilities must be a tensor, got list"),
            ("integers", P.long(), LABELS, "probabilities must be floating-point"),
            ("vector", P[0, 0], LABELS, r"probabilities must be \[S, B, C\]"),
            ("sum", 2 * P, LABELS, "must sum to 1"),
            ("negative", -P, LABELS, "must not be negative"),
            ("NaN", P * math.nan, LABELS, "hold NaN"),
            ("float labels", P, LABELS.float(), "labels must be integers"),
            ("few labels", P, LABELS[:3], r"labels must be \[4\]"),
            ("large labels", P, LABELS + 1, r"labels must lie in 0\.\.2"),
        )
    },
    "nll likelihood": (lambda: metrics.negative_log_likelihood(P, LABELS, "gaussian"), "Likelihood, got str"),
    "nll shape": (lambda: metrics.negative_log_likelihood(P, LABELS[:2], NORMAL), "as many B as targets"),
    "bins": (lambda: metrics.reliability_curve(P, LABELS, 2.5), "n_bins must be an integer"),
    "information": (lambda: metrics.mutual_information(P[0]), r"needs samples \[S, B, C\]"),
    "auroc": (lambda: metrics.auroc(P, P), r"inside must be scores \[N\]"),
    "fpr95": (lambda: metrics.fpr95(X[0], X[0, :0]), r"outside must be scores \[N\]"),
    # models
    "widths": (lambda: models.LeNet((2, 3)), "widths must be at least three positive integers"),
    "widths int": (lambda: models.LeNet(10), "widths must be at least three .* got 10"),
    "auxiliary": (lambda: models.MNFLeNet(auxiliary="tight"), "auxiliary .*'tight'"),
    "sampling": (lambda: models.MNFLeNet(sampling="pixels"), "sampling .*'pixels'"),
    "prior": (lambda: models.MeanFieldLeNet(prior_std="empirical"), "prior_std .*'empirical'"),
    "flow's width": (lambda: models.MNFLeNet(hidden=50), "hidden must be a list or tuple of sizes, got 50"),
    "flows of r": (lambda: models.MNFMLP((1, 2), n_flows_r=-1), "n_flows_r .* at least 0, got -1"),
    "dropout": (lambda: models.DropoutLinear(3, 2, p=1), r"in \[0, 1\), got 1"),
    "dropout text": (lambda: models.DropoutLeNet(p="half"), r"in \[0, 1\), got 'half'"),
    "dropout input": (
        lambda: models.DropoutLinear(3, 2, p=0.5)(X[0]),
        r"DropoutLinear expects input .* got \[3\]",
    ),
    "dropout maps": (lambda: models.DropoutConv2d(3, 2, 3, p=0.5)(X), "DropoutConv2d expects input"),
    "sizes": (lambda: models.MNFMLP((3,)), "sizes must be at least two positive integers"),
    "activation": (lambda: models.MNFMLP((3, 2), activation="relu"), "activation must make a module"),
    "noise": (lambda: models.MNFMLP((3, 2), noise_std=-1), "noise_std must be positive"),
    "save": (lambda: models.save("lenet", "x"), "save expects a network, got str"),
    "load into": (lambda: models.load("x", into=nn.Linear), "into must be a network, got type"),
    "images": (lambda: models.LeNet()(X), r"images must have shape \[B, 1, 28, 28\], got \[8, 3\]"),
    "bayesian": (lambda: layers.bayesian(3), "must be an nn.Module, got int"),
}

BARE = re.compile(r"^(mat1 and mat2|'\w+' object|unsupported operand|forward\(\)|expected |shape '\[)")


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_our_words(name):
    call, message = CASES[name]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert not BARE.match(str(caught.value))


def test_there_are_enough_cases():
    assert len(CASES) >= 80
