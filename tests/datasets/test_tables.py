"""Every set loads as it should, and whatever cannot be read says where and what to do."""

import csv
import errno
import gzip
import hashlib
import inspect
import io
import json
import math
import os
import pickle
import re
import shutil
import threading
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import svds

from drrl_core import datasets
from drrl_core.datasets import DataError, Interactions, load

# The counts the public sets are known by, typed here a second time.
PUBLIC = {
    "amazon-beauty": (7_068, 3_570, 51_455, 9_363, 18_688),
    "amazon-kitchen": (51_552, 23_158, 265_611, 58_405, 103_728),
    "amazon-electronics": (13_455, 8_360, 159_418, 22_980, 52_123),
    "gowalla": (29_858, 40_981, 716_648, 93_480, 217_242),
    "amazon-electronics-temporal": (13_455, 8_360, 140_712, 31_904, 24_668),
}


def real_data(folder: str) -> Path:
    """The folder with the real files, or a skip that says what is missing."""
    root = Path(os.environ.get("DRRL_DATA") or "nowhere")
    if not (root / folder).is_dir():
        pytest.skip(f"real data not found: set DRRL_DATA to the folder that holds {folder}/ …")
    return root


def pairs_of(data: Interactions, *keys: str) -> set:
    """The pairs of the named splits (all, if none is named), by label where there are labels."""
    users = range(data.n_users) if data.user_ids is None else data.user_ids.tolist()
    items = range(data.n_items) if data.item_ids is None else data.item_ids.tolist()
    rows = [getattr(data, key).tocoo() for key in keys or datasets.SPLITS]
    return {(users[u], items[i]) for m in rows for u, i in zip(m.row, m.col, strict=True)}


