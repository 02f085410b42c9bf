"""What the three people did, what they were told, and whether that was enough: no traceback, no silence, no dead end.

A step is a command and what somebody who reads the text expects of it: words (a regular expression), an exit status,
and how soon. What is not as expected is a finding, and the trial goes on: later steps often tell why.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

TRACEBACK = "Traceback (most recent call last)"
LEAST_PAUSE_S = 0.5


@dataclass
class Step:
    did: str
    status: int
    said: str
    expected: str
    verdict: str
    seconds: float


@dataclass
class Started:
    """A program that goes on: a server."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, number: int = 15, wait_s: float = 60) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(wait_s)


@dataclass
class Machine:
    """Where somebody types: `enter` is put before a shell that runs the line."""

    name: str
    here: Path
    environment: dict[str, str]
    enter: Sequence[str] = ()
    started: list[Started] = field(default_factory=list)

    def _words(self, line: str) -> list[str]:
        return [*self.enter, "bash", "-o", "pipefail", "-c", line]

    def run(self, line: str, limit_s: float = 600) -> tuple[int, str]:
        """(exit status, all that it printed). What it starts may go on, so it writes to a file and no pipe."""
        with (self.here / f".{self.name}.said").open("w+b") as said:
            try:
                status = subprocess.run(
                    self._words(line),
                    cwd=self.here,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    check=False,
                    timeout=limit_s,
                ).returncode
            except subprocess.TimeoutExpired:
                status = 124
            said.seek(0)
            return status, said.read().decode(errors="replace")

    def start(self, line: str, name: str) -> Started:
        """A server, which is the process itself: `exec` puts it in the place of the shell."""
        log = self.here / f"{name}.log"
        with log.open("ab") as said:
            made = Started(
                subprocess.Popen(
                    self._words(f"exec {line}"),
                    cwd=self.here,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                ),
                log,
            )
        self.started.append(made)
        return made

    def end(self) -> None:
        for one in self.started:
            if one.process.poll() is None:
                try:
                    one.end()
                except subprocess.TimeoutExpired:
                    os.killpg(one.process.pid, 9)


class Trial:
    """The log of one person."""

    made: ClassVar[list[Trial]] = []  # all of this run: one that is cut off has its log all the same

    def __init__(self, title: str) -> None:
        self.made.append(self)
        self.title, self.steps, self.full, self.notes = title, list[Step](), list[str](), list[str]()

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Trial:
        """One that was kept; not of this run."""
        trial = cls(kept["title"])
        cls.made.remove(trial)
        trial.notes, trial.steps = kept["notes"], [Step(**step) for step in kept["steps"]]
        return trial

    def note(self, text: str) -> None:
        """What is done between commands: a disk is pulled, a node loses its power."""
        self.steps.append(Step(f"*{text}*", 0, "", "", "", 0.0))
        self.full.append(f"\n# {text}\n")

    def does(
        self,
        machine: Machine,
        line: str,
        expected: str,
        *,
        status: int | tuple[int, ...] = 0,
        within_s: float = 0,
        limit_s: float = 600,
        quiet: bool = False,
    ) -> str:
        """One command; with `within_s` again and again until it says what is expected, or that time is over. What it
        printed."""
        began = time.monotonic()
        while True:
            code, text = machine.run(line, limit_s)
            verdict = judge(code, text, expected, status, quiet)
            took = time.monotonic() - began
            if not verdict or took >= within_s:
                break
            time.sleep(LEAST_PAUSE_S)
        self._keep(machine, line, code, text, expected, verdict or "ok", took if within_s else 0.0)
        return text

    def sees(self, started: Started, what: str, expected: str, within_s: float = 120) -> str:
        """What a server that was started says, within a time."""
        began, text, verdict = time.monotonic(), "", "never"
        while verdict and time.monotonic() - began < within_s:
            text = started.text()
            verdict = (
                ""
                if re.search(expected, text)
                else f"ended with {started.process.poll()}"
                if started.process.poll() is not None
                else "not said"
            )
            if verdict.startswith("ended"):
                break
            time.sleep(0.1)
        if TRACEBACK in text:
            verdict = "TRACEBACK"
        self._keep(None, what, started.process.poll() or 0, text, expected, verdict or "ok", time.monotonic() - began)
        return text

    def ends(self, started: Started, what: str, number: int, status: tuple[int, ...], within_s: float = 60) -> None:
        """A signal to all of a program, as a terminal sends it, and how it ends."""
        began = time.monotonic()
        with suppress(ProcessLookupError):
            os.killpg(started.process.pid, number)
        try:
            code = started.process.wait(within_s)
            verdict = "ok" if code in status else f"STATUS {code}"
        except subprocess.TimeoutExpired:
            code, verdict = 0, "goes on"
        verdict = "TRACEBACK" if TRACEBACK in started.text() else verdict
        self._keep(None, what, code, started.text(), "", verdict, time.monotonic() - began)

    def _keep(
        self, machine: Machine | None, line: str, code: int, text: str, expected: str, verdict: str, took: float
    ) -> None:
        self.steps.append(
            Step(
                f"{machine.name + ': ' if machine else ''}`{line}`",
                code,
                telling(text, expected),
                expected,
                verdict,
                took,
            )
        )
        self.full.append(
            f"\n[{time.strftime('%H:%M:%S')}] {machine.name if machine else ''}$ {line}\n{text}\n-> status {code}, expected /{expected}/: {verdict}"
            + (f" after {took:.1f} s" if took else "")
            + "\n"
        )
        print(
            f"{'  ' if verdict == 'ok' else '! '}{self.title}: {line[:110]}: {verdict}{f' after {took:.0f} s' if took else ''}{'' if verdict == 'ok' else f' ({code}: {telling(text, expected)[:300]}; expected {expected[:100]})'}",
            flush=True,
        )

    def findings(self) -> list[Step]:
        return [one for one in self.steps if one.verdict not in ("", "ok")]


