"""What a peer's certificate says of it, and which calls that is good for. Pure.

A role is a URI among a certificate's names: `s4:node` or `s4:gateway`. A certificate that says it is for something
else, such as `s4:s3`, is no peer's, whoever signed it. Certificates of 0.7 say nothing: they are taken for a node's
for GRACE_S after this process's own certificate, which has a role, was made. So a rolling upgrade goes on, and ends by
itself: new certificates for all, and a week later nobody comes without a role. (A renewal begins another week; on
Kubernetes certificates of 0.7 have ended 90 days after the upgrade, elsewhere new certificates come with a new
authority.) Whoever gives no roles stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NODE, GATEWAY, S3 = "node", "gateway", "s3"
SCHEME = "s4:"
GRACE_S = 7 * 86_400.0

# Calls that stores make on each other; every other one is a gateway's too. A test says that none is missing.
OF_NODES = frozenset(("deliver", "lacking", "list_blobs", "unknown_blobs", "heals_of", "wall_clock"))
OF_GATEWAYS = frozenset(
    (
        "layout",
        "execute",
        "find_object",
        "find_whole",
        "find_upload",
        "find_content",
        "find_blob",
        "find_bucket",
        "find_identity",
        "find_accounts",
        "list_accounts",
        "list_buckets",
        "list_users",
        "list_jobs",
        "bucket_counters",
        "list_objects",
        "list_uploads",
        "append",
        "read",
        "discard",
        "discard_all",
        "census",
        "stats",
    )
)


def uri(role: str) -> str:
    return SCHEME + role


def by_name(name: str) -> str:
    """The role of a process by what people call it."""
    return GATEWAY if name.startswith("gateway") else NODE


def may(role: str, method: str) -> bool:
    return role == NODE or (role == GATEWAY and method in OF_GATEWAYS)


def stated(certificate: Mapping[str, Any] | None) -> list[str]:
    """The roles in a verified certificate, as `ssl` gives it."""
    names = (certificate or {}).get("subjectAltName", ())
    return [value.removeprefix(SCHEME) for kind, value in names if kind == "URI" and value.startswith(SCHEME)]


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """Whether certificates without a role are taken: until `until_s` (seconds since 1970), where our own has one."""

    until_s: float = float("inf")

    def role(self, certificate: Mapping[str, Any] | None, now_s: float) -> str:
        """The role of who shows a certificate; empty for no peer."""
        roles = stated(certificate)
        if not roles:
            return NODE if now_s < self.until_s else ""
        return next((one for one in (NODE, GATEWAY) if one in roles), "")
