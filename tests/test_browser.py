"""The first notebook in a real JupyterLab, in a real browser: run all, move the slider, look."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "00_start_here.ipynb"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on 127.0.0.1 with a copy of the notebook, its parameters tiny."""
    notebook = json.loads(NOTEBOOK.read_text())
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = [
                line.replace("epochs: int = 60", "epochs: int = 2") for line in cell["source"]
            ]
    (tmp_path / NOTEBOOK.name).write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--IdentityProvider.token=t",
    ]
    command += [f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url=None"]
    home = {
        "JUPYTER_CONFIG_DIR": str(tmp_path / ".config"),
        "IPYTHONDIR": str(tmp_path / ".ipython"),
    }
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | home, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token=t", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        yield f"{address}/lab/tree/{NOTEBOOK.name}?token=t"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium")
def test_run_all_then_move_the_slider(lab, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook", timeout=120_000)
        page.wait_for_selector(
            '.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=120_000
        )
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells")
        image = page.wait_for_selector("img.widget-image", timeout=240_000)
        image.scroll_into_view_if_needed()
        before = image.get_attribute("src")
        page.query_selector(".noUi-handle").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "old => document.querySelector('img.widget-image').src !== old", arg=before
        )
        assert image.evaluate("image => image.naturalWidth") > 500
        page.screenshot(path=tmp_path / "lab.png")
        errors = page.query_selector_all('[data-mime-type="application/vnd.jupyter.error"]')
        assert not errors, errors[0].inner_text()
        browser.close()
