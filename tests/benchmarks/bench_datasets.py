"""Own files read: seconds and memory beside other readers, and a fuzz; `--rows`, `--fuzz`.

Each reader has a process of its own, in turns, so that one's memory is not another's. All of them
read user and item as text and number them; ours and RecBole's also check, split and count. RecBole
1.2 wants NumPy 1 and pandas 2, so it has an environment of its own: `--recbole ITS_PYTHON`.
"""

import argparse
import csv
import io
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

TIMED = """
import re, sys, time, warnings
warnings.simplefilter("ignore")
path, name = sys.argv[1:]
sys.argv[1:] = []
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
if name.startswith("ours"):
    from drrl_core import datasets as module
elif name == "polars":
    import polars as pl
elif name == "recbole":
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
else:
    import pandas as pd
before, start = peak(), time.perf_counter()
if name.startswith("ours"):
    module.load(path + "?split=time" * ("time" in name))
elif name == "polars":
    table = pl.read_csv(path, separator="\\t", infer_schema=False, columns=[0, 1])
    table = table.with_columns(pl.all().cast(pl.Categorical))
elif name == "recbole":
    folder, _, last = path.rpartition("/")
    options = {
        "data_path": folder.rpartition("/")[0],
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO"},
    }
    config = Config(model="BPR", dataset=last.partition(".")[0], config_dict=options)
    data_preparation(config, create_dataset(config))
else:
    options = {"engine": "pyarrow"} if name == "pandas, pyarrow" else {"na_filter": False}
    names = ["user_id:token", "item_id:token"]
    table = pd.read_csv(path, sep="\\t", dtype=str, usecols=names, **options)
    codes = [pd.factorize(table[column])[0] for column in table]
print(f"{time.perf_counter() - start:8.1f} s {peak() - before:8.0f} MB")
"""


def bench(rows: int, rounds: int, recbole: str | None) -> None:
    """Print a line a reader and round, on a file as large as MovieLens 20M at 20 million rows."""
    rng = np.random.default_rng(0)
    readers = {name: sys.executable for name in ("ours", "ours, by time", "pandas")}
    readers |= {name: sys.executable for name in ("pandas, pyarrow", "polars")}
    readers |= {"recbole": recbole} if recbole else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ratings", "ratings.inter")
        path.parent.mkdir()
        with path.open("w") as file:
            file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
            for start in range(0, rows, 1_000_000):
                n = min(1_000_000, rows - start)
                # No user may have all items, as RecBole refuses such.
                users = (138_493 * rng.random(n) ** 1.5).astype(int)
                items = rng.integers(0, 26_744, n)
                stars, times = rng.integers(1, 11, n) / 2, rng.integers(10**9, 2 * 10**9, n)
                lines = zip(users, items, stars, times, strict=True)
                file.writelines(f"{u}\t{i}\t{s}\t{t}\n" for u, i, s, t in lines)
        print(f"{rows:,} rows, {path.stat().st_size >> 20} MiB")
        for _ in range(rounds):
            for name, python in readers.items():
                command = [python, "-c", TIMED, str(path), name]
                done = subprocess.run(command, capture_output=True, text=True)
                said = done.stdout.strip().splitlines() if not done.returncode else []
                print(f"{name:<16}{said[-1] if said else done.stderr.strip()[-200:]}", flush=True)


PAIRS = [(u, i) for u in range(6) for i in range(8) if (u + i) % 3]
FILES = {
    "x.csv": ("user,item,n\n", lambda u, i, n: f"u{u},i{i},{n}"),
    "x.tsv": ("user\titem\ttitle\n", lambda u, i, n: f"u{u}\ti{i}\tT {n}"),
    "y.csv": ("", lambda u, i, n: f"u{u},i{i},{n % 5},{n}"),
    "x.txt": ("", lambda u, i, n: f"{u} {i}"),
    "z.csv": ("user;item\n", lambda u, i, n: f'"u{u}";"i{i}"'),
    "x.dat": ("", lambda u, i, n: f"{u}::{i}::4::{n}"),
    "x.inter": ("user_id:token\titem_id:token\tt:float\n", lambda u, i, n: f"{u}\t i{i} \t{n}"),
    "w.csv": ("# made by hand\nwhen;item;user\n", lambda u, i, n: f"4,{n};i{i};u{u}"),
    "x.json": ("", lambda u, i, n: f'{{"user": "u{u}", "by": {{"n": {n}}}, "item": {i}}}'),
}
BITS = [
    '"',
    "'",
    *",;\t|-#%u9é \n\r\0\f\xa0\u2028",
    "\r\n",
    "::",
    "\n\n",
    '""',
    "NULL",
    "NA",
    "nan",
]


