"""Parity made where it is wanted, by the library that pyeclib brings.

pyeclib's own call copies each data shard, puts a header before it, and copies all of them once more; of that only the
parity is wanted here. ISA-L's public function makes that from the data in place, and without the interpreter's lock. It
is called only after it gave the same parity as pyeclib does; where it is not found, pyeclib does it.

Source: ISA-L, include/erasure_code.h. The matrix is the one that liberasurecode uses for `isa_l_rs_cauchy`.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path


class Isal:
    """Encodes for one geometry. Raises OSError, AttributeError where the library is not there, or another one."""

    def __init__(self, k: int, m: int) -> None:
        library = ctypes.CDLL(_path())
        self._encode = library.ec_encode_data
        self._encode.argtypes = [ctypes.c_int] * 3 + [ctypes.c_void_p] * 3
        self._encode.restype = None
        self._k, self._m = k, m
        matrix = ctypes.create_string_buffer((k + m) * k)
        self._tables = ctypes.create_string_buffer(32 * k * m)
        library.gf_gen_cauchy1_matrix(matrix, k + m, k)
        library.ec_init_tables(k, m, ctypes.byref(matrix, k * k), self._tables)

    def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        """Fill the parity shards from the data shards; all are writable and of one length."""
        sources = (ctypes.c_void_p * self._k)(*map(_address, data))
        targets = (ctypes.c_void_p * self._m)(*map(_address, parity))
        self._encode(len(data[0]), self._k, self._m, self._tables, sources, targets)


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def _path() -> str:
    """The library that this process has in its memory. Raises OSError."""
    found = re.search(r"\S+/libisal[^/\s]*\.so\S*", Path("/proc/self/maps").read_text())
    if found is None:
        raise OSError("no ISA-L is loaded")
    return found[0]
