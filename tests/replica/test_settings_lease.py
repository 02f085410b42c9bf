"""A new primary changes no setting while a gateway may use what the one before it told (L2)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cluster.memory import MemoryCoordinator
from inprocess import until
from s4.cluster.messages import Config, Document, Plan, decode_document, encode_document
from s4.replica.group import Group
from s4.replica.replicated import SETTINGS_LEASE_S, ReplicatedHost
from s4.replica.terms import Timing
from s4.storage.leveldb import Database

TIMING = Timing(beacon=0.02, lease=0.2, grace=0.3, resend=0.05)


def test_who_led_before_and_leads_again_waits_from_then_on(tmp_path: Path) -> None:
    """Another led in between, and gave leases of its own."""

    async def whole() -> None:
        kept, coordinator, failed = (
            Database(tmp_path / "meta", cache_bytes=1 << 20, write_buffer_bytes=1 << 20, open_files=20),
            MemoryCoordinator(),
            list[BaseException](),
        )
        led = list[float]()
        await coordinator.replace("partition/0", encode_document(Document(Config(1, "a", ("a",)), Plan(("a",), 1))), 0)
        group = Group(
            "a", kept, coordinator, lambda *_: None, partitions=1, clock=time.monotonic, fatal=failed.append,
            timing=TIMING,
        )  # fmt: skip
        host = ReplicatedHost(group, 1, cache_bytes=1 << 20, max_waiting=100)
        host.on_lead = lambda _partition: led.append(time.monotonic())
        await group.start()
        await until(lambda: group.serves(0))
        waiting = asyncio.ensure_future(host.settings_may_change())
        await asyncio.sleep(0)
        assert not waiting.done()
        value, revision = await coordinator.read("partition/0")
        document = decode_document(value)
        config = Config(document.config.epoch + 1, "b", ("a", "b"))
        other = Document(config, Plan(("a", "b"), 1))
        revision = await coordinator.replace("partition/0", encode_document(other), revision)
        await until(lambda: not group.replica(0).leading)
        await until(lambda: len(led) == 2)  # b says nothing
        await waiting
        assert time.monotonic() >= led[1] + SETTINGS_LEASE_S
        assert not failed
        await host.close()
        kept.close()

    asyncio.run(whole())
