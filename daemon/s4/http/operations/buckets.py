"""Buckets: list, create, head, delete, location, versioning."""

from __future__ import annotations

import re

from s4.access import documents
from s4.access.keys import of_labels
from s4.gateway import buckets
from s4.gateway.context import Gateway, find_bucket
from s4.http import owners
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Authorizer, Call
from s4.metadata.rows import Bucket
from s4.s3 import acl, lock, names, tags
from s4.s3.errors import S3Error
from s4.s3.xml import Element, document, parse, tag

FIRST_REGION = "us-east-1"
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d").fullmatch


async def list_buckets(gateway: Gateway, call: Call) -> Answer:
    query = call.request.query
    prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
    text = query.get("max-buckets", "10000")
    if names.number(text, 1, 10_000) is None:
        raise S3Error(
            "InvalidArgument", "max-buckets must be between 1 and 10000", ArgumentName="max-buckets", ArgumentValue=text
        )
    if after and not names.is_bucket(after):
        raise S3Error(
            "InvalidArgument", "The continuation token provided is incorrect", ArgumentName="continuation-token"
        )
    region = call.request.claim.region if call.request.claim else ""
    _check_region(query.get("bucket-region", region), region)
    action = "s3:ListAllMyBuckets"
    if not call.request.requester.may_somewhere(action) or Authorizer(
        gateway, call.request, "", None
    ).denies_everywhere(action):
        raise S3Error("AccessDenied")
    rows = [
        (name, row)
        for name, row in await gateway.node.list_buckets()
        if name > after and name.startswith(prefix) and await Authorizer(gateway, call.request, name, None).may(action)
    ]
    page = rows[: int(text)]
    where = tag("BucketRegion", region) if not _PAGES.isdisjoint(query) else ""
    listed = "".join(_bucket_xml(name, row, where) for name, row in page)
    more = tag("ContinuationToken", page[-1][0]) if len(rows) > len(page) else ""
    shown = tag("Prefix", prefix) if prefix else ""
    owner = owners.xml(call.request.requester.asker.canonical, call.caller)
    return respond_xml(
        document(
            "ListAllMyBucketsResult",
            f"<Owner>{owner}</Owner><Buckets>{listed}</Buckets>{more}{shown}",
        )
    )


_PAGES = frozenset(
    ("prefix", "continuation-token", "max-buckets", "bucket-region")
)  # with one of them regions are told


def _check_region(wanted: str, region: str) -> None:
    """Raises S3Error: buckets of another region are asked for there, as on S3."""
    if wanted == region:
        return
    message = f"Argument value {wanted} is not a valid AWS Region"
    if _REGION(wanted):
        message = f"Buckets of {wanted} are asked for at its own endpoint: this server is in the region {region}."
    raise S3Error("InvalidArgument", message, ArgumentName="bucket-region", ArgumentValue=wanted)


def _bucket_xml(name: str, row: Bucket, where: str) -> str:
    return f"<Bucket>{tag('Name', name)}{tag('CreationDate', names.iso_date(row.created_ms))}{where}</Bucket>"


async def create_bucket(gateway: Gateway, call: Call) -> Answer:
    body = await call.request.small_body(call.request.limits.xml_bytes)
    root = Element("")
    if body:
        root = parse(body, "CreateBucketConfiguration", call.request.limits.xml_depth)
    location, labels = root.get("LocationConstraint"), _labels(root)
    more = {"s3:locationconstraint": (location,)} if location else {}
    await call.authorizer.must("s3:CreateBucket", more={**more, **of_labels(labels)})
    names.check_new_bucket(call.request.bucket)
    region = call.request.claim.region if call.request.claim else ""
    if location and (location != region or location == FIRST_REGION):  # which has no name here, as on S3
        raise S3Error(
            "InvalidLocationConstraint",
            f"This server is in the region {region}: set AWS_DEFAULT_REGION to it, or ask for no location.",
            LocationConstraint=location,
        )
    for directory in ("Location", "Bucket"):
        if any(root.all(directory)):
            raise S3Error("NotImplemented", "S4 does not implement directory buckets.")
    asked, locked = await _asked(gateway, call, labels), await _asked_lock(call)
    try:
        await buckets.create_bucket(gateway, call.request.bucket, call.caller, asked, lock=locked)
    except S3Error as error:
        if error.code != "BucketAlreadyOwnedByYou" or region != FIRST_REGION:
            raise
        await _made_again(gateway, call, asked, locked, error)
    return respond(200, {"Location": f"/{call.request.bucket}"})


