"""Multipart uploads: create, upload part, part copy, list parts, complete, abort."""

from __future__ import annotations

from itertools import pairwise

from s4.gateway import multipart
from s4.gateway.context import Gateway, paced, placed
from s4.gateway.multipart import Completion, WantedPart
from s4.gateway.objects import while_it_changes
from s4.http.answers import Answer, respond, respond_xml
from s4.http.authorize import Call
from s4.http.operations.copies import check_bodiless, open_source
from s4.http.operations.encryption import customer_key
from s4.http.operations.objects import with_acl, write_conditions
from s4.http.owners import owner_xml
from s4.http.request import S3Request
from s4.http.responses import aborting, ending
from s4.metadata import classes
from s4.metadata.commands import NO_CONDITIONS, Conditions
from s4.metadata.entry import RefusalError
from s4.metadata.objects import check_conditions
from s4.metadata.rows import Part, decode, decode_object
from s4.s3 import checksums, encryption, names, ranges
from s4.s3.errors import S3Error
from s4.s3.xml import Element, document, encode_key, tag


async def create_upload(gateway: Gateway, call: Call) -> Answer:
    wanted = write_conditions(call.request.headers)
    if wanted != NO_CONDITIONS:
        await _must_hold(gateway, call.request, wanted)
    algorithm = checksums.asked_algorithm(call.request.headers, "x-amz-checksum-algorithm")
    kind = checksums.check_type(algorithm, call.request.headers.get("x-amz-checksum-type", "").upper())
    upload, sealing = await multipart.create_upload(
        gateway, call.request.bucket, call.request.key, await with_acl(gateway, call), call.caller, algorithm, kind
    )
    headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind} if algorithm else {}
    headers |= encryption.shown(sealing, call.request.headers)
    headers |= aborting(gateway, call.bucket, call.request.key, gateway.now_ms())
    result = f"{tag('Bucket', call.request.bucket)}<Key>{encode_key(call.request.key, url=False)}</Key>{tag('UploadId', upload)}"
    return respond_xml(document("InitiateMultipartUploadResult", result), headers)


async def _must_hold(gateway: Gateway, request: S3Request, wanted: Conditions) -> None:
    """Conditions on beginning an upload hold when it begins; clients such as minio-go say them at its completion again.
    Raises S3Error."""
    bucket, partition = await placed(gateway, request.bucket, request.key)
    found = await gateway.node.find_object(partition, bucket.id, request.key, "")
    try:
        check_conditions(wanted, decode_object(found.value)[0] if found is not None else None)
    except RefusalError as error:
        raise S3Error(error.code, error.message) from error


def _part_number(request: S3Request) -> int:
    text = request.query.get("partNumber", "")
    if names.number(text, 1, request.limits.parts) is None:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {request.limits.parts}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    return int(text)


def _upload_id(request: S3Request) -> str:
    upload = request.query.get("uploadId")
    if upload is None:
        raise S3Error(
            "InvalidArgument", "This operation does not accept partNumber without uploadId", ArgumentName="partNumber"
        )
    if not upload:
        raise S3Error("NoSuchUpload", UploadId="")
    return upload


_OF_PART = frozenset(
    (encryption.MODE, encryption.KMS_KEY, encryption.CONTEXT, encryption.BUCKET_KEY, "x-amz-checksum-type")
)
_OF_UPLOAD = _OF_PART | encryption.ASKED  # a part's key is tried on its bytes anyway


async def _agrees(gateway: Gateway, request: S3Request, upload_id: str, told: frozenset[str]) -> None:
    """What a later request says of its upload's encryption and checksum is how the upload was begun, which never
    changes. Raises S3Error."""
    if told.isdisjoint(request.headers):
        return
    begun = await multipart.find_begun(gateway, request.bucket, request.key, upload_id, customer_key(gateway, request))
    if begun is None:  # completed before, perhaps: a repeat is told what was answered then
        return
    encryption.agree(begun.sealing, request.headers)
    kind = request.headers.get("x-amz-checksum-type", "").upper()
    if kind and begun.checksum_type and kind != begun.checksum_type:
        raise S3Error("InvalidRequest", "The upload was created with another checksum type.")


