"""A real browser: dials in JupyterLab and in Voilà answer to the keyboard, pages need no network.

Screenshots are left in out/browser, and what went wrong beside them. Selectors and what is known
of the explorers' layout are in `Explorer`; all waiting is for a state, none for a time.
"""

import base64
import json
import os
import re
import shutil
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
from drrl_core.pages import html, runner, story
from drrl_core.show import explorers, style

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "out" / "browser"
SHELF = [*(ROOT / "notebooks").glob("*.ipynb")]
PATIENCE = 120  # seconds, for anything: a loaded machine is slow, not broken
NEWS = "@jupyterlab/apputils-extension:notification"
KERNELS = "@jupyterlab/apputils-extension:kernels-settings"
GAUSSIAN = np.random.default_rng(0).normal(0, 0.3, 500)  # as in 01, seed 0
DIALS = "order γ", "radius ρ"
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
    """Dials, picture, readouts: the explorer of a page that comes `nth`."""

    ROOT = "[data-explorer]"

    def __init__(self, page, nth: int = 0):
        self.page = page
        self.root = page.locator(self.ROOT).nth(nth)
        self.dials = self.root.locator("input[type=range]:enabled")
        self.root.locator("input, select").first.wait_for(timeout=1000 * PATIENCE)

    def readout(self, name: str) -> str:
        return self.root.locator(f"[data-readout={name}]").inner_text()

    def picture(self) -> str:
        """What is shown; of an album where its picture comes from."""
        script = "root => [...root.querySelectorAll('svg, img')].map(each => each.outerHTML).join()"
        return self.root.evaluate(script)

    def typed(self, name: str) -> str:
        """The number that a dial stands at."""
        return self.root.get_by_label(f"{name}, typed").input_value()

    def agrees(self) -> bool:
        """Whether the readout is the package's own answer at the dials' values (of GAUSSIAN)."""
        order, radius = (float(self.typed(name).replace("∞", "inf")) for name in DIALS)
        worst = dro.worst_case(torch.from_numpy(GAUSSIAN), order=order, radius=radius)
        return f"{float(worst.value):.3f} score" == self.readout("value")

    def move(self, dial: int) -> None:
        """One dial by keyboard; the picture follows."""
        handle, shown = self.dials.nth(dial), self.picture()
        before = handle.input_value()
        handle.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight"):
            self.page.keyboard.press(key)
        if handle.input_value() == before:  # it was at its end
            self.page.keyboard.press("ArrowLeft")
        assert handle.input_value() != before
        eventually(lambda: self.picture() != shown, f"a new picture after dial {dial}")


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
def serving(home: Path, command: list[str], settings: dict | None = None, cwd: Path | None = None):
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
        server = subprocess.Popen(
            command, env=os.environ | own, stdout=output, stderr=output, cwd=cwd
        )
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


def play(view: Explorer, shot: str) -> None:
    """Each dial by keyboard, then fifty moves at once; the readout is always the right one."""
    view.root.get_by_label("scores", exact=True).select_option("Gaussian")
    eventually(view.agrees, "the first readout")
    for dial in range(view.dials.count()):
        view.move(dial)
        eventually(view.agrees, f"the readout after dial {dial}")
    assert view.root.locator("[data-readout=gap]").is_visible()  # β was moved
    box = view.root.bounding_box()
    assert box["height"] <= 600, "dials, picture and readouts are not seen together"
    view.page.screenshot(path=SHOTS / f"{shot}.png")
    start = float(view.typed("radius ρ"))
    view.dials.nth(1).focus()
    for _ in range(50):
        view.page.keyboard.press("ArrowRight")
    moved = pytest.approx(start + 50 * 0.05)
    eventually(lambda: float(view.typed("radius ρ")) == moved, "fifty steps")
    eventually(view.agrees, "the readout after fifty moves")


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


def notebook_of(folder: Path, *cells: str) -> None:
    """A notebook of that code, where a server of `jupyterlab` finds it: `cells.ipynb`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    (folder / "work").mkdir()
    nbformat.write(notebook, folder / "work" / "cells.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize("subshells", ["perCommTarget", "disabled"])
def test_the_state_goes_both_ways_in_either_theme(chromium, tmp_path, subshells):
    make = """import traitlets
