# /// script
# dependencies = [
#     "pyiceberg[pyarrow,sql-sqlite]>=0.9",
# ]
# ///
"""pyiceberg with a catalog in SQLite: appends, an overwrite, a delete, and the table as it was at each snapshot."""

import sys

import pyarrow
from pyiceberg.catalog.sql import SqlCatalog

endpoint, bucket, directory = sys.argv[1:4]
catalog = SqlCatalog(
    "compat",
    **{
        "uri": f"sqlite:///{directory}/catalog.db",
        "warehouse": f"s3://{bucket}/iceberg",
        "s3.endpoint": endpoint,
        "s3.region": "us-east-1",
    },
)
catalog.create_namespace("lake")
data = pyarrow.table(
    {"id": pyarrow.array(range(200_000), pyarrow.int64()), "word": [f"w{number % 977}" for number in range(200_000)]}
)
table = catalog.create_table("lake.words", schema=data.schema)
table.append(data.slice(0, 100_000))
table.append(data.slice(100_000))
assert table.scan().to_arrow().sort_by("id").equals(data)
assert table.scan(row_filter="id >= 199000", selected_fields=("id",)).to_arrow().num_rows == 1000
table.delete("id < 50000")
assert table.scan().to_arrow().sort_by("id")["id"].to_pylist() == list(range(50_000, 200_000))
table.overwrite(data.slice(0, 10))
again = catalog.load_table("lake.words")
assert again.scan().to_arrow().sort_by("id").equals(data.slice(0, 10))
counts = [again.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows for snapshot in again.metadata.snapshots]
assert counts[:2] == [100_000, 200_000], counts
assert counts[-1] == 10, counts
catalog.drop_table("lake.words")
