"""Listings against their definition: the merge itself with Hypothesis, and the server with thousands of keys."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from metadata.cursors import SortedCursor
from model.reference import entries_of, list_model
from s4.metadata import keys as row_keys
from s4.metadata.listing import Page, Query, Version, common_prefix, list_page, walk_uploads
from s4.metadata.rows import Object, encode_object


def cursors_of(versions: dict[str, list[bool]], partitions: int = 4) -> list[SortedCursor]:
    """Cursors over keys, each with versions oldest first; True is a delete marker."""
    tables: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
    sequence = 0
    for key, markers in versions.items():
        partition = row_keys.partition_of(1, key.encode(), partitions)
        prefix = len(row_keys.bucket_objects(partition, 1))
        for marker in markers:
            sequence += 1
            row = Object(sequence, 0, "", marker, False, "o")
            tables[partition].append(
                (row_keys.object_row(partition, 1, key.encode(), 1, sequence)[prefix:], encode_object(row))
            )
    return [SortedCursor(rows) for rows in tables]


def run(versions: dict[str, list[bool]], query: Query) -> Page:
    return next(page for page in list_page(cursors_of(versions), query) if page is not None)


NAMES = st.text(st.sampled_from("ab/-\x00é\U0001f600"), min_size=1, max_size=6)


@settings(max_examples=400)
@given(
    versions=st.dictionaries(NAMES, st.lists(st.booleans(), min_size=1, max_size=7), max_size=30),
    prefix=st.one_of(st.just(""), NAMES),
    delimiter=st.sampled_from(["", "/", "a", "-b"]),
    after=st.one_of(st.just(""), NAMES),
    limit=st.integers(0, 12),
)
def test_a_page_is_what_the_definition_says(
    versions: dict[str, list[bool]], prefix: str, delimiter: str, after: str, limit: int
) -> None:
    page = run(versions, Query(prefix.encode(), delimiter.encode(), after.encode(), b"", limit))
    current = [key for key, markers in versions.items() if not markers[-1]]
    found = [(item.key.decode(), False) if isinstance(item, Version) else (item.decode(), True) for item in page.items]
    assert (found, page.truncated) == list_model(current, prefix, delimiter, after, limit)


@settings(max_examples=200)
@given(
    versions=st.dictionaries(NAMES, st.lists(st.booleans(), min_size=1, max_size=7), max_size=20),
    limit=st.integers(1, 9),
)
def test_pages_of_versions_join_to_all_versions(versions: dict[str, list[bool]], limit: int) -> None:
    seen: list[tuple[bytes, bytes, bool]] = []
    query = Query(limit=limit, versions=True)
    while True:
        page = run(versions, query)
        seen += [(item.key, item.suffix, item.latest) for item in page.items if isinstance(item, Version)]
        if not page.truncated:
            break
        query = Query(after_key=page.next_key, after_version=page.next_version, limit=limit, versions=True)
    sequence, want = 0, []
    for key, markers in versions.items():
        numbers = range(sequence + len(markers), sequence, -1)
        sequence += len(markers)
        want += [(key.encode(), row_keys.version_suffix(1, number), index == 0) for index, number in enumerate(numbers)]
    assert seen == sorted(want, key=lambda item: (item[0], item[1]))


def test_behind_a_version_that_is_gone_the_next_is_the_newest() -> None:
    """As for who deletes each page before it asks for the next one."""
    versions = {"j": [False], "k": [False, True, False], "l": [False]}
    behind = Query(after_key=b"k", after_version=row_keys.version_suffix(1, 5), limit=2, versions=True)
    page = run(versions, behind)
    assert [(item.key, item.latest) for item in page.items if isinstance(item, Version)] == [
        (b"k", True),
        (b"k", False),
    ]
    page = run(versions, dataclasses.replace(behind, after_version=page.items[0].suffix))  # type: ignore[union-attr]
    assert [(item.key, item.latest) for item in page.items if isinstance(item, Version)] == [(b"k", False)] * 2


def test_a_common_prefix_is_stepped_over_not_read_through() -> None:
    cursors = cursors_of({f"dir/{number:06}": [False] for number in range(20_000)} | {"zz": [False]})
    page = next(page for page in list_page(cursors, Query(delimiter=b"/")) if page is not None)
    assert [item if isinstance(item, bytes) else item.key for item in page.items] == [b"dir/", b"zz"]
    assert sum(cursor.reads for cursor in cursors) < 30


def uploads_of(names: list[tuple[str, int]], partitions: int = 4) -> list[list[tuple[bytes, bytes]]]:
    tables: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
    for key, number in names:
        partition = row_keys.partition_of(1, key.encode(), partitions)
        prefix = len(row_keys.bucket_uploads(partition, 1))
        tables[partition].append(
            (row_keys.upload_row(partition, 1, key.encode(), number.to_bytes(16, "big"))[prefix:], b"row")
        )
    return tables


UPLOADS = st.sets(st.tuples(NAMES, st.integers(0, 3)), max_size=30)


@given(UPLOADS, st.text(st.sampled_from("ab/"), max_size=2), st.sampled_from(["", "/", "a/"]), st.integers(1, 5))
def test_pages_of_uploads_are_all_uploads_in_order(
    names: set[tuple[str, int]], prefix: str, delimiter: str, size: int
) -> None:
    expected: list[Any] = []
    for key, number in sorted(names, key=lambda one: (one[0].encode(), one[1])):
        common = common_prefix(key.encode(), prefix.encode(), delimiter.encode())
        item: Any = common if common is not None else (key.encode(), number.to_bytes(16, "big"), b"row")
        if key.startswith(prefix) and item not in expected:
            expected.append(item)
    found: list[Any] = []
    after_key, after_upload = b"", None
    while True:
        walk = walk_uploads(
            [SortedCursor(rows) for rows in uploads_of(sorted(names))],
            prefix.encode(),
            delimiter.encode(),
            after_key,
            after_upload,
        )
        page = list(itertools.islice((item for item in walk if item is not None), size))
        found += page
        if len(page) < size:
            break
        after_key, after_upload = (page[-1], None) if isinstance(page[-1], bytes) else page[-1][:2]
    assert found == expected


def test_a_page_of_uploads_reads_what_is_on_it() -> None:
    """Not all uploads of the bucket for each page; what has a prefix in common is passed over by seeking."""
    names = [(f"dir/{number:06}", 0) for number in range(10_000)] + [(f"k{number:06}", 0) for number in range(10_000)]
    tables = uploads_of(names)
    cursors = [SortedCursor(rows) for rows in tables]
    walk = walk_uploads(cursors, b"", b"/", b"", None)
    page = list(itertools.islice((item for item in walk if item is not None), 11))
    assert page[0] == b"dir/" and len(page) == 11
    again = [SortedCursor(rows) for rows in tables]
    walk = walk_uploads(again, b"", b"", b"k005000", None)
    assert next(item for item in walk if item is not None)[0] == b"k005001"  # type: ignore[index]
    assert sum(cursor.reads for cursor in (*cursors, *again)) < 50


@pytest.fixture(scope="module")
def filled(s3: Any) -> tuple[str, list[str]]:
    """A bucket with thousands of random keys: deep, wide, Unicode, and such as need encoding."""
    name = f"listing-{os.getpid()}"
    s3.create_bucket(Bucket=name)
    chosen = random.Random(7)
    letters = ["a", "b", "/", "/", "-", " ", "+", "%", "é", "日", "\U0001f600", "&", "<", "\t", "~"]
    made = {"".join(chosen.choice(letters) for _ in range(chosen.randint(1, 9))) for _ in range(3000)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=name, Key=key, Body=b""), made))
    return name, sorted(made)


@pytest.mark.parametrize("delimiter", ["", "/", "a/", "é"])
@pytest.mark.parametrize("prefix", ["", "a", "/", "a/", "é", "no such"])
@pytest.mark.parametrize("size", [1000, 97])
def test_listings_of_thousands_of_keys(
    s3: Any, filled: tuple[str, list[str]], delimiter: str, prefix: str, size: int
) -> None:
    bucket, names = filled
    want, _ = list_model(names, prefix, delimiter, "", 10**9)
    options = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": size, **({"Delimiter": delimiter} if delimiter else {})}
    version2: list[tuple[str, bool]] = []
    for page in s3.get_paginator("list_objects_v2").paginate(**options):
        assert page["KeyCount"] == len(entries_of(page)) <= size
        version2 += entries_of(page)
    assert version2 == want
    version1: list[tuple[str, bool]] = []
    for page in s3.get_paginator("list_objects").paginate(**options):
        version1 += entries_of(page)
    assert version1 == want


def test_start_after_and_markers(s3: Any, filled: tuple[str, list[str]]) -> None:
    bucket, names = filled
    for after in ["", names[10], names[-1], "a/", "b", "\U0001f600"]:
        want, truncated = list_model(names, "", "/", after, 50)
        page = s3.list_objects_v2(Bucket=bucket, StartAfter=after, Delimiter="/", MaxKeys=50, FetchOwner=True)
        assert (entries_of(page), page["IsTruncated"]) == (want, truncated)
        assert all(item["Owner"]["DisplayName"] == "root" for item in page.get("Contents", []))
        page = s3.list_objects(Bucket=bucket, Marker=after, Delimiter="/", MaxKeys=50)
        assert (entries_of(page), page["IsTruncated"]) == (want, truncated)
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0


def test_listing_of_versions_in_pages(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    chosen = random.Random(3)
    want = []
    for _ in range(400):
        key = chosen.choice(["a", "a/b", "a/c", "b", "é/x"])
        if chosen.random() < 0.3:
            want.append((key, s3.delete_object(Bucket=bucket, Key=key)["VersionId"]))
        else:
            want.append((key, s3.put_object(Bucket=bucket, Key=key, Body=b"")["VersionId"]))
    newest_first = sorted(want, key=lambda item: item[1], reverse=True)  # ids of one key rise with time
    newest_first.sort(key=lambda item: item[0].encode())
    for size in (1000, 33):
        seen: dict[str, list[str]] = {}
        count = 0
        for page in s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": size}
        ):
            found = [
                (item["Key"], item["VersionId"])
                for name in ("Versions", "DeleteMarkers")
                for item in page.get(name, [])
            ]
            assert len(found) <= size
            count += len(found)
            for key, version in sorted(found, key=lambda item: (item[0].encode(), newest_first.index(item))):
                seen.setdefault(key, []).append(version)
        assert count == len(want)
        assert [(key, version) for key in sorted(seen, key=str.encode) for version in seen[key]] == newest_first
    page = s3.list_object_versions(Bucket=bucket, Delimiter="/")
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["a/", "é/"]


def test_all_versions_are_met_by_who_deletes_them_a_page_at_a_time(s3: Any, bucket: str) -> None:
    """The null version among them, which is the marker of the page behind it and gone when that is asked for."""
    made = []
    for status in ("Enabled", "Suspended", "Enabled"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        for _ in range(1 if status == "Suspended" else 3):
            made.append(s3.put_object(Bucket=bucket, Key="k", Body=b"").get("VersionId", "null"))
    assert made[3] == "null"
    met = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1}):
        for item in page.get("Versions", []):
            met.append((item["VersionId"], item["IsLatest"]))
            s3.delete_object(Bucket=bucket, Key="k", VersionId=item["VersionId"])
    assert met == [(version, True) for version in reversed(made)]


def test_listing_of_uploads_in_pages(s3: Any, bucket: str) -> None:
    made = sorted(
        (
            (key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
            for key in ["a", "a", "b/1", "b/2", "c", "a"] * 3
        ),
        key=lambda item: (item[0].encode(), item[1]),
    )
    for size in (1000, 1, 4):
        seen = []
        for page in s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": size}
        ):
            seen += [(item["Key"], item["UploadId"]) for item in page.get("Uploads", [])]
        assert seen == made
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", Prefix="")
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["b/"]
    assert len(s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]) == 6
