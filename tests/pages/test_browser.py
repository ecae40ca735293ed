"""A real browser: dials in JupyterLab and in Voilà answer to the keyboard, pages need no network.

Screenshots are left in out/browser, and what went wrong beside them. Selectors and what is known
of the explorers' layout are in `Explorer`; all waiting is for a state, none for a time.
"""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml
from test_html import executed

from drrl_core import dro
from drrl_core.pages import html, runner
from drrl_core.show import explorers, style

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "out" / "browser"
SHELF = [*(ROOT / "notebooks").glob("*.ipynb")]
PATIENCE = 120  # seconds, for anything: a loaded machine is slow, not broken
NEWS = "@jupyterlab/apputils-extension:notification"
KERNELS = "@jupyterlab/apputils-extension:kernels-settings"
GAUSSIAN = np.random.default_rng(0).normal(0, 0.3, 500)  # as in 01, seed 0
TINY = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
TINY["01_worst_case"] = (TINY.get("01_worst_case") or {}) | {"negatives": len(GAUSSIAN)}


def eventually(check, what: str):
    """The first true value of `check()`."""
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)
    return found


def tiny(name: str, folder: Path) -> Path:
    """A copy of a notebook of the shelf, on the tests' small parameters."""
    notebook = nbformat.read(runner.find(name), as_version=4)
    chosen = "".join(f"\n{key} = {value!r}" for key, value in (TINY[name] or {}).items())
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += chosen
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


class Explorer:
    """Dials, picture, readout: the explorer of a page that comes `nth`."""

    ROOT = ".widget-vbox:has(> img.widget-image)"

    def __init__(self, page, nth: int = 0):
        self.page = page
        self.root = page.locator(self.ROOT).nth(nth)
        self.image = self.root.locator("img.widget-image")
        self.dials = self.root.locator(".widget-hslider")
        self.root.wait_for(timeout=1000 * PATIENCE)
        eventually(self.picture, "the first picture")

    def readout(self) -> str:
        return self.root.locator(".drrl-readout").inner_text()

    def picture(self) -> str:
        """A hash of what is shown; empty while it is being replaced."""
        script = """async image => { try {
            const bytes = await (await fetch(image.src)).arrayBuffer();
            return image.naturalWidth ? Array.from(new Uint8Array(bytes)).join() : ""
        } catch { return "" } }"""
        shown = self.image.evaluate(script)
        return shown and hashlib.sha256(shown.encode()).hexdigest()

    def press(self, dial: int, *keys: str) -> None:
        self.dials.nth(dial).locator(".noUi-handle").focus()
        for key in keys:
            self.page.keyboard.press(key)

    def values(self) -> dict[str, str]:
        """What each dial says of itself, by its name, in the order of the page."""
        names = self.dials.locator(".widget-label").all_inner_texts()
        return dict(
            zip(names, self.dials.locator(".widget-readout").all_inner_texts(), strict=True)
        )

    def agrees(self) -> bool:
        """Whether the readout is the package's own answer at the dials' values (of GAUSSIAN)."""
        now = self.values()
        order = next(o for o in explorers.ORDERS if style.order_label(o) == now["order γ"])
        scores, radius = torch.from_numpy(GAUSSIAN), float(now["radius ρ"])
        value = float(dro.worst_case(scores, order=order, radius=radius).value)
        return f"value {value:.4g} score" in self.readout()

    def move(self, dial: int) -> None:
        """One dial by keyboard; the picture follows."""
        before, shown = self.values(), self.picture()
        name = list(before)[dial]
        self.press(dial, "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight")
        if self.values() == before:  # it was at its end
            self.press(dial, "ArrowLeft")
        assert self.values() != before, f"{name} does not move"
        if name != "temp. λ":  # the radius is what is held, to begin with
            eventually(lambda: self.picture() not in (shown, ""), f"a new picture after {name}")


