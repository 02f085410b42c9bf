"""A model of the S3 operations in memory, small enough to be believed. The real server is compared with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any


class ModelError(Exception):
    """An S3 error; `code` is what the server must answer."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Version:
    """One version. `id` is filled in with what the server said, so that later steps can name it."""

    body: bytes
    etag: str
    marker: bool = False
    null: bool = True
    id: str = "null"
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Upload:
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


def etag_of(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


@dataclass
class Bucket:
    """One bucket: versions of each key, newest first."""

    versioning: str = ""
    keys: dict[str, list[Version]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def current(self, key: str) -> Version | None:
        versions = self.keys.get(key)
        return versions[0] if versions and not versions[0].marker else None

    def _add(self, key: str, version: Version) -> Version:
        version.null = self.versioning != "Enabled"
        versions = self.keys.setdefault(key, [])
        if version.null:
            versions[:] = [old for old in versions if not old.null]
        versions.insert(0, version)
        return version

    def check(self, key: str, if_match: str | None, if_none_match: str | None) -> None:
        current = self.current(key)
        if if_none_match == "*" and current is not None:
            raise ModelError("PreconditionFailed")
        if if_match is not None:
            if current is None:
                raise ModelError("NoSuchKey")
            if current.etag != if_match:
                raise ModelError("PreconditionFailed")

    def put(
        self,
        key: str,
        body: bytes,
        metadata: dict[str, str] | None = None,
        *,
        etag: str = "",
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Version:
        self.check(key, if_match, if_none_match)
        return self._add(key, Version(body, etag or etag_of(body), metadata=metadata or {}))

    def get(self, key: str, version: str | None = None) -> Version:
        if version is None:
            current = self.current(key)
            if current is None:
                raise ModelError("NoSuchKey")
            return current
        for one in self.keys.get(key, []):
            if one.id == version:
                if one.marker:
                    raise ModelError("MethodNotAllowed")
                return one
        raise ModelError("NoSuchVersion")

    def delete(self, key: str, version: str | None = None) -> Version | None:
        """The marker that was made, if one was."""
        if version is not None:
            self.keys[key] = [one for one in self.keys.get(key, []) if one.id != version]
            return None
        if not self.versioning:
            self.keys.pop(key, None)
            return None
        return self._add(key, Version(b"", "", marker=True))

    def copy(self, source: str, key: str, version: str | None = None) -> Version:
        old = self.get(source, version)
        if source == key and version is None:
            raise ModelError("InvalidRequest")
        return self._add(key, Version(old.body, old.etag, metadata=old.metadata))

    def rename(self, source: str, key: str) -> None:
        old = self.get(source)
        if source == key:
            raise ModelError("InvalidRequest")
        self._add(key, Version(old.body, old.etag, metadata=old.metadata))
        self.delete(source)

    def complete(self, upload: str, numbers: list[int]) -> Version:
        pending = self.uploads.get(upload)
        if pending is None:
            raise ModelError("NoSuchUpload")
        if any(number not in pending.parts for number in numbers):
            raise ModelError("InvalidPart")
        bodies = [pending.parts[number] for number in numbers]
        digest = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
        del self.uploads[upload]
        return self.put(pending.key, b"".join(bodies), etag=f"{digest}-{len(numbers)}")


def list_model(
    keys: list[str], prefix: str, delimiter: str, after: str, limit: int
) -> tuple[list[tuple[str, bool]], bool]:
    """([(name, is a common prefix)], truncated): what a listing of current keys must be, from its definition."""
    out: list[tuple[str, bool]] = []
    for key in sorted(keys, key=lambda one: one.encode()):
        if not key.startswith(prefix):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        name, common = (key[: at + len(delimiter)], True) if at >= 0 else (key, False)
        if out and out[-1] == (name, common):
            continue
        if key.encode() <= after.encode() or (common and name == after):
            continue
        if len(out) == limit:
            return out, limit > 0
        out.append((name, common))
    return out, False


def entries_of(page: dict[str, Any]) -> list[tuple[str, bool]]:
    """The same shape from a boto3 answer."""
    found = [(item["Key"], False) for item in page.get("Contents", [])]
    found += [(item["Prefix"], True) for item in page.get("CommonPrefixes", [])]
    return sorted(found, key=lambda item: item[0].encode())
