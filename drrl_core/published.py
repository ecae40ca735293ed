"""The paper's numbers, and what became of them and of its claims here.

`table` gives Tables 1 to 4 as tidy rows.
"""

from pathlib import Path

import pandas as pd

TABLES = {
    1: ("table1_weight_skew.csv",),
    2: ("table2_overall.csv", "table2_improvement.csv"),
    3: ("table3_ablation.csv",),
    4: ("table4_temporal_shift.csv",),
}
COLUMNS = ("dataset", "backbone", "loss", "metric", "value", "significant")


def table(number: int) -> pd.DataFrame:
    """A table of the paper, one row a number.

    Args:
        number: 1 weight skew, 2 overall comparison with its improvements, 3 ablation, 4 temporal
            shift.

    Returns:
        dataset, as `datasets.names` has it; backbone, "not stated" where it is not; loss, as
        printed; metric: k1 and k2 (over the mean weight), recall@20, ndcg@20; value; significant.
        In the rows of Table 2 whose loss is "Imp.%", value is DrRL's gain over the best baseline
        in percent, and significant its star (p < 0.05).

    Raises:
        ValueError: the paper has no such table.

    Example:
        >>> table(1).iloc[0].to_dict()
        {'dataset': 'gowalla', 'backbone': 'not stated', 'loss': 'SL', 'metric': 'k1',
         'value': 187.85, 'significant': False}
    """
    if number not in TABLES:
        raise ValueError(f"the paper has tables 1 to 4, not {number!r}")
    parts = []
    for name in TABLES[number]:
        part = pd.read_csv(folder() / name)
        if "percent" in part:
            part = part.assign(loss="Imp.%").rename(columns={"percent": "value"})
        else:
            ids = [name for name in COLUMNS if name in part]
            part = part.melt(ids, var_name="metric").assign(significant=False)
        parts.append(part.assign(backbone=part.get("backbone", "not stated")))
    return pd.concat(parts, ignore_index=True)[[*COLUMNS]]


def folder() -> Path:
    """Beside the package in a wheel, in `data/` in a checkout."""
    packaged = Path(__file__).with_name("tables")
    return packaged if packaged.is_dir() else packaged.parents[1] / "data" / "published"
