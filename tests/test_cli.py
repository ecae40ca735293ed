"""The `drrl` command: what it prints, and one clear line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from samples import RECORD

from drrl_core import cli as command
from drrl_core import datasets, losses
from drrl_core.lab import beforehand, recommend, results

ROOT = Path(__file__).parents[1]
TABLE = ["key", "dataset", "backbone", "loss"]
TRAIN = "train synthetic --epochs 1 --negatives 4 --set dim=4 --device cpu"


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    """Finished runs are kept apart for each test, and out of the user's own."""
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def drrl(monkeypatch, capsys):
    """Run the command with a line of arguments: exit code, stdout, stderr."""

    def run(line: str):
        monkeypatch.setattr(sys, "argv", ["drrl", *line.split()])
        with pytest.raises(SystemExit) as end:
            command.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_help_shows_the_defaults_that_are_said_in_words(drrl):
    _, out, _ = drrl("train --help")
    said = " ".join(out.split())
    assert "[default: $DRRL_DATA, else data/downloads]" in said and "[default: 0]" in said


def test_data_info_says_what_was_dropped_and_what_looks_wrong(drrl, tmp_path):
    path = tmp_path / "own.csv"
    rows = [f"u{u},i{i},{1 + (u + i) % 5}" for u in range(30) for i in range(20)]
    path.write_text("\n".join(["user,item,rating", *rows, *rows[:7]]))
    code, out, _ = drrl(f"data info {path}?min_rating=2")
    assert code == 0
    assert "rows dropped, rated below min_rating: 122\n" in out  # of five alike, and 2 of the 7
    assert "rows dropped, repeated: 5\n" in out
    assert "look: recall@20 by chance: 1. so few items" in out and "look: test pairs" not in out


@pytest.mark.slow
def test_train_prints_the_record_as_the_last_line():
    line = (
        "train synthetic --loss sl --set temperature=0.2 --set lr=0.01 --negatives 16 --epochs 2 "
        "--seed 0 --json"
    )
    done = python("-m", "drrl_core", *line.split())
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert list(record) == RECORD
    assert record["data_hash"] == datasets.load("synthetic").hash
    assert (record["dataset"], record["backbone"], record["loss"]) == ("synthetic", "mf", "sl")
    assert record["parameters"]["loss"] == {"temperature": 0.2, "push": 1.0, "prior": 0.0}
    train = record["parameters"]["train"]
    assert (train["lr"], train["negatives"], train["epochs"]) == (0.01, 16, 2)
    assert record["seed"] == 0 and record["best_epoch"] == 2
    for split in ("valid", "test"):
        assert set(record[split]) == {"recall@20", "ndcg@20"}
        assert all(0 < value < 1 for value in record[split].values())
    assert "epoch/s" in done.stderr or "s/epoch" in done.stderr  # progress
    assert "Warning" not in done.stderr


def test_train_prints_a_summary(drrl):
    code, out, _ = drrl(f"{TRAIN} --seed 7")
    lines = out.splitlines()
    assert code == 0 and lines[0] == "sl on mf, synthetic, seed 7"
    assert lines[1].startswith("best epoch 1, ") and lines[1].endswith(" s on cpu")
    assert [line.split()[0] for line in lines[2:]] == ["valid", "test"]
    assert all("recall@20 0." in line and "ndcg@20 0." in line for line in lines[2:])


def test_options_and_settings_reach_the_run(drrl):
    code, out, _ = drrl(
        f"{TRAIN} --loss drrl --set loss.order=inf --set weight=3 --set train.batch_size=512 "
        "--set dual=shared --mask train+valid --set seed=5 --json"
    )
    record = json.loads(out.splitlines()[-1])
    assert code == 0 and record["seed"] == record["parameters"]["train"]["seed"] == 5
    assert record["parameters"]["backbone"] == {"dim": 4}
    train, loss = record["parameters"]["train"], record["parameters"]["loss"]
    assert (train["mask"], train["batch_size"]) == ("train+valid", 512)
    assert (loss["order"], loss["weight"], loss["dual"]) == ("inf", 3, "shared")


