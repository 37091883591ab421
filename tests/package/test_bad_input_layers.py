"""Bad input to every public name of ``layers``: an error in our words, that says what came and what fits."""

import math

import pytest
import torch
from torch import nn

from mnf_lite import layers
from tests.package.layer_zoo import every_kind

ONES = torch.ones
LINEAR = ("MNFLinear", "MeanFieldLinear")
CONV = ("MNFConv2d", "MeanFieldConv2d")
LINE = ("MNFConv1d", "MeanFieldConv1d")
BLOCK = ("MNFConv3d", "MeanFieldConv3d")
BACK = ("MNFConvTranspose2d", "MeanFieldConvTranspose2d")
# a new layer is found here by itself
EVERY = tuple(kind.__name__ for kind in every_kind())
MNF = tuple(name for name in EVERY if name.startswith("MNF"))
AXES = {kind.__name__: len(getattr(kind, "pixels", ())) for kind in every_kind()}
ARGS = {name: (3, 2, 2) if axes else (3, 2) for name, axes in AXES.items()}
GOOD = {name: (4, 3, *[5] * axes) for name, axes in AXES.items()}  # shape of an input that fits
FUNCTIONS = ("bayesian", "kl_divergence", "kl_parts", "mean_network", "plain", "summary", "update_priors")

# names, options of the constructor, error, words of it
MADE_WRONG = [
    (LINEAR, {"in_features": 0}, ValueError, "in_features must be an integer of at least 1, got 0"),
    (LINEAR, {"out_features": 2.5}, ValueError, "out_features must be an integer of at least 1, got 2.5"),
    (LINEAR, {"in_features": True}, ValueError, "in_features must be an integer of at least 1, got True"),
    (LINEAR, {"out_features": "2"}, ValueError, "out_features must be an integer of at least 1, got '2'"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"in_channels": 0}, ValueError, "in_channels must be an integer"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"out_channels": -1}, ValueError, "out_channels must be an integer"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"kernel_size": 0}, ValueError, "kernel_size must be an integer"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"kernel_size": "3"}, ValueError, "kernel_size must be an integer"),
    ((*CONV, *BACK), {"kernel_size": (3, 3, 3)}, ValueError, "kernel_size must be an integer or 2 of them"),
    (LINE, {"kernel_size": (3, 3)}, ValueError, "kernel_size must be an integer or 1 of them"),
    (BLOCK, {"kernel_size": (3, 3)}, ValueError, "kernel_size must be an integer or 3 of them"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"stride": 0}, ValueError, "stride must be an integer of at least 1"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"dilation": 1.5}, ValueError, "dilation must be an integer"),
    ((*CONV, *LINE, *BLOCK, *BACK), {"padding": -1}, ValueError, "padding must be an integer of at least 0"),
    ((*CONV, *LINE, *BLOCK), {"padding": "most"}, ValueError, "padding must be one of 'same', 'valid'"),
    (CONV, {"padding": "same", "stride": 2}, ValueError, "padding='same' needs a stride of 1, got stride=2"),
    (CONV, {"groups": 0}, ValueError, "groups must be an integer of at least 1, got 0"),
    (CONV, {"groups": 2}, ValueError, "groups must divide the numbers of channels (3, 2), got 2"),
    (CONV, {"padding_mode": "mirror"}, ValueError, "padding_mode must be one of 'zeros', 'reflect'"),
    (CONV, {"sampling": "pixels"}, ValueError, "sampling must be one of 'outputs', 'weights', 'explicit'"),
    (BACK, {"padding": "same"}, ValueError, "takes groups=1, padding_mode='zeros' and padding in pixels"),
    (BACK, {"padding_mode": "reflect"}, ValueError, "takes groups=1, padding_mode='zeros' and padding"),
    (BACK, {"output_padding": 1}, ValueError, "output_padding must be less than stride or dilation, got 1"),
    (BACK, {"output_padding": -1}, ValueError, "output_padding must be an integer of at least 0"),
    (EVERY, {"bias": None}, TypeError, "bias must be True or False, got None"),
    (EVERY, {"bias": 1}, TypeError, "bias must be True or False, got 1"),
    (EVERY, {"prior_std": 0}, ValueError, "prior_std must be a positive finite number or 'learned', got 0"),
    (EVERY, {"prior_std": True}, ValueError, "prior_std must be a positive finite number or 'learned'"),
    (EVERY, {"prior_std": "learn"}, ValueError, "prior_std must be a positive finite number or 'learned'"),
    (EVERY, {"prior_std": math.nan}, ValueError, "prior_std must be a positive finite number or 'learned'"),
    (EVERY, {"prior_std": ONES(())}, ValueError, "prior_std must be a positive finite number or 'learned'"),
    (MNF, {"n_flows_q": -1}, ValueError, "n_flows_q must be an integer of at least 0, got -1"),
    (MNF, {"n_flows_q": None}, ValueError, "n_flows_q must be an integer of at least 0, got None"),
    (MNF, {"n_flows_r": 1.5}, ValueError, "n_flows_r must be an integer of at least 0, got 1.5"),
    (MNF, {"auxiliary": "exact"}, ValueError, "auxiliary must be one of 'published', 'conjugate', got 'ex"),
    (MNF, {"auxiliary": None}, ValueError, "auxiliary must be one of 'published', 'conjugate', got None"),
    (MNF, {"hidden": 50}, TypeError, "hidden must be a list or tuple of sizes, got 50"),
    (MNF, {"hidden": "50"}, TypeError, "hidden must be a list or tuple of sizes, got '50'"),
    (MNF, {"hidden": (0,)}, ValueError, "every size in hidden must be an integer of at least 1, got 0"),
    (MNF, {"hidden": (5.0,)}, ValueError, "every size in hidden must be an integer of at least 1, got 5.0"),
]

