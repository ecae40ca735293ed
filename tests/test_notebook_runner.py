"""The runner on tiny notebooks: what it refuses, what it leaves behind, and what a page shows."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytest.importorskip("latex2mathml")
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from drrl_core import notebooks
from drrl_core.notebooks import NotebookError

PARAMETERS = """\
epochs: int = 3  # passes over the data; [1, 100]
lr: float | None = 0.1  # learning rate, per step; (0, 1]
losses: list[str] = ["sl"]  # which; {sl, ccl, drrl}
device: str = "cpu"
verbose: bool = False
out_dir: str = "."  # where figures and results go
"""
FIGURE = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot(range(epochs));
"""
RESULTS = """\
import json, os, pathlib, sys
names = "MPLBACKEND", "JPY_SESSION_NAME", "SERVER_SOFTWARE"
found = {"epochs": epochs, "python": sys.executable, "cwd": os.getcwd()}
found["environment"] = {name: os.environ.get(name) for name in names}
pathlib.Path(out_dir, "results.json").write_text(json.dumps(found))
"""
PROSE = r"""# Which *negatives* count, at $c = 1$?

Inline $f_j$, \\(\gamma^*\\), \(b_2\); a price of \$5, not \$6; code `$HOME`, `$$` and `$$`;
[next](01_next.ipynb#play) and [elsewhere](https://example.org/a.ipynb). ![dot](dot.png)

$$R(f) = \max_{Q \in B} \mathbb{E}_Q[f] = \min_\beta \beta + c \, \lVert (f - \beta)_+ \rVert$$

\begin{align} D_\gamma(Q\|P) &= \log \sum_j P_j w_j^\gamma \\[2pt] &= \tau \log n \end{align}

\\[ w_j = \begin{cases} e^\rho & f_j > \beta \\ 0 & \text{otherwise} \end{cases} \\]

| loss | value $|x|$ |
|------|-------------|
| SL   | $a_1 * b_1 * c_1$ |

<details><summary>Answer for $n = 2$</summary>

Folded:
$$\begin{aligned} a &= b \\ &= \operatorname*{arg\,max}_x g(x) \end{aligned}$$

</details>

```python
price = "$x$ and $$y$$"
```

    indented = "$z$"

## With $\rho$ in a heading
"""
PIXEL = (  # a PNG, one by one
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def write(path, *cells, parameters=PARAMETERS):
    """A notebook: a str is a code cell."""
    tagged = new_code_cell(parameters or "", metadata={"tags": ["parameters"]})
    cells = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[tagged, *cells] if parameters else cells), path)
    return path


