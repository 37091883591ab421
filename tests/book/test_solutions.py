"""The page of solutions names every exercise of the book, and nothing else."""

import re

from tools import chapters

EXERCISE = re.compile(r"^```\{exercise\} (.+)\n:label: (\S+)$", re.M)
SOLUTION = re.compile(r"^`{3,}\{solution(?:-start)?\} (\S+)\n:label: (\S+)$", re.M)


def test_every_exercise_has_a_title_and_a_solution_and_stands_on_the_page() -> None:
    page = (chapters.BOOK / "appendix" / "solutions.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \{ref\}`(.+) <(\S+)>`, \{ref\}`solution <(\S+)>`$", page, re.M)
    assert len(listed) == page.count("\n- ")
    written = []
    for path in chapters.text_notebooks():
        text = path.read_text(encoding="utf-8")
        exercises, solutions = EXERCISE.findall(text), dict(SOLUTION.findall(text))
        assert len(exercises) == text.count("```{exercise}") == len(solutions), path.name
        written += [(title, label, solutions[label]) for title, label in exercises]
    assert sorted(listed) == sorted(written)
