"""The grammar of the command line: argparse, with a guess at what was meant where a word is none that it knows."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(r"invalid choice: '([^']*)'")
_OPTION = re.compile(r"unrecognized arguments: (?:\S+ )*?(--?[\w-]+)")


class Parser(argparse.ArgumentParser):
    """Parsers that it makes for subcommands are of its kind, and know the first one through `top`."""

    top: Parser | None = None
    given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        choice = _CHOICE.search(message)
        unknown = _unknown(self, self.given, choice[1]) if choice else ""
        if unknown:  # argparse takes what follows an option that it does not know for a command
            message, choice = f"unrecognized arguments: {unknown}", None
        option = _OPTION.search(message)
        guess = _command(self, choice[1]) if choice else _option(self, option[1]) if option else ""
        super().error(f"{message}\n{self.prog}: error: {guess}" if guess else message)


def below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All parsers of subcommands, at any depth."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one
                yield from below(one)


def whole(parser: Parser) -> Parser:
    """Once all is added: every subcommand's parser knows the first one."""
    for one in below(parser):
        if isinstance(one, Parser):
            one.top = parser
    return parser


def _unknown(parser: Parser, given: Sequence[str], word: str) -> str:
    """An option before a word that a parser does not know."""
    known = [name for action in parser._actions for name in action.option_strings]
    before = given[: given.index(word)] if word in given else ()
    options = (text.partition("=")[0] for text in before if text.startswith("--"))
    return next((one for one in options if not any(name.startswith(one) for name in known)), "")


def _command(parser: Parser, word: str) -> str:
    """A command that is spelt nearly so here, or exactly so elsewhere."""
    here = [
        name for one in below(parser) if (name := one.prog.rpartition(" ")[2]) and one.prog == f"{parser.prog} {name}"
    ]
    values = [str(value) for action in parser._actions for value in (action.choices or ())]
    near = difflib.get_close_matches(word, here or values, 1)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [one.prog for one in below(parser.top or parser) if one.prog.rpartition(" ")[2] == word]
    return f"did you mean `{elsewhere[0]}`?" if elsewhere else ""


def _option(parser: Parser, word: str) -> str:
    known = {name for one in (parser, *below(parser)) for action in one._actions for name in action.option_strings}
    near = difflib.get_close_matches(word.partition("=")[0], sorted(known), 1)
    return f"did you mean {near[0]}?" if near else ""
