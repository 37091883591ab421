"""The book as one PDF: two of its pages, joined as `make pdf` joins all."""

from pathlib import Path

from pypdf import PdfReader

from tests.book.test_pages import book  # noqa: F401
from tools import pdf


def test_two_pages_have_contents_bookmarks_and_numbers(book: Path, tmp_path: Path) -> None:  # noqa: F811
    chosen = ("book/appendix/glossary", "book/appendix/bibliography")
    lines = [line for line in pdf.lines_of_contents() if line[1] in chosen]
    made = PdfReader(pdf.make(lines, tmp_path / "book.pdf"))
    texts = [page.extract_text() for page in made.pages]
    first = {
        title: next(number for number, text in enumerate(texts[1:], 2) if text.lstrip().startswith(title))
        for title in ("Glossary", "Bibliography")
    }
    listed = texts[0].split("Appendix")[1].split()
    for title, number in first.items():
        assert listed[listed.index(title) + 1] == str(number), "the contents name another page"
    for number, text in enumerate(texts, 1):
        assert text.rstrip().endswith(str(number)), "the number at the foot"
    marks = [mark for mark in made.outline if not isinstance(mark, list)]
    assert [mark.title for mark in marks] == ["Contents", "Glossary", "Bibliography"]
    assert [made.get_destination_page_number(mark) + 1 for mark in marks] == [1, *first.values()]
    links = [note.get_object() for page in made.pages for note in page.get("/Annots", [])]
    addresses = [str(link.get("/A", {}).get("/URI", "")) for link in links]
    assert not any(address.split("#")[0].endswith(f"{chosen[0]}.html") for address in addresses)


def test_contents_are_those_of_the_book() -> None:
    names = [name for _, name, _ in pdf.lines_of_contents()]
    assert names[0] == "book/00_preface"
    assert "book/appendix/api/flows" in names
    assert len(names) == len(set(names))
