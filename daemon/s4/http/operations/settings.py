"""Settings of buckets: tags, policy, public access block, ownership controls, ACL, cross-origin rules, website,
lifecycle, encryption, notifications.

Each is one document in the bucket's row: a put replaces it whole, and every gateway obeys it when the call returns.
What is like others is a row of `SETTINGS`; a handler of its own has only what is judged by other settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s4.access import documents
from s4.access.checks import read_new_of_bucket
from s4.access.documents import Block
from s4.access.patterns import PolicyError
from s4.gateway import principals, sealing
from s4.gateway.accounts import Accounts
from s4.gateway.buckets import set_document
from s4.gateway.context import Gateway, find_bucket
from s4.http import lending
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call
from s4.http.owners import canonical_of, xml
from s4.http.request import S3Request
from s4.metadata.rows import Bucket
from s4.s3 import acl, cors, encryption, lifecycle, notification, tags, website
from s4.s3.errors import S3Error
from s4.s3.xml import Element, document, tag

Operation = Callable[[Gateway, Call], Awaitable[Answer]]
POLICY_BYTES = 20 * 1024
OWNERSHIPS = (documents.ENFORCED, documents.PREFERRED, documents.WRITER)
_LEAST_SIZE = "x-amz-transition-default-minimum-object-size"  # Terraform waits until it is told
_VARIES = "varies_by_storage_class"
_BLOCK = {
    "BlockPublicAcls": "acls",
    "IgnorePublicAcls": "ignore",
    "BlockPublicPolicy": "policy",
    "RestrictPublicBuckets": "restrict",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting by its name in the S3 API, how it is kept, and its XML. `read` gives nothing where a bucket has none:
    `missing` is the error then, and without one it is shown empty. A delete leaves `left`, None where S3 has no delete;
    without `parse` the put is a handler of its own."""

    called: str
    kept_as: str
    root: str
    read: Callable[[Bucket], Any]
    render: Callable[[Any], str]
    missing: str = ""
    parse: Callable[[Gateway, S3Request, Element], Any] | None = None
    left: str | None = ""
    status: int = 200
    headers: Callable[[Any], dict[str, str]] = lambda _: {}


def shown(
    root: str,
    read: Callable[[Bucket], Any],
    render: Callable[[Any], str],
    missing: str = "",
    headers: Callable[[Any], dict[str, str]] = lambda _: {},
) -> Operation:
    """Answers with what a bucket's row has of a setting."""

    async def get(gateway: Gateway, call: Call) -> Answer:
        found = read(call.must_exist())
        if missing and not found:
            raise S3Error(missing, BucketName=call.request.bucket)
        return respond_xml(document(root, render(found)), headers(found))

    return get


def _kept(setting: Setting, parse: Callable[[Gateway, S3Request, Element], Any]) -> Operation:
    async def put(gateway: Gateway, call: Call) -> Answer:
        wanted = parse(gateway, call.request, await call.request.xml(setting.root))
        text = documents.encode(wanted) if wanted else ""
        await set_document(gateway, call.request.bucket, setting.kept_as, text)
        return respond(setting.status, setting.headers(wanted))

    return put


def _removed(kept_as: str, left: str = "") -> Operation:
    async def delete(gateway: Gateway, call: Call) -> Answer:
        call.must_exist()
        await set_document(gateway, call.request.bucket, kept_as, left)
        return respond(204)

    return delete


def _ids(gateway: Gateway) -> Iterator[str]:
    """Names for rules that a client gives none."""
    return iter(lambda: gateway.random(16).hex(), "")


def _least_size(rules: list[lifecycle.Rule]) -> dict[str, str]:
    return {_LEAST_SIZE: _VARIES if any(rule.varies for rule in rules) else "all_storage_classes_128K"}


def _lifecycle(gateway: Gateway, request: S3Request, root: Element) -> list[lifecycle.Rule]:
    varies = request.headers.get(_LEAST_SIZE, "").lower() == _VARIES
    return lifecycle.from_xml(root, _ids(gateway), varies=varies)


def _encryption(gateway: Gateway, request: S3Request, root: Element) -> encryption.Default:
    """With a key that this server has."""
    default = encryption.default_from_xml(root)
    if default.mode == encryption.SSE_KMS:
        sealing.kms_key(gateway, request.bucket, default.key)
    else:
        sealing.keyring_of(gateway)
    return default


