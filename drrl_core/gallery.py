"""Executed notebooks as pages that need no network, and a gallery of them."""

import base64
import html as markup
import json
import mimetypes
import re
import warnings
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

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
a { color: #0b57a4 }
pre { margin: 0; overflow-x: auto; font-size: .8rem; line-height: 1.45 }
.highlight, .jp-RenderedMarkdown pre { background: #f5f6f8; padding: .5rem .8rem }
.highlight pre { padding: 0 !important }
.jp-OutputArea-output { margin: .5rem 0; overflow-x: auto }
.jp-InputPrompt, .jp-OutputPrompt { color: #667; font: .7rem monospace; margin-top: 1rem }
.anchor-link { display: none }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; display: block; overflow-x: auto }
table, th, td { border: 0 solid #ddd } th, td { padding: .25rem .7rem; border-bottom-width: 1px }
details { border-left: 3px solid #ccd; padding-left: .8rem; margin: .8rem 0 }
summary { cursor: pointer; font-weight: 600 }
.dataframe td { text-align: right } tbody th { text-align: left }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre",
       math }
math[display=block] { margin: .9em 0; overflow: auto hidden }
mtd[columnalign=left] { text-align: left } mtd[columnalign=right] { text-align: right }
mtable[columnspacing^="0em"] mtd { padding-left: 0; padding-right: 0 }
[mathvariant^=bold] { font-weight: bold } menclose { border: 1px solid; padding: .2em }
</style>
</head>
<body><main>
{% if nb.metadata.home %}<nav><a href="{{ nb.metadata.home }}">All notebooks</a></nav>{% endif %}
{%- endblock -%}
{%- block data_latex scoped -%}{{ output.data["text/latex"] | markdown2html }}{%- endblock -%}
{%- block body_footer -%}</main></body>{%- endblock -%}
{%- block footer -%}</html>{%- endblock -%}"""
_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>What a robust loss listens to</title>
<style>
body { max-width: 72rem; margin: 0 auto; padding: 1.5rem; background: #fff; color: #1a1a1a;
       font: 1rem/1.5 system-ui, sans-serif }
h1 { line-height: 1.2; margin: .5em 0 .2em }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr));
       gap: 1.25rem; margin-top: 1.5rem }
article { border: 1px solid #d8dbe2; border-radius: .5rem; overflow: hidden }
article > a { display: block; height: 11rem; padding: .6rem; border-bottom: 1px solid #e8eaef }
article img { width: 100%; height: 100%; object-fit: contain }
article div { padding: .2rem 1rem .9rem }
h2 { font-size: 1.1rem; line-height: 1.3; margin: .6em 0 .4em }
h2 span, footer, .about { color: #5a6070; font-weight: 400 }
p { margin: .3em 0 } .about { font-size: .85rem; overflow-wrap: anywhere }
.failed { color: #b00020; font-weight: 600 }
a { color: #0b57a4 }
h2 a { color: inherit; text-decoration: none } h2 a:hover { text-decoration: underline }
</style>
</head>
<body>
<header>
<h1>What a robust loss listens to</h1>
<p>Softmax Loss, Cosine Contrastive Loss and DrRL are one family; each notebook asks one question
of it.</p>
{% if links %}<nav><p>{% for href, title in links -%}
<a href="{{ href }}">{{ title }}</a>{{ " · " if not loop.last }}
{%- endfor %}</p></nav>{% endif %}
</header>
<main>
{% for card in cards -%}
<article>
{% if card.picture %}<a href="{{ card.page }}" tabindex="-1" aria-hidden="true"><img alt=""
src="data:image/png;base64,{{ card.picture }}"></a>{% endif %}
<div>
<h2>{% if card.page %}<span>{{ card.notebook.split("_")[0] }}</span>
<a href="{{ card.page }}">{{ card.title }}</a>
{%- else %}{{ card.notebook }}{% endif %}</h2>
{% if card.status == "done" -%}
<p class="about">done in {{ card.seconds | round | int }} s
{%- else -%}
<p class="about"><span class="failed">{{ card.status }}</span> {{ card.where }}: {{ card.error }}
{%- endif %}
{%- if card.parameters and card.parameters.dataset %} · {{ card.parameters.dataset }}{% endif %}
{%- if card.finished %} · {{ card.finished[:10] }}{% endif %}</p>
</div>
</article>
{% endfor -%}
</main>
</body>
</html>
"""


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
            page = re.sub(r'<a href="[^":]*\.md">(.*?)</a>', r"\1", page)  # not in a gallery
            return re.sub(r'(href="[^":]*)\.ipynb(?=["#])', r"\1.html", page)

    kinds = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg")
    options = {  # neither widgets nor scripts; colours that stand in the page itself
        "NbConvertBase": {"display_data_priority": [*kinds, "text/latex", "text/plain"]},
        "CSSHTMLHeaderPreprocessor": {"style": "default"},
        # a progress bar is one line that was written over, not a hundred lines
        "Exporter": {"preprocessors": ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]},
    }
    return Page(config=Config(options), raw_template=_PAGE)


def _title(notebook, default: str) -> str:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#{1,6}\s+(.+)$", text, re.MULTILINE)
    return re.sub(r"[*`$\\]", "", heading[1]) if heading else default


def export_html(executed, target, *, home: str = "") -> Path:
    """One HTML file that needs no network: pictures inside, formulas as MathML, no script.

    Links to other notebooks become links to their pages, those to Markdown files plain text;
    widgets are left out. A formula that cannot be converted, or a picture that cannot be embedded,
    is warned about.

    Args:
        executed: the notebook.
        target: the file to write.
        home: a page to link at the top.
    Returns: target.
    Raises: ImportError where nbconvert or latex2mathml is missing.

    Example: `export_html("out/00/00_start_here.ipynb", "start.html")`
    """
    import nbformat

    executed, target = Path(executed), Path(target)
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in list(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r"^(# Parameters|out_dir = .*)\n?", "", cell.source, flags=re.M)
            cell.source or notebook.cells.remove(cell)  # where it went is nobody else's business
    notebook.metadata |= {"title": _title(notebook, executed.stem), "home": home}
    source = Path(notebook.metadata.get("papermill", {}).get("input_path") or executed)
    folder = source.parent if source.is_file() else executed.parent  # of relative pictures
    resources = {"metadata": {"name": executed.stem, "path": str(folder)}}
    page, _ = _exporter(folder).from_notebook_node(notebook, resources)
    for leak in re.findall(r'<(?!a\b)\w+[^>]*\s(?:src|href)="(?!data:|#)([^"]*)"', page):
        warnings.warn(f"{target.name} needs {leak}, which is not inside", stacklevel=2)
    target.write_text(page, encoding="utf-8")
    return target


def _thumbnail(notebook) -> str:
    """The picture of the cell tagged `thumbnail`, else the first, as base64; or nothing."""
    cells = sorted(
        notebook.cells, key=lambda cell: "thumbnail" not in cell.metadata.get("tags", [])
    )
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return next((o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})), "")


