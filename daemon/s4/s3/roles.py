"""What a user may do: roles on buckets. Default deny.

Reader reads and lists. Writer also writes, deletes, and makes and deletes buckets. Both within the buckets
whose names match the grant. SuperUser may do everything, the admin interface included, whatever the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from s4.metadata.rows import Grant

READER, WRITER, SUPER_USER = "Reader", "Writer", "SuperUser"
ROLES = (READER, WRITER, SUPER_USER)
READ, WRITE, ADMIN = "read", "write", "admin"


def allowed(grants: Sequence[Grant], access: str, bucket: str) -> bool:
    """Whether grants allow an access (read, write, admin) to a bucket; an empty name is the service itself."""
    for grant in grants:
        if grant.role == SUPER_USER:
            return True
        if access == ADMIN or (access == WRITE and grant.role != WRITER):
            continue
        if not bucket or fnmatchcase(bucket, grant.buckets):
            return True
    return False


def parse_grant(text: str) -> Grant:
    """A grant written as "Role" or "Role:bucket-pattern". Raises ValueError."""
    role, _, buckets = text.partition(":")
    if role not in ROLES:
        raise ValueError(f"there is no role {role!r}; choose one of {', '.join(ROLES)}, such as Writer:photos-*")
    return Grant(role, buckets or "*")
