"""What the package's docstrings show runs; public classes and functions show an example and cite a source."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import mnf_lite

MODULES = [
    module.name
    for module in pkgutil.walk_packages(mnf_lite.__path__, "mnf_lite.")
    if not module.name.endswith("__main__")
]
# Modules all of whose public classes and functions have an example; others join as they do.
COMPLETE = ["mnf_lite.nets", *(name for name in MODULES if name.startswith("mnf_lite.flows."))]
# What no paper introduced: parts that others are made of, and helpers.
WITHOUT_SOURCE = {
    "Density",
    "StackedMLP",
    "Coupling",
    "positive_int",
    "positive_number",
    "layer_sizes",
    "beside",
    "hidden_degrees",
    "check_parity",
    "came",
    "as_shape",
    "soft_bound",
    "solve_tanh",
    "of_all_processes",
    "slope_terms",
}
# Made for these modules alone, and not for a reader's own code: one line says what they are.
INNER = {"Coupling", "hidden_degrees", "check_parity", "came", "as_shape", "of_all_processes", "slope_terms"}


def public(name: str) -> dict[str, object]:
    """Classes and functions that a module defines under a name without an underscore."""
    module = importlib.import_module(name)
    return {
        key: thing
        for key, thing in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == name
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_example_of_a_module_prints_what_it_shows(name):
    torch.manual_seed(0)
    failed, _ = doctest.testmod(importlib.import_module(name), verbose=False)
    assert failed == 0


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in COMPLETE for key in public(name)], ids=lambda part: part
)
def test_a_public_class_or_function_has_an_example_and_a_linked_source(name, key):
    text = inspect.getdoc(public(name)[key])
    assert text
    assert key in INNER or "Example:" in text
    if key not in WITHOUT_SOURCE:
        assert "https://" in text.split("Source:")[1].split("Example:")[0]