# names, input from one that fits, error, words of it
FED_WRONG = [
    (EVERY, lambda x: x.long(), TypeError, "expects a floating-point tensor, got a torch.int64 tensor"),
    (EVERY, lambda x: x.bool(), TypeError, "expects a floating-point tensor, got a torch.bool tensor"),
    (EVERY, lambda x: x.to(torch.complex64), TypeError, "a floating-point tensor, got a torch.complex64"),
    (EVERY, lambda x: x.numpy(), TypeError, "expects a floating-point tensor, got ndarray"),
    (EVERY, lambda x: x.tolist(), TypeError, "expects a floating-point tensor, got list"),
    (EVERY, lambda x: None, TypeError, "expects a floating-point tensor, got NoneType"),
    (EVERY, lambda x: x.double(), TypeError, "has weights of torch.float32, got a torch.float64 tensor"),
    (EVERY, lambda x: x.half(), TypeError, "has weights of torch.float32, got a torch.float16 tensor"),
    (EVERY, lambda x: x.to("meta"), ValueError, "has weights on cpu, got a tensor on meta"),
    (LINEAR, lambda x: ONES(4, 5), ValueError, "expects input of shape [..., 3], got [4, 5]"),
    (LINEAR, lambda x: ONES(()), ValueError, "expects input of shape [..., 3], got []"),
    (LINE, lambda x: ONES(4, 5, 9), ValueError, "expects input of shape [batch, 3, length], got [4, 5, 9]"),
    ((*CONV, *BACK), lambda x: ONES(4, 5, 9, 9), ValueError, "of shape [batch, 3, height, width], got [4, 5"),
    ((*CONV, *BACK), lambda x: ONES(9), ValueError, "of shape [batch, 3, height, width], got [9]"),
    ((*CONV, *BACK), lambda x: x[None], ValueError, "[batch, 3, height, width], got [1, 4, 3, 5, 5]"),
    (BLOCK, lambda x: ONES(4, 1, 9, 9, 9), ValueError, "[batch, 3, depth, height, width], got [4, 1, 9, 9"),
    (LINE, lambda x: x[..., :1], ValueError, "expects a padded length of at least 2 pixels, got 1"),
    (CONV, lambda x: x[..., :1], ValueError, "expects a padded width of at least 2 pixels, got 1"),
    (CONV, lambda x: x[..., :0, :], ValueError, "expects a padded height of at least 2 pixels, got 0"),
    (BLOCK, lambda x: x[:, :, :1], ValueError, "expects a padded depth of at least 2 pixels, got 1"),
]
DRAWS = ("kl", "kl_samples", "kl_parts", "sample_weights", "mean_layer")
NUMBERS = (0, -1, 2.0, True, "3", None)
NET = nn.Sequential(nn.Linear(3, 2))

