"""A training that is watched: live curves, and a button that stops it."""

import html
import threading
import time
from collections.abc import Callable

import pandas as pd

from drrl_core.show import figures, style
from drrl_core.show.explorers import interactive


def _red(error: BaseException) -> str:
    return f"<b style='color:#B00020'>{html.escape(str(error) or type(error).__name__)}</b>"


def watch(train: Callable, *, title: str = "Training"):
    """Train, with live curves and a button that stops it where widgets are shown.

    The button works at the end of an epoch, with JupyterLab >= 4.4 and ipykernel >= 7, which handle
    messages on another thread than cells. Elsewhere interrupt the kernel, which stops as cleanly.
    Either way the best model so far is returned, and a run of `store.get_or_train` continues from
    there the next time.

    Args:
        train: called with `on_epoch`; trains, and returns an object with a `fit.history`; such as
            `lambda on_epoch: get_or_train(run, on_epoch=on_epoch, progress=False)`.
        title: over the picture.

    Returns:
        What `train` returns. Without a front end it trains, and shows one picture at the end.
        What `train` raises is shown, and raised.
    """
    from IPython.display import display

    if not interactive():
        outcome = train(on_epoch=None)
        display(style.show(figures.training_history(outcome.fit.history, title=title)))
        return outcome

    import ipywidgets as widgets

    image, line, asked = widgets.Image(format="png"), widgets.HTML(), threading.Event()
    button = widgets.Button(description="Stop", icon="stop", button_style="danger")
    button.layout.width = "auto"
    rows, pause = [], [0.0, 0.0]  # when the last picture was ready, how long it took

    def stop(_button) -> None:
        button.disabled, button.description = True, "stops after this epoch"
        asked.set()  # last, so that the text at the training's end stays

    def draw(history: pd.DataFrame) -> None:
        start = time.perf_counter()
        try:
            image.value = style.png(figures.training_history(history, title=title))
        except Exception as error:  # a picture is no reason to end a training
            line.value = _red(error)
        pause[:] = time.perf_counter(), time.perf_counter() - start

    def after_epoch(row: dict) -> bool:
        rows.append(dict(row))
        if time.perf_counter() - pause[0] > 9 * pause[1]:  # a tenth of the time for pictures
            draw(pd.DataFrame(rows))
        return asked.is_set()

    button.on_click(stop)
    # ipykernel 7.4 sends a comm's messages to whichever shell last wrote to it: here the one that
    # is about to be busy. Without that note they come on the front end's own subshell.
    vars(button.comm).pop("_reply_subshell_id", None)
    draw(pd.DataFrame())
    pause[:] = 0.0, 0.0  # forget the first, empty picture, which takes longer
    display(widgets.VBox([button, image, line]))
    try:
        outcome = train(on_epoch=after_epoch)
    except BaseException as error:
        line.value = _red(error)
        raise
    finally:
        button.disabled = True
    history = outcome.fit.history
    draw(history)
    ended = "stopped" if asked.is_set() else "done"
    button.description = f"{ended} after {len(history)} epochs"
    return outcome
