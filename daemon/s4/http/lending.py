"""Tags of buckets that begin with `s4.dev/`, by which who owns a bucket lends it: the operator believes them.

So whoever may tag a bucket is not enough: who was lent one, or may write to one, would lend it on, or go on having it
when the loan has ended. Its owner adds and changes such a tag, or who may do everything. Anybody who may tag may take
one away, which ends a loan.
"""

from __future__ import annotations

from collections.abc import Mapping

from s4.access import documents
from s4.http.authorize import Call
from s4.metadata.rows import Bucket
from s4.s3.errors import S3Error

RESERVED = "s4.dev/"


def check(call: Call, bucket: Bucket, wanted: Mapping[str, str]) -> bool:
    """Whether a bucket is lent by the tags that it is to have. Raises S3Error AccessDenied."""
    held = documents.tags_of(bucket)
    lends = {key for key in wanted if key.lower().startswith(RESERVED)}
    is_owner = call.request.requester.everything or (call.caller and call.caller == bucket.owner)
    if not is_owner and any(wanted[key] != held.get(key) for key in lends):
        raise S3Error(
            "AccessDenied", f"Tags that begin with {RESERVED} lend a bucket: its owner adds them, or an administrator."
        )
    return bool(lends)
