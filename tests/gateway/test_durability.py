"""What is acknowledged is durable, in the right order: shards first, then the rows that name them, then the answer.

A killed process proves nothing about syncs, so the order of the calls themselves is looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inprocess import Bytes, opened, put
from s4.gateway.buckets import create_bucket
from s4.gateway.multipart import create_upload, put_part
from s4.gateway.objects import Attributes
from s4.s3.checksums import Expected
from storage.fakes import RecordingFiles


@pytest.mark.parametrize("size", [100, 4096, 65536, 65537, (1 << 20) + 1, 3_500_000])
@pytest.mark.parametrize("multipart", [False, True])
def test_shards_are_synced_before_the_rows_that_name_them(tmp_path: Path, size: int, multipart: bool) -> None:
    async def test() -> None:
        files = RecordingFiles()
        async with opened(tmp_path / "data", files=files) as (store, gateway):
            batch = store.host.database.batch

            def recorded(rows: Any, sync: bool = True) -> Callable[[], None]:
                write = batch(rows, sync)

                def run() -> None:
                    write()
                    files.events.append(("batch", sync))

                return run

            store.host.database.batch = recorded  # type: ignore[method-assign]
            await create_bucket(gateway, "photos", "root")
            upload = (
                (await create_upload(gateway, "photos", b"m", Attributes(), "root", "", ""))[0] if multipart else ""
            )
            for _ in range(3):
                before = len(files.events)
                if multipart:
                    await put_part(gateway, "photos", b"m", upload, 1, Bytes(os.urandom(size)), Expected())
                else:
                    await put(gateway, "photos", b"k", os.urandom(size))
                happened = [event[0] for event in files.events[before:]]
                assert files.events[-1] == ("batch", True)  # acknowledged right after a synced batch
                if size < 4096:
                    assert "write" not in happened
                    continue
                last_write = len(happened) - 1 - happened[::-1].index("write")
                assert "sync" in happened[last_write : happened.index("batch", last_write)]

    asyncio.run(test())
