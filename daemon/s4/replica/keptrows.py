"""What a database keeps of the replicas of its store's partitions, beside their rows.

Above all partitions:

    ff ff "E" partition                 state: epoch, commit sequence, joining epoch or nil
    ff ff "L" partition sequence        an entry that is not committed: epoch, rows
    ff ff "C" partition                 the configuration of the newest epoch that it has seen, in the batch that keeps the
                                        epoch: what a lost map is made of again (cluster/recovery.py). 0.7 writes none

Each begins with a version byte. `replica/group.py` writes them; `node/metadata_copy.py` puts a state over a copy that
was lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from s4.cluster.messages import Config, Entry, KeepEpoch, State, Write
from s4.storage.leveldb import AnyDatabaseError, Database, DatabaseError

VERSION = b"\x01"
STATE, LOG, CONFIG = b"\xff\xffE", b"\xff\xffL", b"\xff\xffC"

Rows = Sequence[tuple[bytes, bytes | None]]

_encoder = msgspec.msgpack.Encoder()
_rows_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes | None]])
_entry_decoder = msgspec.msgpack.Decoder(tuple[int, bytes])
_state_decoder = msgspec.msgpack.Decoder(tuple[int, int, int | None])
_Kept = tuple[int, str, tuple[str, ...], tuple[str, ...], tuple[str, ...], str, int]
_config_decoder = msgspec.msgpack.Decoder(_Kept)


def packed(rows: Rows) -> bytes:
    """Rows as an entry has them, or a part of a snapshot."""
    return VERSION + _encoder.encode(list(rows))


def unpacked(raw: bytes) -> Rows:
    """Raises ValueError for a version that is not known."""
    if raw[:1] != VERSION:
        raise ValueError(f"rows of version {raw[:1].hex()}, not 01")
    return _rows_decoder.decode(raw[1:])


def log_key(partition: int, sequence: int) -> bytes:
    return LOG + partition.to_bytes(2, "big") + sequence.to_bytes(8, "big")


def log_value(entry: Entry) -> bytes:
    return VERSION + _encoder.encode((entry.epoch, entry.rows))


def state_row(partition: int, state: State) -> tuple[bytes, bytes]:
    """The row that says how far a partition's replica is, without its log."""
    value = VERSION + _encoder.encode((state.epoch, state.commit, state.joining))
    return STATE + partition.to_bytes(2, "big"), value


def state_rows(partition: int, state: State, write: Write) -> dict[bytes, bytes | None]:
    """The rows that follow a write, once the state is what it makes of it."""
    key, value = state_row(partition, state)
    rows: dict[bytes, bytes | None] = {key: value}
    if isinstance(write, KeepEpoch) and write.config is not None:
        one = write.config
        fields = (one.epoch, one.primary, one.in_sync, one.eligible, one.members, one.joining, one.position)
        rows[CONFIG + partition.to_bytes(2, "big")] = VERSION + _encoder.encode(fields)
    return rows


def config_of(database: Database, partition: int) -> Config | None:
    """The configuration of the newest epoch that a partition's replica has seen; None where 0.7 saw it."""
    raw = database.get(CONFIG + partition.to_bytes(2, "big"))
    return Config(*_config_decoder.decode(raw[1:])) if raw is not None else None


def checked(database: Database, partitions: int) -> Database:
    """The same, if what its replicas begin with can be read. Raises DatabaseError, having closed it: one that opens may
    be damaged right there, and without a word that it is each start would end there."""
    try:
        for partition in range(partitions):
            load(database, partition)
    except AnyDatabaseError as error:
        database.close()
        raise DatabaseError(f"the database {database.path} is damaged: {error}") from error
    return database


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
