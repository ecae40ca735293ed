"""From the input event to the frame: milliseconds of a move of each explorer, in Chromium.

    python tests/benchmarks/bench_explorers.py [--scores 10000] [--moves 120] [--json PATH]

A move is an arrow key on a dial. It begins with the time stamp of the input event and ends when
the browser has made the frame that follows. The target is a median of 16 ms and a 95th percentile
of 33 ms at 10,000 scores on two cores; `work` is the time that the explorer itself takes of it. The
last explorer, an album of drawn pictures, computes nothing: it says what the browser itself takes.
"""

import argparse
import math
import os
import shutil

import numpy as np
import pandas as pd
import record
from playwright.sync_api import sync_playwright

from drrl_core.show import explorers, live, style

WATCH = """() => {
  window.frames_ = [];
  addEventListener('input', ({ timeStamp }) => {
    const work = performance.now();
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => frames_.push([performance.now() - timeStamp, window.worked - work]);
      port2.postMessage(0);
    });
  }, true);
  addEventListener('input', () => (window.worked = performance.now()));
}"""


def cases(n: int) -> list[explorers.Explorer]:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.3, n)
    clouds = {
        loss: {
            epoch: pd.DataFrame({"order": order, "radius": rng.gamma(9, epoch / 40, 200)})
            for epoch in (1, 3, 6, 12, 20)
        }
        for loss, order in {"sl": 1.0, "drrl": 2.0, "ccl": math.inf}.items()
    }
    view = pd.DataFrame({"score": scores, "false_negative": scores + rng.normal(0, 0.3, n) > 0.7})
    learnt = {
        epoch: (rng.normal(0, 0.03 * epoch, (40, n)), rng.normal(0.1, 0.1, 40))
        for epoch in (1, 3, 6, 10)
    }
    return [
        explorers.worst_case({"a": scores}),
        explorers.simplex(),
        explorers.false_negatives({"a": view}),
        explorers.gamma_sweep({"a": scores}, hold="weight"),
        explorers.margins(learnt, order=2, weight=2.0, curves=6),
        explorers.atlas(scores, clouds),
        explorers.album(lambda n: style.new_figure(4, 3)[0], n=list(range(20))),
    ]


def moves_of(page, dial, moves: int) -> np.ndarray:
    """(moves, 2): milliseconds to the frame, and of these the explorer's; a key at a time."""
    dial.focus()
    page.keyboard.press("Home")
    page.evaluate("frames_.length = 0")
    done, keys = 0, ("ArrowRight", "ArrowLeft")
    while done < moves:
        page.keyboard.press(keys[0])
        page.evaluate("() => new Promise((f) => requestAnimationFrame(() => setTimeout(f)))")
        before, done = done, page.evaluate("frames_.length")
        if done == before:  # the dial's end
            keys = keys[::-1]
    return np.array(page.evaluate("frames_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=int, default=10_000)
    parser.add_argument("--moves", type=int, default=120)
    parser.add_argument("--json")
    args = parser.parse_args()
    table, views = [], cases(args.scores)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        for view in views:
            element = live.element(view.explorer, **view.state())
            page.set_content(f"<!doctype html><meta charset=utf-8>{element}")
            page.locator("[data-explorer] input").first.wait_for()
            page.wait_for_timeout(1000)  # curves are drawn in the first frames' spare time
            page.evaluate(WATCH)
            for dial in page.locator("[data-explorer] input[type=range]:enabled").all():
                times = moves_of(page, dial, args.moves if int(dial.get_attribute("max")) else 0)
                if len(times):
                    name = dial.get_attribute("id").partition("-1-")[2]
                    row = {"explorer": view.explorer, "dial": name}
                    row["median_ms"], row["work_ms"] = np.median(times, 0)
                    row["p95_ms"] = np.percentile(times[:, 0], 95)
                    table.append(row | {"moves": len(times)})
        browser.close()
    load = os.getloadavg()[0]
    print(f"{args.scores} scores, load {load:.1f}; targets: median 16, p95 33 ms")
    print(pd.DataFrame(table).round(1).to_string(index=False))
    about = record.about() | {"scores": args.scores, "load": round(load, 1)}
    record.put(args.json, "bench_explorers", {"about": about, "table": table})


if __name__ == "__main__":
    main()
