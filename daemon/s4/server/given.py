"""What a process is given as files: each is read before anything is made, so that a start that one of them refuses
changes nothing.

They are read again where they are used, and whenever they change.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from s4.crypto import keyring
from s4.crypto.kms import FileKms
from s4.http.tls import Certificate
from s4.notify import receivers

if TYPE_CHECKING:
    from s4.server.parts import ServerSettings


def check(settings: ServerSettings) -> None:
    """Raises OSError, ValueError that names the file."""
    if settings.certificate:
        Certificate(Path(settings.certificate), Path(settings.key))
    if settings.master_key:
        keyring.read(Path(settings.master_key))
    if settings.kms_token:
        Path(settings.kms_token).read_bytes()
    if settings.kms and not settings.kms.startswith(("http://", "https://")):
        FileKms(Path(settings.kms), settings.kms_key)
    if settings.receivers:
        receivers.read(Path(settings.receivers))
    if settings.audit_log not in ("", "-", "none"):
        os.close(os.open(settings.audit_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
