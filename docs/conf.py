"""How the site is made: `make site`. Pages in Markdown, executed notebooks, docstrings."""

import sys
from pathlib import Path

from docutils import nodes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of autodoc, where the package is not installed
from drrl_core import __version__  # noqa: E402
from drrl_core.pages import hosted  # noqa: E402
from drrl_core.pages.html import mathml  # noqa: E402

project = "drrl-core"
author = "the authors of drrl-core"
release = version = __version__

extensions = [
    "myst_nb",  # Markdown, and notebooks as they were executed
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",  # Args, Returns, Raises
    "sphinx_design",  # cards
]
exclude_patterns = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # they are executed by `make notebooks`
nb_merge_streams = True
# A page has no server behind it: what a widget would show is left to the picture beside it.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "application/javascript", None),
    ("html", "image/gif", 25),
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "deflist"]
myst_heading_anchors = 3
templates_path = ["_templates"]
default_role = "literal"  # `name` in a docstring is code
# A name of a package stands on its page and on its module's: either may be the target of a link.
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure", "ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_use_ivar = True
add_module_names = False

html_theme = "furo"
html_title = "drrl-core"
html_copy_source = False
html_baseurl = hosted.pages(hosted.address(ROOT))
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"  # in the page itself: no script, no network
html_show_sphinx = False


def _inline(self, node):
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(self, node):
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _as_written(app, what, name, obj, options, lines):
    """An indented block is set as it stands; `|x|` is an absolute value, no substitution."""
    found, depth = [], 0
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and found and not found[-1].strip() and indent > depth:
            found += [" " * depth + "::", ""]
        depth = indent if line.strip() else depth
        literal = ">>>" in line or found[-2:-1] == ["::"]
        found.append(line if literal else line.replace("|", r"\|"))
    lines[:] = found


def setup(app):
    """Formulas as MathML, docstrings as they are meant."""
    app.connect("autodoc-process-docstring", _as_written, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
