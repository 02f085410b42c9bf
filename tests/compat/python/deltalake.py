# /// script
# dependencies = [
#     "deltalake>=1.1",
#     "pyarrow>=20",
# ]
# ///
"""deltalake (delta-rs): eight writers commit to one table at once, each commit a put on the condition that its number
is free."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow
from deltalake import CommitProperties, DeltaTable, write_deltalake

endpoint, bucket = sys.argv[1:3]
options = {"aws_endpoint_url": endpoint, "aws_region": "us-east-1", "aws_allow_http": "true", "conditional_put": "etag"}
address = f"s3://{bucket}/delta/table"
WRITERS, COMMITS, ROWS = 8, 3, 1000


def rows(writer: int, commit: int) -> pyarrow.Table:
    first = (writer * COMMITS + commit) * ROWS
    return pyarrow.table(
        {
            "id": pyarrow.array(range(first, first + ROWS), pyarrow.int64()),
            "writer": pyarrow.array([writer] * ROWS, pyarrow.int64()),
        }
    )


def write(writer: int) -> None:
    for commit in range(COMMITS):
        write_deltalake(
            address,
            rows(writer, commit),
            mode="append",
            storage_options=options,
            commit_properties=CommitProperties(max_commit_retries=100),
        )


write_deltalake(address, rows(0, 0).slice(0, 0), storage_options=options)
with ThreadPoolExecutor(WRITERS) as pool:
    list(pool.map(write, range(WRITERS)))
table = DeltaTable(address, storage_options=options)
assert table.version() == WRITERS * COMMITS, table.version()
assert sorted(table.to_pyarrow_table()["id"].to_pylist()) == list(range(WRITERS * COMMITS * ROWS))

table.delete("writer = 3")
table.optimize.compact()
table.create_checkpoint()
table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
left = DeltaTable(address, storage_options=options).to_pyarrow_table()
assert sorted(left["id"].to_pylist()) == [
    row for row in range(WRITERS * COMMITS * ROWS) if row // (COMMITS * ROWS) != 3
]
os._exit(0)  # all of it is done; threads of its libraries sometimes abort the interpreter where it ends in order
