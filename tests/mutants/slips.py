"""Slips made on purpose in flows and layers, for the tests to notice: ``python -m tests.mutants.slips``.

Cosmic-ray makes the slips that a formula invites: a sign, a factor for a divisor, a number off by one, a
comparison, a condition. A random sample of them is tried, each in a forked process that imports the package
with one module changed and runs the tests of its part until one fails. Torch and pytest are imported before
the fork, which takes longer than most slips survive; cosmic-ray's own runner starts Python anew for each. A
slip is *noticed* if a test is red, if the module cannot be imported, or if the tests exceed a limit of
processor time.

The share and the survivors go to ``slips.json`` beside this file, where a person says of each survivor what
it means: a judgement is kept as long as the slip survives. An interrupted run goes on where it stopped.
"""

import argparse
import ast
import json
import os
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

import mnf_lite  # with torch and all that it needs, imported once for all forks

ROOT = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).with_name("slips.json")
PARTS = {
    "flows": [
        *("test_flows", "test_flows_density", "test_flows_properties"),
        *("test_bad_input_flows", "test_start"),
    ],
    "layers": [
        *("test_layers_forward", "test_layers_bound", "test_layers_network"),
        *("test_layers_prior", "test_layers_sampling", "test_bad_input_layers", "test_start"),
    ],
}
OPERATORS = [
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "FloorDiv_Div", "Mod_FloorDiv")
    ),
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
    ),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not", "AddNot"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("NumberReplacer", "ZeroIterationForLoop"),
]
SECONDS = 90  # of processor time


@dataclass(frozen=True)
class Slip:
    """The n-th place in a module where an operator applies."""

    part: str
    path: Path
    operator: str
    occurrence: int
    name: str  # does not change with what stands elsewhere in the module

    @property
    def module(self) -> str:
        return f"mnf_lite.{self.part}.{self.path.stem}"

    def source(self) -> str:
        """The module with the slip in it."""
        changed: str = mutate_code(
            self.path.read_text(encoding="utf-8"), operator(self.operator), self.occurrence
        )
        return changed

    def lines(self) -> tuple[str, str, str]:
        """Where it is, what stood there and what stands there now."""
        before, after = self.path.read_text(encoding="utf-8").splitlines(), self.source().splitlines()
        number, was, now = next(
            (k, a, b) for k, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b
        )
        return f"{self.path.relative_to(ROOT)}:{number}", was.strip(), now.strip()


def operator(name: str) -> Any:
    return get_operator(f"core/{name}")()


def all_slips() -> Iterator[Slip]:
    for part in PARTS:
        for path in sorted((ROOT / "mnf_lite" / part).glob("*.py")):
            text = path.read_text(encoding="utf-8")
            nodes, seen = list(ast_nodes(get_ast(text))), Counter[str]()
            for kind in OPERATORS:
                places = [
                    (node, start) for node in nodes for start, _ in operator(kind).mutation_positions(node)
                ]
                for k, (node, (row, column)) in enumerate(places):
                    name = f"{part} {path.stem} {kind} {column} {text.splitlines()[row - 1].strip()}"
                    seen[name] += 1
                    if not only_syntax(node):
                        yield Slip(part, path, kind, k, f"{name} {seen[name]}")


def only_syntax(node: Any) -> bool:
    """Whether it is the star of a signature or of a call, which is no product."""
    return node.type == "operator" and "*" in node.value and node.parent.type not in ("term", "power")


class Changed(SourceFileLoader, MetaPathFinder):
    """Imports one module from other source."""

    def __init__(self, slip: Slip, source: str) -> None:
        super().__init__(slip.module, str(slip.path))
        self.source = source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        found = PathFinder.find_spec(fullname, path) if fullname == self.name else None
        if found:
            found.loader = self
        return found

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec")


