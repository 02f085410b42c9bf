"""How owners of buckets, objects and uploads are shown: by the canonical id and the name.

Rows know their owner by name. Owning gives no right (policies say what a user may do), so whoever is made again under
a name is shown as the owner of its namesake's buckets, and is counted as such, but may do nothing more for it. What
gives rights, the grants of an ACL, goes by canonical id, which no namesake gets. Who is gone is shown by an id that
nobody has any more.
"""

from __future__ import annotations

from collections.abc import Iterable

from s4.gateway.context import Gateway
from s4.http.credentials import ROOT_USER
from s4.metadata.canonical import canonical_id
from s4.s3.xml import tag

_NOBODY = ("", ROOT_USER, "anonymous")


async def canonical_of(gateway: Gateway, name: str) -> str:
    """The canonical id of a user, or of a role as `role/NAME`."""
    found = None
    if name not in _NOBODY:
        found = await gateway.node.find_identity(name if name.startswith("role/") else f"user/{name}")
    return (found.canonical if found is not None else "") or canonical_id(name)


def xml(canonical: str, name: str) -> str:
    """An Owner's elements."""
    return tag("ID", canonical) + tag("DisplayName", name)


async def owner_xml(gateway: Gateway, name: str) -> str:
    return xml(await canonical_of(gateway, name), name)


async def owners_xml(gateway: Gateway, names: Iterable[str]) -> dict[str, str]:
    """Of all owners on a page, each looked for once."""
    return {name: await owner_xml(gateway, name) for name in dict.fromkeys(names)}
