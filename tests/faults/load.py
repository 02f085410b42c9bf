"""A load that knows what must be there: threads that write, copy, upload in parts, delete, read and list through every
way in.

Each key is one thread's, so that what it must hold is known. After a call of which nobody knows whether it happened,
its key holds one of two values for good, and is left alone: such a call may still happen, whenever it likes.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from process import Crew, wait_until

BUCKET = "bucket"
SIZES = (10, 3_000, 5_000, 70_000, 300_000)
SHARED = tuple(random.Random("shared").randbytes(size) for size in (5_000, 90_000))  # content that many keys have
PACE_S = 0.03  # between two calls of a thread: what is tested is what happens under load, not how much of it fits
ABSENT = ""


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Load(Crew):
    """`may` has what each key may hold: digests, ABSENT for no object. `wrong` is what no fault excuses."""

    def __init__(self, ways: Sequence[Any], threads: int = 3) -> None:
        super().__init__(*(partial(self._work, number) for number in range(threads)))
        self.ways, self.may = ways, dict[str, set[str]]()
        self.wrong: list[str] = []
        self.failures: Counter[str] = Counter()
        self.done = 0
        self._lock = threading.Lock()

    def wait_for(self, count: int) -> None:
        start = self.done
        wait_until(lambda: self.done >= start + count or self.wrong, f"{count} more calls")
        assert not self.wrong, self.wrong[:5]

    def read_back(self, newest: int = 0) -> int:
        """Read every key, or those that were made last, through one way in after the other; how many there were."""
        names = list(self.may)[-newest:]
        for number, key in enumerate(names):
            may = set(self.may[key])
            found = self._content_in_the_end(self.ways[number % len(self.ways)], key)
            assert found in may or self.may[key] != may, f"{key} holds {found!r}, and not one of {may}"
        return len(names)

    def listed(self) -> None:
        """A listing has what is surely there and nothing that is surely not, once the threads have ended."""
        found = {
            entry["Key"]
            for page in self.ways[0].get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            for entry in page.get("Contents", [])
        }
        sure = {key for key, may in self.may.items() if ABSENT not in may}
        none = {key for key, may in self.may.items() if may == {ABSENT}}
        assert not sure - found, f"not listed: {sorted(sure - found)[:5]}"
        assert not none & found, f"listed: {sorted(none & found)[:5]}"

    def _content(self, s3: Any, key: str) -> str:
        try:
            return digest(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return ABSENT
            raise

    def _content_in_the_end(self, s3: Any, key: str) -> str:
        """As `_content`, asked again as SDKs do while nobody is there: a server that leaves a drive out starts again."""
        found: list[str] = []

        def asked() -> bool:
            try:
                found.append(self._content(s3, key))
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 503:
                    raise
            except (BotoCoreError, OSError):
                return False
            return bool(found)

        wait_until(asked, f"somebody answers for {key}")
        return found[0]

    def _try(self, kind: str, call: Callable[[], Any]) -> tuple[bool, Any]:
        """(whether it was answered, the answer)."""
        try:
            answer = call()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            self.failures[f"{kind} {code}"] += 1
            if code in ("InternalError", "NoSuchBucket", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"):
                self.wrong.append(f"{kind}: {error.response['Error']}")
        except (BotoCoreError, OSError) as error:
            self.failures[f"{kind} {type(error).__name__}"] += 1
        else:
            self.done += 1
            return True, answer
        time.sleep(PACE_S)
        return False, None

    def _write(self, kind: str, key: str, value: str, call: Callable[[], Any]) -> bool:
        before = self.may.get(key, {ABSENT})
        self.may[key] = before | {value}
        answered, _ = self._try(kind, call)
        if answered:
            self.may[key] = {value}
        return answered

    def _work(self, number: int) -> None:
        chosen, count = random.Random(number), 0
        sure: list[str] = []  # keys of ours of which we know what they hold, with an object
        while not self.ended:
            count += 1
            s3, kind = (
                chosen.choice(self.ways),
                chosen.choices(("put", "again", "copy", "parts", "delete", "get", "list"), (5, 3, 2, 1, 2, 6, 1))[0],
            )
            key = f"{number}/{count:06}" if kind in ("put", "copy", "parts") or not sure else chosen.choice(sure)
            body = chosen.choice(SHARED) if chosen.random() < 0.2 else chosen.randbytes(chosen.choice(SIZES))
            if kind == "get" and sure:
                self._look(s3, key)
            elif kind == "list" and sure:
                self._list(s3, number, key)
            else:
                self._change(s3, kind, key, body, sure, chosen)
            time.sleep(PACE_S)

    def _change(self, s3: Any, kind: str, key: str, body: bytes, sure: list[str], chosen: random.Random) -> None:
        known, value = key in sure, digest(body)
        if known:
            sure.remove(key)
        if kind == "delete" and known:
            self._write(kind, key, ABSENT, lambda: s3.delete_object(Bucket=BUCKET, Key=key))
            return
        if kind == "copy" and sure:
            source = chosen.choice(sure)
            value = next(iter(self.may[source]))
            answered = self._write(
                kind,
                key,
                value,
                lambda: s3.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": source}),
            )
        elif kind == "parts":
            answered = self._write(kind, key, value, lambda: in_parts(s3, key, body))
        else:
            answered = self._write(kind, key, value, lambda: s3.put_object(Bucket=BUCKET, Key=key, Body=body))
        if answered:
            sure.append(key)

    def _look(self, s3: Any, key: str) -> None:
        answered, found = self._try("get", lambda: self._content(s3, key))
        if answered and found not in self.may[key]:
            self.wrong.append(f"{key} held {found!r}, and not {self.may[key]}")

    def _list(self, s3: Any, number: int, key: str) -> None:
        """A key of ours that is there is on the page that begins with it."""
        answered, page = self._try("list", lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix=key))
        if answered and key not in [entry["Key"] for entry in page.get("Contents", [])]:
            self.wrong.append(f"{key} of thread {number} was not listed")


def in_parts(s3: Any, key: str, body: bytes) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
    s3.complete_multipart_upload(
        Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
