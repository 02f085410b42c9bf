"""What a version of an object has besides its bytes and can be changed later: tags and ACL."""

from __future__ import annotations

from s4.access.keys import of_tags
from s4.gateway import objects
from s4.gateway.context import Gateway, find_bucket
from s4.gateway.read import Opened
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call
from s4.http.operations.settings import asked_acl, check_acl
from s4.http.owners import canonical_of, xml
from s4.s3 import acl, tags
from s4.s3.errors import S3Error
from s4.s3.xml import document


def _version(version: str) -> dict[str, str]:
    return {"x-amz-version-id": version} if version else {}


async def shown(call: Call, opened: Opened) -> dict[str, str]:
    """The header of GET and HEAD, where the caller may read the tags."""
    may = await call.authorizer.may("s3:GetObjectTagging", opened.key, opened.asked_version, row=opened.row)
    return {"x-amz-tagging-count": str(len(opened.row.tags))} if may else {}


async def get_tagging(gateway: Gateway, call: Call) -> Answer:
    opened = await call.open()
    return respond_xml(document("Tagging", tags.to_xml(opened.row.tags)), _version(opened.version))


async def put_tagging(gateway: Gateway, call: Call) -> Answer:
    wanted = tags.from_xml(await call.request.xml("Tagging"), tags.OF_OBJECT)
    version = call.request.query.get("versionId", "")
    await call.authorizer.must("s3:PutObjectTagging", call.request.key, version, of_tags(wanted))
    return respond(
        200,
        _version(
            await objects.change_object(
                gateway, call.request.bucket, call.request.key, version, tags=wanted, origin=call.origin
            )
        ),
    )


async def delete_tagging(gateway: Gateway, call: Call) -> Answer:
    version = call.request.query.get("versionId", "")
    return respond(
        204,
        _version(
            await objects.change_object(
                gateway, call.request.bucket, call.request.key, version, tags={}, origin=call.origin
            )
        ),
    )


async def get_acl(gateway: Gateway, call: Call) -> Answer:
    opened = await call.open()
    owner = await canonical_of(gateway, opened.row.owner)
    listed = acl.to_xml(acl.decode(opened.row.acl), xml(owner, opened.row.owner))
    return respond_xml(document("AccessControlPolicy", listed), _version(opened.version))


async def put_acl(gateway: Gateway, call: Call) -> Answer:
    """An ACL is made for the owner of a version, and is given to that version only."""
    opened = await call.open()
    wanted = await asked_acl(call.request, await canonical_of(gateway, opened.row.owner))
    check_acl(await find_bucket(gateway, call.request.bucket), wanted, call.request.headers)
    version, text = call.request.query.get("versionId", ""), acl.encode(wanted)
    try:
        changed = await objects.change_object(
            gateway, call.request.bucket, call.request.key, version, acl=text, seen=opened.suffix, origin=call.origin
        )
    except objects.SourceChangedError:
        raise S3Error("OperationAborted", "The object was replaced meanwhile. Try again.") from None
    return respond(200, _version(changed))
