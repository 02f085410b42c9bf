# /// script
# dependencies = [
#     "chdb>=3",
# ]
# ///
"""chdb (ClickHouse): tables written to and read from S3 as Parquet and CSV, one of them in parts, and a glob over
many."""

import os
import sys

from chdb import session

endpoint, bucket = sys.argv[1:3]
keys = f"'{os.environ['AWS_ACCESS_KEY_ID']}', '{os.environ['AWS_SECRET_ACCESS_KEY']}'"
chosen = session.Session()


def at(name: str, form: str) -> str:
    return f"s3('{endpoint}/{bucket}/chdb/{name}', {keys}, '{form}')"


def ask(query: str) -> str:
    return str(chosen.query(query, "CSV")).strip()


digest = "count(), sum(cityHash64(number, word))"
rows = "SELECT number, toString(cityHash64(number)) AS word FROM numbers({})"
for name, form, count in (
    ("small.parquet", "Parquet", 10),
    ("large.parquet", "Parquet", 2_000_000),
    ("large.csv", "CSVWithNames", 1_000_000),
):
    chosen.query(f"INSERT INTO FUNCTION {at(name, form)} {rows.format(count)} SETTINGS s3_truncate_on_insert = 1")
    assert ask(f"SELECT {digest} FROM {at(name, form)}") == ask(f"SELECT {digest} FROM ({rows.format(count)})"), name
for part in range(5):
    chosen.query(f"INSERT INTO FUNCTION {at(f'part-{part}.parquet', 'Parquet')} {rows.format(1000)}")
assert ask(f"SELECT count(), uniq(_file) FROM {at('part-*.parquet', 'Parquet')}") == "5000,5"