SETTINGS = (
    Setting(
        called="BucketTagging",
        kept_as=documents.TAGS,
        root="Tagging",
        read=documents.tags_of,
        render=tags.to_xml,
        missing="NoSuchTagSet",
        status=204,
    ),
    Setting(
        called="PublicAccessBlock",
        kept_as=documents.BLOCK,
        root="PublicAccessBlockConfiguration",
        read=lambda bucket: block if (block := documents.block_of(bucket)).shown else None,
        render=lambda block: "".join(tag(name, str(getattr(block, of)).lower()) for name, of in _BLOCK.items()),
        missing="NoSuchPublicAccessBlockConfiguration",
        parse=lambda _gateway, _request, root: Block(**{of: root.truth(name) for name, of in _BLOCK.items()}),
        left=documents.encode(documents.NO_BLOCK),
    ),
    Setting(
        called="BucketOwnershipControls",
        kept_as=documents.OWNERSHIP,
        root="OwnershipControls",
        read=lambda bucket: "" if (found := documents.ownership_of(bucket)) == documents.REMOVED else found,
        render=lambda ownership: f"<Rule>{tag('ObjectOwnership', ownership)}</Rule>",
        missing="OwnershipControlsNotFoundError",
        left=documents.REMOVED,
    ),
    Setting(
        called="BucketCors",
        kept_as=documents.CORS,
        root="CORSConfiguration",
        read=documents.cors_of,
        render=cors.to_xml,
        missing="NoSuchCORSConfiguration",
        parse=lambda _gateway, _request, root: cors.from_xml(root),
    ),
    Setting(
        called="BucketWebsite",
        kept_as=documents.WEBSITE,
        root="WebsiteConfiguration",
        read=documents.website_of,
        render=website.to_xml,
        missing="NoSuchWebsiteConfiguration",
        parse=lambda _gateway, _request, root: website.from_xml(root),
    ),
    Setting(
        called="BucketLifecycleConfiguration",
        kept_as=documents.LIFECYCLE,
        root="LifecycleConfiguration",
        read=documents.lifecycle_of,
        render=lifecycle.to_xml,
        missing="NoSuchLifecycleConfiguration",
        parse=_lifecycle,
        headers=_least_size,
    ),
    Setting(
        called="BucketEncryption",
        kept_as=documents.ENCRYPTION,
        root="ServerSideEncryptionConfiguration",
        read=documents.encryption_of,
        render=encryption.default_to_xml,
        missing="ServerSideEncryptionConfigurationNotFoundError",
        parse=_encryption,
    ),
    Setting(
        called="BucketNotificationConfiguration",
        kept_as=documents.NOTIFICATION,
        root="NotificationConfiguration",
        read=documents.notification_of,
        render=notification.to_xml,
        parse=lambda gateway, _request, root: notification.from_xml(root, gateway.receivers, _ids(gateway)),
        left=None,
    ),
)


# -- policy


async def get_policy(gateway: Gateway, call: Call) -> Answer:
    text = _policy_text(call.must_exist(), call.request.bucket)
    text = await principals.show(Accounts(gateway), text)
    return respond(200, {"Content-Type": "application/json"}, text.encode())


def _policy_text(bucket: Bucket, name: str) -> str:
    text = bucket.documents.get(documents.POLICY, "")
    if not text:
        raise S3Error("NoSuchBucketPolicy", BucketName=name)
    return text


async def put_policy(gateway: Gateway, call: Call) -> Answer:
    raw = await call.request.small_body(call.request.limits.xml_bytes)
    if len(raw) > POLICY_BYTES:
        raise S3Error("MalformedPolicy", f"Policies must be at most {POLICY_BYTES} bytes long.")
    try:
        text = raw.decode()
        policy = read_new_of_bucket(text, call.request.bucket)
        text = await principals.keep(Accounts(gateway), text)
    except (PolicyError, UnicodeDecodeError) as error:
        raise S3Error("MalformedPolicy", str(error)) from error
    bucket = await find_bucket(gateway, call.request.bucket)
    if policy.public and documents.block_of(bucket).policy:
        raise S3Error(
            "AccessDenied",
            "The policy is public, and the bucket's public access block does not allow that (BlockPublicPolicy).",
        )
    await set_document(gateway, call.request.bucket, documents.POLICY, text, bucket, (documents.BLOCK,))
    return respond(204)


async def get_policy_status(gateway: Gateway, call: Call) -> Answer:
    bucket = call.must_exist()
    _policy_text(bucket, call.request.bucket)
    policy = documents.policy_of(bucket)
    return respond_xml(document("PolicyStatus", tag("IsPublic", str(policy is not None and policy.public).lower())))


# -- tags


async def put_tagging(gateway: Gateway, call: Call) -> Answer:
    bucket = await find_bucket(gateway, call.request.bucket)
    wanted = tags.from_xml(await call.request.xml("Tagging"), tags.OF_BUCKET)
    text = documents.encode(wanted) if wanted else ""
    if lending.check(call, bucket, wanted):  # by what it has now
        await set_document(gateway, call.request.bucket, documents.TAGS, text, bucket, (documents.TAGS,))
    else:
        await set_document(gateway, call.request.bucket, documents.TAGS, text)
    return respond(204)


