"""The commands of README.md and docs/, so that the trials do what is written there and not what somebody remembers of
it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class DriftedError(Exception):
    """A trial wants a command that no text has any more."""


class Texts:
    """Blocks marked `sh` and code within lines, of all texts that users read."""

    def __init__(self, root: Path = ROOT) -> None:
        files = [root / "README.md", *sorted((root / "docs").glob("*.md")), root / "operator" / "README.md"]
        self._texts = {
            path.relative_to(root): path.read_text() for path in files if path.name != "trials.md" and path.exists()
        }

    def lines(self, start: str) -> list[str]:
        """The commands of the block that has one with this start, from that one on; without remarks, each on one
        line."""
        for text in self._texts.values():
            for block in re.findall(r"^```sh[^\n]*\n(.*?)^```$", text, re.M | re.S):
                found = _commands(block)
                at = next((at for at, line in enumerate(found) if line.startswith(start)), None)
                if at is not None:
                    return found[at:]
        raise DriftedError(f"no block of the texts has a command that begins with: {start}")

    def line(self, start: str) -> str:
        """The first command with this start."""
        return self.lines(start)[0]

    def said(self, *words: str) -> str:
        """The first of some words, all of which some text has to say as code; for commands in tables and sentences."""
        for word in words:
            if not any(
                re.search(rf"`[^`\n]*{re.escape(word)}[^`\n]*`|^[^\n]*{re.escape(word)}", text, re.M)
                for text in self._texts.values()
            ):
                raise DriftedError(f"no text says: {word}")
        return words[0]


def _commands(block: str) -> list[str]:
    joined = block.replace("\\\n", " ")
    return [line for raw in joined.splitlines() if (line := _without_remark(raw)) and not line.startswith("#")]


def _without_remark(line: str) -> str:
    return re.sub(r"\s{2,}", " ", re.sub(r"\s+# .*$", "", line)).strip()


def filled(line: str, values: Iterable[tuple[str, str]]) -> str:
    """A command with the reader's own values in the places of those that the text shows."""
    for shown, own in values:
        line = line.replace(shown, own)
    return line
