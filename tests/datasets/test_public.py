"""The named sets load as they should; what cannot be had says where and what to do."""

import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from datasets_help import pairs_of, quiet, real_data
from scipy import sparse

from drrl_core import common, datasets
from drrl_core.datasets import DataError, load, public, recipe

# The counts the public sets are known by, typed here a second time.
PUBLIC = {
    "amazon-beauty": (7_068, 3_570, 51_455, 9_363, 18_688),
    "amazon-kitchen": (51_552, 23_158, 265_611, 58_405, 103_728),
    "amazon-electronics": (13_455, 8_360, 159_418, 22_980, 52_123),
    "gowalla": (29_858, 40_981, 716_648, 93_480, 217_242),
    "amazon-electronics-temporal": (13_455, 8_360, 140_712, 31_904, 24_668),
}


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
    registry = public._registry(None)
    used = {key for name in datasets.names() for key in public._SETS[name].files}
    brought = {
        f"{name}/{file}"
        for name in datasets.recipes().index
        for each in recipe.recipes_of(name.replace("*", "Books"))
        for file in public._files(each)
    }
    assert used <= set(registry.registry) <= used | brought
    for key in {*registry.registry} - used:
        assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", registry.registry[key])
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
    package = Path(common.__file__).parent
    if not (package / "registry.txt").exists():
        assert datasets.data_folder() == package.parent / "data" / "downloads"
    wheel = tmp_path / "drrl_core"
    wheel.mkdir()
    (wheel / "registry.txt").touch()
    monkeypatch.setattr(common, "__file__", str(wheel / "common.py"))
    assert common.own_file("registry.txt", "registry.txt") == wheel / "registry.txt"
    assert datasets.data_folder() == pooch.os_cache("drrl")


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
            public._SETS["amazon-beauty"],
            shape=(2, 3),
            pairs=(3, 1, 1),
            about="a mini set",
            files=tuple(FILES),
        )
        monkeypatch.setitem(public._SETS, "mini", source)
        monkeypatch.setattr(public, "own_file", lambda packaged, kept: self.registry)
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
    source = replace(public._SETS["mini"], files=tuple(mini.files), read=public._read_gowalla)
    mini.monkeypatch.setitem(public._SETS, "mini", source)
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
    source = replace(public._SETS["mini"], files=tuple(mini.files), read=public._read_temporal)
    mini.monkeypatch.setitem(public._SETS, "mini", source)
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
