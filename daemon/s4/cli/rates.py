"""`s4 admin user rate` and `s4 admin bucket rate`: what one user or bucket may ask for in a second."""

from __future__ import annotations

import argparse
from typing import Any

from s4.base.text import human
from s4.cli.admin_client import AdminError, Answered, Call
from s4.config.limits import parse_size


def add_arguments(parsers: Any, what: str) -> None:
    rate = parsers.add_parser(
        "rate",
        help=f"what one {what} may ask for in a second, at each process that serves S3; beyond is 503 with Retry-After",
    )
    rate.add_argument("name", metavar="NAME")
    rate.add_argument("--requests", metavar="N", help="requests; 0 leaves it to the limit that all have")
    rate.add_argument("--bytes", metavar="SIZE", help="bytes of bodies and answers, such as 10MiB; 0 likewise")


def set_rate(call: Call, arguments: argparse.Namespace, kind: str) -> tuple[dict[str, Any], str]:
    """(value, text for people). `kind` is users or buckets."""
    said = {"requests_per_s": arguments.requests, "bytes_per_s": arguments.bytes}
    try:
        body = {name: parse_size(text) for name, text in said.items() if text is not None}
    except ValueError as error:
        raise AdminError(str(error)) from error
    if not body:
        raise AdminError("say --requests, --bytes, or both; 0 leaves it to the limit that all have")
    value = next(call("PUT", f"/{kind}/{arguments.name}/rate", body), Answered())
    return value, f"{arguments.name}: {shown(value) or 'the limits that all have'}\n"


def shown(value: dict[str, Any]) -> str:
    """A rate of its own in a few words, empty where there is none."""
    requests, sent = value.get("requests_per_s", 0), value.get("bytes_per_s", 0)
    words = [f"{requests}/s"] * bool(requests) + [f"{human(sent)}/s"] * bool(sent)
    return ", ".join(words)
