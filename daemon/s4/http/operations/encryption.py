"""Encryption: what requests say of the keys of their objects."""

from __future__ import annotations

from s4.gateway import sealing
from s4.gateway.context import Gateway
from s4.gateway.read import Opened, unlock
from s4.http.authorize import Call
from s4.http.request import S3Request
from s4.s3 import encryption
from s4.s3.encryption import CUSTOMER, MODE, SSE_C, Wanted
from s4.s3.errors import S3Error


def customer_key(gateway: Gateway, request: S3Request, prefix: str = CUSTOMER) -> bytes:
    """The key that a request brings, empty where it brings none. Raises S3Error."""
    key = encryption.customer_key(request.headers, prefix)
    if key and not request.http.secure and not gateway.bare_keys:
        raise S3Error(
            "InvalidRequest",
            "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection.",
        )
    return key


def asked(gateway: Gateway, request: S3Request) -> Wanted | None:
    """What a write asks for. Raises S3Error."""
    customer_key(gateway, request)
    return encryption.from_headers(request.headers)


def changes(gateway: Gateway, call: Call, source: Opened) -> bool:
    """Whether a copy changes how its source is encrypted: it says how, or its bucket makes one of plain and encrypted
    the other."""
    wanted = sealing.wanted_in(call.must_exist(), asked(gateway, call.request))
    return not encryption.ASKED.isdisjoint(call.request.headers) or (wanted is None) != (source.row.sealing is None)


async def unlock_for(gateway: Gateway, request: S3Request, opened: Opened) -> None:
    """Before an object is shown: its bytes where a GET wants them, else what its customer's key is good for."""
    if MODE in request.headers:
        raise S3Error("InvalidArgument", f"{MODE} is not a header of reads.", ArgumentName=MODE)
    customer, held = customer_key(gateway, request), opened.row.sealing
    if request.method == "GET" or customer or (held is not None and held.mode == SSE_C):
        await unlock(gateway, opened, customer)