async def upload_part(gateway: Gateway, call: Call) -> Answer:
    number, upload = _part_number(call.request), _upload_id(call.request)
    body = call.request.body()
    if "content-length" not in call.request.headers and "x-amz-decoded-content-length" not in call.request.headers:
        raise S3Error("MissingContentLength")
    if body.length > call.request.limits.put_bytes:
        raise S3Error(
            "EntityTooLarge", ProposedSize=str(body.length), MaxSizeAllowed=str(call.request.limits.put_bytes)
        )
    expected = checksums.expected_of(call.request.headers, call.request.payload)
    await _agrees(gateway, call.request, upload, _OF_PART)
    customer = customer_key(gateway, call.request)
    stored, algorithm, sealing = await multipart.put_part(
        gateway, call.request.bucket, call.request.key, upload, number, body, expected, customer
    )
    headers = {"ETag": f'"{stored.etag}"', **encryption.shown(sealing, call.request.headers)}
    if stored.brought:
        compared, _, value = stored.brought.partition(":")
        headers[checksums.HEADER[compared]] = value
    elif algorithm:
        headers[checksums.HEADER[algorithm]] = stored.checksum
    return respond(200, headers)


async def upload_part_copy(gateway: Gateway, call: Call) -> Answer:
    check_bodiless(call.request)
    with gateway.readers.reading():
        return await while_it_changes(lambda: _copy_part(gateway, call))


async def _copy_part(gateway: Gateway, call: Call) -> Answer:
    """One attempt: the version that was judged is what is copied."""
    request = call.request
    number, upload = _part_number(request), _upload_id(request)
    source = await open_source(gateway, call)
    await _agrees(gateway, request, upload, _OF_PART)
    text = request.headers.get("x-amz-copy-source-range")
    span = ranges.parse_copy(text, source.row.size) if text is not None else None
    if (span[1] if span else source.row.size) > request.limits.put_bytes:
        raise S3Error("EntityTooLarge")
    customer = customer_key(gateway, request)
    stored, algorithm, sealing = await multipart.copy_part(
        gateway, source, request.bucket, request.key, upload, number, span, customer
    )
    headers = {"x-amz-copy-source-version-id": source.version} if source.version else {}
    headers |= encryption.shown(sealing, request.headers)
    result = f"{tag('LastModified', names.iso_date(gateway.now_ms()))}<ETag>&quot;{stored.etag}&quot;</ETag>"
    result += tag(f"Checksum{algorithm}", stored.checksum) if algorithm else ""
    return respond_xml(document("CopyPartResult", result), headers)


