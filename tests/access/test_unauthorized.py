"""Should authorization ever be passed by, nothing is done: it is needed by who does it, and not only asked for on the
way."""

from __future__ import annotations

from typing import Any

import pytest

from fuzz.targets import serving, signed
from s4.http import server

CALLS = [
    b"PUT /bbb/k\n\nother",
    b"GET /bbb/k\n\n",
    b"DELETE /bbb/k\n\n",
    b"PUT /bbb/k?tagging\n\n<Tagging><TagSet/></Tagging>",
    b"PUT /ccc\n\n",
    b"DELETE /bbb\n\n",
    b"GET /bbb\n\n",
    b"GET /\n\n",
    b"PUT /bbb/c\nx-amz-copy-source: /bbb/k\n\n",
    b"POST /bbb?delete\n\n<Delete><Object><Key>k</Key></Object></Delete>",
]


@pytest.mark.parametrize("call", CALLS)
def test_what_was_not_authorized_is_not_done(monkeypatch: pytest.MonkeyPatch, call: bytes) -> None:
    async def passed_by(*_: Any) -> None:
        pass

    with serving() as (one, send):

        def ask(data: bytes) -> bytes:
            return send(signed(one, b"\x01" + data)[0])

        with monkeypatch.context() as changed:
            changed.setattr(server, "authorize", passed_by)
            assert ask(call).startswith(b"HTTP/1.1 500 "), call
        assert ask(b"GET /bbb/k\n\n").endswith(b"inline")
        assert b"<Name>ccc</Name>" not in ask(b"GET /\n\n")
