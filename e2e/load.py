"""Runs in a pod of the tests: writes, reads and deletes all the time as an SDK program does, and at the end reads back
every object whose write was acknowledged. Prints one JSON object.

It ends when /tmp/stop is there. A call counts as failed only where the SDK's own retries did not help.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

THREADS = 4
BUCKET = os.environ["BUCKET_NAME"]


def client() -> Any:
    config = Config(
        retries={"mode": "standard", "max_attempts": 8},
        connect_timeout=3,
        read_timeout=30,
        s3={"addressing_style": "path"},
    )
    return boto3.client("s3", config=config)


class Worker(threading.Thread):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.random = number, random.Random(number)
        self.kept: dict[str, str] = {}
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self.calls, self.slowest = 0, 0.0

    def call(self, what: str, call: Any) -> Any:
        started = time.monotonic()
        try:
            found = call()
        except (BotoCoreError, ClientError) as error:
            self.failed.append(f"{time.time():.1f} {what}: {error}")
            return None
        finally:
            self.calls += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
        return found

    def run(self) -> None:
        s3, count = client(), 0
        while not Path("/tmp/stop").exists():
            count += 1
            key, body = (
                f"w{self.number}/{count}",
                self.random.randbytes(self.random.choice((200, 5000, 20_000, 300_000))),
            )
            if (
                self.call(f"put {key}", lambda key=key, body=body: s3.put_object(Bucket=BUCKET, Key=key, Body=body))
                is not None
            ):
                self.kept[key] = hashlib.sha256(body).hexdigest()
            if self.kept and count % 2:
                self.compare(s3, self.random.choice(list(self.kept)))
            if count % 20 == 0 and len(self.kept) > 10:
                gone = self.random.choice(list(self.kept))
                del self.kept[gone]
                self.call(f"delete {gone}", lambda gone=gone: s3.delete_object(Bucket=BUCKET, Key=gone))
            time.sleep(0.1)  # a load for minutes, on a machine that is six
        self.check()

    def compare(self, s3: Any, key: str) -> None:
        body = self.call(f"get {key}", lambda: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())  # noqa: PLW0108 - both calls may fail
        if body is not None and hashlib.sha256(body).hexdigest() != self.kept[key]:
            self.wrong.append(key)

    def check(self) -> None:
        s3 = client()
        for key in self.kept:
            self.compare(s3, key)


def main() -> None:
    workers = [Worker(number) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    print("running", flush=True)
    for worker in workers:
        worker.join()
    print(
        json.dumps(
            {
                "acknowledged": sum(len(one.kept) for one in workers),
                "calls": sum(one.calls for one in workers),
                "failed": [line for one in workers for line in one.failed],
                "wrong": [key for one in workers for key in one.wrong],
                "slowest_s": round(max(one.slowest for one in workers), 2),
            }
        ),
        flush=True,
    )


main()