# function, its arguments, error, words of it
CALLED_WRONG = [
    *[(name, ([NET],), TypeError, "model must be an nn.Module, got list") for name in FUNCTIONS[1:]],
    *[(name, (None,), TypeError, "model must be an nn.Module, got NoneType") for name in FUNCTIONS[1:]],
    ("bayesian", ([NET],), TypeError, "module must be an nn.Module, got list"),
    ("bayesian", (nn.Linear,), TypeError, "module must be an nn.Module, got type"),
    ("bayesian", (NET, "full"), ValueError, "posterior must be one of 'mean-field', 'mnf', got 'full'"),
    ("bayesian", (NET, None), ValueError, "posterior must be one of 'mean-field', 'mnf', got None"),
    ("bayesian", (nn.ReLU(),), ValueError, "nothing to convert in ReLU"),
    ("mean_network", (NET, 0), ValueError, "n must be an integer of at least 1, got 0"),
    ("mean_network", (NET, 2.5), ValueError, "n must be an integer of at least 1, got 2.5"),
]
CONVERTED_WRONG = [
    ({"only": "head"}, ValueError, "only names ['head'], but the module has ['0']"),
    ({"only": ["0", "1"]}, ValueError, "only names ['1'], but the module has ['0']"),
    ({"only": 0}, TypeError, "only must be names or a function (name, layer) -> bool, got 0"),
    ({"only": [0]}, TypeError, "only must be names or a function (name, layer) -> bool, got [0]"),
    ({"only": []}, ValueError, "nothing to convert in Sequential"),
    ({"only": lambda name, layer: False}, ValueError, "nothing to convert in Sequential"),
    ({"samples": 3}, TypeError, "mnf layers take the options ['auxiliary', 'hidden', 'n_flows_q'"),
    ({"prior_std": -1}, ValueError, "prior_std must be a positive finite number or 'learned', got -1"),
    ({"sampling": "pixels"}, ValueError, "sampling must be one of 'outputs', 'weights'"),
]


def refused(error: type[Exception], words: str, call) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert type(caught.value) is error
    assert words in str(caught.value), str(caught.value)


def flat(table):
    return [(name, *rest) for names, *rest in table for name in names]


@pytest.mark.parametrize(("name", "options", "error", "words"), flat(MADE_WRONG))
def test_option_that_cannot_be_is_named(name, options, error, words):
    first = (
        ("in_features", "out_features") if name in LINEAR else ("in_channels", "out_channels", "kernel_size")
    )
    arguments = dict(zip(first, ARGS[name], strict=True)) | options
    refused(error, words, lambda: getattr(layers, name)(**arguments))


@pytest.mark.parametrize(("name", "spoil", "error", "words"), flat(FED_WRONG))
def test_input_that_does_not_fit_is_named_with_the_layer(name, spoil, error, words):
    layer, x = getattr(layers, name)(*ARGS[name]), ONES(GOOD[name])
    layer(x)  # this one fits
    refused(error, f"{name} ", lambda: layer(spoil(x)))
    refused(error, words, lambda: layer(spoil(x)))


@pytest.mark.parametrize("n", NUMBERS, ids=repr)
@pytest.mark.parametrize("method", DRAWS)
@pytest.mark.parametrize("name", EVERY)
def test_number_of_draws_is_named(name, method, n):
    layer = getattr(layers, name)(*ARGS[name])
    refused(ValueError, f"n must be an integer of at least 1, got {n!r}", lambda: getattr(layer, method)(n))


@pytest.mark.parametrize(("name", "arguments", "error", "words"), CALLED_WRONG)
def test_argument_of_a_function_is_named(name, arguments, error, words):
    refused(error, words, lambda: getattr(layers, name)(*arguments))


@pytest.mark.parametrize(("options", "error", "words"), CONVERTED_WRONG)
def test_choice_that_cannot_be_converted_is_named(options, error, words):
    net = nn.Sequential(nn.Conv2d(1, 2, 3)) if "sampling" in options else NET
    refused(error, words, lambda: layers.bayesian(net, **options))


@pytest.mark.parametrize("padding", [5, 6])
@pytest.mark.parametrize(("mode", "most"), [("reflect", 4), ("circular", 5)])
def test_padding_wider_than_what_it_repeats_is_named(mode, most, padding):
    if padding == most:
        return
    layer = layers.MNFConv2d(3, 2, 2, padding=padding, padding_mode=mode)
    words = f"can pad a height of 5 pixels by {most} at most with padding_mode={mode!r}"
    refused(ValueError, words, lambda: layer(ONES(1, 3, 5, 5)))


def test_output_of_no_pixels_is_named():
    layer = layers.MNFConvTranspose2d(3, 2, 2, padding=2)
    refused(ValueError, "leaves no height of 2 pixels after padding=(2, 2)", lambda: layer(ONES(1, 3, 2, 2)))


def test_table_holds_every_public_name():
    assert {*EVERY, *FUNCTIONS, "BayesianLayer"} == set(layers.__all__)
    refused(TypeError, "abstract", lambda: layers.BayesianLayer((2, 2), True, 1.0))
