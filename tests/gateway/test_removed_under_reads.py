"""A download goes on to its end though the object is deleted meanwhile (D6)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from inprocess import Bytes, opened
from s4.gateway.buckets import create_bucket
from s4.gateway.multipart import Completion, WantedPart, complete_upload, create_upload, put_part
from s4.gateway.objects import Attributes, delete_object
from s4.gateway.read import open_object, stream
from s4.s3.checksums import Expected
from s4.storage.records import DamagedError

MIB = 1 << 20


@pytest.mark.parametrize("small", [0, 65536])
def test_an_object_of_many_blobs_is_read_to_its_end_after_it_was_deleted(tmp_path: Path, small: int) -> None:
    """Found by the simulator (seed 790): the rows of blobs go with the object, and those of later parts were read when
    their turn came, by when they were gone: the download was cut in the middle."""
    data = [random.Random(number).randbytes(size) for number, size in enumerate((5 * MIB, 5 * MIB, 30_000))]

    async def test() -> None:
        async with opened(tmp_path / "data", durability="none", small=small) as (_, gateway):
            await create_bucket(gateway, "bbb", "root")
            upload, _ = await create_upload(gateway, "bbb", b"k", Attributes(), "root", "", "")
            parts = []
            for number, part in enumerate(data, 1):
                stored, _, _ = await put_part(gateway, "bbb", b"k", upload, number, Bytes(part), Expected())
                parts.append(WantedPart(number, stored.etag, {}))
            await complete_upload(gateway, "bbb", b"k", upload, Completion(parts))
            with gateway.readers.reading():
                found = await open_object(gateway, "bbb", b"k", "")
                pieces = stream(gateway, found, 0, found.row.size)
                read = [bytes(await anext(pieces))]
                await delete_object(gateway, "bbb", b"k", "", "root")
                for extent in found.row.extents:
                    async with asyncio.timeout(60):
                        with pytest.raises(DamagedError):
                            while True:
                                await gateway.node.find_blob(extent.partition, extent.blob)
                                await asyncio.sleep(0.01)
                read += [bytes(piece) async for piece in pieces]
            assert b"".join(read) == b"".join(data)

    asyncio.run(test())
