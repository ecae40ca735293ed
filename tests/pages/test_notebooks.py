"""The notebooks themselves: their anatomy, and each executed on tiny parameters."""

import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml

from drrl_core import dro
from drrl_core.lab import recommend
from drrl_core.pages import lesson, runner
from drrl_core.show import live

SHELF = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
TINY = yaml.safe_load((Path(__file__).parents[1] / "tiny.yaml").read_text())


@pytest.mark.parametrize("path", SHELF, ids=lambda path: path.stem)
def test_anatomy(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    title = cells[0].source.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?"), "a notebook opens with a question"
    assert cells[0].source.count("\n- ") == 3, "three bullets: you will see"
    assert len(code) <= 25
    assert statistics.median(len(cell.source.splitlines()) for cell in code) <= 8
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert any("assert" in cell.source for cell in code), "the concept by hand, checked"
    assert "<details>" in "".join(cell.source for cell in cells), "exercises with folded answers"
    assert sum("thumbnail" in cell.metadata.get("tags", []) for cell in code) == 1, "for its card"
    for parameter in runner.parameters(path).values():
        assert parameter.help, f"{parameter.name} says what it is"


@pytest.mark.parametrize("path", SHELF, ids=lambda path: path.stem)
def test_runs_on_tiny_parameters(path, tmp_path):
    assert path.stem in TINY, "tests/tiny.yaml has a line for every notebook"
    tiny = TINY[path.stem] or {}
    record = runner.run(path.stem, out_dir=tmp_path, parameters=tiny, progress=False)
    assert record["status"] == "done" and record["results"]
    written = json.loads((tmp_path / f"{path.stem}.json").read_text())
    assert written["status"] == "done" and tiny.items() <= written["parameters"].items()
    page = (tmp_path / f"{path.stem}.html").read_text()
    assert "<math" in page and page.count("<script") == page.count("startInPage(shown, ")
    executed = nbformat.read(tmp_path / f"{path.stem}.ipynb", as_version=4)
    outputs = [out for cell in executed.cells for out in cell.get("outputs", [])]
    assert not any("widget-view" in str(out.get("data", {}).keys()) for out in outputs)
    assert not any(out.get("name") == "stderr" and "Warning" in out.text for out in outputs)
    explorers = [out.data[live.MIME] for out in outputs if live.MIME in out.get("data", {})]
    assert explorers and "view" in runner.parameters(path)
    for shown in explorers:  # the line for papermill is there, and all can be told apart
        assert shown["state"]["data"]["notebook"], f"{shown['name']} takes view=view"
    assert len({shown["name"] for shown in explorers}) == len(explorers)
    assert not re.search("<img (?![^>]*alt=)", page) and "No description" not in page
    for picture in tmp_path.glob("*.png"):
        assert picture.with_suffix(".svg").is_file(), f"{picture.name} is there for slides too"


def test_start_here_records_what_it_shows(tmp_path):
    parameters = TINY["00_start_here"] | {"losses": ["sl", "bpr"], "seed": 3}
    record = runner.run("00", out_dir=tmp_path, parameters=parameters, html=False, progress=False)
    results = record["results"]
    assert list(results["runs"]) == ["sl", "bpr"]
    for run in results["runs"].values():
        assert run["seed"] == 3 and run["dataset"] == "synthetic" and run["best_epoch"] == 2
        assert run["parameters"]["train"]["negatives"] == 8
        assert all(0 < run[split][m] < 1 for split in ("valid", "test") for m in run["test"])
    for seen in results["attention"].values():
        assert seen["k1"] >= 1 and 0 <= seen["truncated"] <= 1 and math.isfinite(seen["k2"])
    assert results["attention"]["sl"]["truncated"] == 0
    for name in ("learning_curves", "metrics_by_loss", "weights"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_start_here_by_the_bare_papermill_command(tmp_path):
    source, target = SHELF[0], tmp_path / "executed.ipynb"
    options = ["-p", "epochs", "1", "-p", "dim", "4", "-p", "out_dir", str(tmp_path)]
    command = [sys.executable, "-m", "papermill", str(source), str(target), *options]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, timeout=300)
    text = target.read_text()
    assert "image/png" in text and "application/vnd.jupyter.widget-view" not in text
    assert (tmp_path / "results.json").is_file()


def test_your_data_from_a_file_to_exported_lists_by_one_parameter(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = tmp_path / "films.tsv"
    pairs = [(f"{u:03}", f"NA {i}", 1 + (u + i) % 5) for u in range(40) for i in rng.choice(60, 12)]
    path.write_text("\n".join(["who\twhat\tstars", *(f"{u}\t{i}\t{r}" for u, i, r in pairs)]))
    monkeypatch.chdir(tmp_path)  # the path is as one would type it, the kernel works elsewhere
    options = "films.tsv?user=who&item=what&rating=stars&min_rating=2"
    parameters = TINY["10_your_data"] | {"dataset": options, "k": 5}
    record = runner.run(
        "10", out_dir=tmp_path / "out", parameters=parameters, html=False, progress=False
    )
    results = record["results"]
    liked = {(u, i) for u, i, stars in pairs if stars >= 2}
    dropped = results["dropped"]
    assert dropped["rated below min_rating"] == sum(stars < 2 for *_, stars in pairs)
    assert sum(dropped.values()) + len(liked) == len(pairs)
    assert {run["dataset"] for run in results["runs"].values()} == {options}
    assert results["checks"]["recall@20 by chance"] == [
        pytest.approx(20 / len({i for _, i in liked})),
        True,
    ]

    # What was exported reads back under the file's own ids, and recommends as the vectors do.
    folder = tmp_path / "out"
    table = recommend.read_table(folder / results["files"]["recommendations"])
    assert {*table["user"]} == {u for u, _ in liked} and {*table["item"]} <= {i for _, i in liked}
    assert (table.groupby("user")["rank"].agg(list).map(lambda r: r == [1, 2, 3, 4, 5])).all()
    users, items = (
        recommend.read_table(folder / results["files"][side]).set_index("id").T
        for side in ("users", "items")
    )
    scores = [users[row.user] @ items[row.item] for row in table.itertuples()]
    np.testing.assert_allclose(scores, table["score"], atol=1e-5)
    assert table.groupby("user")["score"].apply(lambda s: s.is_monotonic_decreasing).all()


@pytest.mark.data
def test_your_data_walks_a_public_file_where_the_data_folder_has_it(tmp_path):
    from drrl_core import datasets

    if not (datasets.data_folder() / "movielens-latest-small").is_dir():
        pytest.skip("real data not found: set DRRL_DATA to where movielens-latest-small/ is")
    record = runner.run(
        "10", out_dir=tmp_path, parameters=TINY["10_your_data"], html=False, progress=False
    )
    used = {run["dataset"] for run in record["results"]["runs"].values()}
    assert used == {"movielens-latest-small?min_rating=4&k_core=10"}
    page = (tmp_path / "10_your_data.ipynb").read_text()
    assert "100,837 = 1 header lines + 100,836 rows" in page and "(1999)" in page  # titles


@pytest.mark.slow
@pytest.mark.data
def test_start_here_on_real_data_by_one_parameter(tmp_path):
    from drrl_core import datasets

    if not (datasets.data_folder() / "amazon-beauty").is_dir():
        pytest.skip("real data not found: set DRRL_DATA to the folder that holds amazon-beauty/")
    parameters = TINY["00_start_here"] | {"dataset": "amazon-beauty"}
    record = runner.run("00", out_dir=tmp_path, parameters=parameters, html=False, progress=False)
    assert {run["dataset"] for run in record["results"]["runs"].values()} == {"amazon-beauty"}


def test_a_lesson_needs_what_was_executed(tmp_path):
    with pytest.raises(ValueError, match=r"no .*00_start_here.*drrl notebooks 00 --out"):
        lesson.page(tmp_path)


def numbers(text: str) -> tuple[str, list[float]]:
    """A text without its numbers, and these."""
    pattern = r"\d+(?:\.\d+)?(?:e-?\d+)?"
    return re.sub(pattern, "#", text), [float(each) for each in re.findall(pattern, text)]


@pytest.mark.slow
def test_the_lesson_s_numbers_are_those_of_the_notebooks_as_they_are_committed(tmp_path):
    for name in ("00_start_here", "02_one_family"):
        runner.run(name, out_dir=tmp_path / name, html=False, progress=False)
    words, found = numbers(lesson.page(tmp_path))
    committed, known = numbers((runner.folder() / "TEACHING.md").read_text())
    assert words == committed, "drrl lesson"
    np.testing.assert_allclose(known, found, rtol=0.02)  # trained models: last digits may differ


def test_the_lesson_s_table_is_the_solver_s_and_its_links_lead_somewhere():
    page = runner.folder() / "TEACHING.md"
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / target).is_file(), target
    scores = torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, 2000))  # as in 01
    for name, order in (("SL", 1), ("DrRL", 2), ("CCL", math.inf)):
        worst = dro.worst_case(scores, order=order, radius=1.0)
        row = [f"{float(worst.value):.4g}", f"{float(worst.k1):.4g}"]
        row += [f"{float(share):.1%}" for share in (worst.truncated, worst.effective_share)]
        assert f"| {' | '.join([name, *row])} |" in text