from drrl_core.show import explorers
one, other = (explorers.worst_case({"a": [0.1, 0.2, 0.4, 0.9]}, radius=0.5) for _ in range(2))
traitlets.link((one, "radius"), (other, "radius"))
one"""
    notebook_of(tmp_path, make, "other", "one.order = float('inf')")
    theme = {"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"}}
    settings = {KERNELS: {"commsOverSubshells": subshells}} | theme
    shot = f"lab-sync-{subshells}"
    with jupyterlab(tmp_path, settings) as (address, log), browsing(chromium, shot, log) as page:
        run_all(page, address, "cells.ipynb")
        one, other = Explorer(page), Explorer(page, 1)
        eventually(lambda: one.typed("order γ") == "∞", "Python turned the dial")
        assert other.typed("order γ") == "2"
        one.move(1)  # the browser tells the kernel, and the kernel the other browser's view
        eventually(lambda: other.typed("radius ρ") == one.typed("radius ρ") != "0.5", "a link")
        ink = one.root.locator("svg text").first.evaluate("each => getComputedStyle(each).fill")
        assert min(int(each) for each in re.findall(r"\d+", ink)[:3]) > 150
        page.screenshot(path=SHOTS / f"{shot}.png")
        no_errors(page)


@pytest.mark.slow
def test_a_stop_is_heard_while_the_training_cell_runs(chromium, tmp_path):
    code = """from drrl_core.lab.run import configure, execute
