"""How large the package is, and where: `make measure`.

Lines of code are those that are no docstring, comment or blank. Types are checked by mypy where it
is installed. `--tests` also runs the tests, and says how long they took.
"""

import argparse
import ast
import io
import subprocess
import sys
import time
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
MOST_LINES, MOST_LONG, MOST_PARAMETERS = 450, 60, 8
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """Where a function is, its lines of code and how many parameters it has."""

    where: str
    lines: int
    parameters: int


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code."""
    tree, skip = ast.parse(source), (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    skip += (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, FUNCTION | ast.ClassDef | ast.Module) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines -= {*range(first.lineno, first.end_lineno + 1)}
    return lines


def functions(path: Path, root: Path) -> list[Function]:
    """Every function of a module."""
    source = path.read_text(encoding="utf-8")
    lines, found = code_lines(source), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTION):
            own = lines & {*range(node.body[0].lineno, node.end_lineno + 1)}
            given = node.args
            many = len(given.posonlyargs + given.args + given.kwonlyargs)
            where = f"{path.relative_to(root)}:{node.lineno} {node.name}"
            found.append(Function(where, len(own), many))
    return found


def rooms(package: Path) -> Counter:
    """Lines of code of each room: a module of the package, or a folder in it."""
    found = Counter()
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        found[room] += len(code_lines(path.read_text(encoding="utf-8")))
    return found


def type_errors(package: Path) -> str:
    """What mypy says of the package, in its last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mypy", str(package)], capture_output=True, text=True, cwd=ROOT
        )
    except OSError as error:
        return f"not checked: {error}"
    if "No module named" in done.stderr:
        return "not checked: mypy is not installed"
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", action="store_true", help="run the tests too, for their time")
    package = ROOT / "drrl_core"
    asked = parser.parse_args()
    found = rooms(package)
    for room, lines in found.most_common():
        print(f"{lines:6,}  {room}")
    print(f"{found.total():6,}  in all")
    modules = {p: len(code_lines(p.read_text(encoding="utf-8"))) for p in package.rglob("*.py")}
    for path, lines in sorted(modules.items(), key=lambda each: -each[1]):
        if lines > MOST_LINES:
            print(f"module above {MOST_LINES} lines: {path.relative_to(ROOT)} {lines}")
    each = [function for path in modules for function in functions(path, ROOT)]
    for function in sorted(each, key=lambda one: -one.lines):
        if function.lines > MOST_LONG:
            print(f"function above {MOST_LONG} lines: {function.where} {function.lines}")
    for function in sorted(each, key=lambda one: -one.parameters):
        if function.parameters > MOST_PARAMETERS:
            print(f"more than {MOST_PARAMETERS} parameters: {function.where} {function.parameters}")
    longest = sorted(each, key=lambda one: -one.lines)[:5]
    print("longest functions:", "; ".join(f"{one.where} {one.lines}" for one in longest))
    print(f"README.md: {len((ROOT / 'README.md').read_text(encoding='utf-8').split())} words")
    print(f"types: {type_errors(package)}")
    if asked.tests:
        began = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=ROOT).returncode
        print(f"tests: {time.perf_counter() - began:.0f} s, exit {code}")


if __name__ == "__main__":
    main()
