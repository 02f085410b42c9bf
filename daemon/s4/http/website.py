"""A bucket shown as a website, at BUCKET.DOMAIN of `--website-domain`: what visitors see, who sign nothing.

Every read goes the way of an anonymous GetObject: what a policy or an ACL does not give to everybody is not shown, and
a key that is not there looks like one that is forbidden where listing is.
"""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from s4.access import documents
from s4.gateway.context import Gateway
from s4.gateway.read import Opened, stream, unlock
from s4.http.answers import Answer, respond
from s4.http.authorize import authorize, hidden
from s4.http.operations import run
from s4.http.request import S3Request
from s4.s3 import amz, website
from s4.s3.errors import S3Error
from s4.s3.website import Website

ERROR_PAGE_BYTES = 1 << 20  # of an error document: it is read as a whole
HTML = "text/html; charset=utf-8"


async def serve(gateway: Gateway, request: S3Request) -> Answer:
    """The answer to a visitor, whatever it is."""
    asked, site = request.key.decode(), Website()
    request.query, request.operation = {}, "HeadObject" if request.method == "HEAD" else "GetObject"
    try:
        if request.method not in ("GET", "HEAD"):
            raise S3Error("MethodNotAllowed", headers={"Allow": "GET, HEAD"})
        amz.check(request.operation, request.headers)
        bucket = await gateway.node.find_bucket(request.bucket)
        found = documents.website_of(bucket) if bucket is not None else None
        if found is None:  # whether there is such a bucket is not for everybody to know
            raise S3Error("NoSuchWebsiteConfiguration", BucketName=request.bucket)
        site = found
        rule = site.all_to or site.route(asked)
        if rule is not None:
            return _sent(request, rule, asked)
        return await _shown(gateway, request, site.key_of(asked).encode())
    except S3Error as error:
        if error.status == 304:
            raise
        request.failure, request.refusal = error.code, error
        return await _failed(gateway, request, site, asked, error)


def _sent(request: S3Request, rule: website.RoutingRule, key: str) -> Answer:
    return _to(website.target(rule, key, request.scheme, request.headers.get("host", "")), rule.code)


def _to(location: str, status: int) -> Answer:
    return respond(status, {"Location": location})


async def _shown(gateway: Gateway, request: S3Request, key: bytes) -> Answer:
    """A key's content, or where it sends its visitors. Raises S3Error."""
    request.key = key
    call = await authorize(gateway, request)
    try:
        opened = await call.authorizer.open(key, "")
        location = opened.row.headers.get(website.LOCATION)
        if location is not None:
            return _to(location, 301)
        return await run(gateway, call)
    except S3Error as error:
        raise await hidden(call.authorizer, error) from error


async def _visible(gateway: Gateway, request: S3Request, key: bytes) -> Opened | None:
    """A key as its visitor may see it."""
    request.key = key
    try:
        call = await authorize(gateway, request)
        return await call.authorizer.open(key, "")
    except S3Error:
        return None


async def _failed(gateway: Gateway, request: S3Request, site: Website, asked: str, error: S3Error) -> Answer:
    """What a visitor sees instead: the folder, what a rule says, the error document, or a plain page."""
    absent = error.status in (403, 404)
    if absent and site.index and asked and not asked.endswith("/"):
        folder = f"{asked}/"
        if await _visible(gateway, request, site.key_of(folder).encode()) is not None:
            return _sent(request, website.RoutingRule(code=302, new_key=folder), asked)
    rule = site.route(asked, error.status)
    if rule is not None:
        return _sent(request, rule, asked)
    headers = {**error.headers, "x-amz-error-code": error.code, "x-amz-error-message": error.message}
    if site.error and 400 <= error.status < 500:
        page = await _read(gateway, request, site.error.encode())
        if page is not None:
            return _whole(request, error.status, {**headers, "Content-Type": page[0]}, page[1])
    return _whole(request, error.status, {**headers, "Content-Type": HTML}, _page(request, error))


def _whole(request: S3Request, status: int, headers: dict[str, str], body: bytes) -> Answer:
    return respond(status, headers, b"" if request.method == "HEAD" else body)


async def _read(gateway: Gateway, request: S3Request, key: bytes) -> tuple[str, bytes] | None:
    """(type, content) of an error document; None where its visitor may not see it, or it is too large."""
    reading = gateway.readers.begin()
    try:
        opened = await _visible(gateway, request, key)
        if opened is None or opened.row.size > ERROR_PAGE_BYTES:
            return None
        await unlock(gateway, opened)
        content = b"".join([bytes(piece) async for piece in stream(gateway, opened, 0, opened.row.size)])
        return opened.row.headers.get("Content-Type", "binary/octet-stream"), content
    except S3Error:
        return None
    finally:
        gateway.readers.end(reading)


def _page(request: S3Request, error: S3Error) -> bytes:
    title = f"{error.status} {HTTPStatus(error.status).phrase}"
    said = {"Code": error.code, "Message": error.message, **error.fields, "RequestId": request.id}
    listed = "".join(f"<li>{name}: {escape(value)}</li>" for name, value in said.items())
    return f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1><ul>{listed}</ul></body></html>\n".encode()