def judge(code: int, text: str, expected: str, status: int | tuple[int, ...], quiet: bool) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if TRACEBACK in text:
        return "TRACEBACK"
    if not text.strip() and not quiet:
        return "SILENCE"
    if not re.search(expected, text, re.M | re.S):
        return "OTHER WORDS"
    if code not in (status if isinstance(status, tuple) else (status,)):
        return f"STATUS {code}"
    return ""


def telling(text: str, expected: str) -> str:
    """The line that the expected words begin in, else the last one."""
    found = re.search(expected, text, re.M | re.S) if expected else None
    if found is not None:
        start = text.rfind("\n", 0, found.start()) + 1
        line = text[start : (text.find("\n", found.end()) + 1 or len(text) + 1) - 1].strip()
        return line.splitlines()[0] if line else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


# What every line of somebody's terminal begins with, and keys.
LEFT_OUT = (
    (r"/tmp/s4-trials-[^/]+/[a-z]+(?=/)", ""),
    (r'export PATH="?[^";]*"?; ?', ""),
    (r"export AWS_ACCESS_KEY_ID=\S+; export AWS_DEFAULT_REGION=\S+ ?", ""),
    (r"export AWS_ACCESS_KEY_ID=\S+ AWS_SECRET_ACCESS_KEY=\S+; export AWS_DEFAULT_REGION=[^;]+; ", ""),
    (r"unset REQUESTS_CA_BUNDLE; |aws\(\) \{[^}]*\}; ?|set -e\s", ""),
    (r"(secret key:? +|secret_key\W+)[\w+/-]{20,}", r"\1…"),
    (r"'S4[0-9A-F]{18}' '[\w+/-]+'", "…"),
)


def short(text: str, most: int = 150) -> str:
    text = text.partition(" || s4 admin")[0]
    for found, instead in LEFT_OUT:
        text = re.sub(found, instead, text)
    text = re.sub(r"\s*\n\s*", "; ", "".join(one for one in text if one.isprintable() or one.isspace()).strip())
    text = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("; `", "`").strip()
    return text if len(text) <= most else text[: most - 1] + "…"


def page(trials: Sequence[Trial], head: str) -> str:
    """docs/trials.md."""
    lines = [head, "", "| trial | steps | findings |", "|---|---|---|"]
    lines += [
        f"| {one.title} | {sum(bool(step.verdict) for step in one.steps)} | {len(one.findings())} |" for one in trials
    ]
    for one in trials:
        lines += [
            "",
            f"## {one.title}",
            "",
            *[f"{note}\n" for note in one.notes],
            "| did | was told | as expected |",
            "|---|---|---|",
        ]
        for step in one.steps:
            when = f", after {step.seconds:.0f} s" if step.seconds >= 1 else ""
            said = f"`{short(step.said).replace('`', chr(39))}`" if step.said else ""
            code = f" ({step.status})" if step.status else ""
            lines.append(
                f"| {short(step.did, 190)} | {said}{code} | {step.verdict if step.verdict in ('', 'ok') else '**' + step.verdict + '**'}{when} |"
            )
    return "\n".join(lines) + "\n"


def clean_environment(more: dict[str, str]) -> dict[str, str]:
    """What a terminal has that was just opened."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("S4_", "AWS_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {**kept, **more}
