"""Structured logs: one JSON line an event on standard error, or readable lines on a terminal.

Every line goes through `redacted`, the last thing before it is written, whatever it comes from: what proves who
somebody is (signatures, tokens, credentials, keys of customers) is in no log, though an exception's text may hold a
whole request.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

from s4.telemetry.quiet import Quiet

_SECRET = re.compile(
    r"""(?ix) ( (?:x-amz-[a-z-]*)? (?:signature|security-token|credential|customer-key|secret[a-z_-]*|webidentitytoken|authorization)
    ['"\\]* \s* [:=] \s* ['"\\]* (?:b['"])? (?:(?:bearer|basic|aws)\s+)? ) [^\s&'"\\,;<>]+"""
)


def redacted(text: str) -> str:
    """A line without what would let its reader act for somebody else."""
    return _SECRET.sub(r"\1***", text)


def _redact(_: Any, __: str, line: Any) -> str:
    return redacted(str(line))


def address(raw_path: str) -> str:
    """A request's path, and the names in its query without their values."""
    path, _, query = raw_path.partition("?")
    names = [piece.partition("=")[0] for piece in query.split("&") if piece]
    return f"{path}?{'&'.join(names)}" if names else path


LEVELS = ("debug", "info", "warning", "error")


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())


def settle() -> None:
    """Write the counts of lines that were not repeated."""
    for handler in logging.getLogger().handlers:
        for one in handler.filters:
            if isinstance(one, Quiet):
                one.settle()


def configure(level: str, form: str) -> None:
    """`form` is json, text, or auto (text on a terminal)."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]  # others print variables
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render, _redact],
        )
    )
    handler.addFilter(Quiet())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
