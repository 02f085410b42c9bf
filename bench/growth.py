"""`python -m bench.growth`: what PUT, GET, HEAD, DELETE and a LIST page cost with few keys and with many.

    python -m bench.growth [--keys 10000,10000000] [--seconds 5] [--cluster]

Keys are loaded through the writer loop of a store in this process, not over HTTP; then a server is started over
the directory. GET and HEAD pick any of the keys, so that with many keys their rows are in no cache of S4's.

With --cluster three nodes hold them, each a copy of every row: the rows are written into the databases of the nodes
while these are stopped, since ten million commands through three replicas on one machine take the better part of an
hour.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import boto3

from bench.load import Work, command, commit, machine, run
from bench.memory import resident
from bench.peers import ACCESS, SECRET, start_cluster, start_s4
from s4.base.clock import boot_clock
from s4.config.limits import MIB, Limits
from s4.config.settings import StoreSettings
from s4.gateway.context import Readers
from s4.metadata import commands, keys
from s4.metadata.rows import Bucket, Counters, Extent, Object, decode, encode, encode_object
from s4.node.local import open_store
from s4.server.parts import ServerSettings, make_gateway
from s4.storage.leveldb import Database

BATCH = 8192
PARTITIONS = 32  # of the cluster
SETTLE_S = 10
INLINE = b"x" * 64
WORK = {
    "PUT 1 KiB (16)": Work("put", 1024, 16),
    "GET (16)": Work("get", 64, 16, existing="grow"),
    "HEAD (16)": Work("head", 64, 16, existing="grow"),
    "LIST 1000 keys (4)": Work("list", 64, 4, existing="grow"),
}


async def load(directory: Path, count: int) -> float:
    """Put `count` small objects into the bucket s3load; returns seconds."""

    def fatal(error: BaseException) -> None:
        raise error

    environment = {"S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET}
    limits = Limits(waiting_commands=2 * BATCH)
    store = await open_store(
        [directory],
        StoreSettings("interval", reserve_bytes=0),
        limits,
        horizon=boot_clock,
        fatal=fatal,
        environment=environment,
    )
    gateway = make_gateway(store.node, await store.node.layout(), ServerSettings([]), Readers())
    made = await store.node.execute(0, commands.CreateBucket("s3load", "root", 10, 10))
    if not isinstance(made, commands.BucketMade):
        raise TypeError(f"no bucket: {made}")
    settings = commands.Settings(made.bucket.id, made.bucket.revision, "")
    started = time.monotonic()
    for first in range(1, count + 1, BATCH):
        waiting = []
        for number in range(first, min(first + BATCH, count + 1)):
            key, row = row_of(number)
            partition = keys.partition_of(made.bucket.id, key, gateway.partitions)
            waiting.append(store.node.host.submit(partition, commands.PutObject(settings, key, row, INLINE)))
        await asyncio.gather(*waiting)
    took = time.monotonic() - started
    await store.close()
    gateway.pool.shutdown()
    return took


def row_of(number: int) -> tuple[bytes, Object]:
    row = Object(
        1_700_000_000_000 + number,
        len(INLINE),
        f"{number:032x}",
        False,
        True,
        "root",
        "",
        "",
        "",
        {},
        {},
        {},
        [Extent(0, len(INLINE))],
    )
    return b"grow/%02x/%08d" % (number % 256, number), row


def load_cluster(directory: Path, count: int) -> float:
    """Three stopped nodes with a bucket s3load get the rows of `count` small objects; returns seconds."""
    peer = start_cluster(directory, 3, partitions=PARTITIONS, erasure="2+1")
    boto3.client(
        "s3",
        endpoint_url=peer.endpoint,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    ).create_bucket(Bucket="s3load")
    peer.stop()
    copies = [
        Database(
            directory / f"node-{number}" / "meta", cache_bytes=8 * MIB, write_buffer_bytes=64 * MIB, open_files=500
        )
        for number in (1, 2, 3)
    ]
    bucket = next(
        decode(Bucket, found) for copy in copies if (found := copy.get(keys.named_row(keys.BUCKET, "s3load")))
    )
    counts, started = [0] * PARTITIONS, time.monotonic()
    for first in range(1, count + 1, BATCH):
        rows: list[tuple[bytes, bytes | None]] = []
        for number in range(first, min(first + BATCH, count + 1)):
            key, row = row_of(number)
            partition = keys.partition_of(bucket.id, key, PARTITIONS)
            counts[partition] += 1
            rows.append((keys.object_row(partition, bucket.id, key, 0, 1), encode_object(row, INLINE)))
        for copy in copies:
            copy.write(rows, sync=False)
    took = time.monotonic() - started
    for copy in copies:  # as it would be, had the keys come slowly
        copy._db.compact_range()
        copy.write(
            [
                (keys.counters_row(one, bucket.id), encode(Counters(held, held * len(INLINE))))
                for one, held in enumerate(counts)
            ]
        )
        copy.close()
    return took


def main() -> None:
    parser = command("growth", __doc__)
    parser.add_argument("--keys", default="10000,10000000")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--cluster", action="store_true", help="three nodes instead of one process")
    arguments = parser.parse_args()
    counts = [int(one) for one in arguments.keys.split(",")]
    print(f"Commit {commit()}, {machine()}. Median milliseconds of an operation.\n")
    columns: list[dict[str, float]] = []
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "s4"
            took = load_cluster(directory, count) if arguments.cluster else asyncio.run(load(directory, count))
            begun = time.monotonic()
            peer = start_cluster(directory, 3) if arguments.cluster else start_s4(directory)
            started = time.monotonic() - begun
            try:
                asked = {name: replace(work, objects=count) for name, work in WORK.items()}
                for work in asked.values():  # until LevelDB is done with what loading left to compact
                    run(peer, work, SETTLE_S)
                column = {name: run(peer, work, arguments.seconds).p50_ms for name, work in asked.items()}
                if not arguments.cluster:
                    column["resident MiB"] = resident(peer) / (1 << 20)
            finally:
                peer.stop()
            size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
            column |= {"loaded, keys a second": count / took, "start, s": started, "bytes on disk a key": size / count}
            columns.append(column)
    print("| | " + " | ".join(f"{count:,} keys" for count in counts) + " | ratio |\n|---|" + "---|" * (len(counts) + 1))
    for name in columns[0]:
        values = [column[name] for column in columns]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + f" | {values[-1] / values[0]:.2f} |")


if __name__ == "__main__":
    main()
