"""`make trials` takes its commands from the texts; what no text says any more is found here, not after half an hour."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).parents[1] / "e2e" / "trials"


def asked() -> list[tuple[str, str]]:
    """(method, text) of each call of `texts` in a trial."""
    found = []
    for path in TRIALS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                of = ast.unparse(node.func.value)
                first = node.args[0]
                if of.endswith("texts") and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.append((node.func.attr, first.value))
    return found


def test_the_texts_say_what_the_trials_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(TRIALS.parent), *sys.path])
    from trials.texts import Texts

    texts, calls = Texts(), asked()
    assert len(calls) > 20
    for method, text in calls:
        getattr(texts, method)(text)
