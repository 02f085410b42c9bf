"""Settings of buckets: tags, policy, public access block, ownership controls, ACL, cross-origin rules, website,
lifecycle, encryption, notifications.

Each is one document in the bucket's row: a put replaces it whole, and every gateway obeys it when the call returns.
"""

from __future__ import annotations

from s4.access import documents
from s4.access.checks import read_new_of_bucket
from s4.access.documents import Block
from s4.access.patterns import PolicyError
from s4.access.policy import Policy
from s4.gateway import principals, sealing
from s4.gateway.accounts import Accounts
from s4.gateway.buckets import set_document
from s4.gateway.context import Gateway, find_bucket
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call
from s4.http.owners import canonical_of, xml
from s4.http.request import S3Request
from s4.metadata.rows import Bucket
from s4.s3 import acl, cors, encryption, lifecycle, notification, tags, website
from s4.s3.errors import S3Error
from s4.s3.xml import Element, document, tag

POLICY_BYTES = 20 * 1024


async def _remove(gateway: Gateway, request: S3Request, setting: str) -> Answer:
    await find_bucket(gateway, request.bucket)
    await set_document(gateway, request.bucket, setting, "")
    return respond(204)


# -- tags


async def get_tagging(gateway: Gateway, call: Call) -> Answer:
    found = documents.tags_of(await find_bucket(gateway, call.request.bucket))
    if not found:
        raise S3Error("NoSuchTagSet", BucketName=call.request.bucket)
    return respond_xml(document("Tagging", tags.to_xml(found)))


async def put_tagging(gateway: Gateway, call: Call) -> Answer:
    found = tags.from_xml(await call.request.xml("Tagging"), tags.OF_BUCKET)
    await set_document(gateway, call.request.bucket, documents.TAGS, documents.encode(found) if found else "")
    return respond(204)


async def delete_tagging(gateway: Gateway, call: Call) -> Answer:
    return await _remove(gateway, call.request, documents.TAGS)


# -- policy


async def get_policy(gateway: Gateway, call: Call) -> Answer:
    text = _policy_text(await find_bucket(gateway, call.request.bucket), call.request.bucket)
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


async def delete_policy(gateway: Gateway, call: Call) -> Answer:
    return await _remove(gateway, call.request, documents.POLICY)


async def get_policy_status(gateway: Gateway, call: Call) -> Answer:
    bucket = await find_bucket(gateway, call.request.bucket)
    _policy_text(bucket, call.request.bucket)
    policy: Policy | None = documents.policy_of(bucket)
    return respond_xml(document("PolicyStatus", tag("IsPublic", str(policy is not None and policy.public).lower())))


# -- public access block

_BLOCK = {
    "BlockPublicAcls": "acls",
    "IgnorePublicAcls": "ignore",
    "BlockPublicPolicy": "policy",
    "RestrictPublicBuckets": "restrict",
}


async def get_block(gateway: Gateway, call: Call) -> Answer:
    block = documents.block_of(await find_bucket(gateway, call.request.bucket))
    if not block.shown:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", BucketName=call.request.bucket)
    listed = "".join(tag(name, str(getattr(block, field)).lower()) for name, field in _BLOCK.items())
    return respond_xml(document("PublicAccessBlockConfiguration", listed))


async def put_block(gateway: Gateway, call: Call) -> Answer:
    root = await call.request.xml("PublicAccessBlockConfiguration")
    given = {field: _truth(root, name) for name, field in _BLOCK.items()}
    await set_document(gateway, call.request.bucket, documents.BLOCK, documents.encode(Block(**given)))
    return respond(200)


def _truth(root: Element, name: str) -> bool:
    text = (root.get(name) or "false").lower()
    if text not in ("true", "false"):
        raise S3Error("MalformedXML")
    return text == "true"


async def delete_block(gateway: Gateway, call: Call) -> Answer:
    await find_bucket(gateway, call.request.bucket)
    await set_document(gateway, call.request.bucket, documents.BLOCK, documents.encode(documents.NO_BLOCK))
    return respond(204)


# -- ownership controls

OWNERSHIPS = (documents.ENFORCED, documents.PREFERRED, documents.WRITER)


async def get_ownership(gateway: Gateway, call: Call) -> Answer:
    found = documents.ownership_of(await find_bucket(gateway, call.request.bucket))
    if found == documents.REMOVED:
        raise S3Error("OwnershipControlsNotFoundError", BucketName=call.request.bucket)
    return respond_xml(document("OwnershipControls", f"<Rule>{tag('ObjectOwnership', found)}</Rule>"))


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


async def delete_ownership(gateway: Gateway, call: Call) -> Answer:
    await find_bucket(gateway, call.request.bucket)
    await set_document(gateway, call.request.bucket, documents.OWNERSHIP, documents.REMOVED)
    return respond(204)


# -- ACL


async def get_acl(gateway: Gateway, call: Call) -> Answer:
    bucket = await find_bucket(gateway, call.request.bucket)
    held = acl.decode(bucket.documents.get(documents.ACL, ""))
    owner = await canonical_of(gateway, bucket.owner)
    return respond_xml(document("AccessControlPolicy", acl.to_xml(held, owner, xml(owner, bucket.owner))))


