"""The kept inputs: one file for each target, an input a line as a Python bytes literal, which reads well in a diff."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def load(name: str) -> list[bytes]:
    path = FOLDER / f"{name}.txt"
    return [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []


def store(name: str, inputs: list[bytes]) -> None:
    lines = sorted({repr(data) for data in inputs}, key=lambda line: (len(line), line))
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
