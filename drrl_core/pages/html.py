"""Executed notebooks as pages that need no network."""

import base64
import html as markup
import mimetypes
import re
import warnings
from collections import Counter
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import jinja2

from drrl_core.show import live

_TEMPLATES = Path(__file__).with_name("templates")
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
_DIALECT = (  # what MathJax knows and latex2mathml does not -> what it knows
    (r"^(?:\$\$?|\\{1,2}[\[(])|(?:\$\$?|\\{1,2}[\])])$", ""),
    (r"\\label\{[^}]*\}|\\(?:notag|nonumber)\b", ""),
    (r"\\(begin|end)\{(?:aligned|align|split)\*?\}", r"\\\1{align*}"),
    (r"\\\\\[[^]]*\]", r"\\\\"),
    (r"\\arg\s*\\(max|min)\b|\\operatorname\*?\{arg\s*\\?,?\s*(max|min)\}", r"\\arg\1\2"),
    (r"\\operatorname\*", r"\\operatorname"),
)


def mathml(tex: str, display: str) -> str:
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
                raise ValueError(f"no {node.text}")  # unknown commands are passed on silently
            node.text = markup.unescape(node.text or "")
            if node.tag in ("mi", "mo") and re.fullmatch("[A-Za-z]{2,}", node.text):  # log, softmax
                node.tag, space = "mo", ".17em"
                node.attrib |= {"lspace": space, "rspace": space}
    except Exception as error:  # one bad formula must not lose the page of a finished run
        warnings.warn(f"left as TeX, {type(error).__name__}: {error}: {tex}", stacklevel=2)
        return f"<code>{markup.escape(tex)}</code>"
    return ElementTree.tostring(tree, encoding="unicode")


def _exporter(home: Path):
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
            page = put_back(page, mathml)
            # nbconvert's own embed_images closes every <details> before its content
            page = re.sub(r'(<img\b[^>]*?\ssrc=")([^":]+)', embed, page)
            page = re.sub(r'<a href="[^":]*\.md">(.*?)</a>', r"\1", page)  # these are no pages
            return re.sub(r'(href="[^":]*)\.ipynb(?=["#])', r"\1.html", page)

    kinds = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg")
    options = {  # no widgets; the colours of code within the page
        "NbConvertBase": {"display_data_priority": [*kinds, "text/latex", "text/plain"]},
        "CSSHTMLHeaderPreprocessor": {"style": "default"},
        # a progress bar rewrites one line: show its last state, not a hundred lines
        "Exporter": {"preprocessors": ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]},
    }
    template = (_TEMPLATES / "page.html.j2").read_text(encoding="utf-8")
    return Page(config=Config(options), raw_template=template)


def _picture(output) -> str:
    """A cell's picture or film as an element, with the text that says what is seen; "" if none."""
    for kind in ("image/gif", "image/png"):
        if content := output.get("data", {}).get(kind):
            about = output.metadata.get(kind, {})
            known = {name: about[name] for name in ("alt", "width") if about.get(name)}
            told = "".join(f' {name}="{markup.escape(str(each))}"' for name, each in known.items())
            return f'<img src="data:{kind};base64,{content.strip()}"{told}>'
    return ""


def public(notebook):
    """The notebook as a page has it: explorers alive, nothing of its widgets' state or its folder.

    A picture becomes an element that has its text, which neither nbconvert nor MyST-NB give it.
    Beside each explorer's still picture stands what moves it; that becomes an element with its
    script. In its page's address explorers are told apart by name, a second one by its number too.
    """
    notebook.metadata.pop("widgets", None)
    seen = Counter()
    for cell in list(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r"^(# Parameters|out_dir = .*)\n?", "", cell.source, flags=re.M)
            cell.source or notebook.cells.remove(cell)
        for output in cell.get("outputs", []):
            if shown := output.get("data", {}).pop(live.MIME, None):
                seen[name := shown["name"]] += 1
                identity = name if seen[name] == 1 else f"{name}-{seen[name]}"
                output.data["text/html"] = live.element(name, identity=identity, **shown["state"])
            elif (element := _picture(output)) and "text/html" not in output.data:
                output.data["text/html"] = element
    return notebook


def title_of(notebook, default: str) -> str:
    """The notebook's first heading as plain text; `default` where it has none."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#{1,6}\s+(.+)$", text, re.MULTILINE)
    return re.sub(r"[*`$\\]", "", heading[1]) if heading else default


def export_html(executed: str | Path, target: str | Path) -> Path:
    """One HTML file that needs no network: pictures inside, formulas as MathML, explorers alive.

    Links to other notebooks become links to their pages, those to Markdown files plain text; other
    widgets are left out. A formula that cannot be converted, or a picture that cannot be embedded,
    is warned about.

    Args:
        executed: the notebook.
        target: the file to write.
    Returns: target.
    Raises: ImportError where nbconvert or latex2mathml is missing.

    Example: `export_html("out/00/00_start_here.ipynb", "start.html")`
    """
    import nbformat

    executed, target = Path(executed), Path(target)
    notebook = public(nbformat.read(executed, as_version=4))
    notebook.metadata |= {"title": title_of(notebook, executed.stem)}
    source = Path(notebook.metadata.get("papermill", {}).get("input_path") or executed)
    folder = source.parent if source.is_file() else executed.parent  # of relative pictures
    resources = {"metadata": {"name": executed.stem, "path": str(folder)}}
    page, _ = _exporter(folder).from_notebook_node(notebook, resources)
    plain = re.sub(r"<script type=module>.*?</script>", "", page, flags=re.DOTALL)
    for leak in re.findall(r'<(?!a\b)\w+[^>]*\s(?:src|href)="(?!data:|#)([^"]*)"', plain):
        warnings.warn(f"{target.name} needs {leak}, which is not inside", stacklevel=2)
    target.write_text(page, encoding="utf-8")
    return target
