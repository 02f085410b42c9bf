"""What benchmarks of two servers or more share: they take turns, so that what else a machine does falls on all of them.

Such a benchmark is a table of works, who serves, how a work is measured and what is printed: bulk.py, pairs.py,
small.py, writes.py.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.load import Report, Work, command

THIS = "this"  # the tree that the benchmark is of
Found = dict[tuple[str, str], list[Report]]  # by (work, server), a report for each round


def asked(module: str, doc: str | None, **options: float | str) -> argparse.Namespace:
    """The command line: another commit, and options with what they are where nothing is said."""
    parser = command(module, doc)
    parser.add_argument("revision")
    for name, usual in options.items():
        parser.add_argument(f"--{name}", type=type(usual), default=usual, help=f"[{usual}]")
    return parser.parse_args()


def in_turns(
    starts: Mapping[str, Callable[[Path], Any]],
    works: Mapping[str, Work],
    measure: Callable[[Any, Work], Report],
    rounds: int,
    *,
    beside: bool = False,
) -> Found:
    """Each work on each server, last and first alternating. A start makes a server, with a `stop`, on an empty
    directory, or None. In each round each has the machine for itself; with `beside` all run all the time, and each work
    is done on one after the other."""
    found, order = Found(), list(starts)

    def serve(who: str, stack: ExitStack) -> Any:
        server = starts[who](Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data")
        if server is not None:
            stack.callback(server.stop)
        return server

    with ExitStack() as to_the_end:
        kept = {who: serve(who, to_the_end) for who in order} if beside else {}
        for _ in range(rounds):
            for together in [order] if beside else [[who] for who in order]:
                with ExitStack() as turn:
                    servers = kept or {who: serve(who, turn) for who in together}
                    for name, work in works.items():
                        for who in together:
                            if servers[who] is not None:
                                found.setdefault((name, who), []).append(measure(servers[who], work))
            order.reverse()
    return found


def compared(found: Found, name: str, work: Work, servers: Mapping[str, Any]) -> tuple[list[float], ...]:
    """Of each server the least cost of a work, the median, and the best rate."""
    costs = [[work.cost(report) for report in found[name, who]] for who in servers]
    rates = [[work.rate(report) for report in found[name, who]] for who in servers]
    return list(map(min, costs)), list(map(statistics.median, costs)), list(map(max, rates))
