"""Policies of a bucket beside the block of public ones: each was judged by the other, and is kept only beside what it
was judged by."""

from __future__ import annotations

import json
import random
from typing import Any

from s4.access import documents
from s4.access.documents import Block
from s4.gateway import buckets
from s4.gateway.context import Gateway, find_bucket
from s4.s3.errors import S3Error
from whole.clients import Area, Call, Clients, Key, settled, surely


def _public(bucket: str, value: str) -> str:
    """A policy for everybody, which says by its Sid who put it."""
    statement = {
        "Sid": value.replace(".", "x"),
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Policies(Area):
    """`blocks` are calls of whether public policies are blocked, `policies` those of the policy."""

    kinds = ("policy",)
    bucket = "guarded"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.blocks, self.policies = Key(), Key()

    async def prepare(self, chosen: random.Random) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.create_bucket(gateway, self.bucket, "root")

        await self.clients.tried(chosen, work)
        await self._block(chosen, False)

    async def policy(self, chosen: random.Random, value: str) -> None:
        what = chosen.random()
        if what < 0.3:
            await self._block(chosen, chosen.random() < 0.5)
        elif what < 0.5:
            await self._read(chosen)
        else:
            await self._put(chosen, _public(self.bucket, value) if what < 0.85 else "")

    async def _block(self, chosen: random.Random, on: bool) -> None:
        async def work(gateway: Gateway) -> Any:
            await buckets.set_document(
                gateway, self.bucket, documents.BLOCK, documents.encode(Block(False, False, on, False))
            )

        await self.clients.tried(chosen, work, key=self.blocks, call=lambda: Call("put", on, 0.0))

    async def _put(self, chosen: random.Random, text: str) -> None:
        """As the S3 endpoint does it."""

        async def work(gateway: Gateway) -> Any:
            bucket = await find_bucket(gateway, self.bucket)
            if text and documents.block_of(bucket).policy:
                raise S3Error("AccessDenied")
            await buckets.set_document(gateway, self.bucket, documents.POLICY, text, bucket, (documents.BLOCK,))

        answer = await self.clients.tried(chosen, work, key=self.policies, call=lambda: Call("put", text or None, 0.0))
        if answer.refusal is not None and answer.record is not None:
            self.policies.calls.remove(answer.record)
            if answer.refusal.code not in ("AccessDenied", "OperationAborted"):
                self.clients.problem(f"a policy was refused: {answer.refusal}")

    async def _read(self, chosen: random.Random) -> None:
        async def get(gateway: Gateway) -> Any:
            return (await find_bucket(gateway, self.bucket)).documents.get(documents.POLICY)

        answer = await self.clients.tried(chosen, get, key=self.policies, call=lambda: Call("get", None, 0.0))
        if answer.record is not None:
            answer.record.result = answer.result

    async def read_back(self, chosen: random.Random) -> None:
        await self._read(chosen)

    def judge(self) -> None:
        for one in self.policies.known("put"):
            if one.value is not None and surely(self.blocks.calls, one) is True:
                self.clients.problem(
                    f"a public policy was put at {one.begin:.3f}-{one.end:.3f}, when these were blocked"
                )
        for text in settled(self.policies):
            self.clients.problem(f"the policy {text}")
