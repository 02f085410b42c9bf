"""Object lock: what keeps a version from going, and how that may change. Pure.

Rules for editors: every way that a version can go passes `check_removal` (objects.remove_row); a state that is not
known, and a clock that cannot be trusted (`now_ms` 0), mean locked; compliance mode is never shortened, not by
anybody. Source: Amazon S3 user guide, "Locking objects with Object Lock".
"""

from __future__ import annotations

from msgspec.structs import replace

from s4.metadata.entry import RefusalError
from s4.metadata.rows import Object

GOVERNANCE, COMPLIANCE = "GOVERNANCE", "COMPLIANCE"


def is_retained(row: Object, now_ms: int, *, bypass: bool = False) -> bool:
    """`bypass`: the caller may and wants to get round governance."""
    if not row.lock_mode or (bypass and row.lock_mode == GOVERNANCE):
        return False
    return now_ms < row.lock_until_ms or now_ms == 0


def check_removal(row: Object, now_ms: int, *, bypass: bool = False) -> None:
    """Raises RefusalError where a version must stay."""
    if row.legal_hold or is_retained(row, now_ms, bypass=bypass):
        raise _protected()


def retained(row: Object, mode: str, until_ms: int, now_ms: int, *, bypass: bool) -> Object:
    """The row with another retention, none where `mode` is empty. Raises RefusalError where the one it has forbids
    that."""
    if is_retained(row, now_ms, bypass=bypass) and (mode != row.lock_mode or until_ms < row.lock_until_ms):
        raise _protected()
    return replace(row, lock_mode=mode, lock_until_ms=until_ms)


def _protected() -> RefusalError:
    return RefusalError("AccessDenied", "Access Denied because object protected by object lock.")
