"""The appendix API names everything public in mnf_lite, nothing that is not there, and its examples run."""

import builtins
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

import mnf_lite
from mnf_lite import __main__ as cli
from mnf_lite import layers

APPENDIX = Path(__file__).resolve().parents[2] / "book" / "appendix"
FIRST, PAGES = APPENDIX / "api.md", sorted((APPENDIX / "api").glob("*.md"))
TEXT = {page.stem: page.read_text(encoding="utf-8") for page in (FIRST, *PAGES)}
MODULES = [
    "mnf_lite",
    *(f"mnf_lite.{m.name}" for m in pkgutil.iter_modules(mnf_lite.__path__) if m.name[0] != "_"),
]


def documented() -> list[str]:
    """The full names that the directives of the pages describe."""
    names = []
    for block in re.findall(
        r"^\.\. (?:autoclass|autofunction|py:data):: (.+?)(?=\n\n|\n```)",
        "\n".join(TEXT.values()),
        re.M | re.S,
    ):
        listed, *options = re.split(r"\n   :", block)
        module = [
            option.removeprefix("module: ") + "." for option in options if option.startswith("module: ")
        ]
        names += ["".join(module) + name.removesuffix("()") for name in listed.split()]
    return names


def public(module: ModuleType) -> list[str]:
    """What a module offers: its ``__all__``, else the functions and classes that it defines."""
    own = [
        name
        for name, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == module.__name__
    ]
    return list(getattr(module, "__all__", [name for name in own if name[0] != "_"]))


def table(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose first column has this head."""
    lines = TEXT[page].split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(words: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", words)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_stands_on_a_page(name: str) -> None:
    module = pkgutil.resolve_name(name)
    there = {id(pkgutil.resolve_name(path)) for path in documented()}
    assert public(module), f"{name} offers nothing: should its name begin with an underscore?"
    assert [path for path in public(module) if id(getattr(module, path)) not in there] == []


def test_pages_describe_nothing_twice_and_nothing_that_is_not_there() -> None:
    things = [pkgutil.resolve_name(name) for name in documented()]  # fails where there is no such name
    assert len(things) > 80
    assert len({id(thing) for thing in things}) == len(things)


def test_links_and_class_names_in_the_words_lead_to_what_is_described() -> None:
    names = documented()
    for page, text in TEXT.items():
        targets = re.findall(r"\{py:obj\}`(?:[^`<]*<)?([\w.]+)>?`", text)
        assert set(targets) <= set(names), page
        classes = re.findall(r"`(?:\w+\.)*([A-Z][a-z]?[A-Z]*[a-z]\w*)(?:\(.*?\))?`", text)
        known = {name.split(".")[-1] for name in names} | {*dir(nn), *dir(builtins), "TensorDataset"}
        assert set(classes) <= known, page


def test_first_page_leads_to_every_other() -> None:
    assert {f"api/{page.stem}" for page in PAGES} == set(re.findall(r"\{doc\}`(api/\w+)`", TEXT["api"]))


@pytest.mark.parametrize("layer", [layers.MNFLinear(2, 3), layers.MNFConv2d(2, 3, 1)], ids=["dense", "conv"])
def test_table_holds_the_parameters_of_an_mnf_layer(layer: nn.Module) -> None:
    listed = [name for row in table("layers", "name") for name in code(row[0])]
    own = [name for name, _ in (*layer.named_parameters(recurse=False), *layer.named_children())]
    assert sorted(listed) == sorted(own)


@pytest.mark.parametrize(
    ("head", "commands"),
    [
        ("option of `train`", {"train": ["--model", "lenet", "--out", "run"]}),
        ("option of `evaluate` and `predict`", {"evaluate": ["run"], "predict": ["run", "picture.png"]}),
    ],
    ids=["train", "evaluate-predict"],
)
def test_tables_hold_the_options_and_defaults_of_the_command_line(
    head: str, commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {code(option)[0]: default for option, _, default in table("api", head)}
    for command in commands:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
    assert set(rows) == set(re.findall(r"--[a-z-]+", capsys.readouterr().out.replace("--out named", ""))) - {
        "--help"
    }
    for command, needed in commands.items():
        for option, value in vars(cli._parser().parse_args([command, *needed])).items():
            flag = f"--{option.replace('_', '-')}"
            if flag in rows and flag not in needed and value not in (None, False):
                assert rows[flag].strip("`") == str(value), f"{command} {flag}"


def test_examples_run_and_give_what_they_say() -> None:
    there: dict[str, object] = {}
    shapes = []
    for example in re.findall(r"```python\n(.*?)```", TEXT["api"], re.S):
        exec(example, there)
        for name, value, shape in re.findall(r"^(?:(\w+) = )?(.+?)  # (\[[\d, ]+\])", example, re.M):
            shapes.append((list(eval(name or value, there).shape), shape))
    assert len(shapes) == 3
    assert all(str(came) == said for came, said in shapes), shapes