def build(folder, target, *, extra=()) -> Path:
    """A gallery of executed notebooks: a page each, and an index with picture, duration, status.

    Args:
        folder: what `notebooks.run_all` left: `<name>/<name>.json` beside `<name>/<name>.ipynb`.
        target: the folder to write; it can be moved, zipped, opened from a disk.
        extra: further HTML files, copied and linked by their titles.
    Returns: the index.
    Raises: ValueError where no notebook was executed; ImportError as `export_html`.

    Example: `build("out/notebooks", "out/gallery")`
    """
    import jinja2
    import nbformat

    folder, target = Path(folder), Path(target)
    cards = []
    for path in sorted(folder.glob("*/*.json")):
        if path.stem != path.parent.name:
            continue  # results.json
        card = json.loads(path.read_text(encoding="utf-8"))
        executed, page = path.with_suffix(".ipynb"), target / f"{path.stem}.html"
        if executed.is_file():
            target.mkdir(parents=True, exist_ok=True)
            export_html(executed, page, home="index.html")
            notebook = nbformat.read(executed, as_version=4)
            card |= {"page": page.name, "picture": _thumbnail(notebook)}
            card["title"] = _title(notebook, path.stem)
        cards.append(card)
    if not cards:
        raise ValueError(f"no executed notebooks in {folder}: `make notebooks` leaves some")
    links = []
    for path in map(Path, extra):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
        (target / path.name).write_text(text, encoding="utf-8")
        links.append((path.name, markup.unescape(title[1]).strip() if title else path.stem))
    template = jinja2.Environment(autoescape=True).from_string(_INDEX)
    index = target / "index.html"
    index.write_text(template.render(cards=cards, links=links), encoding="utf-8")
    return index