from drrl_core.show import monitor
small = {"dim": 4, "negatives": 4, "epochs": 100_000, "evaluate_every": 1, "patience": 100_000}
run = configure("synthetic", "sl", config=small)
outcome = monitor.watch(lambda on_epoch: execute(run, on_epoch=on_epoch, progress=False))
print("trained for", len(outcome.fit.history), "epochs")"""
    notebook_of(tmp_path, code)
    with jupyterlab(tmp_path) as (address, log), browsing(chromium, "monitor", log) as page:
        start_all(page, address, "cells.ipynb")
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
    for name in ("01_worst_case", "02_one_family"):
        folder = tiny(name, tmp_path / "notebooks").parent
    for name in ("voila.json", "TEACHING.md"):
        shutil.copy(ROOT / "notebooks" / name, folder)
    server = serving(tmp_path, ["voila", "."], cwd=folder)
    with server as (address, log), browsing(chromium, "voila", log) as page:
        asked, refused = [], []  # the policy stops what would go elsewhere: it is never sent
        page.on("request", lambda request: asked.append(request.url))
        page.on(
            "requestfailed", lambda each: refused.append(each.url) if each.failure == "csp" else 0
        )
        page.goto(f"{address}/voila/render/01_worst_case.ipynb")
        assert "/login" in page.url  # without the token
        token = eventually(lambda: re.search(r"token=(\w+)", log.read_text()), "a token")[1]
        page.goto(f"{address}/?token={token}")
        page.get_by_text("01_worst_case.ipynb").wait_for()
        page.goto(f"{address}/voila/render/01_worst_case.ipynb")
        view = Explorer(page)
        view.root.scroll_into_view_if_needed()
        play(view, "voila")
        no_errors(page)
        page.locator("h1").first.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / "voila-top.png")
        page.get_by_role("link", name="02_one_family").first.click()
        Explorer(page)
        assert page.url.endswith("02_one_family.ipynb")
        link = page.get_by_role("link", name="a 45-minute lesson").get_attribute("href")
        reply = page.request.get(
            f"{address}{link}" if link.startswith("/") else f"{address}/voila/render/{link}"
        )
        assert reply.ok and "A 45-minute lesson" in reply.text()
        sent = [url for url in asked if url not in refused]
        assert refused and all(url.startswith((address, "data:", "blob:")) for url in sent)


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


def test_explorers_of_an_executed_notebook_are_alive_without_a_network(
    chromium, tmp_path, monkeypatch
):
    for name in explorers.FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)
    views = [explorers.worst_case({"Gaussian": GAUSSIAN}, order=one) for one in (1, 2)]
    views.append(explorers.album(lambda n: style.new_figure(n, 1)[0], n=[1, 2]))
    outputs = [
        nbformat.v4.new_output("display_data", data=view._repr_mimebundle_()[0]) for view in views
    ]
    cell = nbformat.v4.new_code_cell("explorers", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    target = html.export_html(tmp_path / "a.ipynb", tmp_path / "a.html")
    with browsing(chromium, "alive", offline=True) as page:
        asked, failed = watched(page)
        page.goto(target.as_uri())
        first, second = Explorer(page), Explorer(page, 1)
        assert (first.typed("order γ"), second.typed("order γ")) == ("1", "2")
        second.move(1)
        eventually(second.agrees, "the second one's readout")
        assert first.typed("radius ρ") == "1" and second.typed("radius ρ") == "1.1"
        assert "worst_case-2.radius=1.1" in page.url and "worst_case.radius" not in page.url
        page.goto("about:blank")
        page.goto(f"{target.as_uri()}#worst_case-2.order=inf&worst_case-2.radius=0.5")
        assert second.typed("order γ") == "∞" and second.agrees()
        assert pictures(page) == [110]
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)


def test_what_the_story_says_is_what_its_dials_show(chromium, tmp_path):
    target = tmp_path / "story.html"
    target.write_text(story.page(), encoding="utf-8")
    with browsing(chromium, "story", offline=True) as page:
        asked, failed = watched(page)
        page.goto(target.as_uri())
        budget, order, loved, breakdown = (Explorer(page, nth) for nth in range(1, 5))

        def at(view: Explorer, **dials: str) -> None:
            for label, value in dials.items():
                box = view.root.get_by_label(f"{label}, typed")
                box.fill(value)
                box.press("Enter")

        def times(view: Explorer) -> list[str]:
            page.evaluate("() => new Promise((f) => requestAnimationFrame(() => setTimeout(f)))")
            return view.root.locator(".times").all_inner_texts()

        at(budget, **{"budget ρ": "2.5"})
        assert times(budget) == ["12.0 ×", *["silent"] * 11]  # all on one film
        at(order, **{"order γ": "1"})
        left = [float(each.split()[0]) for each in times(order)]
        assert left[0] > 5 and min(left) > 0  # one is shouted, nobody is silent
        at(order, **{"order γ": "inf"})
        right = times(order)
        assert right[:4] == ["2.72 ×"] * 4 and right.count("silent") > 6  # more than half
        assert left[1] > 2.72 > 1 > left[3]  # her film, and A Quiet Orchard
        assert loved.root.locator("[data-readout=loved]").inner_text().startswith("3.43")
        at(loved, **{"budget ρ": "1.3", "order γ": "1"})  # here it has turned round
        left = float(loved.readout("loved").split()[0])
        at(loved, **{"order γ": "inf"})
        eventually(lambda: float(loved.readout("loved").split()[0]) > left, "louder at the right")
        for radius in ("1", "2"):
            share = np.exp(-float(radius))
            at(breakdown, **{"radius ρ": radius})
            for one in ("1", "2", "inf"):
                at(breakdown, **{"order γ": one, "share false": f"{share + 0.01:.2f}"})
                eventually(lambda: breakdown.readout("heard") == "100.0 %", "all is drawn")
                at(breakdown, **{"share false": f"{share - 0.03:.2f}"})
                eventually(lambda: breakdown.readout("heard") != "100.0 %", "some is left")
        for width in (1366, 1024, 390):
            page.set_viewport_size({"width": width, "height": 768})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if width > 390:
                heights = [
                    each.bounding_box()["height"] for each in page.locator(Explorer.ROOT).all()
                ]
                assert max(heights) <= 600
        assert page.get_by_text("Can you answer them").is_visible()
        assert page.locator("details").count() == 9  # three proofs and asides, six questions
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.slow
def test_the_lesson_prints_as_a_handout_and_the_guide_on_one_page(chromium, built):
    with browsing(chromium, "handout", offline=True) as page:
        for name, least, most in (("TEACHING", 2, 4), ("INSTRUCTOR", 1, 1)):
            page.goto((built / "lessons" / f"{name}.html").as_uri())
            page.emulate_media(media="print")
            page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins
            assert not page.locator(".sidebar-drawer").is_visible()
            answers = page.locator("details > p")
            assert all(answers.nth(each).is_visible() for each in range(answers.count()))
            assert answers.count() == 7 * (name == "TEACHING")
            assert page.evaluate("document.documentElement.scrollWidth") <= 688
            page.screenshot(path=SHOTS / f"print-{name}.png", full_page=True)
            pdf = page.pdf(path=SHOTS / f"{name}.pdf", prefer_css_page_size=True)
            assert least <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= most
            page.emulate_media(media="screen")


@pytest.mark.slow
def test_the_site_without_network(chromium, built):
    with browsing(chromium, "site", offline=True, viewport=PHONE) as page:
        asked, failed = watched(page)
        page.goto((built / "index.html").as_uri())
        page.get_by_role("slider", name="order γ").first.focus()
        page.keyboard.press("End")
        page.get_by_text("Order ∞ (CCL)").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SHOTS / "site-phone.png")
        page.set_viewport_size({"width": 1366, "height": 768})
        page.screenshot(path=SHOTS / "site-wide.png")
        page.get_by_role("link", name="Lessons").first.click()
        page.wait_for_load_state()
        assert len(pictures(page)) == len(SHELF) and min(pictures(page)) > 0
        alts = page.eval_on_selector_all("img", "all => all.map(each => each.alt)")
        assert {*alts} == {"what is seen"}
        page.screenshot(path=SHOTS / "site-lessons.png")
        page.get_by_role("link", name="01 What does the worst case").last.click()
        page.wait_for_load_state()
        assert "01_worst_case.html" in page.url and min(pictures(page)) > 0
        assert page.locator("article math").count() >= 5
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SHOTS / "site-lesson-phone.png")
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)
