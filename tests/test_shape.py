"""The code keeps its shape: functions fit a screen, files a sitting, modules open with why they are there."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [path for part in ("daemon", "operator", "bench", "e2e") for path in sorted((ROOT / part).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_functions_and_files_are_short() -> None:
    long = []
    tests = sorted((ROOT / "tests").rglob("*.py"))
    for path in (*FILES, *tests):
        text, most = path.read_text(), 70 if path in tests else 60
        if text.count("\n") > 500:
            long.append(f"{path.name} has {text.count(chr(10))} lines")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > most:
                long.append(f"{path.name}:{node.name} has {(node.end_lineno or 0) - node.lineno} lines")
    assert not long


def test_modules_say_what_they_are_for() -> None:
    assert [path for path in FILES if not ast.get_docstring(parsed(path))] == []


def test_no_two_test_files_have_one_name() -> None:
    """Folders of tests are no packages, so that pytest takes the second for the first."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def _imported(path: Path, modules: set[str]) -> set[str]:
    """The modules that a file names, for its types alone too."""
    found = set[str]()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{name.name}" for name in node.names} & modules
            found |= within if len(within) == len(node.names) else within | {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found & modules


def test_no_modules_know_each_other_in_a_circle() -> None:
    """What is in a circle can only be read as a whole. Raises CycleError, which names it."""
    places = {
        ".".join(path.relative_to(ROOT / part).with_suffix("").parts).removesuffix(".__init__"): path
        for part in ("daemon", "operator")
        for path in (ROOT / part).rglob("*.py")
    }
    modules = set(places)
    TopologicalSorter({name: _imported(path, modules) for name, path in places.items()}).prepare()


def test_operator_is_no_package() -> None:
    """operator/__init__.py would shadow the standard library's module of that name."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_every_lint_exception_gives_its_reason() -> None:
    bare = []
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "# noqa" in line and " - " not in line.partition("# noqa")[2] and "PLC0415" not in line:
                bare.append(f"{path.name}:{number}")
    assert not bare
