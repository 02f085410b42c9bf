"""How a command ends that could not do what it was asked to: one line on standard error, and an exit status that says
so.

`s4.cli.main` is the one place where errors become words, for every command. What is raised for people is a
`SaidError`, a ValueError of a setting, or an OSError of a file or address; anything else is a fault of S4 itself: its
kind and place are said, and the traceback only to who asks for it. No command prints errors of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
FAILED, USAGE, PROBLEMS, INTERRUPTED = 1, 2, 3, 130
VARIABLE = "S4_TRACEBACK"


class SaidError(Exception):
    """The message is for people: what is wrong, and what to do about it."""


def of_option(option: str, read: Callable[[str], T], text: str) -> T:
    """The value of an option's text. Raises ValueError that names the option."""
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{option} {error}") from error


def number(text: str, option: str, least: float, most: float) -> float:
    """Raises ValueError that names the option and its bounds."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ValueError(f"{option} {text}: give a number from {least:g} to {most:g}")
    return value


def count(text: str, option: str, least: int, most: int) -> int:
    """As `number`, of what there is no half of."""
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ValueError(f"{option} {text}: give a whole number from {least} to {most}")
    return int(text)


def one_of(choices: Sequence[str], text: str) -> str:
    """For argparse: also what a variable says. Raises ArgumentTypeError."""
    if text not in choices:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
    return text


def words(error: BaseException) -> str:
    """What an error says to people."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror and str(error).startswith("[Errno"):
        return error.strerror
    if isinstance(error, SaidError | ValueError | OSError) and str(error):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""  # noqa: PTH119 - a name
    named = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"this is a fault of S4 itself{place}: {named} ({VARIABLE}=1 shows all of it, for a report)"


def end(command: str, error: BaseException, status: int, *, as_json: bool = False) -> int:
    """Say why a command failed, as JSON where its output is that; its exit status."""
    if os.environ.get(VARIABLE):
        traceback.print_exception(error)
    said = json.dumps({"error": words(error)}) if as_json else f"{command}: {words(error)}"
    sys.stderr.write(said + "\n")
    return status
