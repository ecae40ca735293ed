"""Whose split it is: the table of others' numbers, and what the page of the data says of it."""

import re
from pathlib import Path

import pandas as pd
import pytest

from drrl_core import datasets

ROOT = Path(__file__).parents[2]
TABLE = pd.read_csv(ROOT / "data" / "published" / "provenance.csv")


def test_each_number_has_a_place_and_a_protocol():
    assert {*TABLE["dataset"]} <= {*datasets.names()}
    assert TABLE.drop(columns="ndcg@20").notna().all(axis=None)
    assert TABLE["source"].str.contains(r"@[0-9a-f]{40}:").all()
    assert TABLE["recall@20"].between(0, 1).all()
    assert not TABLE.duplicated().any()
    assert {each.split(",")[0].split(" ")[0] for each in TABLE["comparable"]} == {
        *("yes", "no", "with")
    }


def test_the_page_has_the_best_of_each_protocol():
    page = (ROOT / "data" / "README.md").read_text()
    for (name, who, protocol), own in TABLE.groupby(["dataset", "used_by", "protocol"]):
        best = own.sort_values(["recall@20", "ndcg@20"], ascending=False).iloc[0]
        (line,) = [
            each
            for each in page.splitlines()
            if each.startswith(f"| `{name}` | {who} |") and f"| {protocol} |" in each
        ]
        ndcg = "–" if pd.isna(best["ndcg@20"]) else f"{best['ndcg@20']:.4f}"[1:]
        wanted = f"| {best['model']}, {best['loss']}: {best['recall@20']:.4f}".replace(" 0.", " .")
        assert f"{wanted} / {ndcg} |" in line
        assert best["split"] in line and best["comparable"] in line.replace("`", "")


def test_it_is_shown_where_a_data_set_is_looked_up():
    lines = datasets.told("amazon-electronics")
    assert lines[0].startswith("IR-Benchmark") and "yes, but for valid" in lines[2]
    assert re.match(r"  0\.0903 / 0\.0591  LightGCN, SL@20  \[", lines[3])
    assert datasets.told("amazon-kitchen") == [] and datasets.others("synthetic").empty


@pytest.mark.parametrize("name", ["amazon-beauty", "amazon-kitchen"])
def test_the_command_shows_it(name, capsys):
    from drrl_core import cli_data

    cli_data.data_info(name)
    assert ("others' numbers" in capsys.readouterr().out) == (name == "amazon-beauty")