def test_your_own_file_without_anything_held_out(drrl, tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("user,item\n" + "".join(f"u{k},i{k}\n" for k in range(9)))
    code, out, _ = drrl(f"train {path} --epochs 1 --json")
    record = json.loads(out.splitlines()[-1])
    assert code == 0 and record["dataset"] == "films.csv"
    assert record["valid"]["ndcg@20"] is None
    code, out, _ = drrl(f"train {path} --epochs 1")
    assert code == 0 and "valid  recall@20 none  ndcg@20 none" in out


def test_a_finished_run_is_served(drrl, store):
    code, out, err = drrl(f"{TRAIN} --json")
    first = json.loads(out.splitlines()[-1])
    assert code == 0 and "served" not in err
    code, out, err = drrl(f"{TRAIN} --set lr=1e-3 --json")  # the same, in other words
    assert code == 0 and json.loads(out.splitlines()[-1]) == first
    assert f"served from {store / first['key']}" in err and "--no-store" in err
    code, out, err = drrl(f"{TRAIN} --no-store --json")
    again = json.loads(out.splitlines()[-1])
    assert code == 0 and "served" not in err and list(again) == RECORD
    assert again["test"] == first["test"] and again["key"] == first["key"]
    assert [path.name for path in store.iterdir()] == [first["key"]]


def test_no_store_keeps_nothing(drrl, store):
    assert drrl(f"{TRAIN} --no-store")[0] == 0
    assert not store.exists()


def test_runs_list_show_and_compare(drrl, store):
    code, out, err = drrl("runs list")
    assert code == 0 and out == "" and err == f"no finished runs in {store}\n"
    records = []
    for loss in ("sl", "ccl"):
        records.append(json.loads(drrl(f"{TRAIN} --loss {loss} --json")[1].splitlines()[-1]))
    keys = [record["key"] for record in records]

    code, out, _ = drrl("runs list")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 3 and lines[0].split()[:4] == TABLE
    assert {line.split()[0] for line in lines[1:]} == set(keys)
    code, out, _ = drrl("runs list --csv")
    head = out.splitlines()[0].split(",")
    assert code == 0 and {"loss.margin", "loss.temperature", "train.lr"} <= set(head)

    code, out, _ = drrl(f"runs show {keys[0][:5]}")
    assert code == 0 and json.loads(out) == records[0]

    code, out, _ = drrl(f"runs compare {keys[0]} {keys[1]}")
    lines = out.splitlines()
    assert code == 0 and lines[0] == f"a  {keys[0]}  sl on mf, synthetic, seed 0"
    assert lines[1] == f"b  {keys[1]}  ccl on mf, synthetic, seed 0"
    row = next(line.split() for line in lines if "recall@20" in line)
    means = [record["valid"]["recall@20"] for record in records]
    assert row[:4] == ["valid", "recall@20", *(f"{mean:.4f}" for mean in means)]


def test_recommend_writes_lists_and_vectors_under_own_ids(drrl, tmp_path):
    path = tmp_path / "own.csv"
    rows = [f"=u{u},i{i}" for u in range(12) for i in range(30) if (u + i) % 3]
    path.write_text("\n".join(["user,item", *rows]))
    _, out, _ = drrl(f"{TRAIN.replace('synthetic', str(path))} --json")
    key, own = json.loads(out.splitlines()[-1])["key"], f"--data {path}"
    code, out, err = drrl(f"recommend {key[:8]} {own} --out {tmp_path}/lists.csv --k 3 --vectors")
    assert code == 0, err
    names = [f"{tmp_path}/lists{what}.csv" for what in ("", "_users", "_items")]
    assert out.splitlines() == names
    lists, users, items = map(recommend.read_table, names)
    assert {*lists["user"]} == {*users["id"]} == {f"=u{u}" for u in range(12)}
    assert {*lists["item"]} <= {*items["id"]} == {f"i{i}" for i in range(30)}
    assert len(lists) == 36 and '"\'=u1"' in Path(names[0]).read_text()
    code, out, _ = drrl(
        f"recommend {key} {own} --out {tmp_path}/one.npz --user =u7 --known train,valid,test"
    )
    assert code == 0 and out == f"{tmp_path}/one.npz\n"
    assert {*recommend.read_table(tmp_path / "one.npz")["user"]} == {"=u7"}
    for wrong, why in (("--out a.txt", "ends in .csv"), ("--out a.csv --user me", "'me'")):
        code, _, err = drrl(f"recommend {key} {own} {wrong}")
        assert code == 2 and why in err and err.count("\n") == 1


def test_a_damaged_record_is_one_line(drrl, store):
    key = json.loads(drrl(f"{TRAIN} --json")[1].splitlines()[-1])["key"]
    (store / key / "record.json").write_text("{")
    for line in (TRAIN, f"runs show {key}"):
        code, out, err = drrl(line)
        assert (code, out) == (2, "") and err.startswith(f"drrl: {store / key / 'record.json'}: ")
        assert len(err.splitlines()) == 1 and f"Move {store / key} away" in err


MISTAKES = {
    "runs show 0123": "has a key that starts with '0123'",
    "runs compare 0 1": "has a key that starts with '0'",
    "train sinthetic": "unknown data set 'sinthetic'. Did you mean 'synthetic'?",
    "train nowhere.csv": "nowhere.csv: cannot be read",
    "train synthetic --set lrr=1": "'lrr' is no setting of sl on mf: did you mean 'lr'?",
    "train synthetic --set lr=fast": "lr must be of type float, not 'fast'",
    "train synthetic --set lr=-1": "lr must lie in (0, inf), not -1",
    "train synthetic --set temperature=0": "temperature must lie in (0, inf",
    "train synthetic --set lr": "--set 'lr': give NAME=VALUE",
    "train synthetic --set lr=": "lr must be of type float, not ''",
    "train synthetic --loss drl": "no loss is called 'drl' (did you mean 'drrl'?)",
    "train synthetic --backbone mff": "no backbone is called 'mff' (did you mean 'mf'?)",
    "train synthetic --mask valid": "mask must be one of 'train', 'train+valid', not 'valid'",
    "train synthetic --epochs 0": "epochs must be at least 1, not 0",
    "train synthetic --seed -1": "seed must lie in [0, 2**63), not -1",
    "train synthetic --seed 1 --set seed=2": "are one setting: give it once",
    "train synthetic --device gpu": "device 'gpu' cannot be used here",
    "train synthetic --set lr=1e30 --set similarity=dot --epochs 1": "the loss is nan",
    "data info beauty": "unknown data set 'beauty'. Did you mean 'amazon-beauty'?",
    "data fetch nope": "unknown data set 'nope'",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(line, drrl):
    code, out, err = drrl(line)
    assert code == 2 and out == ""
    *before, last = err.splitlines()
    assert last.startswith("drrl: ") and MISTAKES[line] in last
    assert all("epoch/s" in text or not text for text in before)  # a progress bar at the most


@pytest.mark.parametrize("line", ["trian", "train", "train synthetic --epochs many", "data info"])
def test_a_wrong_command_line_is_exit_code_2(line, drrl):
    code, out, err = drrl(line)
    assert code == 2 and out == "" and "Usage:" in err and "Traceback" not in err


def test_a_defect_of_ours_is_not_dressed_up_as_the_users(monkeypatch):
    monkeypatch.setattr(command, "app", lambda: {}["missing"])
    with pytest.raises(KeyError):
        command.main()


def test_an_offline_fetch_says_the_way_out(drrl, monkeypatch, tmp_path):
    monkeypatch.setenv("DRRL_OFFLINE", "1")
    code, out, err = drrl(f"data fetch amazon-beauty --data-dir {tmp_path}")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "DRRL_OFFLINE" in err and str(tmp_path) in err


def test_scorecard(drrl, tmp_path):
    results, page = tmp_path / "results", tmp_path / "pages" / "card.html"
    code, _, err = drrl(f"scorecard --results {results} --page {page}")
    assert code == 2 and "is no folder of results" in err and not page.exists()
    results.mkdir()
    code, out, _ = drrl(f"scorecard --results {results} --page {page}")
    assert code == 0 and " 317  not run" in out and f"to read: {page}" in out
    assert "not run" in page.read_text()
    assert (results / "scorecard.csv").read_text().startswith("id,source,claim,dataset,")


def test_harvest(drrl, tmp_path):
    code, out, err = drrl(f"harvest --results {tmp_path}")
    assert code == 2 and f"{tmp_path} has no runs.csv" in err and not out
    (tmp_path / "runs.csv").write_text(",".join(results.RUNS) + "\n")
    code, out, _ = drrl(f"harvest --results {tmp_path} --users 9")
    assert code == 0 and out.endswith("per_user: 0 runs are missing\n")
    assert (tmp_path / "skew.csv").read_text().startswith(",".join(results.SKEW))


def test_plan(drrl, tmp_path):
    results, out = ROOT / "data" / "results", tmp_path / "sweeps"
    code, said, _ = drrl(f"plan amazon-beauty --results {results} --out {out}")
    kinds = ("noise", "breakdown", "order")
    files = [str(out / f"amazon-beauty_mf_{name}.yaml") for name in kinds]
    assert code == 0 and said.split() == files
    code, said, err = drrl(f"plan gowalla --backbone xsimgcl --results {results} --out {out}")
    assert code == 0 and not said and "noise: none of sl, bsl" in err


def test_data_popularity_says_what_to_expect_before_training(drrl):
    code, out, _ = drrl("data popularity synthetic")
    found = beforehand.expected(datasets.load("synthetic"))
    assert code == 0 and out.splitlines() == beforehand.lines(found)
    assert f"b about {found['b']:g} after training" in out


def test_data_list(drrl, tmp_path):
    code, out, _ = drrl(f"data list --data-dir {tmp_path}")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    brought = dict.fromkeys(datasets.recipes().index)
    assert code == 0 and list(rows) == ["name", *datasets.names(), "by", *brought]
    assert rows["movielens-1m"] == ["movielens-1m", "6,040", "3,706", "no"]
    assert rows["amazon-beauty"][1:] == ["7068", "3570", "51455", "9363", "18688", "no"]
    assert rows["synthetic"][1:3] == ["1000", "800"] and rows["synthetic"][-1] == "yes"


def test_data_info_and_fetch(drrl, tmp_path):
    code, out, _ = drrl(f"data info gowalla --data-dir {tmp_path}")
    assert code == 0 and "users      29858" in out and "sha256 " in out and "not here" in out
    assert str(tmp_path) in out
    code, out, _ = drrl("data fetch synthetic")
    assert code == 0 and out == "synthetic is generated by the code: there is nothing to fetch\n"


def test_options_of_your_own_file(drrl, tmp_path):
    path = tmp_path / "films.csv"
    lines = "".join(f"u{k % 9};i{k * 7 % 11};{k % 5}\n" for k in range(99))
    path.write_text("who;item;stars\n" + lines + "lonely;i0;4\n")
    where = f"{path}?user=who&min_rating=1&k_core=3"
    code, out, _ = drrl(f"data info {where}")
    table = dict(line.rsplit(maxsplit=1) for line in out.splitlines()[1:11])
    assert code == 0 and (table["users"], table["items"]) == ("9", "11")
    assert "users: u0, u1, u2, u3, u4, ...\n" in out
    assert "columns by name and position: user 'who' (0), item 'item' (1)" in out
    assert "lines: 101 = 1 header lines + 100 rows" in out
    assert "rows: 100 = 79 kept + 20 rated below min_rating + 1 outside the k-core" in out
    with pytest.warns(UserWarning, match="recall@20 is 1 whatever is learned"):
        code, out, _ = drrl(f"train {where} --epochs 1 --negatives 4 --json")
    said = python("-m", "drrl_core", "data", "info", where).stderr
    assert said.startswith("drrl: look: films.csv?user=who&min_rating=1&k_core=3: at most ")
    record = json.loads(out.splitlines()[-1])
    assert record["read"]["rows"] == 100 and record["read"]["kept"] == 79
    assert drrl(f"runs show {record['key']}")[1].count('"separator": ";"') == 1
    assert code == 0 and record["dataset"] == "films.csv?user=who&min_rating=1&k_core=3"
    code, out, err = drrl(f"train {path}?kcore=3")
    assert (code, out) == (2, "") and "no option 'kcore'; did you mean 'k_core'?" in err


@pytest.mark.data
def test_data_fetch_verifies_what_is_here(drrl):
    root = Path(os.environ.get("DRRL_DATA") or "nowhere")
    if not (root / "amazon-beauty").is_dir():
        pytest.skip("real data not found: set DRRL_DATA to the folder that holds amazon-beauty/ …")
    code, out, _ = drrl("data fetch amazon-beauty")
    assert code == 0 and out.splitlines() == [
        f"{root}/amazon-beauty/{name}.txt" for name in ("train_data", "valid_data", "test")
    ]


HELP = """
import sys
from drrl_core.cli import main
sys.argv = ["drrl", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "pandas", "papermill", "matplotlib"} & set(sys.modules)
assert not heavy, f"imported: {heavy}"
"""


@pytest.mark.parametrize("line", ["--help", "train --help", "data --help", "runs --help"])
def test_help_imports_nothing_heavy(line):
    done = python("-c", HELP, *line.split())
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_data_commands_do_without_torch():
    done = python("-c", HELP.replace('"pandas", ', ""), "data", "list")
    assert done.returncode == 0, done.stderr


def test_every_loss_is_within_reach(drrl):
    code, _, err = drrl("train synthetic --loss ?")
    assert code == 2 and all(name in err for name in losses.REGISTRY)
