"""A metric as a value: what there is to tell is made where it is known, and becomes lines in http/metrics.py."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """`rises`: it is a counter, which only rises while a process lives. `labels` say what it is of: a drive, a job."""

    name: str
    help: str
    value: float
    rises: bool
    labels: dict[str, str]


def gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    return Metric(name, text, value, False, labels)


def counter(name: str, text: str, value: float, **labels: str) -> Metric:
    return Metric(name, text, value, True, labels)
