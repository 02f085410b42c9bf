"""The texts say what is there: links and files that they name exist, every alarm and metric has its words, figures are
measured ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from s4.storage.timing import KINDS
from s4_operator.alerts import alerts

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "operator" / "README.md", ROOT / "bench" / "RESULTS.md"]
)
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SOURCES = sorted((ROOT / "daemon").rglob("*.py"))
# Where what a text names without its whole path may be.
HOMES = [ROOT, ROOT / "daemon", ROOT / "daemon" / "s4", ROOT / "tests", ROOT / "operator" / "s4_operator"]
# What becomes of a server's own files, and of other people's.
ELSEWHERE = re.compile(
    r"^(/|~|\.|DIR/|meta/|volumes/|index/|trust/|dist/|https?:|[a-z0-9.-]+:\d|kopf/|aiohttp/|NAMESPACE/|app/|s3://)|[ *{<…=]|\.(vol|pem|key|env|tgz|log|json)$"
)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = without_blocks(path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text()), target


@pytest.mark.parametrize(
    "path",
    [one for one in TEXTS if one.name not in ("CHANGELOG.md", "RESULTS.md", "trials.md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_files_that_are_named_are_there(path: Path) -> None:
    missing = set()
    named = {one.partition(":")[0] for one in re.findall(r"`([^`\n]+)`", without_blocks(path.read_text()))}
    for name in named:
        if (
            (not re.search(r"\w/\w|\w/$", name) and not re.search(r"^\w+\.py$", name))
            or ELSEWHERE.search(name)
            or not re.search(r"\.\w+$|/$", name)
        ):
            continue
        alone = "/" not in name and any(
            next((ROOT / tree).rglob(name), None) for tree in ("daemon", "operator", "tests")
        )
        if not alone and not any((home / name).exists() for home in HOMES):
            missing.add(name)
    assert not missing


def test_texts_that_code_names_are_there() -> None:
    paths = [*SOURCES, *(ROOT / "operator").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    lines = (
        (path.name, line)
        for path in paths
        if path != Path(__file__)
        for line in path.read_text().splitlines()
        if ".md" in line
    )
    named = {
        (where, name)
        for where, line in lines
        for name in re.findall(r"(?:docs/|bench/|operator/)?\b[A-Z]{4,}\.md|docs/[\w-]+\.md", line)
    }
    assert len(named) > 5
    assert not sorted((where, name) for where, name in named if not (ROOT / name).exists())


@pytest.mark.parametrize(("name", "most"), [("README.md", 1500), ("ARCHITECTURE.md", 3500)])
def test_who_comes_first_reads_a_short_text(name: str, most: int) -> None:
    assert len((ROOT / name).read_text().split()) < most


def test_figures_beside_others_are_measured_ones() -> None:
    """Each row of README's table is one of six directories in bench/RESULTS.md: who measures anew changes both."""
    measured = (ROOT / "bench" / "RESULTS.md").read_text().partition("## Six directories")[2].partition("\n## ")[0]
    table = (ROOT / "README.md").read_text().partition("## Beside others")[2]
    rows = re.findall(r"^\| ((?:PUT|GET|LIST) [^|]+) \| (\d+) \| (\d+) \| (\d+) \|", table, re.M)
    assert len(rows) == 7
    for work, *figures in rows:
        assert re.search(rf"^\| {work}[^|]*\| {' . '.join(figures)} ".replace(" . ", r" \| "), measured, re.M), work


def test_commands_for_one_thing_find_it() -> None:
    """What CONTRIBUTING has people type: `-k` selects a test of the file, a module of tests or bench is there, a
    target of make too."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    selected = re.findall(r"pytest -n 0 (tests/[\w/]+\.py) -k (\w+)", text)
    assert len(selected) >= 2
    assert not [
        (path, word)
        for path, word in selected
        if not re.search(rf"^(?:async )?def test_\w*{word}", (ROOT / path).read_text(), re.M)
    ]
    modules = re.findall(r"python -m ([\w.]+)", text)
    assert not [
        one
        for one in modules
        if not any(
            (home / one.replace(".", "/")).with_suffix(".py").exists() or (home / one / "__main__.py").exists()
            for home in (ROOT, ROOT / "tests")
        )
    ]
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z0-9-]+)", text)) <= targets


def test_what_runs_at_each_commit_is_there() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    words = [word for hook in hooks for word in hook["entry"].split()]
    assert not [word for word in words if word.startswith("tests/") and not (ROOT / word).exists()]
    assert re.search(rf"^{words[words.index('make') + 2]}:", (ROOT / "Makefile").read_text(), re.M)


# -- alarms

# Functions that put an alarm or reason into words, besides those that are called `alarms`.
SPEAKERS = {
    "base/health.py": ("judge", "full"),
    "storage/watching.py": ("missing",),
    "storage/timing.py": ("slow",),
    "replica/changes.py": ("behind",),
    "metadata/keymarks.py": ("wrong",),
    "gateway/keychecks.py": ("_unreadable",),
    "cluster/status.py": ("_health",),
    "upkeep/drives.py": ("server_health",),
}


def spoken(node: ast.AST) -> str:
    """The last name of a variable, attribute or function."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def pieces(node: ast.AST) -> Iterator[str]:
    """Texts that people read in an expression, cut where a value stands."""
    for one in ast.walk(node):
        if (
            isinstance(one, ast.Constant)
            and isinstance(one.value, str)
            and len(one.value.strip(" ,:;")) > 8
            and " " in one.value.strip()
        ):
            yield one.value


