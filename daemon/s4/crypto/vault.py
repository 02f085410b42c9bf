"""The transit engine of Vault as the KMS: the only module that knows hvac.

Of Vault this process knows a token and nothing else. What it unwrapped it keeps for a minute, so that a key that is
disabled there is disabled here within that. A Vault that says nothing has threads of its own to say it to: those of the
event loop are for names of hosts, drives and the map.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hvac
import hvac.exceptions
from requests import RequestException, Session
from requests.adapters import HTTPAdapter

from s4.base import tasks
from s4.base.clock import boot_clock
from s4.crypto.keyring import KeyringError
from s4.crypto.kms import KmsError

KEPT_S, KEPT = 60.0, 10_000
TIMEOUT_S = 5.0
THREADS = 32  # and as many connections


class _SystemsAuthorities(HTTPAdapter):
    """Trusts whom the rest of this process does: the system's authorities, and those of SSL_CERT_FILE. requests brings a list
    of its own and looks at neither."""

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more, ssl_context=ssl.create_default_context())


class VaultKms:
    """`token` is a file with a token, read anew for each call: who keeps it fresh is Vault's agent."""

    def __init__(
        self, url: str, default: str, token: Path, mount: str = "transit", timeout_s: float = TIMEOUT_S
    ) -> None:
        if not default:
            raise KeyringError("--kms with a URL needs --kms-key: the key where a request names none")
        self.default, self._token, self._mount = default, token, mount
        session = Session()
        session.mount("https://", _SystemsAuthorities(pool_maxsize=THREADS))
        session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
        self._client = hvac.Client(url=url, timeout=timeout_s, session=session)
        self._pool, self._patience_s = ThreadPoolExecutor(THREADS, thread_name_prefix="vault"), 2 * timeout_s
        self._kept: OrderedDict[tuple[str, str, str], tuple[float, bytes]] = OrderedDict()
        self._newest: dict[str, tuple[float, int]] = {}

    @property
    def several(self) -> bool:
        return True  # Vault would have to be asked

    async def wrap(self, name: str, key: bytes, about: str) -> str:
        text = base64.b64encode(key).decode()
        answer = await self._call("encrypt_data", name, plaintext=text, associated_data=_base64(about))
        return str(answer["ciphertext"])

    async def unwrap(self, name: str, wrapped: str, about: str) -> bytes:
        kept, now = self._kept.get((name, wrapped, about)), boot_clock()
        if kept is not None and now < kept[0]:
            return kept[1]
        answer = await self._call("decrypt_data", name, ciphertext=wrapped, associated_data=_base64(about))
        key = base64.b64decode(answer["plaintext"])
        self._kept[name, wrapped, about] = now + KEPT_S, key
        self._kept.move_to_end((name, wrapped, about))
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return key

    async def is_current(self, name: str, wrapped: str) -> bool:
        until, newest = self._newest.get(name, (0.0, 0))
        if boot_clock() >= until:
            newest = int((await self._call("read_key", name))["latest_version"])
            self._newest[name] = boot_clock() + KEPT_S, newest
            while len(self._newest) > KEPT:
                del self._newest[next(iter(self._newest))]
        return wrapped.startswith(f"vault:v{newest}:")

    async def _call(self, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            self._client.token = self._token.read_text().strip()
            return dict(
                getattr(self._client.secrets.transit, method)(name, mount_point=self._mount, **arguments)["data"]
            )

        try:
            async with tasks.within(self._patience_s):  # behind others that wait for an answer too
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except hvac.exceptions.InvalidPath as error:
            raise KmsError("KMS.NotFoundException", f"Key {name!r} does not exist") from error
        except hvac.exceptions.InvalidRequest as error:
            missing = "not found" in str(error)
            raise KmsError("KMS.NotFoundException" if missing else "AccessDenied", f"Key {name!r}: {error}") from error
        except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized) as error:
            raise KmsError("AccessDenied", f"Vault does not let this server use key {name!r}.") from error
        except (hvac.exceptions.VaultError, RequestException, OSError) as error:
            raise KmsError("ServiceUnavailable", f"Vault does not answer: {type(error).__name__}") from error


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
