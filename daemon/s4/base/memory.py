"""Memory that is filled at once by who asks for it."""

from __future__ import annotations

import ctypes

LEAST_BYTES = 64 * 1024  # below it the call costs more than zeros

_unset = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyByteArray_FromStringAndSize", ctypes.pythonapi)
)


def unset(size: int) -> bytearray:
    """`size` bytes of anything, what other requests left there too: whoever takes them fills them all, or gives none of
    them away. Zeros, which `bytearray(size)` writes first, are a twelfth of what reading a large object costs."""
    return bytearray(size) if size < LEAST_BYTES else _unset(None, size)