async def _made_again(gateway: Gateway, call: Call, asked: dict[str, str], locked: bool, error: S3Error) -> None:
    """One's own bucket in us-east-1 may be made again: it stays, and its ACL is as asked for now (S3 API:
    CreateBucket). Raises the error where what is asked for besides is not what it has."""
    bucket = await find_bucket(gateway, call.request.bucket)
    said = [documents.TAGS] if documents.TAGS in asked else []
    said += [documents.OWNERSHIP] if "x-amz-object-ownership" in call.request.headers else []
    listed, before = asked.get(documents.ACL, ""), bucket.documents.get(documents.ACL, "")
    otherwise = any(bucket.documents.get(name) != asked.get(name) for name in said) or (locked and not bucket.lock)
    if bucket.deleting or otherwise or (listed and not documents.has_acls(bucket)):
        raise error
    if listed == before:
        return
    await call.authorizer.must("s3:PutBucketAcl")
    if listed and documents.block_of(bucket).acls and acl.decode(listed).public:
        raise error
    await buckets.set_document(
        gateway, call.request.bucket, documents.ACL, listed, bucket, (documents.OWNERSHIP, documents.BLOCK)
    )


async def _asked_lock(call: Call) -> bool:
    if call.request.headers.get(lock.ENABLED, "false").lower() != "true":
        return False
    for action in ("s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning"):
        await call.authorizer.must(action)
    return True


def _labels(root: Element) -> dict[str, str]:
    """The tags of a bucket to be. Raises S3Error."""
    pairs = [(one.get("Key") or "", one.get("Value") or "") for group in root.all("Tags") for one in group.all("Tag")]
    return tags.check(pairs, tags.OF_BUCKET)


async def _asked(gateway: Gateway, call: Call, labels: dict[str, str]) -> dict[str, str]:
    """The documents that a new bucket begins with: its tags, ownership controls and ACL. Raises S3Error."""
    if labels:
        await call.authorizer.must("s3:PutBucketTagging")
    ownership = call.request.headers.get("x-amz-object-ownership", "")
    wanted = acl.from_headers(call.request.headers, call.request.requester.asker.canonical) or acl.Acl()
    if ownership:
        await call.authorizer.must("s3:PutBucketOwnershipControls")
    if ownership not in ("", documents.ENFORCED, documents.PREFERRED, documents.WRITER):
        raise S3Error("InvalidArgument", ArgumentName="x-amz-object-ownership", ArgumentValue=ownership)
    if gateway.open_buckets:
        ownership = ownership or documents.WRITER
    if not wanted.private:
        await call.authorizer.must("s3:PutBucketAcl")
        if ownership in ("", documents.ENFORCED):
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        if wanted.public and not gateway.open_buckets:
            raise S3Error(
                "AccessDenied",
                "A new bucket's public access block allows no public ACL (BlockPublicAcls): remove it first.",
            )
    asked = {
        documents.BLOCK: documents.encode(documents.NO_BLOCK) if gateway.open_buckets else "",
        documents.OWNERSHIP: ownership,
        documents.ACL: acl.encode(wanted),
        documents.TAGS: documents.encode(labels) if labels else "",
    }
    return {name: text for name, text in asked.items() if text}


async def head_bucket(gateway: Gateway, call: Call) -> Answer:
    call.must_exist()
    return respond(200, {"x-amz-access-point-alias": "false"})


async def delete_bucket(gateway: Gateway, call: Call) -> Answer:
    await buckets.delete_bucket(gateway, call.request.bucket)
    return respond(204)


async def get_location(gateway: Gateway, call: Call) -> Answer:
    call.must_exist()
    region = call.request.claim.region if call.request.claim else ""
    return respond_xml(document("LocationConstraint", "" if region == FIRST_REGION else region))


async def get_versioning(gateway: Gateway, call: Call) -> Answer:
    row = call.must_exist()
    return respond_xml(document("VersioningConfiguration", tag("Status", row.versioning) if row.versioning else ""))


async def put_versioning(gateway: Gateway, call: Call) -> Answer:
    root = await call.request.xml("VersioningConfiguration")
    status = root.get("Status")
    mfa = root.get("MfaDelete")
    if mfa == "Enabled":
        raise S3Error("NotImplemented", "S4 does not implement MFA delete.")
    if mfa not in (None, "Disabled"):
        raise S3Error("MalformedXML", "MfaDelete must be Enabled or Disabled.")
    if status not in ("Enabled", "Suspended"):
        raise S3Error(
            "IllegalVersioningConfigurationException",
            "The Versioning element must be specified with Status Enabled or Suspended",
        )
    await buckets.set_versioning(gateway, call.request.bucket, status)
    return respond(200)
