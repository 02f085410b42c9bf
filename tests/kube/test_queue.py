"""The queue of what is to be looked at: what is slow of one kind keeps no other kind waiting."""

from __future__ import annotations

import asyncio

from inprocess import until
from s4_operator.queue import Key, Queue


def test_a_cluster_does_not_wait_for_buckets() -> None:
    """A Bucket that is emptied may take hours, and each round of one whose cluster does not answer as long as that is
    waited for: no host was replaced meanwhile."""

    async def test() -> None:
        looked, goes_on = list[Key](), asyncio.Event()

        async def work(key: Key) -> float:
            looked.append(key)
            if key[0] == "Bucket":
                await goes_on.wait()
            return 0.0

        queue = Queue(work, 2)
        try:
            for number in range(4):
                queue.add(("Bucket", "app", str(number)))
            await until(lambda: len(looked) == 2)
            queue.add(("S4Cluster", "s4", "c"))
            await until(lambda: ("S4Cluster", "s4", "c") in looked)
            assert len(looked) == 3, "of one kind no more at once"
            goes_on.set()
            await until(lambda: not queue._tasks)
            assert len(looked) == 5
        finally:
            await queue.close()

    asyncio.run(test())