async def put_acl(gateway: Gateway, call: Call) -> Answer:
    bucket = await find_bucket(gateway, call.request.bucket)
    wanted = await asked_acl(call.request, await canonical_of(gateway, bucket.owner))
    check_acl(bucket, wanted)
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


def check_acl(bucket: Bucket, wanted: acl.Acl) -> None:
    """Raises S3Error where a bucket takes no such ACL."""
    if not wanted.grants:
        return
    if not documents.has_acls(bucket):
        raise S3Error("AccessControlListNotSupported")
    if wanted.public and documents.block_of(bucket).acls:
        raise S3Error(
            "AccessDenied",
            "The ACL is public, and the bucket's public access block does not allow that (BlockPublicAcls).",
        )


# -- cross-origin rules


async def get_cors(gateway: Gateway, call: Call) -> Answer:
    rules = documents.cors_of(await find_bucket(gateway, call.request.bucket))
    if not rules:
        raise S3Error("NoSuchCORSConfiguration", BucketName=call.request.bucket)
    return respond_xml(document("CORSConfiguration", cors.to_xml(rules)))


async def put_cors(gateway: Gateway, call: Call) -> Answer:
    rules = cors.from_xml(await call.request.xml("CORSConfiguration"))
    await set_document(gateway, call.request.bucket, documents.CORS, documents.encode(rules))
    return respond(200)


async def delete_cors(gateway: Gateway, call: Call) -> Answer:
    return await _remove(gateway, call.request, documents.CORS)


# -- website


async def get_website(gateway: Gateway, call: Call) -> Answer:
    found = documents.website_of(await find_bucket(gateway, call.request.bucket))
    if found is None:
        raise S3Error("NoSuchWebsiteConfiguration", BucketName=call.request.bucket)
    return respond_xml(document("WebsiteConfiguration", website.to_xml(found)))


async def put_website(gateway: Gateway, call: Call) -> Answer:
    found = website.from_xml(await call.request.xml("WebsiteConfiguration"))
    await set_document(gateway, call.request.bucket, documents.WEBSITE, documents.encode(found))
    return respond(200)


async def delete_website(gateway: Gateway, call: Call) -> Answer:
    return await _remove(gateway, call.request, documents.WEBSITE)


# -- lifecycle

_LEAST_SIZE = "x-amz-transition-default-minimum-object-size"  # Terraform waits until it is told
_VARIES = "varies_by_storage_class"


def _least_size(rules: list[lifecycle.Rule]) -> dict[str, str]:
    return {_LEAST_SIZE: _VARIES if any(rule.varies for rule in rules) else "all_storage_classes_128K"}


async def get_lifecycle(gateway: Gateway, call: Call) -> Answer:
    rules = documents.lifecycle_of(await find_bucket(gateway, call.request.bucket))
    if not rules:
        raise S3Error("NoSuchLifecycleConfiguration", BucketName=call.request.bucket)
    return respond_xml(document("LifecycleConfiguration", lifecycle.to_xml(rules)), _least_size(rules))


async def put_lifecycle(gateway: Gateway, call: Call) -> Answer:
    names = iter(lambda: gateway.random(16).hex(), "")
    rules = lifecycle.from_xml(
        await call.request.xml("LifecycleConfiguration"),
        names,
        varies=call.request.headers.get(_LEAST_SIZE, "").lower() == _VARIES,
    )
    await set_document(gateway, call.request.bucket, documents.LIFECYCLE, documents.encode(rules))
    return respond(200, _least_size(rules))


async def delete_lifecycle(gateway: Gateway, call: Call) -> Answer:
    return await _remove(gateway, call.request, documents.LIFECYCLE)


# -- encryption of what comes


async def get_encryption(gateway: Gateway, call: Call) -> Answer:
    default = documents.encryption_of(await find_bucket(gateway, call.request.bucket))
    if default is None:
        raise S3Error("ServerSideEncryptionConfigurationNotFoundError", BucketName=call.request.bucket)
    return respond_xml(document("ServerSideEncryptionConfiguration", encryption.default_to_xml(default)))


async def put_encryption(gateway: Gateway, call: Call) -> Answer:
    default = encryption.default_from_xml(await call.request.xml("ServerSideEncryptionConfiguration"))
    if default.mode == encryption.SSE_KMS:
        sealing.kms_key(gateway, call.request.bucket, default.key)
    else:
        sealing.keyring_of(gateway)
    await set_document(gateway, call.request.bucket, documents.ENCRYPTION, documents.encode(default))
    return respond(200)


async def delete_encryption(gateway: Gateway, call: Call) -> Answer:
    return await _remove(gateway, call.request, documents.ENCRYPTION)


# -- notifications


async def get_notification(gateway: Gateway, call: Call) -> Answer:
    rules = documents.notification_of(await find_bucket(gateway, call.request.bucket))
    return respond_xml(document("NotificationConfiguration", notification.to_xml(rules)))


async def put_notification(gateway: Gateway, call: Call) -> Answer:
    ids = iter(lambda: gateway.random(16).hex(), "")
    rules = notification.from_xml(await call.request.xml("NotificationConfiguration"), gateway.receivers, ids)
    await set_document(gateway, call.request.bucket, documents.NOTIFICATION, documents.encode(rules) if rules else "")
    return respond(200)


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
