"""Who may do what with a bucket, on the admin port: letting everybody read one, taking that back, and why somebody may
or may not.

`s4 admin bucket` changes the documents that S3's own calls change, and asks for the same permissions; `s4 admin policy
explain` asks the functions that decide requests (access/requester.py, access/reasons.py), so that it cannot say
otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from s4.access import documents
from s4.access.actions import bucket_arn, object_arn
from s4.access.awsnames import NAMES, unknown
from s4.access.policy import Ask
from s4.access.reasons import allowing, why_not
from s4.access.requester import ANONYMOUS, NOBODY, ROOT, Requester
from s4.gateway.buckets import set_document
from s4.gateway.context import Gateway, find_bucket
from s4.http.admin_access import Caller
from s4.http.admin_users import CALLER
from s4.http.authorize import OF_ROOT
from s4.http.credentials import requester_of
from s4.metadata.rows import Bucket
from s4.s3.errors import S3Error

READ, LIST = "S4PublicRead", "S4PublicList"  # the statements that are ours to take away
_NEEDS = ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:PutBucketPublicAccessBlock")


class AdminAccess:
    """Handlers; what they raise is S3Error, or ValueError of a body."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[dict[str, Any]]]]]:
        return [
            ("PUT", "/admin/v1/buckets/{name}/access", self.put_access),
            ("POST", "/admin/v1/policy/explain", self.explain),
        ]

    async def put_access(self, request: web.Request) -> dict[str, Any]:
        """Let everybody read what is in a bucket, or take that back. Other statements of its policy stay."""
        body, name = msgspec.json.decode(await request.read(), type=_Access), request.match_info["name"]
        caller: Caller = request[CALLER]
        bucket = await find_bucket(self._gateway, name)
        for action in _NEEDS:
            ask = Ask(caller.who.asker, action, bucket_arn(name), caller.context)
            if caller.who.kind != ROOT and not caller.who.allowed(ask, documents.policy_of(bucket)):
                raise S3Error("AccessDenied", f"{action} on {bucket_arn(name)} is needed for this.")
        if body.public:  # a block refuses what it blocks, and stays longest
            await self._put_block(name, bucket, blocked=False)
            await self._put_policy(name, await find_bucket(self._gateway, name), body)
        else:
            await self._put_policy(name, bucket, body)
            await self._put_block(name, await find_bucket(self._gateway, name), blocked=True)
        left = documents.policy_of(await find_bucket(self._gateway, name))
        return {
            "name": name,
            "public": body.public,
            "list": body.list,
            "still_public": bool(left and left.public) and not body.public,
        }

    async def _put_block(self, name: str, bucket: Bucket, *, blocked: bool) -> None:
        block = replace(documents.block_of(bucket), policy=blocked, restrict=blocked, shown=True)
        if blocked:
            block = replace(block, acls=True, ignore=True)
        await set_document(self._gateway, name, documents.BLOCK, documents.encode(block))

    async def _put_policy(self, name: str, bucket: Bucket, body: _Access) -> None:
        text = bucket.documents.get(documents.POLICY, "")
        policy: dict[str, Any] = json.loads(text) if text else {"Version": "2012-10-17", "Statement": []}
        kept = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
        kept = [one for one in kept if one.get("Sid") not in (READ, LIST)]
        if body.public:
            kept.append(_statement(READ, "s3:GetObject", f"{bucket_arn(name)}/*"))
        if body.public and body.list:
            kept.append(_statement(LIST, "s3:ListBucket", bucket_arn(name)))
        new = json.dumps({**policy, "Statement": kept}, ensure_ascii=False, separators=(",", ":")) if kept else ""
        if new != text:
            await set_document(self._gateway, name, documents.POLICY, new, bucket, (documents.POLICY, documents.BLOCK))

    async def explain(self, request: web.Request) -> dict[str, Any]:
        """Whether somebody may do something, and what says so. A request brings more (its address, headers, tags),
        which conditions may go by: they are judged as of one that brings nothing."""
        body = msgspec.json.decode(await request.read(), type=_Question)
        if "*" in body.action or unknown(body.action.lower()) or body.action.partition(":")[0] not in NAMES:
            raise ValueError(unknown(body.action.lower()) or f"{body.action!r} is no action such as s3:GetObject")
        who = await self._requester(body.user)
        name, slash, key = body.resource.partition("/")
        bucket = await find_bucket(self._gateway, name) if name and body.action.lower().startswith("s3:") else None
        resource = (object_arn(name, key.encode()) if slash else bucket_arn(name)) if bucket else body.resource or "*"
        ask = Ask(who.asker, body.action, resource, dict(who.about))
        written = documents.policy_of(bucket) if bucket else None
        counts = documents.policy_for(bucket, anonymous=who.kind == ANONYMOUS) if bucket else None
        allowed = who.allowed(ask, counts) or (who.kind == ROOT and body.action in OF_ROOT)
        acls = bucket is not None and documents.has_acls(bucket)
        why = allowing(who, ask, counts) if allowed else why_not(who, ask, written, kept_out=written is not counts)
        return {
            "user": body.user or "anonymous",
            "action": body.action,
            "resource": resource,
            "allowed": allowed,
            "why": why,
            "acls_may_allow": acls and not allowed,
        }

    async def _requester(self, name: str) -> Requester:
        if not name:
            return NOBODY
        found = await self._gateway.node.find_identity(name if name.startswith("role/") else f"user/{name}")
        if found is None:
            raise S3Error("NoSuchEntity", f"There is no user {name}; a role is role/NAME.")
        return requester_of(found)


def _statement(sid: str, action: str, resource: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}


class _Access(msgspec.Struct, forbid_unknown_fields=True):
    public: bool
    list: bool = False


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    action: str
    resource: str = ""
    user: str = ""
