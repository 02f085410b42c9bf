"""What an older program left otherwise than this one keeps it, put right once for each partition.

`Counters.saved` came with 0.7: what had been referred to before was not in it, and `verify` said so for ever. Somebody
counts rows as they stood in a snapshot together with the counters (upkeep/repair.py); the difference is right whatever
happened since. That it was done is a row of the same entry.
"""

from __future__ import annotations

from s4.metadata import keys
from s4.metadata.commands import Recounted, Taken
from s4.metadata.entry import Entry, find
from s4.metadata.rows import Repaired, encode


def recounted(entry: Entry, command: Recounted) -> Taken:
    """Answers whether it was to be done yet."""
    row = keys.repaired_row(entry.partition)
    done = find(entry, Repaired, row)
    if done is not None and done.counters:
        return Taken(False)
    for bucket, difference in command.saved:
        entry.count(bucket, saved=difference)
    entry.put(row, encode(Repaired(counters=True)))
    return Taken(True)
