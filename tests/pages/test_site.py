"""The site: what the cards say, that every page and link is there, and nothing from elsewhere."""

import json
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from test_html import PIXEL, executed

import drrl_core
from drrl_core.pages import site

ROOT = Path(__file__).parents[2]


def shelf(home, picture=PIXEL):
    """What `run_all` leaves: one notebook that ran, one that failed, one refused."""
    about = {"parameters": {"dataset": "synthetic"}, "finished": "2026-11-25T01:02:03+00:00"}
    fault = {"where": "in cell [4], `1 / 0`", "error": "ZeroDivisionError: <zero>"}
    records = {
        "00_good": about | {"status": "done", "seconds": 31.4},
        "01_bad": about | {"status": "failed", "seconds": 2} | fault,
        "02_refused": {"status": "failed", "seconds": 0} | fault,
    }
    for name, record in records.items():
        path = home / name / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"notebook": name} | record))
        (path.parent / "results.json").write_text("{}")
        if name != "02_refused":
            executed(path.with_suffix(".ipynb"), picture=picture)
    return home


def test_a_card_says_how_its_notebook_went(tmp_path):
    site.lessons(shelf(tmp_path / "executed"), tmp_path / "lessons")
    files = {path.name for path in (tmp_path / "lessons").iterdir()}
    pages = {"00_good.ipynb", "00_good.png", "01_bad.ipynb", "01_bad.png"}
    assert files == {"index.md", *pages}
    text = (tmp_path / "lessons" / "index.md").read_text()
    good, bad, refused = re.findall(r"^:::{.*?^:::$", text, re.DOTALL | re.MULTILINE)
    assert "00 Which negatives count, at c = 1?" in good and ":link: 00_good\n" in good
    assert ":img-top: 00_good.png" in good and "31 s · synthetic" in good
    assert ":link: 01_bad\n" in bad and "**failed**" in bad and "in cell [4], `1 / 0`" in bad
    assert "ZeroDivisionError: <zero>" in bad
    assert "02_refused" in refused and ":link:" not in refused and "**failed**" in refused


def test_the_tagged_cell_gives_the_thumbnail():
    def cell(png, **metadata):
        return new_code_cell(
            "", outputs=[new_output("display_data", data={"image/png": png})], metadata=metadata
        )

    cells = [cell("Zmlyc3Q="), cell("Y2hvc2Vu", tags=["thumbnail"])]
    cells[1].outputs[0].metadata = {"image/png": {"alt": "what is seen"}}
    assert site.thumbnail(new_notebook(cells=cells)) == (b"chosen", "what is seen")
    assert site.thumbnail(new_notebook(cells=cells[:1])) == (b"first", "")


def test_the_path_of_the_output_stays_private(tmp_path):
    path = executed(tmp_path / "00_a" / "00_a.ipynb")
    notebook = nbformat.read(path, as_version=4)
    source = '# Parameters\nepochs = 5\nout_dir = "/home/somebody/out"'
    cell = new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    nbformat.write(new_notebook(cells=[cell, *notebook.cells]), path)
    record = {"status": "done", "seconds": 1, "parameters": {}}
    path.with_suffix(".json").write_text(json.dumps(record))
    site.lessons(tmp_path, tmp_path / "lessons")
    text = (tmp_path / "lessons" / "00_a.ipynb").read_text()
    assert "epochs = 5" in text and "somebody" not in text


def test_no_site_of_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"no executed notebooks in .*make notebooks"):
        site.build(tmp_path, tmp_path / "site", root=tmp_path)


@pytest.mark.slow
def test_every_link_leads_to_a_page_and_nothing_comes_from_elsewhere(built):
    pages = {path: path.read_text(encoding="utf-8") for path in built.rglob("*.html")}
    assert len(pages) > 40
    for path, text in pages.items():
        text = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", r"<\1>", text, flags=re.DOTALL)
        for tag, link in re.findall(r"<(\w+)\b[^>]*?\s(?:href|src)=\"([^\"]*)\"", text):
            elsewhere = re.match(r"(https?:)?//|mailto:", link)
            assert not (elsewhere and tag != "a"), f"{path}: {link}"
            target, anchor = urldefrag(link)
            if elsewhere or link.startswith("data:"):
                continue
            file = path.parent / unquote(target.split("?")[0]) if target else path
            assert file.is_file(), f"{path}: {link}"
            if anchor and file in pages:
                assert f'id="{unquote(anchor)}"' in pages[file], f"{path}: {link}"


@pytest.mark.slow
def test_every_public_name_and_notebook_has_its_place(built):
    reference = "".join(path.read_text() for path in (built / "api").glob("*.html"))
    reference += (built / "reference.html").read_text()
    for name in drrl_core.__all__:
        home, own = drrl_core._HOMES[name]
        assert re.search(rf'id="drrl_core\.[\w.]*\b{own}"', reference), f"{home}.{own}"
    cards = (built / "lessons" / "index.html").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f'href="{path.stem}.html"' in cards