@contextmanager
def browsing(chromium, name: str, log: Path | None = None, **options):
    """A page, and what it said of errors; on a failure its picture, console and server's log."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    said, faults = [], []
    context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1000}} | options)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: (said.append(str(error)), faults.append(str(error))))
    try:
        yield page
        assert not faults
    except BaseException:
        report = said + (log.read_text().splitlines() if log else [])
        (SHOTS / f"{name}.failed.txt").write_text("\n".join(report))
        page.screenshot(path=SHOTS / f"{name}.failed.png")
        raise
    finally:
        context.close()


@contextmanager
def serving(home: Path, command: list[str], settings: dict | None = None):
    """A Jupyter server of our own folders alone, on a free port: address and log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    own |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(settings or {}))
    log = home / "server.log"
    command = [sys.executable, "-m", *command, "--no-browser", f"--port={port}"]
    with log.open("w") as output:
        server = subprocess.Popen(command, env=os.environ | own, stdout=output, stderr=output)
    try:

        def answers() -> bool:
            assert server.poll() is None, log.read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        eventually(answers, f"{command[2]} answers")
        yield f"http://127.0.0.1:{port}", log
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def jupyterlab(home: Path, settings: dict | None = None):
    """JupyterLab, its settings the default ones but for the news pop-up; address and log."""
    settings = {NEWS: {"fetchNews": "false"}} | (settings or {})
    command = ["jupyterlab", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1"]
    command += ["--IdentityProvider.token=t", f"--ServerApp.root_dir={home / 'work'}"]
    with serving(home, command, settings) as (address, log):
        for name, chosen in settings.items():  # or a test of other settings would test the default
            with urllib.request.urlopen(f"{address}/lab/api/settings/{name}?token=t") as reply:
                known = json.load(reply)["schema"]["properties"]
            assert all(known[key]["default"] == value for key, value in chosen.items())
        yield address, log


def start_all(page, address: str, name: str) -> None:
    """Open a notebook, wait for its kernel, have every cell run."""
    for attempt in (1, 2):
        page.goto(f"{address}/lab/tree/{name}?token=t&reset")
        try:
            page.locator(".jp-Notebook .jp-Cell").first.wait_for()
            break
        except Exception:
            if attempt == 2:
                raise
    # The indicator says "idle" before there is a kernel, and cells run then are silently dropped.
    page.wait_for_function(
        "() => { const session = jupyterapp.shell.currentWidget?.sessionContext;"
        " const kernel = session?.session?.kernel;"
        " return session?.isReady && kernel?.connectionStatus === 'connected'"
        " && kernel.status === 'idle' }"
    )
    page.evaluate(
        "() => { window.ran = null; jupyterapp.commands.execute('notebook:run-all-cells')"
        ".then(() => { window.ran = true }) }"
    )


def run_all(page, address: str, name: str) -> None:
    """Open a notebook and run every cell to the end."""
    start_all(page, address, name)
    page.wait_for_function("() => window.ran")
    counts = page.evaluate(
        "() => Array.from(jupyterapp.shell.currentWidget.content.model.cells)"
        ".filter(cell => cell.type === 'code').map(cell => cell.executionCount)"
    )
    assert counts == list(range(1, len(counts) + 1))


def no_errors(page) -> None:
    said = '[data-mime-type="application/vnd.jupyter.{}"]'
    assert page.locator(said.format("error")).all_inner_texts() == []
    for text in page.locator(said.format("stderr")).all_inner_texts():  # progress bars are there
        assert not re.search("Warning|Traceback", text), text
    assert page.locator(".jp-Dialog").count() == 0
    assert page.get_by_text("Error displaying widget").count() == 0
    assert page.locator(".drrl-readout b").all_inner_texts() == []  # what a callback raised


def play(view: Explorer, shot: str) -> None:
    """Each dial by keyboard, then fifty moves at once; the readout is always the right one."""
    view.root.locator("select").select_option("Gaussian")
    eventually(view.agrees, "the first readout")
    names = list(view.values())
    assert names == ["order γ", "radius ρ", "temp. λ", "move β by"]
    for dial, name in enumerate(names):
        view.move(dial)
        eventually(view.agrees, f"the readout after {name}")
    assert "duality gap" in view.readout()
    view.page.screenshot(path=SHOTS / f"{shot}.png")

    start = float(view.values()["radius ρ"])
    view.press(1, *["ArrowRight"] * 50)
    assert float(view.values()["radius ρ"]) == pytest.approx(start + 50 * 0.05)
    eventually(view.agrees, "the readout after fifty moves")
    # Without haste: had an older picture or readout come last, this would not come back to it.
    for key, name in ("ArrowLeft", "one step back"), ("ArrowRight", "one step forth"):
        before = view.picture()
        view.press(1, key)
        eventually(lambda old=before: view.picture() not in (old, ""), f"a picture {name}")
        eventually(view.agrees, f"the readout {name}")
        if key == "ArrowLeft":
            quick = before
    eventually(lambda: view.picture() == quick, "the picture after fifty moves was the last one")


@pytest.mark.slow
def test_the_notebooks_in_jupyterlab(chromium, tmp_path):
    names = [path.stem for path in runner.folder().glob("0[12]_*.ipynb")]
    assert names
    for name in names:
        tiny(name, tmp_path / "work" / "notebooks")
    with jupyterlab(tmp_path) as (address, log), browsing(chromium, "lab", log) as page:
        for name in sorted(names):
            run_all(page, address, f"notebooks/{name}.ipynb")
            for nth in range(page.locator(Explorer.ROOT).count()):
                view = Explorer(page, nth)
                view.root.scroll_into_view_if_needed()
                if (name, nth) == ("01_worst_case", 0):
                    play(view, f"lab-{name}-{nth}")
                else:
                    for dial in range(view.dials.count()):
                        view.move(dial)
                    page.screenshot(path=SHOTS / f"lab-{name}-{nth}.png")
            assert nth >= 1
            no_errors(page)


@pytest.mark.slow
def test_without_subshells(chromium, tmp_path):
    name = tiny("01_worst_case", tmp_path / "work" / "notebooks").name
    settings = {KERNELS: {"commsOverSubshells": "disabled"}}
    shot = "lab-no-subshells"
    with jupyterlab(tmp_path, settings) as (address, log), browsing(chromium, shot, log) as page:
        run_all(page, address, f"notebooks/{name}")
        play(Explorer(page), shot)
        no_errors(page)


@pytest.mark.slow
def test_a_stop_is_heard_while_the_training_cell_runs(chromium, tmp_path):
    code = """from drrl_core.lab.run import configure, execute
from drrl_core.show import explorers
small = {"dim": 4, "negatives": 4, "epochs": 100_000, "evaluate_every": 1, "patience": 100_000}
run = configure("synthetic", "sl", config=small)
outcome = explorers.monitor(lambda on_epoch: execute(run, on_epoch=on_epoch, progress=False))
print("trained for", len(outcome.fit.history), "epochs")"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    (tmp_path / "work").mkdir()
    nbformat.write(notebook, tmp_path / "work" / "training.ipynb")
    with jupyterlab(tmp_path) as (address, log), browsing(chromium, "monitor", log) as page:
        start_all(page, address, "training.ipynb")
        image, button = page.locator("img.widget-image"), page.get_by_role("button", name="Stop")
        first = image.get_attribute("src")  # waits for it
        eventually(lambda: image.get_attribute("src") != first, "a picture of a first epoch")
        button.click()
        page.wait_for_function("() => window.ran")
        said = page.locator(".jp-OutputArea-output").last.inner_text()
        epochs = int(re.search(r"trained for (\d+) epochs", said)[1])
        assert 0 < epochs < 100_000
        assert page.get_by_role("button", name=f"stopped after {epochs} epochs").is_disabled()
        page.screenshot(path=SHOTS / "lab-monitor.png")
        no_errors(page)


@pytest.mark.slow
def test_voila(chromium, tmp_path):
    pytest.importorskip("voila")
    command = ["voila", str(tiny("01_worst_case", tmp_path / "notebooks")), "--Voila.ip=127.0.0.1"]
    command += ["--show-margins"]
    with serving(tmp_path, command) as (address, log), browsing(chromium, "voila", log) as page:
        page.goto(address)
        view = Explorer(page)
        view.root.scroll_into_view_if_needed()
        play(view, "voila")
        no_errors(page)
        page.locator("h1").first.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / "voila-top.png")


def watched(page) -> tuple[list[str], list[str]]:
    """What a page asks for, and what fails of it or is complained about; only files are given."""
    asked, failed = [], []

    def route(handler):
        asked.append(handler.request.url)
        (handler.continue_ if handler.request.url.startswith("file:") else handler.abort)()

    page.route("**/*", route)
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("console", lambda message: failed.append(message.text))
    return asked, failed


def pictures(page) -> list[int]:
    return page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")


PHONE = {"width": 390, "height": 844}
PICTURE = base64.b64encode((ROOT / "figures" / "weights.png").read_bytes()).decode()


def test_a_page_without_network(chromium, tmp_path):
    source = executed(tmp_path / "00_good.ipynb", picture=PICTURE)
    target = html.export_html(source, tmp_path / "00_good.html")
    with browsing(chromium, "page", offline=True, viewport=PHONE) as page:
        asked, failed = watched(page)
        page.goto(target.as_uri())
        assert len(pictures(page)) == 2 and min(pictures(page)) > 0
        heights = page.eval_on_selector_all(
            "math", "all => all.map(each => each.getBoundingClientRect().height)"
        )
        assert len(heights) == 12 and sorted(heights)[1] > 5  # all but the folded one
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        answer = page.get_by_text("Folded:")
        assert not answer.is_visible()
        page.locator("summary").click()
        assert answer.is_visible()
        page.screenshot(path=SHOTS / "page-phone.png", full_page=True)
        page.set_viewport_size({"width": 1100, "height": 900})
        page.screenshot(path=SHOTS / "page-wide.png", full_page=True)
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.slow
def test_the_site_without_network(chromium, built):
    with browsing(chromium, "site", offline=True, viewport=PHONE) as page:
        asked, failed = watched(page)
        page.goto((built / "index.html").as_uri())
        page.get_by_role("slider", name="order γ").focus()
        page.keyboard.press("End")
        page.get_by_text("Order ∞ (Cosine Contrastive Loss)").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SHOTS / "site-phone.png")
        page.set_viewport_size({"width": 1366, "height": 768})
        page.screenshot(path=SHOTS / "site-wide.png")
        page.get_by_role("link", name="Lessons").first.click()
        page.wait_for_load_state()
        assert len(pictures(page)) == len(SHELF) and min(pictures(page)) > 0
        page.screenshot(path=SHOTS / "site-lessons.png")
        page.get_by_role("link", name="01 What does the worst case").last.click()
        page.wait_for_load_state()
        assert "01_worst_case.html" in page.url and min(pictures(page)) > 0
        assert page.locator("article math").count() >= 5
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SHOTS / "site-lesson-phone.png")
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)
