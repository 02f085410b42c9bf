"""Where `make compat` put a program. One that could not be had is skipped by name."""

from __future__ import annotations

from pathlib import Path

import pytest

MADE = Path(__file__).parents[2] / ".tools" / "compat"


def made(name: str) -> Path:
    """Its folder."""
    if not (MADE / f"{name}.made").exists():
        pytest.skip(f"{name} is not here: `make compat` installs what can be had")
    return MADE / name
