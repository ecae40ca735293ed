"""What to look at before training: usual faults of a data set, and how far popularity drifts."""

import numpy as np
import pandas as pd

from .interactions import Interactions


def checks(data: Interactions) -> pd.DataFrame:
    """What makes models useless on one's own data, looked for one by one.

    Returns:
        A row a check: found, a count or a share (dimensionless); look, whether that is worth a
        look, by a rule of thumb; then, what follows from it, and the way out.

    >>> from drrl_core.datasets import load
    >>> checks(load("synthetic"))["look"].any()
    np.False_
    """
    table = _of_held_out_pairs(data) | _of_train_pairs(data)
    names = ("found", "look", "then")
    found = pd.DataFrame.from_dict(table, orient="index", columns=names).rename_axis("check")
    return found.astype({"found": float, "look": bool})


Check = tuple[float, bool, str]


def _of_held_out_pairs(data: Interactions) -> dict[str, Check]:
    """Found, worth a look, what then: of valid and test."""
    users = np.diff(data.train.indptr) > 0
    items = np.bincount(data.train.indices, minlength=data.n_items) > 0
    user, item = np.hstack([data.valid.nonzero(), data.test.nonzero()])
    total = max(1, len(user))
    cold_users, cold_items = (~users[user]).sum() / total, (~items[item]).sum() / total
    return {
        "valid pairs": (
            *(data.valid.nnz, not data.valid.nnz),
            "none: nothing to choose by; larger fractions",
        ),
        "test pairs": (
            *(data.test.nnz, not data.test.nnz),
            "none: accuracy cannot be told; larger fractions",
        ),
        "held-out pairs whose user has no train pair, share": (
            *(cold_users, cold_users > 0.02),
            "such a user is ranked at random; split='random' keeps one pair to train",
        ),
        "held-out pairs whose item has no train pair, share": (
            *(cold_items, cold_items > 0.02),
            "such an item is never found, and recall stays below 1 by so much; k_core=5",
        ),
    }


