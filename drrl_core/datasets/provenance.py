"""Whose split a named data set is: who else prints numbers for it, by what protocol."""

import pandas as pd

from drrl_core.common import own_file


def others(name: str) -> pd.DataFrame:
    """What others print for a named data set, as they print it, and whether it compares with ours.

    Args:
        name: one of `names()`; of others there is no row.

    Returns:
        A row a number: used_by, split (theirs beside ours), protocol, comparable ("yes ...",
        "with --refit train+valid ..." or "no"), model, loss, recall@20, ndcg@20 (NaN: not printed),
        source (repository, commit, place). Table: data/published/provenance.csv.

    >>> others("amazon-beauty")["comparable"].str.split(",").str[0].unique().tolist()
    ['with --refit train+valid', 'no']
    """
    table = pd.read_csv(own_file("tables", "published") / "provenance.csv")
    return table[table["dataset"] == name].drop(columns="dataset").reset_index(drop=True)


def told(name: str, *, most: int = 3) -> list[str]:
    """`others` in lines of text: each split and protocol, and its best numbers.

    Args:
        name: as in `others`.
        most: numbers a protocol, the highest Recall first.

    >>> told("amazon-beauty", most=1)[0]
    'BGCF, SimpleX (AmazonBeauty_m1): the same pairs, by checksum'
    """
    lines = []
    for (who, split, protocol, comparable), own in others(name).groupby(
        ["used_by", "split", "protocol", "comparable"], sort=False
    ):
        best = own.sort_values(["recall@20", "ndcg@20"], ascending=False)
        lines += [f"{who}: {split}", f"  protocol: {protocol}", f"  comparable: {comparable}"]
        for _, row in best.head(most).iterrows():
            ndcg = "–" if pd.isna(row["ndcg@20"]) else f"{row['ndcg@20']:.4f}"
            what = f"{row['model']}, {row['loss']}"
            lines.append(f"  {row['recall@20']:.4f} / {ndcg}  {what}  [{row['source']}]")
        if (more := len(own) - most) > 0:
            lines.append(f"  and {more} more in provenance.csv")
    return lines
