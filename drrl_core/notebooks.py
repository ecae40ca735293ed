"""Find, check, execute and publish notebooks: a record for a finished run, one HTML file a page."""

import ast
import base64
import difflib
import html as markup
import importlib
import io
import json
import logging
import math
import mimetypes
import os
import re
import shlex
import time
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

# What a front end, or a plotting backend meant for scripts, leaves in the environment. Inherited by
# a kernel, the first removes inline figures and the others make explorers take it for interactive.
_FRONT_END = {"MPLBACKEND", "JPY_SESSION_NAME", "SERVER_SOFTWARE"}

# Formulas are lifted out before the text is read as Markdown, as JupyterLab does, so that `_`, `*`
# and `|` in them are safe. What matches outside the two named groups (code, escapes) stays.
_TEX = re.compile(
    r"""^[ \t>]*(?P<fence>`{3,}|~{3,}).*?(?:^[ \t>]*(?P=fence)|\Z)
      | (?P<tick>`+)(?!`)(?:(?!\n\s*\n).)*?(?<!`)(?P=tick)(?!`)
      | <(?P<tag>code|pre)\b.*?</(?P=tag)> | \\[$`]
      | (?P<block>\$\$.+?\$\$ | \\{1,2}\[.+?\\{1,2}\]
                  | \\begin\{(?P<env>[a-z]+\*?)\}.+?\\end\{(?P=env)\})
      | (?P<inline>\$(?:\\.|(?!\n\s*\n)[^$\\])+\$ | \\{1,2}\(.+?\\{1,2}\))""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_DIALECT = (  # what MathJax understands and latex2mathml does not, in words it does
    (r"^(?:\$\$?|\\{1,2}[\[(])|(?:\$\$?|\\{1,2}[\])])$", ""),
    (r"\\label\{[^}]*\}|\\(?:notag|nonumber)\b", ""),
    (r"\\(begin|end)\{(?:aligned|align|split)\*?\}", r"\\\1{align*}"),
    (r"\\\\\[[^]]*\]", r"\\\\"),
    (r"\\arg\s*\\(max|min)\b|\\operatorname\*?\{arg\s*\\?,?\s*(max|min)\}", r"\\arg\1\2"),
    (r"\\operatorname\*", r"\\operatorname"),
)
_PAGE = """{%- extends "lab/base.html.j2" -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="{{ resources.language_code }}">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ nb.metadata.title | escape_html }}</title>
{% for css in resources.inlining.css %}<style>{{ css }}</style>{% endfor %}
<style>
body { max-width: 52rem; margin: 0 auto; padding: 1rem; background: #fff; color: #1a1a1a;
       font: 1.05rem/1.6 system-ui, sans-serif; overflow-wrap: break-word }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 .5em }
