"""Explorers: controls beside a picture in a live notebook, the picture alone everywhere else.

Widget callbacks may run on another thread than the cells do, so nothing here touches pyplot: each
picture is a `Figure` of its own, drawn under one lock into an `ipywidgets.Image`.
"""

import os
import threading
from collections.abc import Callable

from matplotlib.figure import Figure

from drrl_core import plots

_DRAWING = threading.Lock()
# Set by the front ends that can show widgets: Jupyter servers, Voilà, VS Code, Colab, Kaggle.
FRONT_ENDS = ("JPY_SESSION_NAME", "SERVER_SOFTWARE", "VSCODE_PID", "COLAB_RELEASE_TAG")


def interactive() -> bool:
    """Whether a front end that shows widgets is known to be there.

    Under papermill and nbconvert none is, and a widget would be left as a broken placeholder.
    """
    return any(os.environ.get(name) for name in FRONT_ENDS)


def explore(draw: Callable[..., Figure], **controls):
    """Controls beside a picture that follows them.

    Args:
        draw: called with one keyword argument for each control; returns a Figure. What it raises
            is shown in place of the picture's readout, and the last good picture stays.
        **controls: ipywidgets with a `value`; the order is the order on the page.

    Returns:
        A widget where a front end is known to be there, else the still picture at the controls'
        first values.

    >>> import ipywidgets as w
    >>> view = explore(lambda n: plots.new_figure(1, 1)[0], n=w.IntSlider(value=3))
    >>> type(view).__name__
    'Image'
    """

    def picture() -> bytes:
        with _DRAWING:
            return plots.png(draw(**{name: control.value for name, control in controls.items()}))

    if not interactive():
        from IPython.display import Image

        return Image(data=picture())

    import ipywidgets as widgets

    image = widgets.Image(value=picture(), format="png")
    message = widgets.HTML()

    def redraw(_change) -> None:
        try:
            image.value, message.value = picture(), ""
        except Exception as error:  # callbacks have no console: an error unseen is a frozen picture
            message.value = f"<b style='color:#B00020'>{type(error).__name__}: {error}</b>"

    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([widgets.HBox(list(controls.values())), image, message])