def outcome(slip: Slip | None, tests: list[str]) -> str:
    """What the tests say of a slip, or of none: the first red one, *limit* or *survived*."""
    with tempfile.NamedTemporaryFile("w+", suffix=".txt") as said:
        if (child := os.fork()) == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            for name in [name for name in sys.modules if name.split(".")[0] == mnf_lite.__name__]:
                del sys.modules[name]
            if slip:
                sys.meta_path.insert(0, Changed(slip, slip.source()))
            code = pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
            os._exit(int(code))
        _, status = os.waitpid(child, 0)
        said.seek(0)
        red = [line.split()[1] for line in said.read().splitlines() if line.startswith(("FAILED", "ERROR"))]
    if os.WIFSIGNALED(status):
        return "limit" if os.WTERMSIG(status) in (9, 24) else "crash"
    return "survived" if os.WEXITSTATUS(status) in (0, 5) else (red or ["import"])[0].rpartition("/")[2]


def try_out(slip: Slip) -> str:
    """Run the tests that name the module or its classes, then all of its part."""
    stem = slip.path.stem
    files = [
        f"tests/package/{name}.py" for name in sorted(PARTS[slip.part], key=lambda name: stem not in name)
    ]
    tree = ast.parse(slip.path.read_text(encoding="utf-8"))
    names = [stem, *(node.name.strip("_") for node in tree.body if isinstance(node, ast.ClassDef))]
    first = outcome(slip, [*files, "-k", " or ".join(names)])
    return outcome(slip, files) if first == "survived" else first


def keep(done: dict[str, str], sample: list[Slip], key: Callable[[Slip], str], settings: Any) -> None:
    """Write share and survivors, with the judgements that the file holds of them."""
    before = json.loads(RESULT.read_text(encoding="utf-8"))["survivors"] if RESULT.exists() else []
    judged = {(s["was"], s["now"]): s["judgement"] for s in before}
    tried = [slip for slip in sample if key(slip) in done]
    survivors = [slip.lines() for slip in tried if done[key(slip)] == "survived"]
    result = {
        "settings": settings,
        "tried": len(tried),
        "noticed": len(tried) - len(survivors),
        "survivors": [
            {"where": where, "was": was, "now": now, "judgement": judged.get((was, now), "")}
            for where, was, now in sorted(survivors)
        ],
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Try a sample of slips and write the share that is noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.slips", description=__doc__)
    parser.add_argument("--sample", type=int, default=300, help="how many slips (300)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    progress = Path(tempfile.gettempdir()) / "mnf_lite_slips.json"
    parser.add_argument("--progress", type=Path, default=progress, help="default: %(default)s")
    args = parser.parse_args()
    slips = sorted(all_slips(), key=lambda slip: sha256(f"{args.seed} {slip.name}".encode()).digest())
    sample = sorted(slips[: args.sample], key=lambda slip: slip.module, reverse=True)

    def key(slip: Slip) -> str:
        return f"{slip.name} in {sha256(slip.path.read_bytes()).hexdigest()[:12]}"

    done = json.loads(args.progress.read_text(encoding="utf-8")) if args.progress.exists() else {}
    for part, names in PARTS.items():
        code = b"".join(path.read_bytes() for path in sorted((ROOT / "mnf_lite" / part).glob("*.py")))
        as_it_is = f"{part} as it is, {sha256(code).hexdigest()[:12]}"
        if done.get(as_it_is) != "survived":
            done[as_it_is] = outcome(None, [f"tests/package/{name}.py" for name in names])
            if done[as_it_is] != "survived":
                sys.exit(f"Without any slip the tests of {part} are red: {done[as_it_is]}")
    for number, slip in enumerate(sample, 1):
        if key(slip) not in done:
            done[key(slip)] = try_out(slip)
            args.progress.write_text(json.dumps(done, indent=1), encoding="utf-8")
            where, was, now = slip.lines()
            print(  # noqa: T201
                f"{number} of {len(sample)}  {where}  {was}  →  {now}  {done[key(slip)]}", flush=True
            )
    settings = {"sample": args.sample, "seed": args.seed, "slips in all": len(slips), "operators": OPERATORS}
    keep(done, sample, key, settings)
    survived = [slip for slip in sample if done[key(slip)] == "survived"]
    print(  # noqa: T201
        f"{1 - len(survived) / len(sample):.1%} of {len(sample)} slips are noticed, see {RESULT}"
    )


if __name__ == "__main__":
    main()
