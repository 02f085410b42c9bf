"""The ids by which ACLs name users and roles. Pure."""

from __future__ import annotations

import hashlib


def canonical_id(unique: str) -> str:
    """In the shape of S3's: made of the unique id, so that no namesake ever has it; of users and roles of 0.7, of the
    name."""
    return hashlib.sha256(unique.encode()).hexdigest()
