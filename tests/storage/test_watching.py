"""A drive that hangs, as it is looked at."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from inprocess import until
from storage.test_shards import SETTINGS, open_store, run


def test_a_drive_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """Health kept its last word while it did, and said nothing of it."""

    async def test() -> None:
        store, _ = await open_store(tmp_path, settings=replace(SETTINGS, slow_s=0.02))
        hanging = tmp_path / "s4.json"
        os.mkfifo(hanging)  # who reads it waits for somebody who writes
        for _ in range(5):
            await store.watch.look()
        assert ["a read has not ended" in alarm for alarm in store.watch.alarms()] == [True]
        assert store.times.count["read"] == 0
        hanging.open("wb").close()
        await until(lambda: store.times.count["read"])
        await store.watch.look()
        assert store.watch.gone == "has a damaged s4.json"
        assert store.times.count["read"] == 1, "it was asked once"
        await store.close()

    run(test)