pre { margin: 0; overflow-x: auto; font-size: .85rem; line-height: 1.45 }
.highlight, .jp-RenderedMarkdown pre { background: #f5f6f8; padding: .5rem .8rem }
.highlight pre { padding: 0 !important }
.jp-OutputArea-output { margin: .5rem 0; overflow-x: auto }
.jp-InputPrompt, .jp-OutputPrompt { color: #667; font: .7rem monospace; margin-top: 1rem }
.anchor-link { display: none }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; display: block; overflow-x: auto }
table, th, td { border: 0 solid #ddd } th, td { padding: .25rem .7rem; border-bottom-width: 1px }
details { border-left: 3px solid #ccd; padding-left: .8rem; margin: .8rem 0 }
summary { cursor: pointer; font-weight: 600 } tbody th { text-align: left }
math[display=block] { margin: .9em 0; overflow: auto hidden }
mtd[columnalign=left] { text-align: left } mtd[columnalign=right] { text-align: right }
mtable[columnspacing^="0em"] mtd { padding-left: 0; padding-right: 0 }
[mathvariant^=bold] { font-weight: bold } menclose { border: 1px solid; padding: .2em }
</style>
</head>
<body><main>
{%- endblock -%}
{%- block data_latex scoped -%}{{ output.data["text/latex"] | markdown2html }}{%- endblock -%}
{%- block body_footer -%}</main></body>{%- endblock -%}
{%- block footer -%}</html>{%- endblock -%}"""


class NotebookError(Exception):
    """A notebook that cannot be found, read, started or finished; the message names the way out."""


@dataclass(frozen=True)
class Parameter:
    """A line of a `parameters` cell: `name: type = default  # help, unit; range`.

    The range, of a value or of every item in a list, is an interval, `[1, inf)` or `(0, 1]`, or a
    choice, `{cpu, cuda}`; empty means any.
    """

    name: str
    type: str
    default: object
    help: str = ""
    range: str = ""

    def check(self, value) -> None:
        """Refuse a value of another type or outside the range.

        Raises: ValueError, saying what is expected.

        >>> Parameter("dim", "int", 64, range="[1, 512]").check(0)
        Traceback (most recent call last):
        ValueError: dim = 0 is outside [1, 512]
        """
        if not _fits(ast.parse(self.type, mode="eval").body, value):
            raise ValueError(f"{self.name} = {value!r} is not {self.type}")
        for item in value if isinstance(value, list) else [value]:
            if self.range and item is not None and not _within(self.range, item):
                raise ValueError(f"{self.name} = {item!r} is outside {self.range}")


def _fits(kind: ast.expr, value) -> bool:
    match kind:
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return any([_fits(left, value), _fits(right, value)])  # a list: a typo in either shows
        case ast.Constant(value=None):
            return value is None
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return type(value) is list and all(_fits(item, each) for each in value)
        case ast.Name(id="float"):
            return type(value) in (float, int)  # exactly: no bool, no numpy scalar
        case ast.Name(id="int" | "bool" | "str" as name):
            return type(value).__name__ == name
    raise ValueError(f"{ast.unparse(kind)} is none of int, float, bool, str, list[...], ... | None")


def _within(text: str, value) -> bool:
    if choice := re.fullmatch(r"\{(.+)\}", text):
        return str(value) in re.split(r"\s*,\s*", choice[1].strip())
    if not (interval := re.fullmatch(r"([\[(])\s*(\S+)\s*,\s*(\S+?)\s*([\])])", text)):
        raise ValueError(f"range {text!r} is neither like (0, 1] nor like {{cpu, cuda}}")
    low, high = float(interval[2]), float(interval[3])
    above = low <= value if interval[1] == "[" else low < value
    return above and (value <= high if interval[4] == "]" else value < high)


def _need(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotebookError(f"{error}: pip install 'drrl-core[notebooks]'") from error


def _hint(word: str, known) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known) or 'none'}"


def folder() -> Path:
    """The checkout's folder of notebooks.

    Raises: NotebookError where the package was installed without its checkout.

    >>> folder().name
    'notebooks'
    """
    path = Path(__file__).resolve().parents[1] / "notebooks"
    if not path.is_dir():
        raise NotebookError(
            f"no folder {path}: the notebooks come with a checkout; clone the project and "
            "`pip install -e '.[notebooks]'` in it, or name an .ipynb file"
        )
    return path


def find(name) -> Path:
    """A notebook by number ("00"), name ("00_start_here") or path ("my/own.ipynb").

    Raises: NotebookError with the nearest name.

    >>> find("00").stem
    '00_start_here'
    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    shelf = {found.stem: found for found in sorted(folder().glob("*.ipynb"))}
    for stem, found in shelf.items():
        if str(name).removesuffix(".ipynb") in (stem, stem.split("_")[0]):
            return found
    raise NotebookError(f"no notebook {str(name)!r}: {_hint(path.stem, shelf)}")


def parameters(path) -> dict[str, Parameter]:
    """What a notebook's cell tagged `parameters` declares, by name; read, never executed.

    Raises: NotebookError with cell and line, where one is not `name: type = literal  # help`.

    >>> parameters(find("00"))["epochs"].type
    'int'
    """
    path, found, line, last = Path(path), {}, 1, 0
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{path} is no notebook: {type(error).__name__}: {error}") from error
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(f"{path.name}: {len(tagged)} cells are tagged `parameters`, not one")
    source = "".join(cells[tagged[0]]["source"])
    try:
        body = ast.parse(source).body
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        notes = {each.start[0]: each.string[1:] for each in tokens if each.type == tokenize.COMMENT}
        for node in body:
            line = node.lineno
            if line == last or not isinstance(node, ast.AnnAssign) or not node.value:
                raise ValueError("expected one `name: type = literal  # help, unit; range` a line")
            last = node.end_lineno
            text, _, limits = notes.get(last, "").partition(";")
            try:
                default = ast.literal_eval(node.value)
            except ValueError:
                raise ValueError(f"{ast.unparse(node.value)} is not a literal") from None
            name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
            found[name] = Parameter(name, kind, default, text.strip(), limits.strip())
            found[name].check(default)
    except (SyntaxError, ValueError, TypeError) as error:
        where = f"{path.name}, cell {tagged[0] + 1}, line {getattr(error, 'lineno', line)}"
        raise NotebookError(f"{where}: {getattr(error, 'msg', error)}") from error
    return found


def _values(source: Path, given: dict, out_dir: Path) -> tuple[dict, dict]:
    """What the notebook is told, and the value of every parameter it has."""
    declared = parameters(source)
    for name, value in given.items():
        if name not in declared:
            raise NotebookError(f"{source.stem} has no parameter {name!r}: {_hint(name, declared)}")
        if "str" not in declared[name].type and re.fullmatch(r"-?[\d.]+e[-+]?\d+", str(value)):
            given[name] = value = float(value)  # YAML, so the command line, reads 1e-3 as text
        try:
            declared[name].check(value)
        except ValueError as error:
            raise NotebookError(f"{source.stem}: {error} ({declared[name].help})") from error
    told = {"out_dir": str(out_dir)} | given if "out_dir" in declared else given
    return told, {name: each.default for name, each in declared.items()} | told


def _native_kernel() -> type:
    """A kernel manager for this very interpreter, whatever else is registered as `python3`."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class NativeKernel(AsyncKernelManager):
        def __init__(self, **options):
            # With nowhere to look it takes ipykernel's own description, which names sys.executable.
            specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
            super().__init__(kernel_spec_manager=specs, **options)

        async def start_kernel(self, **options):
            env = {key: value for key, value in os.environ.items() if key not in _FRONT_END}
            return await super().start_kernel(env=env, **options)

    return NativeKernel


def _not_about_names(record: logging.LogRecord) -> bool:
    # papermill cannot read `float | None` and calls such a parameter unknown; all were checked
    return "Passed unknown parameter" not in record.getMessage()


def _post_mortem(executed: Path, error: Exception) -> str:
    """Where and why a run ended; a notebook that only looks finished is marked as failed."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError

    kind, why = type(error).__name__, (str(error).strip().splitlines() or [""])[0]
    notebook = nbformat.read(executed, as_version=4) if executed.is_file() else None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"] if notebook else []
    ran = [cell for cell in code if cell.source.strip() and cell.metadata.papermill["start_time"]]
    if not ran:
        return f"before its first cell\n  {kind}: {why}"
    faults = [output for output in ran[-1].outputs if output.output_type == "error"]
    if not isinstance(error, PapermillExecutionError | NotebookError):
        # A killed kernel or a timeout: papermill then marks every cell as completed.
        faults = [nbformat.v4.new_output("error", ename=kind, evalue=why, traceback=[why])]
        ran[-1].outputs.extend(faults)
        for cell in code:
            cell.metadata.papermill.status = "completed" if cell in ran else "pending"
        ran[-1].metadata.papermill.update(status="failed", exception=True)
        notebook.metadata.papermill.exception = True
        nbformat.write(notebook, executed)
    line = ran[-1].source.strip().splitlines()[0]
    return f"in cell [{len(ran)}], `{line}`\n  {faults[0].ename}: {faults[0].evalue}"


def _plain(path: Path) -> str:
    return re.sub(r"[{}]", r"\g<0>\g<0>", str(path))  # papermill reads braces as templates


def _stamp(path: Path):
    return (path.stat().st_mtime_ns, path.stat().st_ino) if path.is_file() else None


def run(
    name, *, out_dir, parameters: dict | None = None, timeout=None, html=True, progress=True
) -> dict:
    """Execute a notebook in a fresh kernel of this interpreter, in the notebook's own folder.

    Leaves `<stem>.ipynb`, `<stem>.html` and, only after success, the record `<stem>.json`. A
    parameter `out_dir` the caller has not set is the folder, for figures and a results.json.

    Args:
        name: as `find` takes it.
        out_dir: where to write; created.
        parameters: values by name, checked before anything starts.
        timeout: seconds any one cell may take.
        html: whether to export a page.
        progress: whether to show a bar (on a terminal).
    Returns: notebook, parameters, seconds, versions, status "done"; results, if this run wrote any.
    Raises: NotebookError; when a cell, the kernel or the clock ended it, with cell, cause, the
        half-executed notebook and the command to repeat.

    Example: `run("00", out_dir="out/00", parameters={"epochs": 2})["results"]`
    """
    source, target, given = find(name), Path(out_dir).resolve(), dict(parameters or {})
    told, values = _values(source, given, target)
    executed, page, done = (target / f"{source.stem}.{end}" for end in ("ipynb", "html", "json"))
    if executed == source:
        raise NotebookError(f"{source.name} itself lies in {target}: name another folder")
    papermill = _need("papermill")
    from drrl_core.runs import versions

    logging.getLogger("papermill").addFilter(_not_about_names)
    target.mkdir(parents=True, exist_ok=True)
    for stale in (executed, page, done):
        stale.unlink(missing_ok=True)
    results = source.parent / (values.get("out_dir") or target) / "results.json"
    before, start = _stamp(results), time.perf_counter()
    try:
        notebook = papermill.execute_notebook(
            _plain(source),
            _plain(executed),
            parameters=told,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_native_kernel(),
            resources={"metadata": {"path": str(source.parent)}},  # not cwd=, which moves us too
            execution_timeout=math.ceil(timeout) if timeout else None,
            start_timeout=120,
            iopub_timeout=60,
            extra_arguments=["--log-level=ERROR"],  # else each run warns about unencrypted loopback
            progress_bar=progress and {"desc": source.stem, "disable": None},
        )
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        if any(output.output_type == "error" for output in outputs):
            raise NotebookError("papermill takes a quiet sys.exit() for success")
    except Exception as error:
        again = ["drrl", "notebook", str(name), "--out", str(out_dir)]
        again += [word for k, v in given.items() for word in ("-p", f"{k}={json.dumps(v)}")]
        raise NotebookError(
            f"{source.stem} failed {_post_mortem(executed, error)}\n"
            f"  as far as it came: {executed}\n  again: {shlex.join(again)}"
        ) from error
    record = {
        "notebook": source.stem,
        "parameters": values,
        "seconds": round(time.perf_counter() - start, 2),
        "versions": versions(),
        "status": "done",
    }
    found = {}
    if _stamp(results) not in (None, before):
        try:
            found["results"] = json.loads(results.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NotebookError(f"{source.stem} wrote {results}, not JSON: {error}") from error
    if html:
        export_html(executed, page)
    draft = done.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, done)  # whole or not at all
    return record | found


def _mathml(tex: str, display: str) -> str:
    from latex2mathml.converter import convert_to_element

    plain = tex
    for pattern, word in _DIALECT:
        plain = re.sub(pattern, word, plain)
    if display == "block":
        plain = re.sub(r"(\\(?:arg)?(?:max|min)|\\sup|\\inf|\\lim)(?=\s*_)", r"\1\\limits", plain)
    try:
        tree = convert_to_element(plain, display=display)
        tree.attrib.pop("xmlns")
        for node in tree.iter():
            if node.tag != "mtext" and re.match(r"\\|&$", node.text or ""):
                raise ValueError(f"no {node.text}")  # what it does not know it passes on in silence
            node.text = markup.unescape(node.text or "")
            if node.tag in ("mi", "mo") and re.fullmatch("[A-Za-z]{2,}", node.text):  # log, softmax
                node.tag, space = "mo", ".17em"
                node.attrib |= {"lspace": space, "rspace": space}
    except Exception as error:  # a formula must not cost a finished run its page
        warnings.warn(f"left as TeX, {type(error).__name__}: {error}: {tex}", stacklevel=2)
        return f"<code>{markup.escape(tex)}</code>"
    return ElementTree.tostring(tree, encoding="unicode")


def _exporter(home: Path):
    import jinja2
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    def embed(match):
        file = home / unquote(match[2])
        if not file.is_file():
            return match[0]
        data = base64.b64encode(file.read_bytes()).decode()
        return f"{match[1]}data:{mimetypes.guess_type(file)[0]};base64,{data}"

    class Page(HTMLExporter):
        @jinja2.pass_context
        def markdown2html(self, context, source):
            formulas, mark = [], "qFORMULA{}q"

            def lift(match):
                if not (tex := match["block"] or match["inline"]):
                    return match[0]
                formulas.append((tex, "block" if match["block"] else "inline"))
                return mark.format(len(formulas) - 1)

            def put_back(text, form):
                return re.sub(mark.format(r"(\d+)"), lambda m: form(*formulas[int(m[1])]), text)

            def as_text(match):
                return put_back(match[0], lambda tex, _: markup.escape(tex))

            page = super().markdown2html(context, _TEX.sub(lift, source))
            page = re.sub(r'<(code|pre)\b.*?</\1>|="[^"]*"', as_text, page, flags=re.DOTALL)
            page = put_back(page, _mathml)
            # nbconvert's own embed_images closes every <details> before its content
            page = re.sub(r'(<img\b[^>]*?\ssrc=")([^":]+)', embed, page)
            return re.sub(r'(href="[^":]*)\.ipynb(?=["#])', r"\1.html", page)

    kinds = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg")
    options = {  # neither widgets nor scripts; colours that stand in the page itself
        "NbConvertBase": {"display_data_priority": [*kinds, "text/latex", "text/plain"]},
        "CSSHTMLHeaderPreprocessor": {"style": "default"},
        # a progress bar is one line that was written over, not a hundred lines
        "Exporter": {"preprocessors": ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]},
    }
    return Page(config=Config(options), raw_template=_PAGE)


def export_html(executed, target) -> Path:
    """One HTML file that needs no network: pictures inside, formulas as MathML, no script.

    Links to other notebooks become links to their pages; widgets are left out. A formula that
    cannot be converted, or a picture that cannot be embedded, is warned about.

    Args: executed, the notebook; target, the file to write. Returns: target.
    Raises: NotebookError where nbconvert or latex2mathml is missing.

    Example: `export_html("out/00/00_start_here.ipynb", "start.html")`
    """
    _need("nbconvert"), _need("latex2mathml")
    import nbformat

    executed, target = Path(executed), Path(target)
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#{1,6}\s+(.+)$", text, re.MULTILINE)
    notebook.metadata.title = re.sub(r"[*`$\\]", "", heading[1]) if heading else executed.stem
    source = Path(notebook.metadata.get("papermill", {}).get("input_path") or executed)
    home = source.parent if source.is_file() else executed.parent  # where relative pictures lie
    resources = {"metadata": {"name": executed.stem, "path": str(home)}}
    page, _ = _exporter(home).from_notebook_node(notebook, resources)
    for leak in re.findall(r'<(?!a\b)\w+[^>]*\s(?:src|href)="(?!data:|#)([^"]*)"', page):
        warnings.warn(f"{target.name} needs {leak}, which is not inside", stacklevel=2)
    target.write_text(page, encoding="utf-8")
    return target