# -- ownership controls


async def put_ownership(gateway: Gateway, call: Call) -> Answer:
    root = await call.request.xml("OwnershipControls")
    rules = list(root.all("Rule"))
    wanted = rules[0].get("ObjectOwnership") if len(rules) == 1 else None
    if wanted not in OWNERSHIPS:
        raise S3Error("MalformedXML")
    bucket = await find_bucket(gateway, call.request.bucket)
    if wanted == documents.ENFORCED and bucket.documents.get(documents.ACL):
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    await set_document(gateway, call.request.bucket, documents.OWNERSHIP, wanted, bucket, (documents.ACL,))
    return respond(200)


# -- ACL


async def get_acl(gateway: Gateway, call: Call) -> Answer:
    bucket = call.must_exist()
    held = acl.decode(bucket.documents.get(documents.ACL, ""))
    owner = await canonical_of(gateway, bucket.owner)
    return respond_xml(document("AccessControlPolicy", acl.to_xml(held, xml(owner, bucket.owner))))


async def put_acl(gateway: Gateway, call: Call) -> Answer:
    bucket = await find_bucket(gateway, call.request.bucket)
    wanted = await asked_acl(call.request, await canonical_of(gateway, bucket.owner))
    check_acl(bucket, wanted, call.request.headers)
    judged_by = (documents.BLOCK, documents.OWNERSHIP)
    await set_document(gateway, call.request.bucket, documents.ACL, acl.encode(wanted), bucket, judged_by)
    return respond(200)


async def asked_acl(request: S3Request, owner: str) -> acl.Acl:
    """What a PutBucketAcl or PutObjectAcl asks for, in headers or body. Raises S3Error."""
    wanted = acl.from_headers(request.headers, owner)
    if wanted is not None:
        if await request.small_body(request.limits.xml_bytes):
            raise S3Error("UnexpectedContent")
        return wanted
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
    try:
        return acl.from_xml(await request.xml("AccessControlPolicy"), owner)
    except S3Error as error:
        if error.code != "MalformedXML":
            raise
        raise S3Error("MalformedACLError", error.message if error.fields else "") from error


def check_acl(bucket: Bucket, wanted: acl.Acl, headers: Mapping[str, str]) -> None:
    """Raises S3Error where a bucket takes no such ACL: without ACLs none but that all is its owner's."""
    owners = wanted.private and headers.get("x-amz-acl", acl.OWNERS) == acl.OWNERS
    if not owners and not documents.has_acls(bucket):
        raise S3Error("AccessControlListNotSupported")
    if wanted.public and documents.block_of(bucket).acls:
        raise S3Error(
            "AccessDenied",
            "The ACL is public, and the bucket's public access block does not allow that (BlockPublicAcls).",
        )


OPERATIONS: dict[str, Operation] = {
    **{f"Get{one.called}": shown(one.root, one.read, one.render, one.missing, one.headers) for one in SETTINGS},
    **{f"Put{one.called}": _kept(one, one.parse) for one in SETTINGS if one.parse is not None},
    **{
        f"Delete{one.called.removesuffix('Configuration')}": _removed(one.kept_as, one.left)
        for one in SETTINGS
        if one.left is not None
    },
    "PutBucketTagging": put_tagging,
    "GetBucketPolicy": get_policy,
    "PutBucketPolicy": put_policy,
    "DeleteBucketPolicy": _removed(documents.POLICY),
    "GetBucketPolicyStatus": get_policy_status,
    "PutBucketOwnershipControls": put_ownership,
    "GetBucketAcl": get_acl,
    "PutBucketAcl": put_acl,
}


# -- what browsers ask


async def preflight(gateway: Gateway, request: S3Request) -> Answer:
    """What a browser asks before a request from another origin: needs no signature, and tells the rules only."""
    origin, (method, asked) = request.headers.get("origin", ""), cors.asked_of(request.headers, "")
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in cors.METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method}")
    bucket = await gateway.node.find_bucket(request.bucket) if request.bucket else None
    rules = documents.cors_of(bucket) if bucket is not None else []
    rule = cors.find(rules, origin, method, asked)
    if rule is None:
        raise S3Error(
            "AccessForbidden",
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
        )
    return respond(200, cors.answer(rule, origin, asked))


async def cross_origin(gateway: Gateway, request: S3Request) -> dict[str, str]:
    """Headers for the answer to a request from another origin; empty where no rule takes it."""
    bucket = await gateway.node.find_bucket(request.bucket) if request.bucket else None
    rules = documents.cors_of(bucket) if bucket is not None else []
    origin, (method, asked) = request.headers["origin"], cors.asked_of(request.headers, request.method)
    rule = cors.find(rules, origin, method, asked)
    return cors.answer(rule, origin, asked) if rule is not None else {}
