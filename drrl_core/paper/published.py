"""The numbers as the paper prints them: Tables 1 to 4, a row a number."""

import pandas as pd

from drrl_core.common import own_file

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
        dataset, named as in `datasets.names`; backbone, "not stated" where the paper states none;
        loss, as printed; metric: recall@20, ndcg@20, or k1 and k2 (over the mean weight); value;
        significant. Rows of Table 2 with the loss "Imp.%" have DrRL's gain over the best baseline
        in percent, and as significant the star that the paper prints (p < 0.05).

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
        part = pd.read_csv(own_file("tables", "published") / name)
        if "percent" in part:
            part = part.assign(loss="Imp.%").rename(columns={"percent": "value"})
        else:
            ids = [name for name in COLUMNS if name in part]
            part = part.melt(ids, var_name="metric").assign(significant=False)
        parts.append(part.assign(backbone=part.get("backbone", "not stated")))
    return pd.concat(parts, ignore_index=True)[[*COLUMNS]]
