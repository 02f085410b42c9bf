"""The aws-chunked body encoding: signed chunks, unsigned chunks, trailers. A push parser without I/O.

    chunk = hex size [";chunk-signature=" 64 hex] CRLF data CRLF      the last chunk has size 0
    trailer = name ":" value CRLF ... ["x-amz-trailer-signature:" 64 hex CRLF] CRLF

Source: S3 API reference, "Signature Calculations for the Authorization Header: Transferring Payload in
Multiple Chunks". Every header line is bounded, sizes are bounded by the declared decoded length, and data is
hashed as it comes: memory and time stay in proportion to what was sent. Payload handed out before its
chunk's signature was seen must not be used until `finished` is true.
"""

from __future__ import annotations

import hashlib

from s4.s3.errors import S3Error
from s4.s3.hashing import BodyHash
from s4.s3.sigv4 import ChunkSigner

MAX_LINE = 512
MAX_TRAILER = 4096
LEAST_CHUNK = 8192  # of each but the last

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class PlainDecoder:
    """A body without encoding, of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.trailers: dict[str, str] = {}

    @property
    def finished(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> list[memoryview]:
        self._left -= len(data)
        if self._left < 0:
            raise S3Error("IncompleteBody", "The body is longer than its Content-Length.")
        return [memoryview(data)]

    def hash_into(self, _: BodyHash, /) -> bool:
        return False


class ChunkedDecoder:
    """Decodes one body. `signer` is None where chunks are unsigned; `trailer_names` are those announced."""

    def __init__(
        self, length: int, signer: ChunkSigner | None, trailer_names: tuple[str, ...], signed_trailer: bool
    ) -> None:
        self._left, self._signer = length, signer
        self._names, self._signed_trailer = trailer_names, signed_trailer
        self._state, self._buffer, self._chunk_left, self._signature = _SIZE, b"", 0, ""
        self._hash: BodyHash | None = None  # of the whole body, where its chunks are hashed with it
        self._sha = hashlib.sha256()  # else, of the chunk
        self._lines: list[bytes] = []
        self._trailer_bytes = 0
        self._chunks, self._before = 0, LEAST_CHUNK  # how many there were, and the size of the last of them
        self.trailers: dict[str, str] = {}

    @property
    def finished(self) -> bool:
        return self._state == _DONE

    def hash_into(self, body: BodyHash, /) -> bool:
        """Where chunks are signed their bytes are hashed here, and into this with them. Before the first bytes."""
        if self._signer is not None:
            self._hash = body
        return self._hash is not None

    def feed(self, data: bytes) -> list[memoryview]:
        """Payload pieces of the next bytes. Raises S3Error."""
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        view, at, out = memoryview(data), 0, []
        while at < len(data):
            if self._state == _DATA:
                piece = view[at : at + self._chunk_left]
                at += len(piece)
                self._chunk_left -= len(piece)
                if self._signer is not None:
                    (self._hash or self._sha).update(piece)
                out.append(piece)
                if self._chunk_left == 0:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                if len(data) - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise S3Error("IncompleteBody", "A chunk does not end where its size says.")
                at += 2
                self._end_chunk()
            elif self._state == _DONE:
                raise S3Error("IncompleteBody", "There are bytes behind the last chunk.")
            else:
                end = data.find(b"\r\n", at, at + MAX_LINE)
                if end < 0:
                    if len(data) - at >= MAX_LINE:
                        raise S3Error(
                            "MalformedTrailerError" if self._state == _TRAILER else "InvalidRequest",
                            "A line of the chunked body is too long.",
                        )
                    break
                self._line(data[at:end])
                at = end + 2
        self._buffer = data[at:]
        return out

    def _line(self, line: bytes) -> None:
        if self._state == _SIZE:
            self._begin_chunk(line)
        else:
            self._trailer_line(line)

    def _begin_chunk(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        if not size or len(size) > 16 or not all(byte in b"0123456789abcdefABCDEF" for byte in size):
            raise S3Error("InvalidRequest", "A chunk's size is not a hexadecimal number.")
        self._chunk_left = int(size, 16)
        if self._chunk_left > self._left:
            raise S3Error("IncompleteBody", "The chunks are longer than x-amz-decoded-content-length.")
        self._left -= self._chunk_left
        if self._chunk_left:
            self._chunks += 1
            if self._before < LEAST_CHUNK:  # S3 too sees it, and counts, at the chunk behind it
                raise S3Error("InvalidChunkSizeError", Chunk=str(self._chunks), BadChunkSize=str(self._before))
            self._before = self._chunk_left
        if self._signer is not None:
            name, _, signature = extension.partition(b"=")
            if name.strip() != b"chunk-signature":
                raise S3Error("SignatureDoesNotMatch", "A chunk has no signature.")
            self._signature = signature.decode("latin-1")
            if self._hash is not None:
                self._hash.chunk()
            else:
                self._sha = hashlib.sha256()
        if self._chunk_left:
            self._state = _DATA
            return
        if self._left:
            raise S3Error("IncompleteBody", "The chunks are shorter than x-amz-decoded-content-length.")
        self._check_chunk()
        self._state = _TRAILER  # without trailers it is the empty line that follows

    def _end_chunk(self) -> None:
        self._check_chunk()
        self._state = _SIZE

    def _check_chunk(self) -> None:
        if self._signer is None:
            return
        digest = self._sha.digest() if self._hash is None else self._hash.chunk_sha256()
        if not self._signer.chunk(digest.hex(), self._signature):
            raise S3Error("SignatureDoesNotMatch")

    def _trailer_line(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER:
            raise S3Error("MalformedTrailerError", "The trailer is too long.")
        if line:
            name, colon, value = line.partition(b":")
            key = name.decode("latin-1").strip().lower()
            if not colon:
                raise S3Error("MalformedTrailerError", "A line of the trailer has no colon.")
            if key == "x-amz-trailer-signature":
                self._check_trailer(value.decode("latin-1").strip())
                return
            if key not in self._names:
                raise S3Error("MalformedTrailerError", f"The trailer {key} was not announced in x-amz-trailer.")
            if key in self.trailers:
                raise S3Error("MalformedTrailerError", f"The trailer has {key} twice.")
            self.trailers[key] = value.decode("latin-1").strip()
            self._lines.append(key.encode() + b":" + value.strip() + b"\n")
            return
        missing = [name for name in self._names if name not in self.trailers]
        if missing:
            raise S3Error("MalformedTrailerError", f"The trailer has no {missing[0]}, which x-amz-trailer announced.")
        if self._signed_trailer:
            raise S3Error("SignatureDoesNotMatch", "The trailer has no signature.")
        self._state = _DONE

    def _check_trailer(self, signature: str) -> None:
        if self._signer is None or not self._signer.trailer(b"".join(self._lines), signature):
            raise S3Error("SignatureDoesNotMatch")
        self._signed_trailer = False  # seen, and right