def _of_train_pairs(data: Interactions) -> dict[str, Check]:
    """Found, worth a look, what then: of train, and of the rows that were read."""
    degree = np.diff(data.train.indptr)
    fame = np.bincount(data.train.indices, minlength=data.n_items)
    empty = float((degree == 0).mean())
    known = degree[degree > 0] if degree.any() else np.zeros(1)
    top = np.sort(fame)[::-1][: max(1, data.n_items // 100)].sum() / max(1, fame.sum())
    gone = data.dropped or {}
    kept = data.train.nnz + data.valid.nnz + data.test.nnz
    repeated, rows = gone.get("repeated", 0), sum(gone.values()) + kept
    return {
        "users without train pairs, share": (
            *(empty, empty > 0.1),
            "ids with gaps, or another column: format='table' takes ids for labels",
        ),
        "median train pairs of the others": (
            *(float(np.median(known)), bool(np.median(known) < 5)),
            "little to learn from; k_core=5, or a lower min_rating",
        ),
        "recall@20 by chance": (
            *(min(1.0, 20 / data.n_items), data.n_items < 100),
            "so few items make any ranking look good, or are a column of ratings: say item=",
        ),
        "most train pairs of a user, share of all items": (
            *(degree.max() / data.n_items, degree.max() > data.n_items / 2),
            f"a robot, or a test account? User {data.user_id(int(degree.argmax()))!r} has hardly "
            f"any negatives: max_pairs={data.n_items // 2} drops it",
        ),
        "share of train pairs on the 1% most popular items": (
            *(top, top > 0.5),
            "ranking by popularity is hard to beat: show it beside every loss",
        ),
        "rows that repeat a pair, share": (
            *(repeated / max(1, rows), repeated > 0.1 * rows),
            "each counts once; if many, is it the right column?",
        ),
    }


def account(data: Interactions) -> list[str]:
    """What was found out of one's own file and done with it, a line a fact; empty for other sets.

    Lines and rows add up: lines = header + comments + blank + inside quoted cells + rows, and
    rows = kept + dropped.

    >>> from drrl_core.datasets import load
    >>> account(load("synthetic"))
    []
    """
    said: list[str] = []
    for each in (report := data.report or {"files": []})["files"]:
        told = {key: value for key, value in each.items() if key in _LAYOUT}
        layout = "".join(
            f", {key} {value!r}" if isinstance(value, str) else f", {key}"
            for key, value in told.items()
            if value not in (False, None)
        )
        said.append(f"file: {each.get('file', 'in memory')}: {each['format']}{layout}")
        places = each.get("columns", {}).items()
        if columns := [f"{key} {at['name']!r} ({at['position']})" for key, at in places]:
            said.append(f"columns by name and position: {', '.join(columns)}")
        own = [key for key in _LINES if each.get(key) and not (key == "rows" and "lists" in each)]
        parts = [f"{each[key]:,} {key}" for key in own]
        if unread := each.get("columns not read"):
            said.append(f"columns not looked at: {', '.join(map(str, unread))}")
        if "lines" in each:
            said.append(f"lines: {each['lines']:,} = {' + '.join(parts)}")
        if padded := each.get("cells with blanks around"):
            said.append(f"blanks taken off distinct cells: {padded}")
        if (rated := each.get("ratings", {})) is None:
            said.append("ratings: not all are numbers, so they are not looked at")
        elif rated:
            said.append(
                f"ratings: {rated['from']:g} to {rated['to']:g}, {rated['not above 0']:,} not "
                "above 0; all count as liked that min_rating= does not drop"
            )
    if data.report:
        gone = [f"{report['kept']:,} kept"]
        gone += [f"{count:,} {why}" for why, count in (data.dropped or {}).items() if count]
        said.append(f"rows: {report['rows']:,} = {' + '.join(gone)}")
        holds = ", ".join(f"{count:,} {what}" for what, count in report["holds"].items())
        said.append(f"holds, before any filter: {holds}")
        if published := report.get("published"):
            differ = "; ".join(published["differences"]) or "the same"
            said.append(f"published ({published['source']}): {differ}")
        said.append(f"split: {report['split']}")
    return said


_LAYOUT = ("separator", "quotes", "line of an open quote", "encoding", "header", "decimal", "dates")
_LINES = (
    "header lines",
    "comment lines",
    "blank lines",
    "lines inside quoted cells",
    "rows",
    "lists",
)


def shift(data: Interactions, *, split: str = "test", draws: int = 20) -> dict[str, float]:
    """How far the items' popularity has moved from train to a split that was held out.

    Popularity is an item's share of a split's pairs. Two samples of one distribution differ, too:
    by_chance is the distance where train and split are pooled and dealt anew, in the same sizes.

    Args:
        split: "valid" or "test".
        draws: how many times they are dealt anew, at least 1.

    Returns:
        distance, the total variation ½ Σ |p - q|, in [0, 1]: the share of the split's pairs that
        would have to go to other items; by_chance, its mean over the draws; kept, the share of the
        split's pairs that lie with the tenth of the items most popular in train, over the same
        share in train (1: the same). NaN where a split is empty.

    >>> from drrl_core.datasets import load
    >>> found = shift(load("synthetic"))
    >>> abs(found["distance"] - found["by_chance"]) < 0.01
    True
    """
    sizes = [data.train.nnz, getattr(data, split).nnz]
    pairs = np.concatenate([data.train.indices, getattr(data, split).indices])
    if not min(sizes):
        return dict.fromkeys(("distance", "by_chance", "kept"), float("nan"))

    def popularity(items: np.ndarray) -> list[np.ndarray]:
        parts = np.split(items, sizes[:1])
        return [np.bincount(part, minlength=data.n_items) / len(part) for part in parts]

    def distance(items: np.ndarray) -> float:
        before, after = popularity(items)
        return float(np.abs(before - after).sum() / 2)

    rng, (before, after) = np.random.default_rng(0), popularity(pairs)
    top = np.argsort(-before, kind="stable")[: max(1, data.n_items // 10)]
    return {
        "distance": distance(pairs),
        "by_chance": float(np.mean([distance(rng.permutation(pairs)) for _ in range(draws)])),
        "kept": float(after[top].sum() / before[top].sum()),
    }