def run(path, **options):
    return notebooks.run(path, out_dir=path.parent / "out", progress=False, html=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One good run, on a machine that sets every known trap."""
    home = tmp_path_factory.mktemp("home {of} notebooks")
    spec = home / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "trap", "language": "sh"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home / "share"))
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("JPY_SESSION_NAME", "somewhere.ipynb")
        patch.setenv("SERVER_SOFTWARE", "voila/0.5")
        from jupyter_client.kernelspec import get_kernel_spec

        assert get_kernel_spec("python3").argv == ["/bin/false"]
        source = write(home / "07_tiny.ipynb", new_markdown_cell(PROSE), FIGURE, RESULTS)
        (home / "dot.png").write_bytes(base64.b64decode(PIXEL))
        record = notebooks.run(
            source, out_dir=home / "out", parameters={"epochs": 5, "lr": "1e-3"}, progress=False
        )
    return home, record


# What is declared


def test_parameters_are_read_not_executed(tmp_path):
    path = write(tmp_path / "a.ipynb", "raise SystemExit")
    found = notebooks.parameters(path)
    assert list(found) == ["epochs", "lr", "losses", "device", "verbose", "out_dir"]
    assert found["lr"] == notebooks.Parameter(
        "lr", "float | None", 0.1, "learning rate, per step", "(0, 1]"
    )
    assert found["losses"].default == ["sl"] and found["device"].help == ""


@pytest.mark.parametrize(
    ("cell", "line", "words"),
    [
        ("a: int = 1\nb: int = 2; c: int = 3", 2, "expected one"),
        ("a: int = 1\nb = 2", 2, "expected one"),
        ("a: int = 1\nb: int", 2, "expected one"),
        ("import os\na: int = 1", 1, "expected one"),
        ("a: int = 1\n\nb: int = len('no')", 3, r"len\('no'\) is not a literal"),
        ("a: int = 1.5", 1, "a = 1.5 is not int"),
        ("a: tuple = (1, 2)", 1, "tuple is none of int"),
        ("a: int | txt = 1", 1, "txt is none of int"),
        ("a: int = 1  # count; from 1 to 9", 1, "neither like"),
        ("a: int = 0  # count; [1, 9]", 1, r"a = 0 is outside \[1, 9\]"),
        ("a: str = 'x'  # text; [1, 9]", 1, "str"),
        ("a: int = 1\n%matplotlib inline", 2, "invalid syntax"),
    ],
)
def test_a_bad_parameter_cell_is_named_by_cell_and_line(tmp_path, cell, line, words):
    path = write(tmp_path / "a.ipynb", parameters=cell)
    with pytest.raises(NotebookError, match=rf"a\.ipynb, cell 1, line {line}: .*{words}"):
        notebooks.parameters(path)


def test_no_parameter_cell_and_no_notebook(tmp_path):
    with pytest.raises(NotebookError, match="0 cells are tagged"):
        notebooks.parameters(write(tmp_path / "a.ipynb", "1", parameters=None))
    (tmp_path / "b.ipynb").write_text("{}")
    with pytest.raises(NotebookError, match="no notebook"):
        notebooks.parameters(tmp_path / "b.ipynb")


def test_find(tmp_path, monkeypatch):
    shelf = tmp_path / "notebooks"
    first = write(shelf / "00_start_here.ipynb")
    own = write(tmp_path / "own.ipynb")
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "drrl_core" / "notebooks.py"))
    assert notebooks.folder() == shelf
    for name in ("00", "00_start_here", "00_start_here.ipynb", first):
        assert notebooks.find(name) == first
    assert notebooks.find(own) == own
    with pytest.raises(NotebookError, match="did you mean '00_start_here'"):
        notebooks.find("00_strat_here")
    with pytest.raises(NotebookError, match="there is 00_start_here"):
        notebooks.find("99")
    shutil.rmtree(shelf)
    with pytest.raises(NotebookError, match="come with a checkout"):
        notebooks.find("00")


# What is refused before anything starts


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 3}, "no parameter 'epoch': did you mean 'epochs'"),
        ({"epochs": "3"}, "epochs = '3' is not int .passes over"),
        ({"epochs": True}, "is not int"),
        ({"epochs": 101}, r"outside \[1, 100\]"),
        ({"epochs": None}, "is not int"),
        ({"lr": 0.0}, r"outside \(0, 1\]"),
        ({"lr": float("nan")}, r"outside"),
        ({"lr": "high"}, r"is not float \| None"),
        ({"losses": "sl"}, r"is not list\[str\]"),
        ({"losses": ["sl", "slc"]}, "losses = 'slc' is outside"),
        ({"verbose": 1}, "is not bool"),
        ({"device": Path("x")}, "is not str"),
    ],
)
def test_wrong_values_start_nothing(tmp_path, given, words):
    with pytest.raises(NotebookError, match=words):
        run(write(tmp_path / "a.ipynb"), parameters=given)
    assert not (tmp_path / "out").exists()


def test_the_source_is_not_overwritten(tmp_path):
    path = write(tmp_path / "a.ipynb")
    with pytest.raises(NotebookError, match="another folder"):
        notebooks.run(path, out_dir=tmp_path)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(NotebookError, match=r"pip install 'drrl-core\[notebooks\]'"):
        run(write(tmp_path / "a.ipynb"))


# What a good run leaves


def test_the_record_says_what_ran(finished):
    home, record = finished
    assert record["status"] == "done" and record["notebook"] == "07_tiny"
    assert record["parameters"] == {
        "epochs": 5,
        "lr": 0.001,
        "losses": ["sl"],
        "device": "cpu",
        "verbose": False,
        "out_dir": str(home / "out"),
    }
    assert record["seconds"] > 0 and {"python", "papermill"} <= set(record["versions"])
    written = json.loads((home / "out" / "07_tiny.json").read_text())
    assert written | {"results": record["results"]} == record
    files = {path.name for path in (home / "out").iterdir()}
    assert files == {"07_tiny.ipynb", "07_tiny.html", "07_tiny.json", "results.json"}


def test_the_kernel_is_this_python_without_a_front_end(finished):
    home, record = finished
    results = record["results"]
    assert results["epochs"] == 5
    assert results["python"] == sys.executable
    assert Path(results["cwd"]).samefile(home)
    environment = results["environment"]
    assert environment.pop("MPLBACKEND") in (None, "module://matplotlib_inline.backend_inline")
    assert set(environment.values()) == {None}


def test_figures_are_inside_whatever_the_backend_outside(finished):
    notebook = nbformat.read(finished[0] / "out" / "07_tiny.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


# What a failed run leaves


@pytest.mark.parametrize(
    ("cell", "timeout", "words"),
    [
        ("1 / epochs\n1 / 0", None, "ZeroDivisionError: division by zero"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, "DeadKernelError: "),
        ("import os; os._exit(0)", None, "DeadKernelError: "),
        ("import time; time.sleep(60)", 1, "CellTimeoutError: .* after 1 seconds"),
        ("raise SystemExit(0)", None, "SystemExit: 0"),
    ],
    ids=["exception", "killed", "exit", "timeout", "sys.exit"],
)
def test_a_failure_is_never_taken_for_success(tmp_path, cell, timeout, words):
    path = write(tmp_path / "a.ipynb", "print('fine')", cell, "print('never')")
    record = tmp_path / "out" / "a.json"
    record.parent.mkdir()
    for stale in (record, record.with_suffix(".html")):
        stale.write_text("of an earlier run")
    with pytest.raises(NotebookError) as caught:
        run(path, parameters={"epochs": 2}, timeout=timeout)
    first = re.escape(cell.splitlines()[0])
    executed = record.with_suffix(".ipynb")
    assert re.search(rf"a failed in cell \[4\], `{first}`\n  {words}", str(caught.value))
    assert str(executed) in str(caught.value)
    assert f"drrl notebook {path} --out {tmp_path / 'out'} -p epochs=2" in str(caught.value)
    assert not record.exists() and not record.with_suffix(".html").exists()
    cells = nbformat.read(executed, as_version=4).cells
    cells = [each for each in cells if each.cell_type == "code"]
    assert "fine" in cells[-3].outputs[0].text
    assert "error" in [output.output_type for output in cells[-2].outputs]
    assert not cells[-1].outputs
    if "SystemExit" not in cell:
        assert [each.metadata.papermill.status for each in cells[-2:]] == ["failed", "pending"]


def test_results_of_an_earlier_run_are_not_ours(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    record = run(write(tmp_path / "a.ipynb", "assert lr is None"), parameters={"lr": None})
    assert record["status"] == "done" and "results" not in record


def test_results_must_be_json(tmp_path):
    path = write(tmp_path / "a.ipynb", "open(f'{out_dir}/results.json', 'w').write('{,}')")
    with pytest.raises(NotebookError, match=r"results\.json, not JSON"):
        run(path)
    assert not (tmp_path / "out" / "a.json").exists()


def test_the_bare_papermill_command_runs_it_too(tmp_path):
    path = write(tmp_path / "a.ipynb", FIGURE, RESULTS)
    command = [sys.executable, "-m", "papermill", path, tmp_path / "b.ipynb", "-k", "python3"]
    environment = {k: v for k, v in os.environ.items() if k not in notebooks._FRONT_END}
    # the language, which our runner names, is in every notebook saved by Jupyter
    command += ["--language", "python", "-p", "epochs", "2", "-p", "out_dir", tmp_path]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert json.loads((tmp_path / "results.json").read_text())["epochs"] == 2


# The page


def test_a_page_needs_nothing_from_elsewhere(finished):
    page = (finished[0] / "out" / "07_tiny.html").read_text()
    assert "<script" not in page and "<link" not in page
    assert not re.findall(r'<(?!a )\w[^>]*(?:src|href)="(?!data:)', page)
    assert page.count('src="data:image/png;base64,') == 2  # the figure, and dot.png of the prose
    assert '<html lang="en">' in page and 'name="viewport"' in page
    assert "<title>Which negatives count, at c = 1?</title>" in page


def test_formulas_become_mathml_and_nothing_else_does(finished):
    page = (finished[0] / "out" / "07_tiny.html").read_text()
    assert page.count("<math") == page.count("</math>") == 12
    assert page.count('<math display="block">') == 4
    prose = re.sub(r"<(code|pre)\b.*?</\1>|<[^>]*>", "", page, flags=re.DOTALL)
    prose = prose[prose.index("Inline") :]
    assert "\\" not in prose and "qFORMULA" not in page
    assert "a price of $5, not $6;" in prose and prose.count("$") == 2
    assert "<code>$HOME</code>, <code>$$</code> and <code>$$</code>" in page
    assert '"$x$ and $$y$$"' in page and 'indented = "$z$"' in page
    assert "a1*b1*c1" in prose  # no emphasis inside a formula


def test_folds_stay_closed_around_their_content_and_links_lead_to_pages(finished):
    page = (finished[0] / "out" / "07_tiny.html").read_text()
    fold = re.search(r"<details>.*?</details>", page, re.DOTALL)[0]
    assert "Folded:" in fold and fold.count("<math") == 2
    assert 'href="01_next.html#play"' in page and 'href="https://example.org/a.ipynb"' in page


def test_widgets_and_scripts_stay_out(tmp_path):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "Slider()"}
    script = {"application/javascript": "alert(1)", "text/plain": "a script"}
    outputs = [new_output("display_data", data=data) for data in (view, script)]
    outputs += [new_output("display_data", data={"text/latex": r"$\frac{a}{b}$"})]
    notebook = new_notebook(cells=[new_code_cell("slider", outputs=outputs)])
    notebook.metadata.widgets = {
        "application/vnd.jupyter.widget-state+json": {"state": {"m": {}}, "version_major": 2}
    }
    nbformat.write(notebook, tmp_path / "a.ipynb")
    page = notebooks.export_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    assert "Slider()" in page and "a script" in page and "<mfrac>" in page
    assert "<script" not in page and "<title>a</title>" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"$\frac{a}{$ here", "left as TeX"),
        (r"$\nosuchword$", r"no .nosuchword"),
        ("![far](https://example.org/far.png)", "far.png, which is not inside"),
    ],
)
def test_what_cannot_be_inside_is_warned_about(tmp_path, text, words):
    nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), tmp_path / "a.ipynb")
    with pytest.warns(UserWarning, match=words):
        notebooks.export_html(tmp_path / "a.ipynb", tmp_path / "a.html")


@pytest.mark.parametrize(
    ("tex", "tag"),
    [
        (r"$$\max_x f$$", "<munder><mo"),
        (r"$\max_x f$", "<msub><mo"),
        (r"$\operatorname*{arg\,max}_x$", "arg\u2009max"),
        (r"$\log n$", '<mo lspace=".17em" rspace=".17em">log</mo>'),
        (r"$a \& b \text{ if } x < y$", "<mi>&amp;</mi>"),
        ("$$\n\\begin{split} a &= b \\label{eq} \\\\ &= c \\notag \\end{split}\n$$", "<mtable"),
    ],
)
def test_what_the_formulas_of_the_suite_use(tmp_path, tex, tag):
    nbformat.write(new_notebook(cells=[new_markdown_cell(tex)]), tmp_path / "a.ipynb")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        page = notebooks.export_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    assert tag in page


@pytest.mark.browser
def test_a_page_in_a_real_browser_without_network(finished, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    browser = next(filter(None, map(shutil.which, names)), None)
    if not browser:
        pytest.skip(f"no browser: none of {', '.join(names)} is on PATH (apt install chromium)")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    asked, failed = [], []

    def route(handler):
        asked.append(handler.request.url)
        (handler.continue_ if handler.request.url.startswith("file:") else handler.abort)()

    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=options)
        context = chromium.new_context(offline=True, viewport={"width": 390, "height": 844})
        page = context.new_page()
        page.route("**/*", route)
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("console", lambda message: failed.append(message.text))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto((finished[0] / "out" / "07_tiny.html").as_uri())
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)
        widths = page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")
        assert len(widths) == 2 and min(widths) > 0
        heights = page.eval_on_selector_all(
            "math", "all => all.map(each => each.getBoundingClientRect().height)"
        )
        assert len(heights) == 12 and sorted(heights)[1] > 5  # all but the folded one
        assert page.evaluate("document.documentElement.scrollWidth") <= 390  # a phone's width
        answer = page.get_by_text("Folded:")
        assert not answer.is_visible()
        page.locator("summary").click()
        assert answer.is_visible()
        page.screenshot(path=tmp_path / "phone.png", full_page=True)
        page.set_viewport_size({"width": 1100, "height": 900})
        page.screenshot(path=tmp_path / "wide.png", full_page=True)
        chromium.close()
    assert (tmp_path / "wide.png").stat().st_size > 10_000
