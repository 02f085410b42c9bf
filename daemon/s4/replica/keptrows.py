"""What a database keeps of the replicas of its store's partitions, beside their rows.

Above all partitions:

    ff ff "E" partition                 state: epoch, commit sequence, joining epoch or nil
    ff ff "L" partition sequence        an entry that is not committed: epoch, rows

Both begin with a version byte. `replica/group.py` writes them; `node/metadata_copy.py` puts a state over a copy that
was lost.
"""

from __future__ import annotations

import msgspec

from s4.cluster.messages import Entry, State
from s4.storage.leveldb import Database

VERSION = b"\x01"
STATE, LOG = b"\xff\xffE", b"\xff\xffL"

_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(tuple[int, bytes])
_state_decoder = msgspec.msgpack.Decoder(tuple[int, int, int | None])


def state_row(partition: int, state: State) -> tuple[bytes, bytes]:
    """The row that says how far a partition's replica is, without its log."""
    value = VERSION + _encoder.encode((state.epoch, state.commit, state.joining))
    return STATE + partition.to_bytes(2, "big"), value


def load(database: Database, partition: int) -> State:
    """What the database keeps of a partition's replica."""
    number = partition.to_bytes(2, "big")
    raw = database.get(STATE + number)
    epoch, commit, joining = _state_decoder.decode(raw[1:]) if raw is not None else (0, 0, None)
    entries = []
    for key, value in database.scan(LOG + number, LOG + number + b"\xff" * 9):
        held, rows = _entry_decoder.decode(value[1:])
        entries.append(Entry(held, int.from_bytes(key[-8:], "big"), rows))
    return State(epoch, commit, entries, joining)
