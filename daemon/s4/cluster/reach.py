"""Which stores do not reach each other, from what each says of its connections. Pure.

A store that is used by mistake in its address, its certificate or a firewall costs everybody who waits for it. So it
is asked before: each store keeps a connection to every other, whatever the plan does with them, and says which it has
not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import DRAINING, SERVING
from s4.cluster.status import Said


def newcomers(current: ClusterMap, planned: ClusterMap) -> list[str]:
    """Stores that the plan uses and the map does not yet."""
    used = {store for store, one in current.stores.items() if one.state in (SERVING, DRAINING)}
    return [store for store, one in planned.stores.items() if one.state == SERVING and store not in used]


def obstacles(
    current: ClusterMap, said: Mapping[str, Said | None], new: Collection[str], met: Mapping[str, str]
) -> list[str]:
    """Why these stores cannot be used, as sentences: they do not answer, or they and one that is used do not reach
    each other, either way. A used one that does not answer is in nobody's way. `met` is what we met ourselves where we
    could not connect."""
    used = [store for store, one in current.stores.items() if one.state in (SERVING, DRAINING)]
    there = [store for store in dict.fromkeys((*used, *new)) if said.get(store) is not None]
    found = [
        f"{_name(current, one)} does not answer at {current.stores[one].address} ({met.get(one, 'connected, and silent')})"
        for one in new
        if one not in there
    ]
    for one in there:
        told = said[one]
        for other in there if told is not None else ():
            if (one in new or other in new) and told is not None and other in told.unreached:
                found.append(
                    f"{_name(current, one)} cannot reach {_name(current, other)} at {current.stores[other].address} "
                    f"({told.unreached[other]})"
                )
    return found


def _name(current: ClusterMap, store: str) -> str:
    return current.stores[store].node or store[:8]
