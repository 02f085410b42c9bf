"""The digests of a body in one pass are those of hashlib, however its bytes and its chunks come."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from s4.s3 import hashing
from s4.s3.checksums import Digests, Expected
from s4.s3.chunked import ChunkedDecoder

SIZES = (0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 127, 128, 200, 4095, 4096, 70_000)
KINDS = [hashing.Separate, *([hashing.Fused] if hashing.FUSED else [])]


def test_it_is_built_where_it_can_be() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if platform.machine() != "x86_64" or " sha_ni " not in flags or shutil.which("cc") is None:
        pytest.skip("no C compiler, or a processor without SHA instructions")
    assert hashing.FUSED, "deploy/extension.py builds it with `uv sync`; --reinstall-package s4 does it again"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [True, False])
def test_digests_are_hashlibs_wherever_bytes_and_chunks_are_cut(kind: Any, content: bool) -> None:
    chosen = random.Random(5)
    for _ in range(300):
        made, md5, sha256, chunk = kind(content), hashlib.md5(), hashlib.sha256(), None
        for _ in range(chosen.randrange(10)):
            if chosen.random() < 0.3:
                made.chunk()
                chunk = hashlib.sha256()
            data = chosen.randbytes(chosen.choice((*SIZES, chosen.randrange(300))))
            made.update(chosen.choice((bytes, bytearray, memoryview))(data))
            for one in (md5, sha256, *([chunk] if chunk else [])):
                one.update(data)
            assert made.md5() == md5.digest(), "and it may go on after it was asked"
            assert not content or made.sha256() == sha256.digest()
            assert chunk is None or made.chunk_sha256() == chunk.digest()


@pytest.mark.skipif(not hashing.FUSED, reason="the extension was not built")
def test_two_threads_do_not_tear_one_body() -> None:
    """The second is refused while the first hashes; what is refused was not hashed."""
    made, data, refused, begun = hashing.Fused(True), bytes(200 << 20), list[str](), threading.Event()

    def hash_all() -> None:
        begun.set()
        made.update(data)

    thread = threading.Thread(target=hash_all)
    thread.start()
    begun.wait()
    while thread.is_alive() and not refused:
        try:
            made.update(b"")
        except RuntimeError as error:
            refused.append(str(error))
    thread.join()
    assert refused == ["another thread is hashing this body"]
    assert made.md5() == hashlib.md5(data).digest()


class Taking:
    """A signer that keeps what chunks hash to, and takes all."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def chunk(self, digest: str, signature: str) -> bool:
        self.seen.append(digest)
        return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_in_signed_chunks_is_hashed_once_for_all(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(hashing, "new", lambda *, content: kind(content))
    chunks = [os.urandom(size) for size in (65536, 8192, 8195, 9001, 3)]
    sent = b"".join(b"%x;chunk-signature=x\r\n%b\r\n" % (len(data), data) for data in (*chunks, b""))
    for step in (7, 1000, 70_000):
        signer, body = Taking(), b"".join(chunks)
        decoder = ChunkedDecoder(len(body), signer, (), False)  # type: ignore[arg-type]
        digests = Digests(Expected(algorithm="CRC32"))
        digests.leave_to(decoder)
        for at in range(0, len(sent), step):
            for piece in decoder.feed(sent[at : at + step]):
                digests.update(piece)
        assert decoder.finished
        assert signer.seen == [hashlib.sha256(data).hexdigest() for data in (*chunks, b"")]
        assert (digests.md5_hex(), digests.sha256()) == (hashlib.md5(body).hexdigest(), hashlib.sha256(body).digest())
        assert digests.size == len(body)
