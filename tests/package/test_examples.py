"""The examples in the docstrings of the package run and give what they say."""

import doctest
import inspect
import pkgutil
import re
from types import ModuleType

import matplotlib.pyplot as plt
import pytest
import torch

import mnf_lite
from mnf_lite import flows, layers

MODULES = sorted(module.name for module in pkgutil.walk_packages(mnf_lite.__path__, "mnf_lite."))
plt.switch_backend("Agg")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_and_give_what_they_say(name: str) -> None:
    torch.manual_seed(0)
    result = doctest.testmod(pkgutil.resolve_name(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    plt.close("all")
    assert result.failed == 0


def without_example(module: ModuleType) -> list[str]:
    """The public classes and functions that a module defines and whose docstring shows no use."""
    names = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
    things = {name: getattr(module, name) for name in names}
    return [
        name
        for name, thing in things.items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__.startswith(module.__name__)
        and ">>>" not in (thing.__doc__ or "")
        and not re.search(r"as in :func:|example (of :func:`\w+` )?shows both", thing.__doc__ or "")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "mnf_lite",
        *(f"mnf_lite.{m.name}" for m in pkgutil.iter_modules(mnf_lite.__path__) if m.name[0] != "_"),
    ],
)
def test_every_public_class_and_function_shows_its_use(name: str) -> None:
    if name == "mnf_lite.__main__":
        return  # what it offers is a command line, which README.md shows
    assert without_example(pkgutil.resolve_name(name)) == []


# What no paper introduced: parts that others are made of, and helpers.
WITHOUT_SOURCE = {
    "Density",
    "bayesian",
    "kl_divergence",
    "kl_parts",
    "mean_network",
    "plain",
    "summary",
    "update_priors",
}


@pytest.mark.parametrize(
    "thing", [getattr(m, name) for m in (flows, layers) for name in m.__all__], ids=lambda t: t.__name__
)
def test_flows_and_layers_link_their_source(thing: type) -> None:
    docs = [parent.__doc__ or "" for parent in getattr(thing, "__mro__", [thing])]  # inherited ones, too
    assert thing.__name__ in WITHOUT_SOURCE or any(re.search(r"Source:\n[^>]*https://", doc) for doc in docs)


def test_an_example_that_is_wrong_is_noticed() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda _: None).failed == 1
