"""The map in the Preface leads to every page of the book."""

import re

import yaml

from tools import chapters


def test_preface_names_every_page_of_the_table_of_contents() -> None:
    toc = yaml.safe_load((chapters.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    wanted = {re.sub(r"^book/|\.(md|ipynb)$", "", page) for page in pages}
    preface = (chapters.BOOK / "00_preface.md").read_text(encoding="utf-8")
    table = preface.split("## The way through the book")[1].split("\n## ")[0]
    missing = wanted - set(re.findall(r"\{doc\}`([^`]+)`", table))
    assert not missing, (
        f"the map of book/00_preface.md lacks {sorted(missing)}: give each a row, then run "
        "make execute CHAPTER=book/00_preface.md"
    )
