"""The comparison of chapters can fail, and `make processors` says in one sentence what does."""

import shutil

import pytest

from tools import chapters, processors

CHAPTER = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Small

```{code-cell} ipython3
:tags: [nbval-check-output]

import math

def log_density(x):
    return -0.5 * x**2 - 0.5 * math.log(2 * math.pi)

print(f"{log_density(1.0):.3f}")
```

```{code-cell} ipython3
draws = [0.5, -1.0, 2.0]
assert abs(sum(math.exp(log_density(k / 100)) for k in range(-900, 900)) / 100 - 1) < 1e-6
```

```{code-cell} ipython3
:tags: [nbval-check-output]

print(f"{len(draws)} draws: {sum(draws) / 3:.2f}")
```
"""
# What a cell holds, what a slip makes of it, and what is then said of the chapter.
FAULTS = {
    "constant": ("log(2 * math.pi)", "log(3 * math.pi)", "cell 2: '-1.419' is stored, '-1.622' came"),
    "sign": ("return -0.5", "return 0.5", "cell 2: '-1.419' is stored, '-0.419' came"),
    "doubled": ("-1.0, 2.0]", "-1.0, 4.0]", "cell 4: '3 draws: 0.50' is stored, '3 draws: 1.17' came"),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> processors.Outcome:
    """What one run says of a right chapter, three with a planted fault each, and one test."""
    root = tmp_path_factory.mktemp("book")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(chapters.ROOT / name, root)
    (root / "test_one.py").write_text("def test_one() -> None:\n    pass\n")
    text = root / "right.md"
    text.write_text(CHAPTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(chapters.ROOT))
        patch.setattr(chapters, "ROOT", root)
        patch.setattr(chapters, "BOOK", root)
        twins = [chapters.execute(text)]
        for name, (before, after, _) in FAULTS.items():
            twins.append(root / f"{name}.ipynb")
            assert twins[0].read_text().count(before) == 1
            twins[-1].write_text(twins[0].read_text().replace(before, after))
            (root / f"{name}.md").write_text(CHAPTER.replace(before, after))
        return processors.run("machine", twins, ["test_one.py"], workers=1)


def test_right_chapter_is_green(outcome: processors.Outcome) -> None:
    assert [said for said in outcome.differences if "right.md" in said] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_turns_red_and_is_named_in_one_sentence(
    outcome: processors.Outcome, fault: str
) -> None:
    said = next(said for said in outcome.differences if f"{fault}.md" in said)
    assert f"{fault}.md, {FAULTS[fault][2]}. Round it to what survives, then run: make execute" in said
    assert said.endswith(f"{fault}.md")


def test_assertion_that_no_longer_holds_turns_red_too(outcome: processors.Outcome) -> None:
    assert any("constant.md, cell 3: fails with AssertionError. Mend" in said for said in outcome.differences)


def test_table_counts_chapters_cells_tests_and_differences(outcome: processors.Outcome) -> None:
    counts = (outcome.chapters, outcome.compared, outcome.tests, len(outcome.differences))
    assert counts == (4, 8, 1, 5)  # the wrong constant and the sign fail an assertion besides
    assert outcome.row().split()[:5] == ["machine", "4", "8", "1", "5"]


def test_unknown_setting_is_answered_with_the_known_ones() -> None:
    words = r"No setting 'arm'\. There are: machine, plain, avx2, two-threads\."
    with pytest.raises(processors.SettingError, match=words):
        processors.environment("arm")


def test_setting_that_the_machine_cannot_emulate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(processors.EFFECT, "plain", ("ALTIVEC", "1"))
    words = r"cannot emulate 'plain': PyTorch answers DEFAULT, not ALTIVEC\."
    with pytest.raises(processors.SettingError, match=words):
        processors.environment("plain")


def test_setting_reaches_the_kernel_over_the_one_thread_of_chapters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chapters.kernel_environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("MNF_LITE_PROCESSOR", "two-threads")
    assert chapters.kernel_environment()["OMP_NUM_THREADS"] == "2"
    assert chapters.kernel_environment()["PYTHONHASHSEED"] == "0"
    monkeypatch.setenv("MNF_LITE_PROCESSOR", "plain")
    assert chapters.kernel_environment()["ATEN_CPU_CAPABILITY"] == "default"