def _bounded(request: S3Request, name: str, default: int) -> int:
    text = request.query.get(name) or str(default)
    if names.number(text, 0, 2**31 - 1) is None:
        raise S3Error(
            "InvalidArgument",
            f"Argument {name} must be an integer between 0 and 2147483647",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return int(text)


MOST = 65535  # as a part's row has it


async def list_parts(gateway: Gateway, call: Call) -> Answer:
    limit = min(_bounded(call.request, "max-parts", 1000), 1000)
    marker = _bounded(call.request, "part-number-marker", 0)
    upload = _upload_id(call.request)
    await _agrees(gateway, call.request, upload, _OF_UPLOAD)
    _, _, _, found = await multipart.find_upload(
        gateway, call.request.bucket, call.request.key, upload, min(marker, MOST), limit + 1
    )
    parts = [decode(Part, value) for value in found.parts]
    page, truncated = parts[:limit], 0 < limit < len(parts)  # of no parts there is no next page
    algorithm = found.upload.checksum_algorithm
    listed = "".join(
        f"<Part>{tag('PartNumber', part.extent.number)}{tag('LastModified', names.iso_date(part.modified_ms))}"
        f"<ETag>&quot;{part.extent.etag}&quot;</ETag>{tag('Size', part.extent.size)}"
        f"{tag('Checksum' + algorithm, part.extent.checksum) if algorithm else ''}</Part>"
        for part in page
    )
    owner = await owner_xml(gateway, found.upload.owner)
    kind = tag("ChecksumAlgorithm", algorithm) + tag("ChecksumType", found.upload.checksum_type) if algorithm else ""
    following = tag("NextPartNumberMarker", page[-1].extent.number if page else 0)
    return respond_xml(
        document(
            "ListPartsResult",
            (
                f"{tag('Bucket', call.request.bucket)}<Key>{encode_key(call.request.key, url=call.request.query.get('encoding-type') == 'url')}</Key>"
                f"{tag('UploadId', upload)}<Initiator>{owner}</Initiator><Owner>{owner}</Owner>{tag('StorageClass', classes.of(found.upload.headers))}"
                f"{tag('PartNumberMarker', marker)}{following}{tag('MaxParts', limit)}"
                f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{kind}{listed}"
            ),
        ),
        aborting(gateway, call.bucket, call.request.key, found.upload.created_ms),
    )


def _wanted_part(element: Element, limit: int) -> WantedPart:
    number, etag = element.get("PartNumber") or "", element.get("ETag")
    if names.number(number, 0, 10**9) is None or etag is None:
        raise S3Error("MalformedXML", "A Part needs a PartNumber and an ETag.")
    if not 1 <= int(number) <= limit:
        raise S3Error(
            "InvalidArgument",
            f"PartNumber must be >= 1 and <= {limit}",
            ArgumentName="partNumber",
            ArgumentValue=number,
        )
    given = {name: element.get(f"Checksum{name}") for name in checksums.ALGORITHMS}
    return WantedPart(int(number), etag.strip('"'), {name: value for name, value in given.items() if value})


async def complete_upload(gateway: Gateway, call: Call) -> Answer:
    upload = _upload_id(call.request)
    root = await call.request.xml("CompleteMultipartUpload", checksums=False)
    parts = [_wanted_part(element, call.request.limits.parts) async for element in paced(root.all("Part"))]
    if not parts or len(parts) > call.request.limits.parts:
        raise S3Error("MalformedXML", f"A completion names 1 to {call.request.limits.parts} parts.")
    if any(left.number >= right.number for left, right in pairwise(parts)):
        raise S3Error("InvalidPartOrder")
    size = call.request.headers.get("x-amz-mp-object-size")
    if size is not None and names.number(size, 0, 10**17) is None:
        raise S3Error("InvalidRequest", f"Value for x-amz-mp-object-size header is invalid: '{size}'")
    # of the object to be, with "-N" where it is made of the parts'
    about = {name: value for name, value in call.request.headers.items() if name.startswith("x-amz-checksum-")}
    whole = checksums.expected_of({name: value.partition("-")[0] for name, value in about.items()}, "")
    given = (whole.algorithm, about[checksums.HEADER[whole.algorithm]]) if whole.algorithm else ("", "")
    await _agrees(gateway, call.request, upload, _OF_UPLOAD)
    wanted = Completion(
        parts,
        write_conditions(call.request.headers),
        given,
        call.request.headers.get("x-amz-checksum-type", "").upper(),
        int(size) if size is not None else None,
        call.origin,
    )
    try:
        put = await multipart.complete_upload(gateway, call.request.bucket, call.request.key, upload, wanted)
    except S3Error as error:
        if error.code == "InvalidPart":
            error.fields["UploadId"] = upload
        raise
    headers = {"x-amz-version-id": put.version} if put.version else {}
    headers |= encryption.shown(put.sealing, call.request.headers)
    headers |= ending(gateway, call.bucket, call.request.key, put)
    algorithm, value, kind = put.checksum
    checksum = tag(f"Checksum{algorithm}", value) + tag("ChecksumType", kind) if algorithm else ""
    location = f"{call.request.scheme}://{call.request.headers.get('host', '')}{call.request.path}"
    return respond_xml(
        document(
            "CompleteMultipartUploadResult",
            (
                f"{tag('Location', location)}{tag('Bucket', call.request.bucket)}<Key>{encode_key(call.request.key, url=False)}</Key>"
                f"<ETag>&quot;{put.etag}&quot;</ETag>{checksum}"
            ),
        ),
        headers,
    )


async def abort_upload(gateway: Gateway, call: Call) -> Answer:
    await multipart.abort_upload(gateway, call.request.bucket, call.request.key, _upload_id(call.request))
    return respond(204)