def quiet(*args, **kwargs) -> Interactions:
    """Load, not minding users and items without train pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load(*args, **kwargs)


# ---------------------------------------------------------------------------- Interactions


def small(**changes) -> Interactions:
    splits = {
        "train": [[1, 1, 0], [0, 0, 0]],
        "valid": [[0, 0, 1], [0, 0, 0]],
        "test": [[0, 0, 0], [1, 0, 0]],
    }
    splits = {key: sparse.csr_array(rows) for key, rows in splits.items()}
    return Interactions("small", 2, 3, **splits | changes)


def test_interactions_are_immutable():
    data = load("synthetic")
    with pytest.raises(FrozenInstanceError):
        data.n_users = 3
    for split in (data.train, data.valid, data.test):
        for array in (split.data, split.indices, split.indptr):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        data.truth[0, 0] = True


def test_splits_are_canonical_copies():
    rows, columns = np.array([0, 0, 0, 1]), np.array([2, 0, 2, 1])
    given_matrix = sparse.coo_array((np.array([3, 1, 1, 0]), (rows, columns)), shape=(2, 3))
    data = small(train=given_matrix)
    assert data.train.indices.tolist() == [0, 2] and data.train.data.tolist() == [1, 1]
    assert data.train.indptr.tolist() == [0, 2, 2] and data.train.has_canonical_format
    assert data.train.dtype == np.float32 and data.train.indices.dtype == np.int64
    assert given_matrix.nnz == 4


def test_read_only_splits_serve_the_usual_operations():
    train = load("synthetic").train
    assert (train @ np.ones(800)).sum() == train.nnz == (train.T @ train).trace()
    assert train[[3, 5]].sum() == train[[3]].sum() + train[[5]].sum()
    assert (train.toarray() == train.tocsc().tocoo().toarray()).all()
    assert (train + train).max() == 2 and train.multiply(train).nnz == train.nnz
    copy = pickle.loads(pickle.dumps(load("synthetic")))
    assert copy.hash == load("synthetic").hash


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"valid has shape \(3, 3\)"):
        small(valid=sparse.csr_array((3, 3)))
    with pytest.raises(ValueError, match="user_ids has shape"):
        small(user_ids=np.arange(3))


def test_hash_tells_content_and_nothing_else():
    data = small()
    narrow = sparse.csr_array(data.train)
    narrow.indices, narrow.indptr = (a.astype(np.int32) for a in (narrow.indices, narrow.indptr))
    assert replace(data, train=narrow, name="other").hash == data.hash
    assert replace(data, valid=data.test, test=data.valid).hash != data.hash
    assert replace(data, train=data.valid).hash != data.hash
    expected = hashlib.sha256(np.array([2, 3, 0, 2, 2, 0, 1, 0, 1, 1, 2, 0, 0, 1, 0], "<i8"))
    assert data.hash == expected.hexdigest()


def test_stats():
    table = small().stats()["small"]
    assert table["train pairs"] == 2 and table["valid pairs"] == table["test pairs"] == 1
    assert table["density"] == 4 / 6 and table["median train pairs a user"] == 1
    assert table["users without train pairs"] == 1 and table["items without train pairs"] == 1


# ---------------------------------------------------------------------------- synthetic


def ndcg_at_20(score: np.ndarray, data: Interactions) -> float:
    score = np.where(data.train.toarray() > 0, -np.inf, score)
    hits = np.take_along_axis(data.test.toarray(), np.argsort(-score, axis=1)[:, :20], axis=1)
    discount = 1 / np.log2(np.arange(2, 22))
    wanted = np.minimum(np.diff(data.test.indptr), 20)
    ideal = np.concatenate([[0], np.cumsum(discount)])[wanted]
    return float(((hits @ discount)[wanted > 0] / ideal[wanted > 0]).mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synthetic_is_as_documented(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load("synthetic", seed=seed)
    splits = [getattr(data, key).toarray() > 0 for key in datasets.SPLITS]
    assert sum(split.astype(int) for split in splits).max() == 1  # disjoint
    seen = np.any(splits, axis=0)
    assert (data.truth >= seen).all()
    assert 0.06 < data.truth.mean() < 0.09 and 0.5 < 1 - seen.sum() / data.truth.sum() < 0.65
    each = seen.sum(1)
    assert np.median(each) > 20 and each.max() <= 42 and 10 < (each < 15).sum() < 90
    assert np.allclose([s.sum() / seen.sum() for s in splits], (0.7, 0.1, 0.2), atol=0.01)
    popularity = np.sort(data.train.sum(axis=0))
    assert popularity[0] >= 1 and popularity[-80:].sum() > 0.35 * popularity.sum()  # skewed


@pytest.mark.parametrize("seed", [0, 1])
def test_synthetic_can_be_learned_but_not_solved(seed):
    data = load("synthetic", seed=seed)
    left, values, right = svds(data.train.astype(float), k=10, random_state=0)
    popularity = np.tile(data.train.sum(axis=0), (data.n_users, 1))
    assert 2 * ndcg_at_20(popularity, data) < ndcg_at_20(left * values @ right, data) < 0.5


def test_synthetic_is_pinned():
    """Another hash is another data set: results on it no longer compare with earlier ones."""
    assert load("synthetic").hash.startswith("3729ab8db0414491")
    assert load("synthetic", seed=7).hash.startswith("3589b3c2bcd3d571")


# ---------------------------------------------------------------------------- public sets


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLIC)
def test_public_counts(name):
    root = real_data(name)
    data = quiet(name, data_dir=root)
    splits = [getattr(data, key) for key in datasets.SPLITS]
    assert (data.n_users, data.n_items, *(split.nnz for split in splits)) == PUBLIC[name]
    assert (splits[0] + splits[1] + splits[2]).max() == 1  # disjoint
    known = datasets.describe(name, data_dir=root)
    assert tuple(known[key] for key in ("users", "items", *datasets.SPLITS)) == PUBLIC[name]
    assert all(file["present"] for file in known["files"])
    assert abs(sum(file["bytes"] for file in known["files"]) / 1e6 - known["megabytes"]) < 0.06


@pytest.mark.data
def test_public_set_with_gaps_warns_once():
    root = real_data("amazon-beauty")
    with pytest.warns(UserWarning, match="0 of 7,068 users and 3 of 3,570 items") as caught:
        data = load("amazon-beauty", data_dir=root)
    assert len(caught) == 1
    assert data.stats().loc["items without train pairs", "amazon-beauty"] == 3
    assert data.hash.startswith("a1bb306bc64c65e7")


@pytest.mark.data
def test_temporal_pairs_are_those_of_electronics():
    root = real_data("amazon-electronics-temporal")
    later, usual = (quiet(f"amazon-electronics{x}", data_dir=root) for x in ("-temporal", ""))
    everything = usual.train + usual.valid + usual.test
    assert (later.train + later.valid + later.test - everything).max() == 0
    assert np.diff(later.train.indptr)[np.unique(later.valid.tocoo().row)].min() > 0


@pytest.mark.data
@pytest.mark.parametrize("split", ["random", "time"])
def test_movielens_as_your_own_file(tmp_path, split):
    root = real_data("movielens-latest-small")
    with zipfile.ZipFile(root / "movielens-latest-small" / "ml-latest-small.zip") as archive:
        (tmp_path / "ratings.csv").write_bytes(archive.read("ml-latest-small/ratings.csv"))
    data = quiet(tmp_path / "ratings.csv", split=split)
    assert (data.n_users, data.n_items) == (610, 9_724)
    if split == "random":
        assert len(pairs_of(data)) == 100_836
        assert abs(data.train.nnz / 100_836 - 0.8) < 0.005
    assert data.user_ids.dtype == np.int64 and data.item_ids[0] == 1


def test_registry_and_sets_agree():
    registry = datasets._registry(None)
    used = {key for name in datasets.names() for key in datasets._SETS[name].files}
    assert used == set(registry.registry)
    for key in used:
        assert re.fullmatch("sha256:[0-9a-f]{64}", registry.registry[key])
        assert re.match(
            r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", registry.get_url(key)
        )


def test_names_and_descriptions():
    assert datasets.names() == ["synthetic", *PUBLIC]
    for name in datasets.names():
        json.dumps(datasets.describe(name))
    with pytest.raises(DataError, match="Did you mean 'amazon-beauty'"):
        load("amazon-beuty")
    with pytest.raises(DataError, match=r"unknown data set 'xyz'\. Known are synthetic"):
        datasets.fetch("xyz")
    with pytest.raises(DataError, match="unknown"):
        datasets.describe("gowala")
    with pytest.raises(TypeError, match="takes no split"):
        load("gowalla", split="time")


def test_data_folder_order(monkeypatch, tmp_path):
    monkeypatch.setenv("DRRL_DATA", str(tmp_path))
    assert datasets.data_folder("here") == Path("here")
    assert datasets.data_folder() == tmp_path
    monkeypatch.setenv("DRRL_DATA", "")
    checkout = Path(datasets.__file__).parents[2]
    if not (Path(datasets.__file__).parents[1] / "registry.txt").exists():
        assert datasets.data_folder() == checkout / "data" / "downloads"
    wheel = tmp_path / "drrl_core"
    wheel.mkdir()
    (wheel / "registry.txt").touch()
    monkeypatch.setattr(datasets, "__file__", str(wheel / "datasets" / "tables.py"))
    assert datasets._registry_file() == wheel / "registry.txt"
    assert datasets.data_folder() == pooch.os_cache("drrl")


# ---------------------------------------------------------------------------- downloads

FILES = {
    "mini/train_data.txt": b"0 0\n0 1\n1 2\n",
    "mini/valid_data.txt": b"1 1\n",
    "mini/test.txt": b"1 0\n",
}


class Mini:
    """A three-file set on a local server, its data folder, and switches to spoil either."""

    def __init__(self, folder: Path, monkeypatch):
        self.served, self.data, self.asked = folder / "served", folder / "data", []
        self.files, self.cut, self.monkeypatch = dict(FILES), 0, monkeypatch
        mini = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                mini.asked.append(self.path)

            def copyfile(self, source, output):
                content = source.read()
                output.write(content[: len(content) - mini.cut])  # fewer bytes than announced

        handler = partial(Handler, directory=self.served)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()
        self.root = f"http://127.0.0.1:{self.server.server_port}/"
        self.registry = folder / "registry.txt"
        self.publish()
        source = replace(
            datasets._SETS["amazon-beauty"],
            shape=(2, 3),
            pairs=(3, 1, 1),
            about="a mini set",
            files=tuple(FILES),
        )
        monkeypatch.setitem(datasets._SETS, "mini", source)
        monkeypatch.setattr(datasets, "_registry_file", lambda: self.registry)
        monkeypatch.setenv("DRRL_DATA", str(self.data))
        monkeypatch.delenv("DRRL_OFFLINE", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def publish(self, **changes) -> None:
        """Serve the files and register them, `changes` by file name without suffix."""
        lines = []
        for key in self.files:
            content = changes.get(Path(key).stem, self.files[key])
            path = self.served / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            lines.append(f"{key} sha256:{hashlib.sha256(content).hexdigest()} {self.root}{key}")
        self.registry.write_text("# comment\n" + "\n".join(lines) + "\n")

    def left(self) -> list[str]:
        return sorted(p.name for p in self.data.rglob("*") if p.is_file())


@pytest.fixture
def mini(tmp_path, monkeypatch):
    mini = Mini(tmp_path, monkeypatch)
    yield mini
    mini.server.shutdown()
    mini.server.server_close()


def test_download_once(mini, capsys):
    data = load("mini")
    assert (data.train.nnz, data.valid.nnz, data.test.nnz) == (3, 1, 1)
    said = capsys.readouterr().err
    assert said.count("Terms: ") == 1 and "McAuley" in said and "100%" in said
    assert mini.left() == ["test.txt", "train_data.txt", "valid_data.txt"] and len(mini.asked) == 3
    assert load("mini").hash == data.hash
    assert capsys.readouterr().err == "" and len(mini.asked) == 3


def test_several_at_once(mini):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: load("mini").hash, range(4)))
    assert len(set(results)) == 1
    assert mini.left() == ["test.txt", "train_data.txt", "valid_data.txt"]
    assert {path.stat().st_mode & 0o777 for path in datasets.fetch("mini")} == {0o644}


def test_only_what_is_missing_is_downloaded(mini):
    datasets.fetch("mini")
    (mini.data / "mini" / "test.txt").unlink()
    assert [path.name for path in datasets.fetch("mini")][2] == "test.txt"
    assert mini.asked[3:] == ["/mini/test.txt"]


def test_read_only_folder_and_data_dir(mini, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(mini.served, elsewhere)
    for path in (elsewhere / "mini", elsewhere):
        path.chmod(0o555)
    try:
        load("mini", data_dir=elsewhere)
    finally:
        (elsewhere / "mini").chmod(0o755)
        elsewhere.chmod(0o755)
    assert mini.asked == [] and mini.left() == []
    assert sorted(p.name for p in elsewhere.rglob("*")) == [
        "mini",
        *map(lambda key: Path(key).name, sorted(FILES)),
    ]


def test_another_file_of_that_name_is_never_overwritten(mini):
    path = mini.data / "mini" / "valid_data.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    right, mine = (hashlib.sha256(x).hexdigest() for x in (FILES["mini/valid_data.txt"], b"mine"))
    with pytest.raises(DataError, match=f"{path}.*{mine}.*{right}.*Delete or rename"):
        load("mini")
    assert path.read_bytes() == b"mine"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{path}: .*Mend its permissions"):
        load("mini")


def test_offline(mini, capsys):
    mini.monkeypatch.setenv("DRRL_OFFLINE", "1")
    path, url = mini.data / "mini" / "train_data.txt", mini.root + "mini/train_data.txt"
    with pytest.raises(DataError) as caught:
        load("mini")
    assert all(x in str(caught.value) for x in (str(path), url, "DRRL_OFFLINE", "--data-dir"))
    assert capsys.readouterr().err == "" and mini.asked == [] and not mini.data.exists()
    mini.monkeypatch.setenv("DRRL_OFFLINE", "0")
    load("mini")
    mini.monkeypatch.setenv("DRRL_OFFLINE", "yes")
    load("mini")  # all there: nothing to download


def refused(mini):
    mini.server.shutdown()
    mini.server.server_close()
    return "refused"


def not_found(mini):
    (mini.served / "mini" / "train_data.txt").unlink()
    return "404"


def other_content(mini):
    (mini.served / "mini" / "train_data.txt").write_bytes(b"0 1\n")
    return "SHA256 hash"


def cut_short(mini):
    mini.cut = 5
    return "cannot be brought"


def no_disk(mini):
    def full(self, url, output_file, pooch, check_only=False):
        Path(output_file).write_bytes(b"0 0")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    mini.monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    return "No space left"


def no_folder(mini):
    mini.data.write_bytes(b"a file, not a folder")
    return "Not a directory|File exists"


SPOILT = [refused, not_found, other_content, cut_short, no_disk, no_folder]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_failed_download_leaves_nothing(mini, spoil):
    problem = spoil(mini)
    with pytest.raises(DataError, match=problem) as caught:
        load("mini")
    said = str(caught.value)
    assert mini.root + "mini/train_data.txt" in said and str(mini.data / "mini") in said
    assert "DRRL_DATA" in said and mini.left() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"valid_data": b"0 1\n"}, "user 0, item 1 is in more than one split"),
        ({"valid_data": b"0 2\n\n0 3\n"}, "valid_data.txt, line 3: an id is too large"),
        ({"test": b""}, "test.txt, line 1: the file is empty"),
        ({"test": b"0 1\n0\n"}, "test.txt, line 2: expected two fields, .* not 1"),
    ],
)
def test_bad_content_of_a_named_set(mini, changes, problem):
    mini.publish(**changes)
    with pytest.raises(DataError, match=problem):
        load("mini")


def save_npz(matrix) -> bytes:
    buffer = io.BytesIO()
    sparse.save_npz(buffer, matrix)
    return buffer.getvalue()


def test_gowalla_is_rebuilt_from_the_matrix(mini):
    both = np.array([[1, 1, 0], [0, 1, 1]])
    square = sparse.csr_matrix(np.block([[np.zeros((2, 2)), both], [both.T, np.zeros((3, 3))]]))
    mini.files = {
        "mini/valid_data.txt": b"1 1\n",
        "mini/test.txt": b"1 0\n",
        "mini/s_adj_mat.npz": save_npz(square),
    }
    mini.publish()
    source = replace(datasets._SETS["mini"], files=tuple(mini.files), read=datasets._read_gowalla)
    mini.monkeypatch.setitem(datasets._SETS, "mini", source)
    data = load("mini")
    assert pairs_of(data, "train") == {(0, 0), (0, 1), (1, 2)}
    assert pairs_of(data, "valid") == {(1, 1)} and pairs_of(data, "test") == {(1, 0)}
    for broken in (b"PK\3\4 broken", save_npz(square)[:200], b"", pickle.dumps(3)):
        shutil.rmtree(mini.data)
        mini.publish(s_adj_mat=broken)
        with pytest.raises(DataError, match=r"s_adj_mat\.npz: broken: .*Delete it"):
            load("mini")


def temporal(train: bytes, test: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.tsv", b"user\titem\n" + train)
        archive.writestr("test.tsv", b"user\titem\n" + test)
    return buffer.getvalue()


def test_temporal_is_rebuilt_from_both_sources(mini):
    rest = {
        "mini/train_data.txt": b"0 0\n0 1\n",
        "mini/valid_data.txt": b"1 1\n1 0\n",
        "mini/test.txt": b"1 2\n0 2\n",
    }
    mini.files = {"mini/proc.zip": temporal(b"0\t0\n1\t1\n", b"1\t0\n"), **rest}
    mini.publish()
    source = replace(datasets._SETS["mini"], files=tuple(mini.files), read=datasets._read_temporal)
    mini.monkeypatch.setitem(datasets._SETS, "mini", source)
    data = quiet("mini")  # item 2 is in no train pair, so neither in a valid pair
    assert pairs_of(data, "train") == {(0, 0), (1, 1)}
    assert pairs_of(data, "valid") == {(0, 1)} and pairs_of(data, "test") == {(1, 0)}
    missing = io.BytesIO()
    zipfile.ZipFile(missing, "w").close()
    whole = mini.files["mini/proc.zip"]
    for content, problem in {
        b"PK\3\4 broken": "proc.zip: broken",
        whole[:-30]: "proc.zip: broken",
        whole.replace(b"0\t0\n1\t1", b"0\t0\n1\t2"): "proc.zip: broken: Bad CRC",
        missing.getvalue(): "proc.zip: broken: .*no item named 'train.tsv'",
        temporal(b"0\t0\nx\t1\n", b"1\t0\n"): "proc.zip/train.tsv, line 3: an id is not a whole",
        temporal(b"", b"1\t0\n"): "proc.zip/train.tsv, line 2: nothing follows the header",
    }.items():
        shutil.rmtree(mini.data)
        mini.publish(proc=content)
        with pytest.raises(DataError, match=problem):
            load("mini")


# ---------------------------------------------------------------------------- own files


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


TABLE = "userId,movieId,rating,timestamp\nu1,a,4,10\nu1,b,2,20\nu2,a,5,30\nu2,c,3,40\n"
GOOD = {
    "header found": ("x.csv", TABLE, {}),
    "header named": (
        "x.csv",
        TABLE.replace("userId,movieId", "who,what"),
        {"user": "who", "item": "what"},
    ),
    "by position": ("x.csv", TABLE, {"user": 0, "item": 1}),
    "no header": ("x.csv", TABLE.partition("\n")[2], {}),
    "tabs": ("x.tsv", TABLE.replace(",", "\t"), {}),
    "semicolons": ("x.csv", TABLE.replace(",", ";"), {}),
    "gzip": ("x.csv.gz", TABLE, {}),
    "byte-order mark": ("x.csv", "\ufeff" + TABLE, {}),
    "UTF-16": ("x.csv", TABLE.encode("utf-16"), {"encoding": "utf-16"}),
    "line ends": ("x.csv", TABLE.replace("\n", "\r\n") + "\r\n\r\n", {}),
    "old line ends": ("x.csv", TABLE.replace("\n", "\r"), {}),
    "typed header": ("x.inter", TABLE.replace("userId,movieId", "user_id:token,item_id:token"), {}),
    "RecBole": (
        "x.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + TABLE.partition("\n")[2].replace(",", "\t"),
        {},
    ),
    "typed header of other names": (
        "x.inter",
        TABLE.replace("userId,movieId,", "who:token,what:token,"),
        {"user": "who:token", "item": "what:token"},
    ),
    "spaces": ("x.txt", TABLE.replace(",", " "), {"format": "table"}),
    "other columns": ("x.csv", re.sub("(?m)^(?=.)", "note,", TABLE), {}),
    "other separator": ("x.csv", TABLE.replace(",", "~"), {"sep": "~"}),
    "repeated pair": ("x.csv", TABLE + "u1,a,1,50\n", {}),
}


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.filterwarnings("ignore:.*no train pair", "ignore:.*too few")
def test_own_tables(tmp_path, case):
    name, content, options = GOOD[case]
    path = write(tmp_path, name, content)
    data = load(path, **options)
    assert pairs_of(data) == {("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "c")}
    assert data.name == name and data.truth is None
    assert load(str(path), **options).hash == data.hash


def test_own_pairs_keep_their_numbers(tmp_path):
    path = write(tmp_path, "x.txt", "0 5\n\n3\t1\n0 5\n")
    with pytest.warns(UserWarning, match="2 of 4 users and 4 of 6 items") as caught:
        data = load(path, fractions=(1, 0, 0))
    assert len(caught) == 1
    assert (data.n_users, data.n_items) == (4, 6) and pairs_of(data) == {(0, 5), (3, 1)}
    assert data.user_ids is None and data.item_ids is None
    zipped = write(tmp_path, "x.txt.gz", b"\xef\xbb\xbf0 5\n3\t1")
    assert quiet(zipped, fractions=(1, 0, 0)).hash == data.hash


def test_labels_keep_their_kind(tmp_path):
    data = quiet(write(tmp_path, "x.csv", "user,item\n10,007\n9,7\n9,NA\n"))
    assert data.user_ids.tolist() == [9, 10]
    assert data.item_ids.tolist() == ["007", "7", "NA"]


def test_min_rating(tmp_path):
    path = write(tmp_path, "x.csv", TABLE)
    assert pairs_of(quiet(path, min_rating=4)) == {("u1", "a"), ("u2", "a")}
    with pytest.raises(DataError, match=r"x\.csv: no rating reaches min_rating=6"):
        load(path, min_rating=6)
    with pytest.raises(DataError, match=r"x\.csv, line 1: no rating column"):
        load(write(tmp_path, "x.csv", "user,item\n1,2\n"), min_rating=3)


def test_adjacency_lines(tmp_path):
    path = write(tmp_path, "x.txt", "0 5 3 4 7 5\n\n2\n1\t3 \r\n3 0 1\n")
    pairs = {(0, 5), (0, 3), (0, 4), (0, 7), (1, 3), (3, 0), (3, 1)}
    data = quiet(path)
    assert pairs_of(data) == pairs and (data.n_users, data.n_items) == (4, 8)
    assert quiet(path, format="adjacency").hash == data.hash
    other = write(tmp_path, "y.lst", "0 1 2\n1 1 3\n")  # a table of three columns, but for its name
    assert pairs_of(quiet(other, format="adjacency")) == {(0, 1), (0, 2), (1, 1), (1, 3)}


@pytest.mark.parametrize("first", ["user-90,item-7", "user:90,item:7", "item5,time1", "user 1,x"])
def test_an_id_like_a_name_is_no_header(tmp_path, first):
    user, item = first.split(",")
    data = quiet(write(tmp_path, "x.csv", f"{first}\nu2,i2\n{user},i2\n"))
    assert pairs_of(data) == {(user, item), ("u2", "i2"), (user, "i2")}


def test_so_few_pairs_that_nothing_is_held_out(tmp_path):
    path = write(tmp_path, "x.csv", "user,item\na,1\nb,1\nc,2\n")
    with pytest.warns(UserWarning, match="3 pairs of 3 users are too few: none .* valid and test"):
        load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path, fractions=(1, 0, 0))


def test_formats_and_columns_do_not_mix(tmp_path):
    path = write(tmp_path, "x.txt", "0 1\n")
    for options in ({"user": 1}, {"header": True}, {"sep": " "}):
        with pytest.raises(ValueError, match="format='pairs' takes no sep, header or columns"):
            load(path, format="pairs", **options)


def test_options_come_with_the_path(tmp_path):
    path = write(tmp_path, "x.csv", TABLE + "u1,c,3,7\nu2,b,4,8\n")
    query = "min_rating=2.5&fractions=.5,.25,.25&split=time&user=0&item=movieId&header=true&sep=%2C"
    options = dict(min_rating=2.5, fractions=(0.5, 0.25, 0.25), split="time", user=0)
    data = quiet(f"{path}?{query}")
    assert data.hash == quiet(path, **options, item="movieId", header=True, sep=",").hash
    assert data.name == f"x.csv?{query}" and quiet(path).name == "x.csv"
    assert quiet(f"{path}?{query}", min_rating=5, split="random").train.nnz == 1
    assert quiet(f"{path}?seed=3&name=mine&k_core=2").name == "mine"
    assert quiet(f"{path}?seed=3").hash == quiet(path, seed=3).hash
    assert set(datasets._PARSERS) == {*inspect.signature(datasets.load_file).parameters} - {"path"}
    odd = write(tmp_path, "odd?k_core=3.csv", TABLE)
    assert pairs_of(quiet(odd)) == pairs_of(quiet(write(tmp_path, "x.csv", TABLE)))
    for query, problem in {
        "kcore=5": "no option 'kcore'. Did you mean k_core",
        "k_core=few": "k_core=few cannot be read",
        "header=maybe": "header=maybe cannot be read",
        "fractions=1,": "fractions=1, cannot be read",
        "k_core": "expected options such as",
    }.items():
        with pytest.raises(DataError, match=re.escape(problem) if query != "k_core" else "k_core"):
            load(f"{path}?{query}")
    with pytest.raises(
        DataError, match=r"unknown data set 'gowalla\?k_core=5'. Did you mean 'gowalla'"
    ):
        load("gowalla?k_core=5")


def naive_core(pairs: set, k: int) -> set:
    while True:
        users, items = (Counter(pair[side] for pair in pairs) for side in (0, 1))
        left = {(u, i) for u, i in pairs if users[u] >= k and items[i] >= k}
        if left == pairs:
            return left
        pairs = left


@settings(max_examples=80, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=50),
    k=st.integers(1, 4),
    name=st.sampled_from(["x.txt", "x.csv"]),
)
def test_k_core_is_that_of_the_definition(folder, pairs, k, name):
    lines = "".join(f"{u},{i}\n" for u, i in pairs)
    path = write(
        folder, name, lines.replace(",", " ") if name == "x.txt" else "user,item\n" + lines
    )
    expected = naive_core(pairs, k)
    if not expected:
        with pytest.raises(DataError, match=f"nothing is left with k_core={k}"):
            load(path, k_core=k)
        return
    data = quiet(path, k_core=k)
    assert pairs_of(data) == expected
    if k > 1:  # no gaps in the numbers
        assert data.n_users == len({u for u, _ in expected}) == len(data.user_ids)


def test_the_temporal_split_of_raw_amazon_ratings(tmp_path):
    """As the Electronics set was made: ratings from 3, 10-core, 60/20/20 by global time."""
    rng = np.random.default_rng(1)
    rows = [
        (
            f"A{u:013d}",
            f"{i:010d}",
            float(rng.integers(1, 6)),
            int(rng.integers(10**9, 10**9 + 900)),
        )
        for u in range(120)
        for i in rng.choice(60, rng.integers(8, 40), replace=False)
    ]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    path = write(tmp_path, "ratings_Home_and_Kitchen.csv", text)
    data = quiet(f"{path}?min_rating=3&k_core=10&split=time&fractions=.6,.2,.2")

    liked = {(u, i): time for u, i, stars, time in rows if stars >= 3}
    core = naive_core(set(liked), 10)
    assert 500 < len(core) < len(liked)
    times = sorted(liked[pair] for pair in core)
    first, second = times[math.ceil(0.6 * len(core)) - 1], times[math.ceil(0.8 * len(core)) - 1]
    train = {pair for pair in core if liked[pair] <= first}
    users, items = ({pair[side] for pair in train} for side in (0, 1))
    known = {pair for pair in core - train if pair[0] in users and pair[1] in items}
    assert pairs_of(data, "train") == train
    assert pairs_of(data, "valid") == {pair for pair in known if liked[pair] <= second}
    assert pairs_of(data, "test") == {pair for pair in known if liked[pair] > second}


BAD = {
    "empty": ("x.txt", "", {}, "line 1: the file is empty"),
    "blank": ("x.txt", "\n \n", {}, "line 1: the file is empty"),
    "not whole": ("x.txt", "0 1\n1.0 2\n", {}, "line 2: an id is not a whole number"),
    "a word": ("x.txt", "0 1\n\n1 two\n", {}, "line 3: an id is not a whole number"),
    "negative": ("x.txt", "0 1\n-1 2\n", {}, "line 2: an id is not a whole number >= 0"),
    "short": ("x.txt", "0 1\n1\n", {}, "line 2: expected two fields, .* not 1"),
    "long": ("x.txt", "0 1\n1 2 3\n", {}, "line 2: expected two .* not 3.*format='adjacency'"),
    "three columns": ("x.txt", "0 1 5\n1 2 3\n", {}, "line 1: expected two fields"),
    "commas": ("x.txt", "0,1\n1,2\n", {}, "line 1: expected two fields.*format='table'"),
    "one item each": ("x.txt", "0 1 2 3 4 5\n1 2 3 4 5 6\n", {}, "line 1: expected two .* not 6"),
    "a user twice": ("x.txt", "0 1 2 3 4 5\n1 2\n0 6\n", {}, "line 1: expected two .* not 6"),
    "users alone": ("x.txt", "0\n1\n", {"format": "adjacency"}, "line 1: users without any item"),
    "adjacent word": (
        "x.txt",
        "0 1\n1 2 b\n",
        {"format": "adjacency"},
        "line 2: an id is not a wh",
    ),
    "adjacent huge": (
        "x.txt",
        f"0 1\n1 2 {'9' * 5_000}\n",
        {"format": "adjacency"},
        "line 2: .*large",
    ),
    "huge": ("x.txt", "0 1\n1 9999999999\n", {}, "line 2: an id is too large"),
    "beyond int64": ("x.txt", f"0 1\n{'9' * 30} 1\n", {}, "line 2: an id is too large"),
    "latin-1": ("x.txt", "0 1\n1 é\n".encode("latin-1"), {}, "line 2: .*utf-8.*Save the file"),
    "utf-16": ("x.txt", "0 1\n1 2\n".encode("utf-16"), {}, "line 1: .*utf-8.*Save the file"),
    "NULs": ("x.txt", "0 1\n1 2\n".encode("utf-16-le"), {}, "line 1: a NUL byte, as in UTF-16"),
    "empty table": ("x.csv", "", {}, "line 1: the file is empty"),
    "header alone": ("x.csv", "user,item\n", {}, "line 1: nothing follows the header"),
    "short row": ("x.csv", "user,item\n1,2\n3\n", {}, "line 3: 1 fields, but 2"),
    "long row": ("x.csv", "user,item\n1,2\n3,4,5\n", {}, "line 3: 3 fields, but 2"),
    "open quote": ("x.csv", 'user,item\n1,2\n"3,4\n5,6\n', {}, "line 3: 1 fields, but 2"),
    "no item": ("x.csv", "user,item,rating\n1,2,3\n1,,3\n", {}, "line 3: no item"),
    "no such column": (
        "x.csv",
        "user,item\n1,2\n",
        {"item": "itme"},
        "line 1: no item column 'itme'.*Did you mean 'item'",
    ),
    "no such place": ("x.csv", "user,item\n1,2\n", {"item": 2}, "line 1: no item column 2"),
    "a name, no header": ("x.csv", "1,2\n2,3\n", {"user": "who"}, "line 1: no user column 'who'"),
    "unknown names": ("x.csv", "who,what\n1,2\n", {"header": True}, "line 1: no user column in"),
    "one column": ("x.csv", "user\n1\n", {}, "line 1: no item column"),
    "header or data": ("x.csv", "who,what\n1,2\n3,4\n", {}, "line 1: .*may be names or data"),
    "names or labels": ("x.csv", "who,what\nann,Alien\n", {}, "line 1: .*may be names or data"),
    "two items": (
        "x.csv",
        "user_id,asin,parent_asin\na,b,c\n",
        {},
        r"line 1: \['asin', 'parent_asin'\] may each be the item. Say item=",
    ),
    "one name twice": (
        "x.csv",
        "u,i,i\n1,2,3\n",
        {"user": "u", "item": "i"},
        "may each be the item",
    ),
    "product first": (
        "x.csv",
        "B000052YAN,A1PG2VV4W1WRPL,5.0,1428364800\n",
        {},
        "line 1: .*a product first, then a reviewer. Say user=1, item=0",
    ),
    "a usual word as data": ("x.csv", "ann,time\nbob,Alien\n", {}, "no user column.*header=False"),
    "no core": ("x.csv", "user,item\n1,2\n1,3\n", {"k_core": 2}, "nothing is left with k_core=2"),
    "bad rating": (
        "x.csv",
        "user,item,rating\n1,2,3\n\n3,4,good\n",
        {"min_rating": 3},
        "line 4: the rating is no number.*'good'",
    ),
    "rating nan": ("x.csv", "1,2,3\n3,4,nan\n", {}, "line 2: the rating is no number"),
    "bad time": (
        "x.csv",
        'user,item,time\n"1\n1",2,3\n3,4,x\n',
        {"split": "time"},
        "line 4: the timestamp is no number",
    ),
    "bad date": (
        "x.csv",
        "user,item,time\n1,2,2020-01-01\n3,4,2020-13-01\n",
        {"split": "time"},
        "line 3: the timestamp is no number",
    ),
    "no time": ("x.csv", "user,item\n1,2\n", {"split": "time"}, "line 1: no timestamp column"),
    "no time in pairs": ("x.txt", "1 2\n", {"split": "time"}, "line 1: no timestamp column"),
    "one time": (
        "x.csv",
        "user,item,time\n1,2,3\n1,4,3\n",
        {"split": "time"},
        "leaves no valid pair",
    ),
    "latin-1 table": (
        "x.csv",
        "user,item\n1,é\n".encode("latin-1"),
        {},
        "line 2: .*utf-8.*encoding='latin-1'",
    ),
    "not gzip": ("x.csv", b"\x1f\x8b no", {}, "line 1: cannot be read"),
    "zip": (
        "x.csv",
        b"PK\x03\x04\xb3",
        {},
        r"x\.csv is a zip archive: unpack it and give the table",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_by_line(tmp_path, case):
    name, content, options, problem = BAD[case]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match="(?s)" + problem) as caught:
        load(path, **options)
    assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(".")


def test_truncated_gzip_and_files_that_are_none(tmp_path):
    lines = "".join(f"{k} {k * 7919 % 5003}\n" for k in range(5_000))
    path = write(tmp_path, "x.txt.gz", lines)
    path.write_bytes(path.read_bytes()[:-3_000])
    with pytest.raises(DataError, match=r"x\.txt\.gz, line \d{4}: cannot be read.*end-of-stream"):
        load(path)
    path.write_bytes(b"0 1\n")
    with pytest.raises(DataError, match=r"x\.txt\.gz, line 1: cannot be read: Not a gzipped file"):
        load(path)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: .*No such file"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"cannot be read: .*[Ii]s a directory"):
        load(tmp_path)


def test_arguments_out_of_their_domain(tmp_path):
    path = write(tmp_path, "x.csv", TABLE)
    for options in (
        {"split": "leave-one-out"},
        {"sep": "::"},
        {"format": "csv"},
        {"k_core": 0},
        {"fractions": (0.5, 0.1, 0.1)},
        {"fractions": (0, 0.5, 0.5)},
        {"fractions": (1.1, -0.1, 0)},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            load(path, **options)
    with pytest.raises(TypeError, match="colour"):
        load(path, colour="red")


def test_random_split_deals_each_users_pairs(tmp_path):
    lines = [f"{u} {i}" for u in range(300) for i in range([20, 3, 1][u % 3])]
    path = write(tmp_path, "x.txt", "\n".join(lines))
    data = load(path)
    counts = np.stack([np.diff(getattr(data, key).indptr) for key in datasets.SPLITS], 1)
    assert (counts[0::3] == (16, 2, 2)).all() and (counts[2::3] == (1, 0, 0)).all()
    assert (counts[1::3, 0] >= 2).all() and abs(counts[1::3].mean(0)[2] / 3 - 0.1) < 0.05
    turned = write(tmp_path, "y.txt", "\n".join(lines[::-1]))
    assert load(turned).hash == data.hash != load(path, seed=1).hash
    assert load(path, fractions=(1, 0, 0)).train.nnz == len(lines)


@pytest.mark.parametrize("dates", [False, True])
def test_time_split_is_global(tmp_path, dates):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "user": rng.integers(0, 40, 2_000),
            "item": rng.integers(0, 60, 2_000),
            "time": rng.integers(0, 500, 2_000),
        }
    )
    table.loc[table["time"].idxmax(), "user"] = 99  # new at the very end: in no split
    first = table.sort_values("time").drop_duplicates(["user", "item"])
    shown = table.assign(time=pd.Timestamp("2020-01-01") + pd.to_timedelta(table["time"], "h"))
    (shown if dates else table).to_csv(tmp_path / "x.csv", index=False)
    data = quiet(tmp_path / "x.csv", split="time", fractions=(0.6, 0.2, 0.2))
    when = {(u, i): t for u, i, t in first.itertuples(index=False)}
    times = [{when[pair] for pair in pairs_of(data, key)} for key in datasets.SPLITS]
    assert max(times[0]) < min(times[1]) and max(times[1]) < min(times[2])
    assert abs(data.train.nnz / len(first) - 0.6) < 0.01
    assert data.n_users == 41 and len(pairs_of(data)) == len(first) - 1
    assert quiet(tmp_path / "x.csv", split="time", fractions=(1, 0, 0)).train.nnz == len(first)


# ---------------------------------------------------------------------------- any data

label = st.one_of(
    st.integers(-50, 10**15).map(str),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1),
)
many = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@many
@given(
    pairs=st.sets(st.tuples(label, label), min_size=1),
    sep=st.sampled_from(",\t;| ~"),
    zipped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_labels_come_back(folder, pairs, sep, zipped, seed):
    text = io.StringIO()
    csv.writer(text, delimiter=sep, quoting=csv.QUOTE_ALL).writerows([("user", "item"), *pairs])
    path = write(folder, "x.csv" + ".gz" * zipped, text.getvalue())
    data = quiet(path, sep=sep, seed=seed)
    assert {(str(u), str(i)) for u, i in pairs_of(data)} == pairs
    assert sum(getattr(data, key).nnz for key in datasets.SPLITS) == len(pairs)
    assert np.diff(data.train.indptr).min() >= 1


@many
@given(
    pairs=st.sets(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1),
    sep=st.sampled_from([" ", "\t", "  "]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_numbers_come_back(folder, pairs, sep, end):
    path = write(folder, "x.txt", "".join(f"{u}{sep}{i}{end}" for u, i in pairs))
    data = quiet(path)
    assert pairs_of(data) == pairs
    assert data.n_users == 1 + max(u for u, _ in pairs)


@many
@given(
    content=st.one_of(st.binary(), st.text('0123 \n\t,";-x\r.', max_size=60).map(str.encode)),
    name=st.sampled_from(["x.txt", "x.csv", "x.tsv", "y.csv.gz"]),
    options=st.sampled_from(
        [
            {},
            {"header": True},
            {"header": False},
            {"split": "time"},
            {"min_rating": 2},
            {"user": 1, "item": 0},
        ]
    ),
)
def test_any_bytes_load_or_say_why(folder, content, name, options):
    path = folder / name
    path.write_bytes(content)
    try:
        data = quiet(path, **options)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert sum(getattr(data, key).nnz for key in datasets.SPLITS) >= 1


# ---------------------------------------------------------------------------- checks


def test_what_was_dropped_of_a_file_is_counted(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"u{u},i{i},{3 + (u + i) % 3},{100 * i + u}" for u in range(6) for i in range(6)]
    bad = ["u0,i1,1,5", "u1,i1,2,5"]  # rated low
    again = rows[:3]
    alone = ["u9,i0,5,7", "u8,i0,5,8"]  # not in the 3-core
    path.write_text("\n".join(["user,item,rating,timestamp", *rows, *bad, *again, *alone]) + "\n")
    data = load(path, min_rating=3, k_core=3)
    assert data.dropped == {"rated below min_rating": 2, "repeated": 3, "outside the k-core": 2}
    assert len(pairs_of(data)) == 36
    assert load("synthetic").dropped is None
    path.write_text("user,item,timestamp\na,x,1\na,y,2\nb,x,3\na,z,4\nb,y,5\nb,q,6\nc,x,7\nb,x,8\n")
    data = load(path, split="time", fractions=(0.57, 0, 0.43))
    assert data.dropped == {"repeated": 1, "held out, user or item not in train": 2}


def in_splits(*splits: list[list[int]]) -> Interactions:
    return Interactions("x", len(splits[0]), len(splits[0][0]), *map(sparse.csr_array, splits))


def test_checks_on_good_data_find_nothing_to_look_at():
    table = datasets.checks(load("synthetic"))
    assert not table["look"].any() and (table["then"] != "").all()
    assert table.loc["test pairs", "found"] == load("synthetic").test.nnz


SQUARE = np.kron(np.eye(30, dtype=int), np.ones((6, 6), int))  # 180 users, as many items, 6 pairs
NONE = np.zeros_like(SQUARE)
LAST = np.zeros_like(SQUARE)
LAST[:, -1] = 1 - SQUARE[:, -1]
TRAPS = {
    "pairs in two splits": ((SQUARE, SQUARE, np.roll(SQUARE, 7, 1)), 1080),
    "valid pairs": ((SQUARE, NONE, np.roll(SQUARE, 6, 1)), 0),
    "test pairs": ((SQUARE, np.roll(SQUARE, 6, 1), NONE), 0),
    "held-out pairs whose user has no train pair, share": (
        (np.where(np.arange(180)[:, None] < 18, 0, SQUARE), np.roll(SQUARE, 6, 1), LAST),
        None,
    ),
    "held-out pairs whose item has no train pair, share": (
        (np.where(np.arange(180) == 179, 0, SQUARE), np.roll(SQUARE, 6, 1), LAST),
        None,
    ),
    "users without train pairs, share": (
        (np.where(np.arange(180)[:, None] < 36, 0, SQUARE), NONE, NONE),
        0.2,
    ),
    "median train pairs of the others": ((np.eye(180, dtype=int), NONE, NONE), 1),
    "recall@20 by chance": ((np.ones((180, 50), int), NONE[:, :50], NONE[:, :50]), 0.4),
    "most train pairs of a user, share of all items": (
        (np.where(np.arange(180)[:, None] == 3, 1, SQUARE), NONE, NONE),
        1.0,
    ),
    "share of train pairs on the 1% most popular items": (
        (np.where(np.arange(180) == 5, 1, np.eye(180, dtype=int)), NONE, NONE),
        180 / 359,
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_checks_find_the_trap(name):
    splits, found = TRAPS[name]
    data = in_splits(*splits)
    row = datasets.checks(data).loc[name]
    assert row["look"]
    if found is None:  # naively
        held = [
            (u, i) for part in (data.valid, data.test) for u, i in zip(*part.nonzero(), strict=True)
        ]
        train = data.train.toarray()
        cold = [train[u].sum() if "user" in name else train[:, i].sum() for u, i in held]
        found = np.mean(np.array(cold) == 0)
        assert 0 < found < 1
    assert row["found"] == pytest.approx(found)


def test_checks_count_repeated_rows(tmp_path):
    path = tmp_path / "x.csv"
    lines = [f"u{u},i{i}" for u in range(9) for i in range(9)]
    for again, look in ((8, False), (20, True)):
        path.write_text("\n".join(["user,item", *lines, *lines[:again]]))
        row = datasets.checks(load(path)).loc["rows that repeat a pair, share"]
        assert row["found"] == pytest.approx(again / (81 + again)) and row["look"] == look


def test_checks_of_nothing_at_all():
    table = datasets.checks(in_splits([[0, 0]], [[0, 0]], [[0, 0]]))
    assert table.loc["test pairs", "look"] and table["found"].notna().all()


# ---------------------------------------------------------------------------- shift


def test_shift_is_the_distance_of_shares():
    train, test = [[1, 1, 0, 0], [1, 0, 1, 0]], [[0, 0, 0, 1], [0, 1, 0, 1]]
    found = datasets.shift(in_splits(train, np.zeros((2, 4)), test))
    p, q = (2 / 4, 1 / 4, 1 / 4, 0), (0, 1 / 3, 0, 2 / 3)
    assert found["distance"] == pytest.approx(
        sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    )
    assert found["kept"] == 0  # the most popular item of four has no test pair
    assert np.isnan([*datasets.shift(in_splits(train, test, np.zeros((2, 4)))).values()]).all()
    assert datasets.shift(in_splits(train, train, test), split="valid")["distance"] == 0


def test_shift_tells_a_drift_from_chance(tmp_path):
    made = load("synthetic")
    users, items = made.train.nonzero()
    rng = np.random.default_rng(1)
    season, noise = rng.random(made.n_items)[items], rng.random(len(items))
    distances = []
    for drift in (0, 0.3, 0.6):
        table = {"user": users, "item": items, "timestamp": drift * season + (1 - drift) * noise}
        pd.DataFrame(table).to_csv(tmp_path / "x.csv", index=False)
        with warnings.catch_warnings(action="ignore"):
            data = load(tmp_path / "x.csv", split="time", fractions=(0.6, 0.2, 0.2))
        found = datasets.shift(data)
        distances.append(found["distance"] - found["by_chance"])
        assert found["by_chance"] < 0.25
    assert abs(distances[0]) < 0.01 and 0.1 < distances[1] < distances[2]
