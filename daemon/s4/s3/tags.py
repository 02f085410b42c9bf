"""Tags of buckets and objects. Source: S3 user guide, "Categorizing your objects using tags"; API: PutBucketTagging."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from s4.s3.errors import S3Error
from s4.s3.xml import Element, tag

OF_OBJECT, OF_BUCKET = 10, 50
_CHARACTERS = re.compile(r"[\w\s+\-=.:/@]*")


def check(pairs: Iterable[tuple[str, str]], most: int) -> dict[str, str]:
    """Tags as a dict. Raises S3Error InvalidTag, or BadRequest for too many."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if not 1 <= len(name) <= 128 or not _CHARACTERS.fullmatch(name):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=name)
        if len(value) > 256 or not _CHARACTERS.fullmatch(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=name, TagValue=value)
        if name.lower().startswith("aws:"):
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", TagKey=name)
        if name in found:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=name)
        found[name] = value
    if len(found) > most:
        kind = "Object" if most == OF_OBJECT else "Bucket"
        raise S3Error("BadRequest", f"{kind} tags cannot be greater than {most}")
    return found


def from_header(headers: Mapping[str, str]) -> dict[str, str]:
    """The tags of x-amz-tagging, written like a query string. Raises S3Error."""
    text = headers.get("x-amz-tagging", "")
    if not text:
        return {}
    refusal = S3Error(
        "InvalidArgument",
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.",
        ArgumentName="x-amz-tagging",
        ArgumentValue=text,
    )
    try:
        # as S3 reads it, a name without "=" is a tag with an empty value
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise refusal from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise refusal
    return check(pairs, OF_OBJECT)


def from_xml(root: Element, most: int) -> dict[str, str]:
    """The tags of a Tagging element. Raises S3Error."""
    sets = list(root.all("TagSet"))
    if len(sets) != 1 or any(child.name != "Tag" for child in sets[0].children):
        raise S3Error("MalformedXML")
    return check(_pairs(sets[0]), most)


def of_control(root: Element) -> dict[str, str]:
    """The tags of S3 Control's TagResourceRequest. Raises S3Error."""
    lists = list(root.all("Tags"))
    if len(lists) != 1 or not lists[0].children or any(child.name != "Tag" for child in lists[0].children):
        raise S3Error("MalformedXML")
    return check(_pairs(lists[0]), OF_BUCKET)


def _pairs(listed: Element) -> list[tuple[str, str]]:
    pairs = []
    for one in listed.all("Tag"):
        name, value = next(one.all("Key"), None), next(one.all("Value"), None)
        if name is None or value is None:
            raise S3Error("MalformedXML")
        pairs.append((name.text, value.text))
    return pairs


def to_xml(tags: Mapping[str, str]) -> str:
    listed = "".join(f"<Tag>{tag('Key', name)}{tag('Value', value)}</Tag>" for name, value in tags.items())
    return f"<TagSet>{listed}</TagSet>"