@cache
def alarms() -> set[str]:
    """What is shown as a reason or alarm: texts of functions of these names, and texts given to variables called
    alarm."""
    found: set[str] = set()
    for path in SOURCES:
        text, speakers = path.read_text(), SPEAKERS.get(str(path.relative_to(ROOT / "daemon" / "s4")), ())
        names = {*speakers, "alarms", "_alarms"}
        for node in ast.walk(ast.parse(text)) if speakers or "alarm" in text.lower() else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in names:
                found.update(
                    one
                    for statement in node.body
                    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant)
                    for one in pieces(statement)
                )
            elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(spoken(one).lower().endswith(("alarm", "alarms")) for one in targets):
                    found.update(pieces(node.value))
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "append"
                and spoken(node.func.value).endswith("alarms")
            ):
                found.update(pieces(node))
    return found


def test_every_alarm_says_what_to_do() -> None:
    rows = " ".join(OPERATIONS.partition("### What each reason means")[2].partition("\n### ")[0].split())
    unknown = {piece for piece in alarms() if " ".join(piece.strip(" ,:;(").split())[:60] not in rows}
    assert not unknown, "docs/operations.md has no row for these"
    assert len(alarms()) > 25, "alarms are not found any more"


# -- metrics


@cache
def metrics() -> dict[str, set[str]]:
    """Kinds of each metric by its name in the code: some are one kind of a server and another of a node."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if '"s4_' in text else ():
            made = ("Counter", "Gauge", "_Seconds", "counter", "gauge")
            if not (isinstance(node, ast.Call) and spoken(node.func) in made and node.args):
                continue
            text, kind = ast.unparse(node.args[0]).strip("f'\""), spoken(node.func).lower()
            for one in [text.replace("{kind}", kind) for kind in KINDS] if "{kind}" in text else [text]:
                if one.startswith("s4_"):
                    found.setdefault(one, set()).add(kind)
    operator = (ROOT / "operator" / "s4_operator" / "main.py").read_text()
    return found | {one: {"gauge"} for one in re.findall(r"\b(s4_operator_\w+_total)\b", operator)}


def shown() -> set[str]:
    """Names as Prometheus has them."""
    ends = {"counter": ("_total",), "gauge": ("",), "_seconds": ("_bucket", "_sum", "_count")}
    return {name + end for name, kinds in metrics().items() for kind in kinds for end in ends[kind]}


def test_every_metric_has_a_row_and_every_row_a_metric() -> None:
    table = OPERATIONS.partition("### Metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(s4_\w+)`", table.rpartition("Counters have")[0].partition("| metrics |")[2]))
    assert named == set(metrics())


def test_dashboard_and_alerts_ask_for_what_there_is() -> None:
    places = [
        ROOT / "operator" / "s4_operator" / "dashboard.json",
        *(ROOT / "charts").rglob("*.yaml"),
        *(ROOT / "deploy").iterdir(),
    ]
    rules = alerts("c", 'pod="p"')
    texts = [*(path.read_text() for path in places), *(one["expr"] for one in rules)]
    asked = {name for text in texts for name in re.findall(r"\b(s4_[a-z_]+)[ \\]?[{\[$]", text)}
    assert len(asked) >= 19
    assert asked <= shown()
    table = OPERATIONS.partition("### Alerts")[2].partition("\n## ")[0]
    charts = " ".join(path.read_text() for path in (ROOT / "charts").rglob("*.yaml"))
    given = [*(one["alert"] for one in rules), *re.findall(r"\balert: (\w+)", charts)]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == sorted(given)
