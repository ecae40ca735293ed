"""The `drrl` command. Torch and the notebook machinery are imported only by what needs them."""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from drrl_core.cli_data import DataDir, choose_model, data_app, recommend

app = typer.Typer(
    help="Distributionally robust losses for recommenders: SL, CCL and DrRL as one family.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,  # else it swallows [default: …]
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
runs_app = typer.Typer(
    help="The finished runs, kept in $DRRL_RUNS or data/runs: list, show, compare.",
    no_args_is_help=True,
)
app.add_typer(runs_app, name="runs")


Model = Annotated[
    str | None,
    typer.Option(
        help="A classical model in place of a loss: popularity, itemknn, ease, ials, svd."
    ),
]


def _pairs(given: list[str], option: str) -> dict[str, str]:
    for text in given:
        if "=" not in text:
            raise ValueError(f"{option} {text!r}: give NAME=VALUE, such as {option} lr=0.003")
    return dict(text.split("=", 1) for text in given)


@app.command()
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set's name, or the path of your own file, perhaps with options: "
            "'ratings.csv?min_rating=4&k_core=5&split=time' (data/README.md has them all)."
        ),
    ],
    backbone: Annotated[str, typer.Option(help="A backbone (an unknown name lists them).")] = "mf",
    loss: Annotated[str, typer.Option(help="A loss (an unknown name lists them).")] = "sl",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: loss.x, backbone.x, train.x, or x. Repeatable."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Negatives from: per-row, shared-pool or catalogue.")
    ] = None,
    negatives: Annotated[int | None, typer.Option(help="Negatives a row, or of the pool.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most this many epochs.")] = None,
    model: Model = None,
    mask: Annotated[
        str | None, typer.Option(help="Left out of the test ranking: train or train+valid.")
    ] = None,
    refit: Annotated[
        str | None,
        typer.Option(help="train+valid: train on both, a loss for its best epochs without."),
    ] = None,
    popularity: Annotated[
        str | None,
        typer.Option(
            help="Show the accuracy with popularity put back, too; nothing is trained anew. auto, "
            "chosen on valid, or its strength b."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One seed, one result [default: 0].")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    data_dir: DataDir = None,
    store: Annotated[
        bool,
        typer.Option(
            help="Serve a run that is finished, continue one that was stopped, and keep the result "
            "in $DRRL_RUNS or data/runs; or train regardless, and keep nothing."
        ),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON, on the last line.")
    ] = False,
):
    """Train a loss on a backbone, or a classical model; rank all items for every user, print the
    accuracy.
    """
    from functools import partial

    from drrl_core.lab.run import configure, execute, parse_value, refitting
    from drrl_core.lab.store import get_or_train, store_folder

    chosen = {key: parse_value(text) for key, text in _pairs(settings or [], "--set").items()}
    options = {
        "sampler": sampler,
        "negatives": negatives,
        "epochs": epochs,
        "mask": mask,
        "seed": seed,
    }
    chosen |= {f"train.{key}": value for key, value in options.items() if value is not None}
    run = configure(dataset, *(("", model) if model else (loss, backbone)), chosen)
    train = partial(get_or_train if store else execute, device=device, data_dir=data_dir)
    outcome = train(run)
    if refit:
        outcome = train(refitting(run, outcome, refit))
    record = outcome.record
    if outcome.served:
        print(
            f"served from {store_folder() / record['key']}, finished {record['finished']}; "
            "to train again: --no-store",
            file=sys.stderr,
        )
    elif record["finished"] is None:
        again = "; the same command continues" if store else ""
        print(f"stopped before its end, the best so far{again}", file=sys.stderr)
    if as_json:
        print(json.dumps(record))
        return
    what = f"{record['loss']} on {record['backbone']}" if record["loss"] else record["backbone"]
    print(f"{what}, {record['dataset']}, seed {record['seed']}")
    print(f"best epoch {record['best_epoch']}, {record['seconds']:.1f} s on {record['device']}")
    for split in ("valid", "test"):
        found = record[split].items()
        metrics = "  ".join(f"{name} {'none' if v is None else f'{v:.4f}'}" for name, v in found)
        print(f"{split:>5}  {metrics}")
    if popularity is not None:
        b = outcome.strength(parse_value(popularity))
        for name, value in outcome.turned([0.0, b]).T.iterrows():
            print(f"{name:>16}  {value.iloc[0]:.4f}  with b = {b:g}: {value.iloc[1]:.4f}")


app.command()(recommend)
app.command("choose")(choose_model)


def _yaml(text: str):
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {text.strip()!r}: {' '.join(str(error).split())}") from error


Workers = Annotated[
    int | None,
    typer.Option(help="Runs at a time; by default 1, or one for each of the cluster's; 0: here."),
]
Threads = Annotated[int, typer.Option(help="Of each worker; no more in all than there are cores.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="A Dask scheduler, tcp://host:port, to compute on its workers. Whoever reaches it can "
        "run any code there: a trusted network only, or TLS."
    ),
]
Csv = Annotated[Path | None, typer.Option(help="Merge the results into this file, a row a run.")]


def _show(found) -> None:
    """Runs as a table; a run's settings last, since they are long."""
    columns = ["key", "variant", "seed", "valid_ndcg@20", "test_recall@20", "test_ndcg@20"]
    if len(found):
        print(found[[*columns, "seconds", "settings"]].round(4).to_string(index=False))


@app.command()
def tune(
    dataset: Annotated[
        str, typer.Argument(help="A data set's name, or the path of your own file.")
    ],
    loss: Annotated[
        str, typer.Option(help="A loss, or a variant of one (an unknown name lists them).")
    ] = "sl",
    backbone: Annotated[str, typer.Option(help="A backbone (an unknown name lists them).")] = "mf",
    model: Model = None,
    trials: Annotated[int, typer.Option(help="The budget; ones that are pruned count.")] = 20,
    seeds: Annotated[int, typer.Option(help="Train the best with this many seeds.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, not to be searched; see `drrl train`. Repeatable."),
    ] = None,
    popularity: Annotated[
        str, typer.Option(help="auto: judge each trial with popularity put back, b from valid.")
    ] = "0",
    storage: Annotated[
        str | None,
        typer.Option(help="Where studies are kept, an SQLAlchemy URL; by default the run store."),
    ] = None,
    csv: Csv = None,
    workers: Workers = None,
    threads: Threads = 1,
    scheduler: Scheduler = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    data_dir: DataDir = None,
):
    """Search a loss's hyper-parameters on valid; the same command continues what was stopped.

    It begins with published values and this loss's best on other data sets (those in --csv);
    tune sl and ccl before drrl, which also begins with their optima, and halfway between.
    """
    from drrl_core.lab import tune as tuning
    from drrl_core.lab.run import parse_value
    from drrl_core.lab.workers import Compute

    chosen = {key: parse_value(text) for key, text in _pairs(settings or [], "--set").items()}
    found = tuning.tune(
        dataset,
        model or loss,
        backbone=model or backbone,
        trials=trials,
        seeds=seeds,
        config=chosen,
        popularity=parse_value(popularity) or 0,
        storage=storage,
        csv=csv,
        compute=Compute(None, data_dir, device, workers, threads, scheduler),
    )
    _show(found)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="YAML: grids over runs, or over a notebook.")],
    csv: Csv = None,
    workers: Workers = None,
    threads: Threads = 1,
    scheduler: Scheduler = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    data_dir: DataDir = None,
):
    """Run all configurations of a file, but for those that are done.

    {dataset: amazon-beauty, loss: sl, settings: {temperature: [0.1, 0.2], seed: [0, 1, 2]}}

    A list anywhere means each of its values; the file may be a list of such blocks.
    """
    from drrl_core.lab import sweep as sweeps
    from drrl_core.lab.workers import Compute
    from drrl_core.pages.sweeps import notebook_job

    compute = Compute(None, data_dir, device, workers, threads, scheduler)
    _show(sweeps.sweep(file, csv=csv, compute=compute, notebook=notebook_job))


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="A notebook: 00, 00_start_here, or a path.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", help="NAME=VALUE, the value in YAML. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what it leaves [default: out/NAME].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds any one cell may take [default: any].", min=1)
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Only list its parameters, with defaults and ranges.")
    ] = False,
):
    """Execute a notebook with parameters; leave it, an HTML page, pictures and results."""
    from drrl_core.pages import runner

    source = runner.find(name)
    if show:
        for each in runner.parameters(source).values():
            limits = f" {each.range}" if each.range else ""
            print(
                f"-p {each.name}={json.dumps(each.default)}\n    {each.type}{limits}: {each.help}"
            )
        return
    given = {key: _yaml(text) for key, text in _pairs(parameters or [], "-p").items()}
    out = out or Path("out") / source.stem
    record = runner.run(name, out_dir=out, parameters=given, timeout=timeout)
    print(f"done in {record['seconds']:.0f} s")
    for path in sorted(out.iterdir()):
        print(f"  {path}")
    print(f"to read: {out / source.with_suffix('.html').name}")


