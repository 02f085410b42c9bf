"""An independent look at the directories of a stopped server: every row and every volume, without the server's code.

It knows the formats (keys, rows, records) and nothing else: no index, no map of what should be where but the
shard map's order of members, no caches. A problem is a sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import plyvel
from pyeclib.ec_iface import ECDriver

from s4.cluster.clustermap import ClusterMap
from s4.metadata import keys
from s4.metadata.rows import Blob, Content, Counters, Extent, Gone, Part, Reference, decode, decode_object
from s4.storage.files import Files
from s4.storage.index import parse_index_key
from s4.storage.records import HEADER_SIZE, block_crcs, unpack_volume
from s4.storage.volumes import Volumes

LOG = b"\xff\xffL"

Shards = dict[tuple[int, bytes, int, int], bytes]


def check(directories: Sequence[Path], *, audited: bool = True) -> list[str]:
    """Problems. With `audited` nothing may be unreachable, as after an audit and a heal; else only what dangles."""
    maps = [path.read_bytes().partition(b"\n") for directory in directories if (path := directory / "map").exists()]
    newest = json.loads(max(maps, key=lambda one: int(one[0].split()[3]))[2])
    order = newest["spec"]["order"]
    stores = {
        json.loads((path / "s4.json").read_text())["store"]: path for path in directories if (path / "s4.json").exists()
    }
    rows = {store: _rows(stores[store]) for store in newest["status"][0]["in_sync"] if store in stores}
    indexes = {store: _index(path) for store, path in stores.items()}
    assert len(order) == len(directories)
    width = newest["spec"]["data"] + newest["spec"]["parity"]
    return check_drives(newest["spec"]["members"], width, stores, rows, indexes, audited=audited)


def check_drives(
    members: Sequence[Sequence[str]],
    width: int,
    stores: dict[str, Path],
    copies: dict[str, dict[bytes, bytes]],
    indexes: dict[str, list],
    *,
    audited: bool = True,
) -> list[str]:
    """As `check`, with the rows of each copy and the shards' index of each store at hand."""
    found: list[str] = []
    first = next(iter(copies.values()))
    for store, rows in list(copies.items())[1:]:
        if rows != first:
            found.append(f"the copy on {store[:8]} differs in {len(set(first.items()) ^ set(rows.items()))} rows")
    shards = {store: _shards(path) for store, path in stores.items()}
    at = {
        (partition, position): shards.get(store, {})
        for partition, kept in enumerate(members)
        for position, store in enumerate(kept)
    }
    found += _Rows(first, width).check()
    found += _check_blobs(first, at, audited)
    if audited:
        blobs = {(int.from_bytes(key[:2], "big"), key[3:]) for key in first if key[2:3] == keys.BLOB}
        for store, indexed in indexes.items():
            for partition, blob in {(shard.partition, shard.blob) for shard in indexed} - blobs:
                found.append(f"unreachable: shards of blob {blob.hex()} of partition {partition} on {store[:8]}")
    return found


def check_cluster(current: ClusterMap, stores: dict[str, Path], *, audited: bool = True) -> list[str]:
    """As `check`, of the nodes of a cluster that was stopped when nothing was under way, and whose map is given. What a
    replica was not told to be committed when it was stopped is in its log, and counts."""
    rows = {store: _rows(path) for store, path in stores.items()}
    return check_parts(current, stores, rows, {store: _index(path) for store, path in stores.items()}, audited=audited)


def check_parts(
    current: ClusterMap,
    stores: dict[str, Path],
    rows_of: dict[str, dict[bytes, bytes]],
    index_of: dict[str, list],
    *,
    audited: bool,
) -> list[str]:
    """As `check_cluster`, with the rows and the shards' index of each store at hand."""
    found: list[str] = []
    kept = {store: _with_log(rows) for store, rows in rows_of.items()}
    shards = {store: _shards(path) for store, path in stores.items()}
    rows: dict[bytes, bytes] = {}
    at: dict[tuple[int, int], Shards] = {}
    for partition, one in enumerate(current.partitions):
        prefix = partition.to_bytes(2, "big")
        copies = {
            store: {key: value for key, value in kept[store].items() if key.startswith(prefix)}
            for store in one.config.in_sync
        }
        first = copies[one.config.primary]
        found += [
            f"partition {partition}: the replica on {store[:8]} differs in {len(set(first.items()) ^ set(copy.items()))} rows"
            for store, copy in copies.items()
            if copy != first
        ]
        rows.update(first)
        at.update({(partition, position): shards[store] for position, store in enumerate(one.config.members) if store})
    found += _Rows(rows, current.shards).check()
    found += _check_blobs(rows, at, audited)
    if audited:
        found += [f"an outbox row is left: {key!r}" for key in rows if key[2:3] in (keys.OUTBOX, keys.GONE)]
        blobs = {(int.from_bytes(key[:2], "big"), key[3:]) for key in rows if key[2:3] == keys.BLOB}
        for store, indexed in index_of.items():
            for partition, blob in {(shard.partition, shard.blob) for shard in indexed} - blobs:
                found.append(f"unreachable: shards of blob {blob.hex()} of partition {partition} on {store[:8]}")
    return found


