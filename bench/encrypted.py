"""`python -m bench.encrypted`: what encryption by the server (SSE-S3) costs, beside the same in the clear.

    python -m bench.encrypted [--drives 6] [--seconds 3] [--rounds 3]

One server, the same works in turns: rates, and processor time of the server. The bound is a fifth of the rate.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from bench.load import Work, command, commit, machine, run
from bench.peers import start_s4
from bench.turns import compared, in_turns

WORKS = {
    "PUT 64 MiB": Work("put", 64 << 20, 1),
    "GET 64 MiB": Work("get", 64 << 20, 1, 4),
    "PUT 1 MiB": Work("put", 1 << 20, 8),
    "GET 1 MiB": Work("get", 1 << 20, 8, 200),
    "PUT 1 KiB": Work("put", 1024, 16),
    "GET 1 KiB": Work("get", 1024, 16, 200),
}


def main() -> None:
    parser = command("encrypted", __doc__)
    parser.add_argument("--drives", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"commit {commit()}, {machine()}\n")
    works = {
        name + how: replace(work, encrypted=bool(how)) for name, work in WORKS.items() for how in ("", ", encrypted")
    }
    starts = {"S4": partial(start_s4, count=arguments.drives)}
    found = in_turns(starts, works, partial(run, seconds=arguments.seconds), arguments.rounds)
    print("| workers | in the clear /s, MB/s | encrypted | ratio | µs, s/GB | encrypted | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, work in WORKS.items():
        (clear,), _, (clear_rate,) = compared(found, name, work, starts)
        (sealed,), _, (sealed_rate,) = compared(found, name + ", encrypted", work, starts)
        costs = f"{clear:.2f} | {sealed:.2f}" if work.is_large else f"{clear:.0f} | {sealed:.0f}"
        rates = f"{clear_rate:.0f} | {sealed_rate:.0f} | {sealed_rate / clear_rate:.2f}"
        print(f"| {name} ({work.workers}) | {rates} | {costs} | {sealed / clear:.2f} |")


if __name__ == "__main__":
    main()
