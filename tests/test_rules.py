"""docs/protocol.md states every rule that the tree names, and names only what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/protocol.md").read_text()
RULES = re.findall(r"^### ([RDCLM]\d+) ", TEXT, re.MULTILINE)
NAMED = re.compile(r"\b[RDCLM]\d{1,2}\b")


def test_every_rule_is_whole() -> None:
    for rule, part in re.findall(r"^### ([RDCLM]\d+) .*?\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL):
        assert all(word in part for word in ("- Without it:", "- Held in:", "Found by:")), rule


def test_every_rule_that_is_named_is_stated() -> None:
    unknown = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("daemon", "operator", "tests", "e2e")
        for path in (ROOT / folder).rglob("*.py")
        for words in re.findall(r"\(([RDCLM]\d{1,2}(?:(?:,| and| with) [RDCLM]\d{1,2})*)\)", path.read_text())
        for name in NAMED.findall(words)
        if name not in RULES
    }
    assert not unknown
    assert len(RULES) == len(set(RULES))


def test_everything_that_the_rules_name_is_there() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`([^`]+)`", TEXT):
        if re.search(r"[a-z0-9]/[a-z]|\.py$", name):
            assert (ROOT / name).exists() or (ROOT / "daemon/s4" / name).exists(), name
        elif re.match(r"test_|[a-z]+_[a-z_]+$|[A-Z][a-z]+[A-Z]", name):
            assert re.search(rf"^(def|class|async def) {name}\b", tests, re.MULTILINE), name
