"""The appendix *Names in other libraries* shows what was found by running, for all that is public here."""

import json
import re
from collections.abc import Iterator
from html import unescape
from inspect import isclass
from typing import Any

import nbformat
import pytest
import torch

from experiments import names, names_flows, names_layers
from experiments.results import RESULTS, ROOT
from mnf_lite import flows, layers

BASES = {"Flow", "Density", "StandardNormal", "BayesianLayer"}  # what the others are made of
WHOLE = {"Compose": "chain", "NormalizingFlow": "density"}  # a library has one of each, beside its flows
AGAIN = "run python -m experiments.names, then make execute CHAPTER=book/appendix/names.md"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads((RESULTS / "names.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown() -> str:
    """The page's outputs, without the places where a line may break."""
    notebook = nbformat.read(names.PAGE.with_suffix(".ipynb"), as_version=4)
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    texts = [out.get("text", "") or str(out.data.get("text/html", out.data)) for out in outputs]
    return "\n".join(texts).replace("<wbr>", "")


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", sorted(set(names_flows.FLOWS) - set(WHOLE)))  # younger flows may be absent
def test_every_flow_of_the_table_has_a_name_or_a_reason_in_every_library(
    name: str, found: dict[str, Any]
) -> None:
    assert set(found["flows"][name]) == set(found["libraries"]) == set(names_flows.LIBRARIES)
    for entry in found["flows"][name].values():
        assert ("build" in entry) != ("absent" in entry)
        assert "build" not in entry or {"forward", "inverse", "round_trip"} <= set(entry)
        assert "absent" not in entry or entry["classes"] > 10


@pytest.mark.parametrize("part", WHOLE.values())
def test_chains_and_densities_are_named(part: str, found: dict[str, Any]) -> None:
    lacking = [name for name, entry in found["libraries"].items() if not entry[part]]
    assert lacking == (["FrEIA"] if part == "density" else [])


def test_every_layer_of_the_table_has_a_name_somewhere_else(found: dict[str, Any]) -> None:
    classes = {name for name in layers.__all__ if isclass(getattr(layers, name))}
    assert found["layers"]
    assert set(found["layers"]) <= classes - BASES  # younger layers may be absent
    for entries in found["layers"].values():
        assert "mnf_lite" in entries
        assert len(entries) > 1
    assert all(entry["kl"] for entry in found["layer_libraries"].values())


def test_what_was_found_is_of_the_expressions_as_they_stand(found: dict[str, Any]) -> None:
    for name, table in names_flows.FLOWS.items():
        for library, entry in table.items():
            there = found["flows"][name][library]
            if isinstance(entry, names_flows.Absent):
                near = there["near"]["build"] if there["near"] else ""
                assert (there["absent"], near, there["note"]) == (entry.pattern, entry.near, entry.note), (
                    AGAIN
                )
            else:
                assert there["build"] == entry, AGAIN
    for library, entry in names_layers.LAYERS.items():
        built = {n: e[library]["build"] for n, e in found["layers"].items() if library in e}
        assert built == entry.layers, AGAIN
    for library, entry in names_flows.LIBRARIES.items():
        for key in ("imports", "forward", "inverse", "chain", "density", "log_prob", "sample", "rsample"):
            assert found["libraries"][library][key] == getattr(entry, key), AGAIN


def test_recipes_are_those_that_were_run(found: dict[str, Any]) -> None:
    source = (ROOT / "experiments" / "names_layers.py").read_text(encoding="utf-8")
    for recipe in found["recipes"].values():
        assert recipe["code"] in source, AGAIN
        assert recipe["difference"] <= 1e-6 + 4 * recipe["standard_error"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", names_flows.FLOWS)
def test_our_own_rows_are_found_again(name: str, found: dict[str, Any]) -> None:
    def kinds(entry: Any) -> Any:
        """What was found without rounding errors."""
        if isinstance(entry, dict):
            return {k: kinds(v) for k, v in entry.items() if k not in ("error", "round_trip")}
        return entry

    again = names_flows.examine_flow("mnf_lite", name, str(names_flows.FLOWS[name]["mnf_lite"]))
    assert kinds(json.loads(json.dumps(again))) == kinds(found["flows"][name]["mnf_lite"])
    assert again["round_trip"] < 1e-12
    assert again["forward"]["error"] < 1e-12
    assert again["inverse"]["error"] < 1e-12


@pytest.mark.usefixtures("float64")
def test_a_turned_sign_a_wrong_scale_and_a_turned_flow_are_noticed() -> None:
    class Opposite(flows.AffineConstant):
        def inverse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z, log_det = super().inverse(x)
            return z, -log_det

    class Half(flows.AffineConstant):
        def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x, log_det = super().forward(z)
            return x, log_det / 2

    subject = names_flows.Subject(names_flows.LIBRARIES["mnf_lite"], "flows.AffineConstant(D)")
    state = subject.flow.state_dict()
    for kind, verdict in ((Opposite, ("own", "opposite")), (Half, ("wrong", "own"))):
        subject.flow = kind(names_flows.D)
        subject.flow.load_state_dict(state)
        ways = [names_flows.examine_map(subject, way)["log_det"] for way in ("forward", "inverse")]
        assert tuple(ways) == verdict

    class Density(flows.NormalizingFlow):
        def sample(self, shape: Any = ()) -> torch.Tensor:
            return self.flow.inverse(self.base.sample(shape))[0]

    subject.flow = flows.AffineConstant(names_flows.D)
    subject.flow.load_state_dict(state)
    assert names_flows.examine_density(subject) == {"forward": "z → x", "log_prob": "right"}
    subject.names["flows"] = type("Module", (), {"NormalizingFlow": Density})
    assert names_flows.examine_density(subject)["forward"] == "x → z"


def test_every_expression_on_the_page_is_one_that_was_evaluated(shown: str, found: dict[str, Any]) -> None:
    def strings(entry: Any) -> Iterator[str]:
        if isinstance(entry, dict):
            for key, value in entry.items():
                yield key
                yield from strings(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from strings(value)
        elif isinstance(entry, str):
            yield entry

    known = set(strings(found)) | set(WHOLE) | {"import", "parts", "model", "kl_divergence"}
    known |= {
        f"{path} as {alias}" for lib in found["libraries"].values() for alias, path in lib["imports"].items()
    }
    for table in found["flows"].values():
        for entry in table.values():
            known |= {f"{key}={value!r}" for key, value in entry.get("defaults", {}).items()}
    expressions = {unescape(text) for text in re.findall(r"<code>(.*?)</code>", shown)}
    assert len(expressions) > 100
    assert expressions - known == set()
    builds = [
        e["build"]
        for table in (*found["flows"].values(), *found["layers"].values())
        for e in table.values()
        if "build" in e
    ]
    assert [build for build in builds if build not in expressions] == []
