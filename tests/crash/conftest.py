"""Objects of these tests are small, and written past the page cache all the same."""

from __future__ import annotations

import pytest

from s4.storage import direct


@pytest.fixture(autouse=True)
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "LEAST_BYTES", 4096)
