"""`s4 admin` for who watches over a server: what is logged, and its root keys."""

from __future__ import annotations

import argparse
import time
from typing import Any

from s4.base.said import SaidError
from s4.base.text import table
from s4.cli.admin_client import Call
from s4.telemetry.logs import LEVELS


def add_arguments(actions: Any) -> None:
    root_keys_arguments(actions)
    actions.add_parser("jobs", help="background work of this process: what there is, when it ran last, and what failed")
    log = actions.add_parser("log", help="change what is logged, until the server starts again")
    log.add_argument(
        "--access",
        choices=("all", "refused"),
        default="",
        help="of requests: all, or those that were refused or failed",
    )
    log.add_argument("--level", choices=LEVELS, default="", help="from which level on")


def jobs(call: Call, _: argparse.Namespace) -> tuple[dict[str, Any], str]:
    value = next(call("GET", "/jobs"))
    rows = [["JOB", "EVERY", "RUNS", "ENDED LAST", "FAILED", "NOW"]]
    for one in sorted(value["jobs"], key=lambda one: (-one["failures_in_a_row"], one["name"])):
        every = "once" if one["every_s"] is None else f"{one['every_s']:g} s" if one["every_s"] else "always"
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["ended_s"])) if one["ended_s"] else "-"
        now = f"failing: {one['error']}" if one["failures_in_a_row"] else "running" if one["running"] else "waiting"
        rows.append([one["name"], every, str(one["runs"]), ended, str(one["failures"]), now])
    return value, table(rows)


def root_keys_arguments(actions: Any) -> None:
    root = actions.add_parser("root-keys", help="change the root keys, without a lock-out")
    root.add_argument(
        "step",
        choices=("change", "finish", "cancel"),
        help=(
            "change: new keys are printed, once. Of a server they count at once, instead of the old ones; of a cluster beside them, until "
            "every process was started again with them and `finish`, signed with them, ends the old ones; `cancel`, signed with these, ends the new ones"
        ),
    )


def root_keys(call: Call, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    value = next(call("POST", f"/root-keys/{arguments.step}"))
    if arguments.step != "change":
        return value, f"{value['access_key']} is the only root key now\n"
    return (
        value,
        f"root access key: {value['access_key']}\nroot secret key: {value['secret_key']}\nThese are not printed again.\n",
    )


CARE = {
    "retry": "take a drive in that is away",
    "replace": "put one aside, so that an empty one can be mounted in its place",
    "add": "take empty directories in as more drives, or keep one that was to be drained",
    "drain": "have the others hold what drives do",
    "remove": "take drives away that were drained",
}


def drives_arguments(actions: Any) -> None:
    drives = actions.add_parser("drives", help="the drives, and how far they are filled; add, drain, replace some")
    drives.add_argument(
        "care", nargs="?", choices=tuple(CARE), metavar="|".join(CARE), help="; ".join(map(": ".join, CARE.items()))
    )
    drives.add_argument("drive", nargs="*", metavar="DRIVE", help="numbers or directories")


def care_for_drive(call: Call, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    named, single = arguments.drive, arguments.care in ("retry", "replace")
    if not named or (single and len(named) > 1):
        raise SaidError(
            f"say which drive to {arguments.care}, by its number or directory; `s4 admin drives` lists them"
        )
    value = next(call("POST", f"/drives/{arguments.care}", {"drive": named[0]} if single else {"drives": named}))
    return value, "".join(f"drive {one}: {value['done']}\n" for one in named)


def set_log(call: Call, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(value, text for people)."""
    if not arguments.access and not arguments.level:
        raise SaidError("say what to log: --access all or refused, --level debug, info, warning or error")
    value = next(call("PUT", "/log", {"access": arguments.access, "level": arguments.level}), {})
    said = [f"requests: {arguments.access}"] if arguments.access else []
    said += [f"level: {arguments.level}"] if arguments.level else []
    return value, f"logged from now on: {', '.join(said)}\n"
