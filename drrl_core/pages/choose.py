"""The page that `drrl choose` leaves: a recommendation, the table it is from, and what it cost."""

import html
import math
from base64 import b64encode
from pathlib import Path

import pandas as pd

from drrl_core.common import write_whole
from drrl_core.lab import choose
from drrl_core.lab.run import ACCURACY
from drrl_core.show import figures, style

WORDS = {
    "model": "model",
    "b": "b",
    "valid_ndcg@20_b": "valid NDCG@20 with b",
    "behind": "behind the best (95% interval)",
    "test_recall@20_b": "test Recall@20 with b",
    "test_ndcg@20_b": "test NDCG@20 with b",
    "test_ndcg@20": "without b",
    "seconds": "seconds a training",
    "trials": "trainings",
    "coverage_b": "covers",
    "mean_popularity_b": "popular",
    "gini_b": "Gini",
    "command": "to train it again",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
.said { background: #eef3fa; border-left: 5px solid #3B6EA8; padding: .6rem 1rem }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0 } .wide { overflow-x: auto }
td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: right }
td { white-space: nowrap }
td:first-child, th:first-child, td:last-child, th:last-child { text-align: left }
tr.chosen td { background: #eef3fa; font-weight: 600 }
code { font-size: .85rem; font-weight: 400 }
img { max-width: 100% }
"""


def _cells(row: pd.Series, dataset: str) -> dict[str, str]:
    """A row's cells, HTML."""

    def number(name: str, digits: int) -> str:
        return "–" if pd.isna(row[name]) else f"{row[name]:.{digits}f}"

    behind = "leads"
    if row["behind"]:
        behind = f"{row['behind']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
        behind += ", level" if row["level"] else ""
    kept = {name: number(name, 4) for name in WORDS if "@" in name}
    return kept | {
        "model": html.escape(style.label(row["model"])),
        "behind": behind,
        "seconds": number("seconds", 1),
        "trials": f"{row['trials']}",
        "b": number("b", 1),
        "coverage_b": number("coverage_b", 2),
        "mean_popularity_b": number("mean_popularity_b", 0),
        "gini_b": number("gini_b", 2),
        "command": f"<code>{html.escape(choose.command(row, dataset))}</code>",
    }


def page(choice: choose.Choice, dataset: str) -> str:
    """A choice as an HTML page that needs no network.

    Args:
        choice: what came of choosing.
        dataset: what the data were loaded by.
    """
    data, lines = choice.data, []
    for _, row in choice.table.iterrows():
        cells = _cells(row, dataset)
        mark = ' class="chosen"' if row["model"] == choice.chosen else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cells[name]}</td>' for name in WORDS)}</tr>")
    head = "".join(f"<th>{words}</th>" for words in WORDS.values())
    drawn = ""
    if len(choice.table):
        points = choice.table.set_index("model").rename(columns={"test_ndcg@20_b": "ndcg@20"})
        points = points[["seconds", "ndcg@20"]].assign(low=math.nan, high=math.nan)
        image = style.png(figures.accuracy_by_cost(points, title="What accuracy costs"))
        words = "Test NDCG@20 with b against seconds of one training, a mark a model"
        drawn = f'<img alt="{words}" src="data:image/png;base64,{b64encode(image).decode()}">'
    name = style.label(choice.chosen) if choice.chosen else "nothing yet"
    absent = [
        f"<li>{html.escape(style.label(each))}: {html.escape(why)}</li>"
        for each, why in choice.missing.items()
    ]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(data.name)}: which model?</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style>
<h1>{html.escape(data.name)}: which model?</h1>
<p class="said"><b>Recommended: {html.escape(name)}.</b> {html.escape(choice.reason)}</p>
<p>{data.n_users:,} users, {data.n_items:,} items; {data.train.nnz:,} pairs to learn from,
{data.valid.nnz:,} to choose by, {data.test.nnz:,} to report on. {choice.spent:.1f} of
{choice.minutes:g} minutes. Each model is searched in rounds, up to {choose.ROUNDS[-1]} trials; its
best training on valid stands here. The choice is made on valid alone: of the models whose
difference from the best is within chance (paired bootstrap over users), the cheapest. Chance in
training is not in the interval.</p>
<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>
<p><i>With b</i>: popularity is put back when ranking, at b, chosen on valid for each model, which
costs no training; the lists are those with b. <i>covers</i>: share of the catalogue in the test
users' 20 best; <i>popular</i>: mean train pairs of an item there; <i>Gini</i>: how unequally items
share the places, 0 to 1.</p>
{drawn}
{f"<h2>Not in the table</h2><ul>{''.join(absent)}</ul>" if absent else ""}
<p>The same command goes on from here, with more minutes.</p></html>
"""


def write(choice: choose.Choice, dataset: str, folder: Path) -> tuple[Path, Path]:
    """Write the page, `choose.html`, and its table, `choose.csv`; returns both paths."""
    paths = folder / "choose.html", folder / "choose.csv"
    write_whole(paths[0], page(choice, dataset).encode())
    write_whole(paths[1], choice.table.to_csv(index=False).encode())
    return paths


def lines(choice: choose.Choice) -> str:
    """The table as text, and the recommendation.

    >>> from drrl_core import datasets
    >>> import pandas as pd
    >>> none = pd.DataFrame(columns=list(choose.COLUMNS))
    >>> lines(choose.Choice(datasets.load("synthetic"), none, None, "Nothing.", {}, 1, 0.1))
    'recommended: nothing yet. Nothing.'
    """
    said = f"recommended: {choice.chosen or 'nothing yet'}. {choice.reason}"
    if not len(choice.table):
        return said
    shown = ["model", "trials", "seconds", "b", "valid_ndcg@20_b", "behind", "low", "high"]
    shown += [f"test_{name}_b" for name in ACCURACY]
    return choice.table[shown].round(4).to_string(index=False) + "\n" + said