def mutated(rng: random.Random) -> tuple[str, str]:
    """A file's name and a text with one to three faults."""
    name = rng.choice([*FILES])
    header, line = FILES[name]
    text = header + "".join(line(u, i, n) + "\n" for n, (u, i) in enumerate(PAIRS))
    for _ in range(rng.randrange(1, 4)):
        at, to = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        text = rng.choice(
            [
                text[:at] + rng.choice(BITS) + text[at:],
                text[:at] + text[at + rng.randrange(1, 6) :],
                text[:at] + text[at:to][:30] + text[at:],
                text[:at] + rng.choice(BITS) + text[at + 1 :],
            ]
        )
    return name, text


def read_plainly(text: str, report: dict) -> tuple[int, set]:
    """Rows and pairs of a text by the csv module or by splitting, in the layout reported."""
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if report["format"] == "JSON":
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        names = [report["columns"][key]["name"] for key in ("user", "item")]
        return len(rows), {tuple(str(row[name]).strip() for name in names) for row in rows}
    if report["format"] != "table":
        lines = [line.split() for line in text.split("\n") if line.split()]
        return report["rows"], {(str(int(u)), str(int(i))) for u, *items in lines for i in items}
    sep = report["separator"]
    if len(sep) > 1:
        text, sep = text.replace(sep, "\x1f"), "\x1f"
    quoted = (report["quotes"] or "").startswith("enclose")
    if quoted and sep == " ":
        cell = re.compile(r'"((?:[^"]|"")*)"(?=[ \t]|$)|([^ \t]+)')
        each = (cell.findall(line) for line in text.split("\n"))
        rows = [[inner.replace('""', '"') or plain for inner, plain in found] for found in each]
    elif quoted:
        edge = re.escape(sep)
        text = re.sub(rf'(?m)(?:^|(?<={edge}))[ \t]+(?=")|(?<=")[ \t]+(?={edge}|$)', "", text)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=sep))
    else:
        rows = [line.split() if sep == " " else line.split(sep) for line in text.split("\n")]
    rows = [row for row in rows if len(row) > 1 or "".join(row).strip(" ")]
    if report["comment lines"]:  # they count as such at the top alone
        rows = list(itertools.dropwhile(lambda row: row[0][:1] in ("#", "%"), rows))
    rows = rows[report["header"] :]
    places = [report["columns"][key]["position"] for key in ("user", "item")]
    return len(rows), {tuple(row[place].strip() for place in places) for row in rows}


def fuzz(count: int, seed: int) -> None:
    """Print how many mutated files were accepted, read wrongly, or refused unclearly."""
    from drrl_core.datasets import DataError, load

    rng, found = random.Random(seed), {"accepted": 0, "wrong": 0, "unclear": 0}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        for _ in range(count):
            name, text = mutated(rng)
            path = Path(folder, name)
            path.write_bytes(text.encode())
            try:
                data = load(path)
            except DataError as error:
                named = str(error).startswith(str(path)) and re.search(r"line \d|: is ", str(error))
                if not named:
                    found["unclear"] += 1
                    print(f"unclear: {text!r}\n  {error}")
                continue
            found["accepted"] += 1
            ids = [
                range(n) if own is None else own.tolist()
                for n, own in ((data.n_users, data.user_ids), (data.n_items, data.item_ids))
            ]
            every = (data.train + data.valid + data.test).nonzero()
            pairs = {(str(ids[0][u]), str(ids[1][i])) for u, i in zip(*every, strict=True)}
            report = data.report["files"][0]
            if read_plainly(text, report) != (report["rows"], pairs):
                found["wrong"] += 1
                print(f"wrong: {text!r}\n  {report}")
    print(f"{count:,} mutated files, seed {seed}:", found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=0, help="time files of so many rows")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--recbole", help="the Python that has RecBole, if any")
    parser.add_argument("--fuzz", type=int, default=0, help="so many mutated files")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.rows:
        bench(given.rows, given.rounds, given.recbole)
    if given.fuzz:
        fuzz(given.fuzz, given.seed)
