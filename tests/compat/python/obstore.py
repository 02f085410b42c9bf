# /// script
# dependencies = [
#     "obstore>=0.9",
# ]
# ///
"""obstore (Rust's object_store): large and small objects, ranges, listings, copies, and puts on a condition."""

import os
import sys

import obstore
from obstore.store import S3Store

endpoint, bucket = sys.argv[1:3]
store = S3Store(bucket, prefix="obstore", endpoint=endpoint, region="us-east-1", client_options={"allow_http": True})

for size in (0, 1, 70_000, 20_000_000):
    content = os.urandom(size)
    obstore.put(store, f"ü+{size} &=.bin", content)  # the last one in parts
    assert bytes(obstore.get(store, f"ü+{size} &=.bin").bytes()) == content
    if size > 1:
        assert bytes(obstore.get_range(store, f"ü+{size} &=.bin", start=17, end=4711)) == content[17:4711]

listed = {entry["path"]: entry["size"] for page in obstore.list(store) for entry in page}
assert listed == {f"ü+{size} &=.bin": size for size in (0, 1, 70_000, 20_000_000)}, listed

obstore.put(store, "once", b"first", mode="create")
try:
    obstore.put(store, "once", b"second", mode="create")
    sys.exit("a second put with If-None-Match went through")
except obstore.exceptions.AlreadyExistsError:
    pass
seen = obstore.head(store, "once")
obstore.put(store, "once", b"third", mode={"e_tag": seen["e_tag"]})
try:
    obstore.put(store, "once", b"fourth", mode={"e_tag": seen["e_tag"]})
    sys.exit("a put with an old ETag went through")
except obstore.exceptions.PreconditionError:
    pass
obstore.copy(store, "once", "copied")
obstore.rename(store, "copied", "renamed")
assert bytes(obstore.get(store, "renamed").bytes()) == b"third"

with obstore.open_writer(store, "written") as writer:
    for number in range(30):
        writer.write(bytes([number]) * 1_000_000)
reader = obstore.open_reader(store, "written")
reader.seek(29_999_999)
assert bytes(reader.read(10)) == bytes([29])

obstore.delete(store, [entry["path"] for page in obstore.list(store) for entry in page])
assert [entry for page in obstore.list(store) for entry in page] == []
