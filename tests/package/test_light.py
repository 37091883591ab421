"""The package installed alone, from a wheel, needs only what flows, layers, fit and predict import."""

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from flit_core import buildapi

ROOT = Path(__file__).resolve().parents[2]
IMPORTED_AS = {"scikit-learn": "sklearn", "pillow": "PIL"}
BLOCK = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
USE = """
import torch
from torch.utils.data import TensorDataset
import mnf_lite
from mnf_lite import data, fit, flows, layers, models, predict

assert mnf_lite.__file__.startswith({folder!r}), mnf_lite.__file__
x = data.moons(64)
density = flows.NormalizingFlow(flows.Compose([flows.AffineCoupling(2, k % 2) for k in range(2)]))
density.log_prob(x).mean().backward()
model = models.MNFMLP([2, 4, 1])
history = fit(model, TensorDataset(x, x[:, :1] * 2), epochs=1, progress=False)
assert predict(model, x, n_samples=3).shape == (3, 64, 1)
assert layers.kl_divergence(model) > 0
assert len(history.loss) == 1
print("used")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder / buildapi.build_wheel(str(folder))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with what the wheel holds, as pip unpacks it."""
    ZipFile(wheel).extractall(wheel.parent / "installed")
    return wheel.parent / "installed"


@pytest.fixture(scope="module")
def needed(wheel: Path) -> dict[str, set[str]]:
    """The names under which the libraries are imported that each extra brings, and the package alone."""
    metadata = next(name for name in ZipFile(wheel).namelist() if name.endswith("METADATA"))
    found: dict[str, set[str]] = {}
    for line in re.findall(r"^Requires-Dist: (.+)$", ZipFile(wheel).read(metadata).decode(), re.M):
        name = re.match(r"[\w.-]+", line)[0].lower()
        extra = re.search(r"extra == ['\"](\w+)", line)
        found.setdefault(extra[1] if extra else "alone", set()).add(IMPORTED_AS.get(name, name))
    return found


def python(program: str, folder: Path, absent: set[str]) -> subprocess.CompletedProcess[str]:
    """Run a program that finds the package in a folder and none of these libraries."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(absent=absent) + program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def others(needed: dict[str, set[str]]) -> set[str]:
    """What an installation of the package alone does not bring, as far as this project uses it."""
    return {"pandas", "scipy", "torchmetrics"}.union(*needed.values()) - needed["alone"] - {"mnf_lite"}


def test_package_alone_needs_four_libraries(needed: dict[str, set[str]]) -> None:
    assert needed["alone"] == {"numpy", "safetensors", "torch", "tqdm"}
    assert needed["data"] == {"PIL", "sklearn", "torchvision"}
    assert needed["plots"] == {"PIL", "ipywidgets", "matplotlib", "seaborn"}


def test_flows_layers_fit_and_predict_run_on_these_alone(
    installed: Path, needed: dict[str, set[str]]
) -> None:
    done = python(USE.format(folder=str(installed)), installed, others(needed))
    assert (done.returncode, done.stdout, done.stderr) == (0, "used\n", "")


WITHOUT = {
    "import mnf_lite.plots": ("matplotlib", "plots"),
    "import mnf_lite.widgets": ("matplotlib", "plots"),
    "import mnf_lite.__main__": ("Pillow", "data"),
    "data.digits('test')": ("scikit-learn", "data"),
    "data._read_idx('read_image_file', 'file')": ("torchvision", "data"),
    "metrics.auroc(torch.zeros(3), torch.ones(3))": ("scikit-learn", "data"),
}


@pytest.fixture(scope="module")
def answers(installed: Path, needed: dict[str, set[str]]) -> list[str]:
    """What each of these says where its libraries are missing."""
    lines = ["import torch", "from mnf_lite import data, metrics"]
    for statement in WITHOUT:
        lines += ["try:", f"    {statement}", "except ModuleNotFoundError as error:", "    print(error)"]
    done = python("\n".join(lines), installed, others(needed))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("statement", "said"), list(enumerate(WITHOUT.values())), ids=list(WITHOUT))
def test_what_is_missing_is_named_with_the_extra_that_brings_it(
    answers: list[str], statement: int, said: tuple[str, str]
) -> None:
    library, extra = said
    end = f"needs {library}, which is not installed; run: pip install 'mnf_lite[{extra}]'"
    assert answers[statement].endswith(end)
