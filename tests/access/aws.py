"""AWS's own tables of actions and condition keys, as its Service Authorization Reference has them (aws_*.tsv say
which)."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def _rows(name: str) -> list[list[str]]:
    lines = (HERE / name).read_text().splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


# action -> (what it can be on, its condition keys), in AWS's own spelling; a key that ends in / has a tag's key after
# it
ACTIONS = {action: (tuple(on.split()), tuple(keys.split())) for action, on, keys in _rows("aws_actions.tsv")}
TYPES = {key: kind for key, kind in _rows("aws_keys.tsv")}  # noqa: C416 - pairs
GLOBAL = tuple(
    key for key in TYPES if key.startswith("aws:") and key not in ("aws:RequestTag/", "aws:ResourceTag/", "aws:TagKeys")
)


def keys_of(action: str) -> tuple[str, ...]:
    """Every condition key that an action has."""
    return (*GLOBAL, *ACTIONS.get(action, ((), ()))[1])