def _with_log(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The rows of one store with what its replicas' logs say."""
    made = {key: value for key, value in rows.items() if not key.startswith(keys.END)}
    for _, value in sorted((key, value) for key, value in rows.items() if key.startswith(LOG)):
        _, entry = msgspec.msgpack.decode(value[1:], type=tuple[int, bytes])
        for key, changed in msgspec.msgpack.decode(entry[1:], type=list[tuple[bytes, bytes | None]]):
            if changed is None:
                made.pop(key, None)
            else:
                made[key] = changed
    return made


def _stored(size: int, sealed: bool) -> int:
    """Bytes in a blob: what is encrypted has a tag for each segment."""
    return size + 16 * max(1, -(-size // 65_536)) if sealed else size


def _rows(directory: Path) -> dict[bytes, bytes]:
    database = plyvel.DB(str(directory / "meta"), paranoid_checks=True)
    try:
        return {key: value for key, value in database.iterator(verify_checksums=True) if key != keys.TURN_ROW}
    finally:
        database.close()


def _index(directory: Path) -> list:
    database = plyvel.DB(str(directory / "index"))
    try:
        return [parse_index_key(key) for key, _ in database.iterator(start=b"i", stop=b"j")]
    finally:
        database.close()


def _shards(directory: Path) -> Shards:
    """Every shard in the volumes whose CRCs are right; of several the newest."""
    found: Shards = {}
    store = bytes.fromhex(json.loads((directory / "s4.json").read_text())["store"])
    for path in sorted((directory / "volumes").glob("*.vol")):
        raw = path.read_bytes()
        try:
            header = unpack_volume(raw[:HEADER_SIZE])
        except Exception:
            continue
        if header.store != store:
            continue
        volumes = Volumes(Files(), directory / "volumes", store, 4)
        volume = volumes.acquire(header.number)
        for offset, record, _ in volumes.headers(volume, 0):
            start = offset + record.front
            table, data = raw[start - record.table_bytes : start], raw[start : start + record.length]
            if block_crcs(data, record.shard, header.secret) == table:
                shard = record.shard
                found[shard.partition, shard.blob, shard.position, shard.stripe] = data
        volumes.release(volume)
        volumes.close()
    return found


class _Rows:
    """One copy's rows, and whether they agree with each other. `found` has what does not, in words."""

    def __init__(self, rows: dict[bytes, bytes], width: int) -> None:
        self.rows, self.width = rows, width
        self.found: list[str] = []
        self.held = Counter[bytes]()  # references, and how many rows hold each
        self.sums: dict[tuple[int, int], list[int]] = {}  # what counters must say, by partition and bucket
        self.shared: dict[bytes, list[tuple[bytes, int]]] = {}  # each blob's references, with their buckets

    def check(self) -> list[str]:
        taken = self._taken_parts()
        tables = {
            keys.REFERENCE: self._reference,
            keys.BLOB: self._blob,
            keys.CONTENT: self._content,
            keys.HEAL: self._heal,
        }
        for key, value in self.rows.items():
            table = key[2:3]
            if table == keys.OBJECT:
                self._object(key, value)
            elif table == keys.PART and key[:-2] not in taken:
                self._extents(key, [decode(Part, value).extent])
            elif table in tables:
                tables[table](key, value)
        self._references()
        self._counters()
        return self.found

    def _taken_parts(self) -> set[bytes]:
        """The uploads whose parts belong to somebody else by now; what gone rows hold is counted."""
        gone = [
            (int.from_bytes(key[:2], "big"), decode(Gone, value))
            for key, value in self.rows.items()
            if key[2:3] == keys.GONE
        ]
        self.held.update(reference for _, row in gone for _, _, reference in row.held)
        return {keys.upload_parts(partition, row.bucket, row.key, row.upload) for partition, row in gone if row.taken}

    def _sum(self, key: bytes, bucket: int) -> list[int]:
        return self.sums.setdefault((int.from_bytes(key[:2], "big"), bucket), [0] * 6)

    def _object(self, key: bytes, value: bytes) -> None:
        row, _ = decode_object(value)
        if not row.marker:
            total = self._sum(key, int.from_bytes(key[3:11], "big"))
            total[0] += 1
            total[1] += row.size
        self._extents(key, row.extents)

    def _extents(self, key: bytes, extents: Sequence[Extent]) -> None:
        for extent in extents:
            if not extent.blob:
                continue
            self.held[extent.reference] += 1
            if keys.reference_row(extent.partition, extent.blob, extent.reference) not in self.rows:
                self.found.append(f"dangling: {key!r} holds a reference that is no row")
            blob = self.rows.get(keys.blob_row(extent.partition, extent.blob))
            if blob is None or decode(Blob, blob).size != _stored(extent.size, bool(extent.seal)):
                self.found.append(f"dangling: {key!r} names a blob that is not there")

    def _reference(self, key: bytes, value: bytes) -> None:
        self._sum(key, 0)[3] += 1
        self.shared.setdefault(key[:19], []).append((key, decode(Reference, value).bucket))
        if keys.blob_row(int.from_bytes(key[:2], "big"), key[3:19]) not in self.rows:
            self.found.append(f"dangling: reference {key!r} without a blob")

    def _blob(self, key: bytes, value: bytes) -> None:
        partition, blob = int.from_bytes(key[:2], "big"), decode(Blob, value)
        total = self._sum(key, 0)
        total[2] += 1
        total[4] += blob.size
        if not any(name.startswith(keys.blob_references(partition, key[3:])) for name in self.rows):
            self.found.append(f"blob {key[3:].hex()} has no reference")
        for position in blob.missing:
            if keys.heal_row(partition, key[3:], position) not in self.rows:
                self.found.append(f"blob {key[3:].hex()} misses {position} and no heal row says so")

    def _content(self, key: bytes, value: bytes) -> None:
        content = decode(Content, value)
        if keys.blob_row(content.partition, content.blob) not in self.rows:
            self.found.append("a content row names a blob that is not there")

    def _heal(self, key: bytes, value: bytes) -> None:
        partition, blob_id, position = keys.split_heal(key)
        blob = self.rows.get(keys.blob_row(partition, blob_id))
        if blob is None or position not in decode(Blob, blob).missing or position >= self.width:
            self.found.append(f"heal row {key!r} for nothing")

    def _references(self) -> None:
        """Each is held by one row."""
        several = {name: count for name, count in self.held.items() if count > 1}
        self.found += [f"reference {name.hex()} is held {count} times" for name, count in several.items()]
        loose = sum(1 for key in self.rows if key[2:3] == keys.REFERENCE and key[19:] not in self.held)
        if loose:
            self.found.append(f"unreachable: {loose} references that nobody holds")

    def _counters(self) -> None:
        for name, references in self.shared.items():  # who has the first reference to a blob has it; the others save it
            blob = self.rows.get(keys.blob_row(int.from_bytes(name[:2], "big"), name[3:]))
            for _, bucket in sorted(references)[1:]:
                self._sum(name, bucket)[5] += decode(Blob, blob).size if blob else 0
        kept = {
            (int.from_bytes(key[:2], "big"), int.from_bytes(key[3:], "big")): decode(Counters, value)
            for key, value in self.rows.items()
            if key[2:3] == keys.COUNTERS
        }
        for where in kept.keys() | self.sums.keys():
            true = Counters(*self.sums.get(where, [0] * 6))
            if kept.get(where, Counters()) != true:
                self.found.append(f"counters {where} say {kept.get(where)}, the rows {true}")


def _check_blobs(rows: dict[bytes, bytes], at: dict[tuple[int, int], Shards], whole: bool) -> list[str]:
    found: list[str] = []
    for key, value in rows.items():
        if key[2:3] != keys.BLOB:
            continue
        partition, blob, row = int.from_bytes(key[:2], "big"), key[3:], decode(Blob, value)
        digest = hashlib.sha256()
        if value[:1] == b"\x02":  # its bytes are behind its array, and nowhere else
            content = value[5 + int.from_bytes(value[1:5], "little") :]
            if (row.k, row.m, row.stripe, row.missing, len(content)) != (0, 0, 0, [], row.size):
                found.append(f"blob {blob.hex()} has bytes in its row, and is {row}")
            if hashlib.sha256(content).digest() != row.sha256:
                found.append(f"blob {blob.hex()} has other bytes in its row than its SHA-256 says")
            for (_, position), shards in at.items():
                if any(one[:2] == (partition, blob) for one in shards):
                    found.append(f"blob {blob.hex()} has bytes in its row, and shards at position {position}")
            continue
        for number, start in enumerate(range(0, row.size, row.stripe)):
            size = min(row.stripe, row.size - start)
            shards = {
                position: data
                for position in range(row.k + row.m)
                if (data := at[partition, position].get((partition, blob, position, number))) is not None
            }
            if whole and len(shards) < row.k + row.m:
                found.append(f"blob {blob.hex()} stripe {number} lacks {set(range(row.k + row.m)) - set(shards)}")
            if len(shards) < row.k:
                found.append(f"dangling: blob {blob.hex()} stripe {number} cannot be read")
                break
            digest.update(_stripe(shards, row.k, row.m, size))
        else:
            if digest.digest() != row.sha256:
                found.append(f"blob {blob.hex()} has other bytes than its SHA-256 says")
    return found


def _stripe(shards: dict[int, bytes], k: int, m: int, size: int) -> bytes:
    if k == 1:
        return next(iter(shards.values()))[:size]
    lost = [position for position in range(k) if position not in shards]
    if lost:
        driver = ECDriver(k=k, m=m, ec_type="isa_l_rs_cauchy")
        length = len(next(iter(shards.values())))
        heads = [fragment[:80] for fragment in driver.encode(bytes(length * k))]
        made = driver.reconstruct([heads[position] + data for position, data in shards.items()], lost)
        shards = {**shards, **{position: fragment[80:] for position, fragment in zip(lost, made, strict=True)}}
    return b"".join(shards[position] for position in range(k))[:size]