@app.command("notebooks")
def notebooks_all(
    names: Annotated[
        list[str] | None, typer.Argument(help="Notebooks, as for `drrl notebook` [default: all].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that gets a folder for each.")] = Path(
        "out/notebooks"
    ),
    parameters: Annotated[
        Path | None, typer.Option(help="A YAML file of parameters: notebook: {name: value}.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes at once [default: one a core].", min=1)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds any one cell may take.", min=1)] = 3600,
):
    """Execute many notebooks side by side, past any failure; then list the failures."""
    from drrl_core.pages import runner

    given = _yaml(parameters.read_text(encoding="utf-8")) if parameters else {}
    failed, total = [], 0
    options = {"parameters": given, "timeout": timeout, "jobs": jobs}
    for record in runner.run_all(names or (), out_dir=out, **options):
        total += 1
        print(f"{record['notebook']:<24} {record['status']:<8} {record['seconds']:>6.0f} s")
        sys.stdout.flush()
        failed += [record] if record["status"] != "done" else []
    if failed:
        print(f"\n{len(failed)} of {total} failed:", file=sys.stderr)
        for record in failed:
            print(f"\n{record['notebook']}", file=sys.stderr)
            for name in ("where", "error", "again"):
                print(f"  {name:<6} {record[name]}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def site(
    executed: Annotated[Path, typer.Option(help="What `drrl notebooks` left.")] = Path(
        "out/notebooks"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the pages and their index.html.")] = Path(
        "out/site"
    ),
):
    """Make the site: executed notebooks, results, reference; static pages that need no network."""
    from drrl_core.pages import site

    print(f"to read: {site.build(executed, out)}")


@app.command()
def lesson(
    executed: Annotated[Path, typer.Option(help="What `drrl notebooks 00 02` left.")] = Path(
        "out/notebooks"
    ),
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("notebooks/TEACHING.md"),
):
    """Write the lesson for teachers, with the numbers of executed notebooks 00 and 02."""
    from drrl_core.pages import lesson

    lesson.write(executed, out)


@app.command()
def hosted():
    """Fit the notebooks to `address` in pyproject.toml: links to Colab and Binder, or none."""
    from drrl_core.pages import hosted, runner

    hosted.fit(runner.folder(), hosted.address(runner.folder().parent))


@app.command()
def plan(
    dataset: Annotated[str, typer.Argument(help="A data set's name, as in runs.csv.")],
    backbone: Annotated[str, typer.Option(help="A backbone (an unknown name lists them).")] = "mf",
    results: Annotated[Path, typer.Option(help="Folder with runs.csv.")] = (Path("data/results")),
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("data/sweeps"),
):
    """Write the sweeps of Figures 4 and 5 for the losses as they were tuned, for `drrl sweep`.

    False negatives for SL, BSL, CCL, AdvInfoNCE and DrRL, and for DrRL at other radii too; the
    order at DrRL's own c and radius. What is not in runs.csv yet is left out: run it again when it
    is.
    """
    from functools import partial

    from drrl_core.lab.results import read_runs
    from drrl_core.paper import plans

    rows = read_runs(results / "runs.csv")
    rows = rows[(rows["dataset"] == dataset) & (rows["backbone"] == backbone)]
    breakdown = partial(plans.noise_plan, seeds=range(1), radii=plans.RADII)
    for name, variants, make in (
        ("noise", ("sl", "bsl-pooled", "ccl", "advinfonce", "drrl"), plans.noise_plan),
        ("breakdown", ("drrl",), breakdown),
        ("order", ("drrl", "drrl-exact"), plans.order_plan),
    ):
        blocks = make(rows[rows["variant"].isin(variants)])
        if blocks:
            print(plans.write_plan(blocks, out / f"{dataset}_{backbone}_{name}.yaml"))
        else:
            print(f"{name}: none of {', '.join(variants)} was tuned for", file=sys.stderr)


@app.command()
def harvest(
    results: Annotated[
        Path, typer.Option(help="Folder with runs.csv; skew.csv and per_user are written there.")
    ] = Path("data/results"),
    users: Annotated[
        int | None, typer.Option(help="Weights of so many users a run [default: all].", min=1)
    ] = None,
    data_dir: DataDir = None,
):
    """Take from the run store what the scorecard asks of the runs that count.

    Each user's accuracy, and where the loss's weight goes, for the runs that were selected.
    """
    from drrl_core.lab import results as tables

    missing = tables.harvest(results, users=users, data_dir=data_dir)
    for key, why in missing.items():
        print(f"{key}: {why}", file=sys.stderr)
    print(f"{results / 'skew.csv'}\n{results / 'per_user'}: {len(missing)} runs are missing")


@app.command()
def scorecard(
    results: Annotated[
        Path, typer.Option(help="Folder with runs.csv, skew.csv and per_user; scorecard.csv too.")
    ] = Path("data/results"),
    page: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path(
        "out/scorecard.html"
    ),
    fill: Annotated[
        list[Path] | None,
        typer.Option(help="A Markdown page whose tables are made anew (see tables). Repeatable."),
    ] = None,
):
    """Set every number and claim of the paper beside what was measured here."""
    from drrl_core.lab.results import read_runs
    from drrl_core.paper import scorecard, tables

    if not results.is_dir():
        raise ValueError(f"{results} is no folder of results: drrl tune --csv {results}/runs.csv")
    table = scorecard.build(results)
    page.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(results / "scorecard.csv", index=False, float_format="%.6g")
    page.write_text(scorecard.page(table), encoding="utf-8")
    rows = read_runs(results / "runs.csv")
    for path in fill or ():
        path.write_text(tables.fill(path.read_text(encoding="utf-8"), rows), encoding="utf-8")
    for verdict, count in table["verdict"].value_counts().items():
        print(f"{count:>4}  {verdict}")
    print(f"{results / 'scorecard.csv'}\nto read: {page}")


@app.command()
def campaign(
    file: Annotated[Path, typer.Option(help="The cells, in order.")] = Path("data/campaign.yaml"),
    results: Annotated[
        Path, typer.Option(help="Folder with runs.csv, which says what is done.")
    ] = (Path("data/results")),
    status: Annotated[
        bool, typer.Option("--status", help="Say how far it is; run nothing.")
    ] = False,
    cells: Annotated[int | None, typer.Option(help="Run so many [default: all].", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    data_dir: DataDir = None,
):
    """Run what is missing of the project's long runs, cell by cell, at the lowest priority.

    Ctrl-C or SIGTERM stops it, and the same command goes on, on another machine too.
    """
    from drrl_core.lab import campaign
    from drrl_core.lab.workers import Compute

    if status:
        found = campaign.status(file, results)
        left = found[found["missing"] > 0]
        print(f"done: {len(found) - len(left)} of {len(found)} cells")
        for n, (_, row) in enumerate(left.iterrows()):
            hours = "time not known" if row["hours"] != row["hours"] else f"{row['hours']:.1f} h"
            print(f"{'next:' if n == 0 else '':<6}{row['cell']}: {row['missing']} runs, {hours}")
        print(
            f"in all {left['hours'].sum():.0f} h, and {left['hours'].isna().sum()} cells not known"
        )
        return
    compute = Compute(device=device, data_dir=data_dir)
    if failed := campaign.run(file, results, cells=cells, compute=compute):
        raise ValueError(f"{len(failed)} cells failed, all others were run: {'; '.join(failed)}")


@app.command()
def doctor():
    """What this installation is and finds: versions, devices, folders; to send with a question."""
    from drrl_core.lab import doctor

    for name, text in doctor.report().items():
        print(f"{name + ':':<12}{text}")


@runs_app.command("list")
def runs_list(
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Everything there is of each run, as CSV.")
    ] = False,
):
    """The finished runs, one a line, the latest last."""
    from drrl_core.lab import store

    found = store.table()
    if as_csv:
        found.to_csv(sys.stdout, index=False)
        return
    if not len(found):
        print(f"no finished runs in {store.store_folder()}", file=sys.stderr)
        return
    columns = ["key", "dataset", "backbone", "loss", "seed", "sampler", "best_epoch"]
    columns += ["valid_ndcg@20", "test_ndcg@20", "seconds", "device", "finished"]
    shown = found[columns].rename(columns=lambda name: name.replace("_", " ").replace("best ", ""))
    print(shown.round(4).to_string(index=False))


@runs_app.command("show")
def runs_show(key: Annotated[str, typer.Argument(help="A run's key, or its first digits.")]):
    """A run's record: configuration, accuracy, what it was computed with."""
    from drrl_core.lab import store

    print(json.dumps(store.record(key), indent=2))


@runs_app.command("compare")
def runs_compare(
    a: Annotated[str, typer.Argument(help="A run's key, or its first digits.")],
    b: Annotated[str, typer.Argument(help="Another's.")],
):
    """Two runs' accuracy: means over users, a - b, its 95% interval, p of no difference."""
    from drrl_core.lab import store

    for name, key in (("a", a), ("b", b)):
        record = store.record(key)
        print(f"{name}  {record['key']}  {record['loss']} on {record['backbone']}, ", end="")
        print(f"{record['dataset']}, seed {record['seed']}")
    print(store.compare(a, b).to_string(float_format="{:.4f}".format))


def _plainly(message: Warning | str, *_: object) -> str:
    return f"drrl: look: {message}\n"


def main() -> None:
    """Run the command; an error of the user's making is one clear line, not a traceback."""
    shown, warnings.formatwarning = warnings.formatwarning, _plainly
    try:
        app()
    except Exception as error:
        known = {"ValueError", "DataError", "NotebookError", "DivergedError"}
        known |= {"RunError", "CheckpointError", "SearchError"}
        if isinstance(error, ModuleNotFoundError) and not error.name.startswith("drrl_core"):
            error = ValueError(f"{error}: pip install 'drrl-core[notebooks]'")
        if type(error).__name__ not in known:
            raise
        print(f"drrl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        warnings.formatwarning = shown
