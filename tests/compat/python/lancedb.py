# /// script
# dependencies = [
#     "lancedb>=0.25",
# ]
# ///
"""lancedb: vectors added, searched, changed, deleted and compacted, and an older version of the table."""

import sys

import lancedb

endpoint, bucket = sys.argv[1:3]
base = lancedb.connect(
    f"s3://{bucket}/lance", storage_options={"aws_endpoint": endpoint, "aws_region": "us-east-1", "allow_http": "true"}
)


def row(number: int) -> dict[str, object]:
    return {
        "id": number,
        "word": f"w{number % 977}",
        "vector": [float(number % 101), float(number % 103), float(number), 1.0],
    }


table = base.create_table("vectors", [row(number) for number in range(20_000)])
for first in range(20_000, 25_000, 1000):
    table.add([row(number) for number in range(first, first + 1000)])
full = table.version
assert table.count_rows() == 25_000
assert table.search(row(12_345)["vector"]).limit(1).to_list()[0]["id"] == 12_345
table.delete("id >= 24000")
table.update(where="id = 7", values={"word": "changed"})
table.optimize()
again = base.open_table("vectors")
assert again.count_rows() == 24_000
assert sorted(again.to_arrow()["id"].to_pylist()) == list(range(24_000))
assert again.search().where("word = 'changed'").to_list()[0]["id"] == 7
again.checkout(full)
assert again.count_rows() == 25_000
base.drop_table("vectors")
assert list(base.table_names()) == []
