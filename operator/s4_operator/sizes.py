"""What stores hold by the sizes that their volumes really have: shares of the data, and when room runs out. Pure.

A map's weights are all 1 until sizes differ: stores that are alike share evenly, whatever a volume is called. From then on a
store's weight is its size in GiB. Both are set with what adds stores, and followed afterwards; a cluster of one disk a
host whose sizes were never counted is not moved about for it before nodes are added.
"""

from __future__ import annotations

import math
from statistics import median

from s4.base.text import human
from s4.cluster.clustermap import ClusterMap
from s4.cluster.placement import SERVING
from s4_operator.observed import Observed

GIB = 1 << 30
ALIKE = 1.1  # sizes that differ by less share evenly: file systems of one kind of disk do
LOW, WELL = 0.85, 0.7  # filled so far, room is low; what is added brings it back to this
Weights = tuple[tuple[str, float], ...]


def weights(seen: Observed, current: ClusterMap, joining: tuple[str, ...] = ()) -> Weights:
    """New weights of stores that serve and of those that join, where they are other than the map's."""
    serving = current.in_state(SERVING)
    counted = [*serving, *(store for store in joining if store not in serving)]
    totals = {
        one.store: one.total_bytes / GIB for one in (seen.status.stores if seen.status is not None else ()) if one.up
    }
    known = [totals[store] for store in counted if totals.get(store)]
    sized = any(current.stores[store].weight != 1.0 for store in serving)
    if not known or (not sized and max(known) <= ALIKE * min(known)):
        return ()
    found = []
    for store in counted:
        old = current.stores[store].weight if sized and store in serving else 0.0
        new = round(totals.get(store) or old or median(known), 2)
        if not old or max(new, old) > ALIKE * min(new, old):
            found.append((store, new))
    return tuple(found)


def is_followed(seen: Observed, current: ClusterMap) -> bool:
    """Whether what differs moves data by itself."""
    return seen.spec.storage.shares_hosts or any(current.stores[one].weight != 1.0 for one in current.in_state(SERVING))


def low(seen: Observed) -> str:
    """Which store is nearly full, and what to add; empty while there is room."""
    if seen.status is None:
        return ""
    stores = [one for one in seen.status.stores if one.up and one.total_bytes and one.state == SERVING]
    if not stores:
        return ""
    filled = {one.node: 1 - max(0, one.free_bytes) / one.total_bytes for one in stores}
    name = max(filled, key=lambda one: filled[one])
    if filled[name] < LOW:
        return ""
    host = next((pod.host for pod in seen.pods if pod.name == name), "")
    spec, total = seen.spec, sum(one.total_bytes for one in stores)
    missing = sum(one.total_bytes - one.free_bytes for one in stores) / WELL - total
    each = int(median(one.total_bytes for one in stores))  # a local volume may be larger than was asked for
    several = spec.storage.disksPerHost if isinstance(spec.storage.disksPerHost, int) else 1
    hosts = max(1, math.ceil(missing / (each * several)))
    one, many = ("a host", "hosts") if several > 1 else ("a node", "nodes")
    what = (one if hosts == 1 else f"{hosts} {many}") + (f" with {several} disks" if several > 1 else "")
    rows = seen.status.storable_rows_bytes
    small = f" (or {human(rows)} of small objects)" if 0 < rows < seen.status.storable_bytes else ""  # 0.7 says 0
    return (
        f"{name}{f' on {host}' if host else ''} is {100 * filled[name]:.0f} % full, and {human(seen.status.storable_bytes)}{small} can be "
        f"stored until the first store is; add {what} of {human(each)} "
        f"(nodes: {spec.nodes + hosts * several}), or delete"
    )
