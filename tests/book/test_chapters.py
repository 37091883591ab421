"""Every chapter that uses MNIST or a relative also runs where there is neither data nor a network.

With the real data the chapters are run by nbval, which compares their checked outputs: see conftest.py.
"""

from pathlib import Path

import pytest

from tools import chapters

CHAPTERS = [text for text in chapters.text_notebooks() if chapters.asks_for_real_data(text)]
NO_WAY_OUT = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.mark.parametrize("text", CHAPTERS, ids=chapters.name_of)
def test_chapter_runs_on_digits_and_says_so(text: Path, tmp_path: Path) -> None:
    notebook = chapters.run(
        text, {**NO_WAY_OUT, "no_proxy": "", "NO_PROXY": "", "MNF_LITE_DATA": str(tmp_path)}
    )
    shown = [
        str(output.get("text", "")) + str(output.get("data", {}).get("text/markdown", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert "scikit-learn" in "".join(shown), (
        f"{chapters.name_of(text)} does not say on the page that it used digits"
    )
