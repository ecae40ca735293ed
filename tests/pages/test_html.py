"""Pages: what is in them, and that nothing is fetched from elsewhere."""

import base64
import html as markup
import re
import warnings

import pytest

pytest.importorskip("nbconvert")
pytest.importorskip("latex2mathml")
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from drrl_core.pages import html

PROSE = r"""# Which *negatives* count, at $c = 1$?

Inline $f_j$, \\(\gamma^*\\), \(b_2\); a price of \$5, not \$6; code `$HOME`, `$$` and `$$`;
[next](01_next.ipynb#play), [a lesson](LESSON.md) and [elsewhere](https://example.org/a.ipynb).
![dot](dot.png)

$$R(f) = \max_{Q \in B} \mathbb{E}_Q[f] = \min_\beta \beta + c \, \lVert (f - \beta)_+ \rVert$$

\begin{align} D_\gamma(Q\|P) &= \log \sum_j P_j w_j^\gamma \\[2pt] &= \tau \log n \end{align}

\\[ w_j = \begin{cases} e^\rho & f_j > \beta \\ 0 & \text{otherwise} \end{cases} \\]

| loss | value $|x|$ |
|------|-------------|
| SL   | $a_1 * b_1 * c_1$ |

<details><summary>Answer for $n = 2$</summary>

Folded:
$$\begin{aligned} a &= b \\ &= \operatorname*{arg\,max}_x g(x) \end{aligned}$$

</details>

```python
price = "$x$ and $$y$$"
```

    indented = "$z$"

## With $\rho$ in a heading
"""
PIXEL = (  # a PNG, one by one
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def executed(path, *, picture=PIXEL, text=PROSE):
    """A notebook as a run leaves it: some text, and a cell whose output is a picture."""
    output = new_output("display_data", data={"image/png": picture, "text/plain": "<Figure>"})
    cells = [new_markdown_cell(text), new_code_cell("axes.plot(x);", outputs=[output])]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    (path.parent / "dot.png").write_bytes(base64.b64decode(PIXEL))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    home = tmp_path_factory.mktemp("home {of} pages")
    return html.export_html(executed(home / "07_tiny.ipynb"), home / "07_tiny.html").read_text()


def test_a_page_needs_nothing_from_elsewhere(page):
    assert "<script" not in page and "<link" not in page
    assert not re.findall(r'<(?!a )\w[^>]*(?:src|href)="(?!data:)', page)
    assert page.count('src="data:image/png;base64,') == 2  # the figure, and dot.png of the prose
    assert '<html lang="en">' in page and 'name="viewport"' in page
    assert "<title>Which negatives count, at c = 1?</title>" in page


def test_formulas_become_mathml_and_nothing_else_does(page):
    assert page.count("<math") == page.count("</math>") == 12
    assert page.count('<math display="block">') == 4
    prose = re.sub(r"<(code|pre)\b.*?</\1>|<[^>]*>", "", page, flags=re.DOTALL)
    prose = prose[prose.index("Inline") :]
    assert "\\" not in prose and "qFORMULA" not in page
    assert "a price of $5, not $6;" in prose and prose.count("$") == 2
    assert "<code>$HOME</code>, <code>$$</code> and <code>$$</code>" in page
    assert '"$x$ and $$y$$"' in page and 'indented = "$z$"' in page
    assert "a1*b1*c1" in prose  # no emphasis inside a formula


def test_folds_stay_closed_around_their_content_and_links_lead_to_pages(page):
    fold = re.search(r"<details>.*?</details>", page, re.DOTALL)[0]
    assert "Folded:" in fold and fold.count("<math") == 2
    assert ", a lesson and " in page
    assert 'href="01_next.html#play"' in page and 'href="https://example.org/a.ipynb"' in page


def test_a_picture_and_a_film_are_inside_with_what_is_seen_in_them(tmp_path):
    said = 'SL: 0.1 at 1; "CCL": 0.2 < 0.3'
    outputs = [
        new_output("display_data", data={kind: PIXEL}, metadata={kind: {"alt": said, "width": 90}})
        for kind in ("image/png", "image/gif")
    ]
    notebook = new_notebook(cells=[new_code_cell("show()", outputs=outputs)])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    page = html.export_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    for kind in ("png", "gif"):
        (tag,) = re.findall(f"<img[^>]*data:image/{kind}[^>]*>", page)
        assert 'width="90"' in tag and said in markup.unescape(tag)
    assert "No description" not in page


def test_widgets_and_scripts_stay_out(tmp_path):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "Slider()"}
    script = {"application/javascript": "alert(1)", "text/plain": "a script"}
    outputs = [new_output("display_data", data=data) for data in (view, script)]
    outputs += [new_output("display_data", data={"text/latex": r"$\frac{a}{b}$"})]
    notebook = new_notebook(cells=[new_code_cell("slider", outputs=outputs)])
    notebook.metadata.widgets = {
        "application/vnd.jupyter.widget-state+json": {"state": {"m": {}}, "version_major": 2}
    }
    nbformat.write(notebook, tmp_path / "a.ipynb")
    page = html.export_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    assert "Slider()" in page and "a script" in page and "<mfrac>" in page
    assert "<script" not in page and "<title>a</title>" in page


@pytest.mark.parametrize("epochs", ["", "epochs = 5\n"])
def test_what_was_chosen_is_shown_but_not_where_it_went(tmp_path, epochs):
    source = f'# Parameters\n{epochs}out_dir = "/home/somebody/out"'
    cell = new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    page = html.export_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    assert "somebody" not in page and page.count("In\xa0[") == bool(epochs)
    assert ("epochs" in page) == bool(epochs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"$\frac{a}{$ here", "left as TeX"),
        (r"$\nosuchword$", r"no .nosuchword"),
        ("![far](https://example.org/far.png)", "far.png, which is not inside"),
    ],
)
def test_what_cannot_be_inside_is_warned_about(tmp_path, text, words):
    nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), tmp_path / "a.ipynb")
    with pytest.warns(UserWarning, match=words):
        html.export_html(tmp_path / "a.ipynb", tmp_path / "a.html")


@pytest.mark.parametrize(
    ("tex", "tag"),
    [
        (r"$$\max_x f$$", "<munder><mo"),
        (r"$\max_x f$", "<msub><mo"),
        (r"$\operatorname*{arg\,max}_x$", "arg\u2009max"),
        (r"$\log n$", '<mo lspace=".17em" rspace=".17em">log</mo>'),
        (r"$a \& b \text{ if } x < y$", "<mi>&amp;</mi>"),
        ("$$\n\\begin{split} a &= b \\label{eq} \\\\ &= c \\notag \\end{split}\n$$", "<mtable"),
    ],
)
def test_what_the_formulas_of_the_suite_use(tmp_path, tex, tag):
    nbformat.write(new_notebook(cells=[new_markdown_cell(tex)]), tmp_path / "a.ipynb")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        page = html.export_html(tmp_path / "a.ipynb", tmp_path / "a.html").read_text()
    assert tag in page
