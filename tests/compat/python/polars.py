# /// script
# dependencies = [
#     "polars>=1.30",
# ]
# ///
"""polars: a table written as Parquet, CSV and IPC, and read back whole and in part."""

import sys

import polars

endpoint, bucket = sys.argv[1:3]
options = {"aws_endpoint_url": endpoint, "aws_region": "us-east-1", "aws_allow_http": "true"}
rows = 300_000
table = polars.DataFrame(
    {
        "id": range(rows),
        "word": [f"w{number % 977}" for number in range(rows)],
        "part": [number % 3 for number in range(rows)],
    }
)

table.write_parquet(f"s3://{bucket}/polars/one.parquet", storage_options=options, row_group_size=50_000)
assert polars.read_parquet(f"s3://{bucket}/polars/one.parquet", storage_options=options).equals(table)
lazy = polars.scan_parquet(f"s3://{bucket}/polars/*.parquet", storage_options=options)
assert lazy.filter(polars.col("id") >= rows - 10_000).select("word").collect().equals(table.tail(10_000).select("word"))

table.lazy().sink_csv(f"s3://{bucket}/polars/one.csv", storage_options=options)
assert polars.scan_csv(f"s3://{bucket}/polars/one.csv", storage_options=options).collect().equals(table)
table.lazy().sink_ipc(f"s3://{bucket}/polars/one.arrow", storage_options=options)
assert polars.scan_ipc(f"s3://{bucket}/polars/one.arrow", storage_options=options).collect().equals(table)
