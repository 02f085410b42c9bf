"""JSON Web Tokens of providers that IAM knows, and the keys of their issuers.

A token comes from anybody. Whatever it is, the answer is its claims or an IamError: the parsers below are a library's,
and what they raise of bytes that nobody has verified is not only what they say they raise. Keys are fetched from the
issuer itself, whose URL an administrator gave, unless an administrator gave the keys too (admin_providers.py); one
fetch at a time for an issuer. While it runs a few callers wait for it, for a moment; the others, and all after a fetch
that failed, are refused at once: an issuer that is down holds nobody up. A token that names a key which we have never
waits. Source: OpenID Connect Discovery 1.0; RFC 7519, RFC 7518 (which algorithm fits which key).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from s4.base.clock import boot_clock
from s4.http.iam.protocol import IamError

log = structlog.get_logger("s4.tokens")

FETCH_S, KEYS_S, AGAIN_S = 10.0, 3600.0, 10.0
PATIENCE_S, PATIENT = 2.0, 8  # how long callers wait for a fetch, and how many of them
IN_CLUSTER = ("kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
RSA = ["RS256", "RS384", "RS512"]
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
JWT_BYTES, DOCUMENT_BYTES = 20_000, 256 * 1024
UNREADABLE = (
    jwt.PyJWTError,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    AttributeError,
    LookupError,
)

Keys = dict[str, Any]


def unverified(token: str) -> tuple[str, str]:
    """(issuer, name of the key) that a token names. Raises IamError InvalidIdentityToken."""
    if len(token) > JWT_BYTES:
        raise IamError("InvalidIdentityToken", "The token is too long")
    try:
        head, told = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
        issuer, name = told.get("iss", ""), head.get("kid", "")
        if not isinstance(issuer, str) or not isinstance(name, str):
            raise TypeError("iss and kid are texts")
        (issuer + name).encode()  # a lone surrogate is no text that anything here could have
    except UNREADABLE as error:
        raise _invalid(error) from error
    return issuer, name


def verified(token: str, key: Any, audience: list[str], issuer: str) -> dict[str, Any]:
    """The claims of a token that `key` signed. Raises IamError InvalidIdentityToken, ExpiredTokenException."""
    required: Any = {"require": ["exp", "iat", "iss", "aud", "sub"]}
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key, fitting(key), audience=audience, issuer=issuer, options=required
        )
        str(claims["sub"]).encode()
    except jwt.ExpiredSignatureError:
        raise IamError("ExpiredTokenException", "The web identity token is expired") from None
    except UNREADABLE as error:
        raise _invalid(error) from error
    return claims


def fitting(key: Any) -> list[str]:
    """The algorithms that a key can verify."""
    if isinstance(key, rsa.RSAPublicKey):
        return RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return [CURVES[key.curve.name]]
    raise IamError("InvalidIdentityToken", "The token is signed with a key of a kind that S4 does not take")


def _invalid(error: BaseException) -> IamError:
    said = str(error) if isinstance(error, jwt.PyJWTError) else "it cannot be read"
    return IamError("InvalidIdentityToken", f"The token is not valid: {said.encode(errors='replace').decode()}")


@dataclass(slots=True)
class Issuer:
    """The keys of one issuer. `fetch` gets them, or raises IamError; `clock` is in seconds."""

    fetch: Callable[[], Awaitable[Keys]]
    clock: Callable[[], float] = boot_clock
    keys: Keys = field(default_factory=dict)
    had_at: float = float("-inf")  # the keys that we have
    asked_at: float = float("-inf")  # the last fetch, whatever came of it
    failure: IamError | None = None
    waiting: int = 0
    running: asyncio.Task[None] | None = None

    async def key(self, name: str) -> Any:
        """Raises IamError IDPCommunicationError, InvalidIdentityToken."""
        if name not in self.keys or self.clock() - self.had_at > KEYS_S:
            await self._renewed()
        if name not in self.keys:
            raise IamError("InvalidIdentityToken", "The token is signed with a key that its issuer does not have")
        return self.keys[name]

    async def _renewed(self) -> None:
        """Once the keys are as new as may be asked for now."""
        if self.running is None:
            if self.clock() - self.asked_at <= AGAIN_S:
                return self._as_it_was()
            self.asked_at = self.clock()
            self.running = asyncio.create_task(self._run())
        if self.waiting >= PATIENT:
            raise IamError("IDPCommunicationError", "The keys of the token's issuer are being fetched: try again")
        self.waiting += 1
        try:
            await asyncio.wait((self.running,), timeout=PATIENCE_S)
        finally:
            self.waiting -= 1
        if self.running is not None:
            raise IamError("IDPCommunicationError", "The token's issuer takes long to tell its keys: try again")
        return self._as_it_was()

    def _as_it_was(self) -> None:
        if self.failure is not None:
            raise IamError(self.failure.code, self.failure.message)

    async def _run(self) -> None:
        try:
            self.keys, self.failure = await self.fetch(), None
            self.had_at = self.clock()
        except IamError as error:
            self.failure = error
        except Exception as error:  # whatever it is: whoever waits is told, and it is not lost with the task
            self.failure = IamError(
                "IDPCommunicationError", "The keys of the token's issuer cannot be had; see the log"
            )
            log.error("the keys of an issuer cannot be had", exc_info=error)
        finally:
            self.running = None


_issuers: dict[str, Issuer] = {}


def waiting() -> int:
    """How many callers wait for an issuer, at most `PATIENT` for each: they do nothing here, and take nobody's
    place."""
    return sum(one.waiting for one in _issuers.values())


async def key_of(url: str, name: str, given: str = "") -> Any:
    """A signing key of the issuer at https://URL, of those that are given or as the issuer tells. Raises IamError."""
    if given and (found := given_keys(given).get(name)) is not None:
        return found
    if url not in _issuers:
        _issuers[url] = Issuer(lambda: _fetched(url))
    return await _issuers[url].key(name)


def _trust_store() -> ssl.SSLContext:
    """The system's authorities, those of S4_OIDC_AUTHORITY, and inside Kubernetes the cluster's own."""
    context = ssl.create_default_context()
    for path in (os.environ.get("S4_OIDC_AUTHORITY", ""), "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"):
        if path and Path(path).exists():
            context.load_verify_locations(path)
    return context


def _own_token(url: str) -> dict[str, str]:
    """Inside Kubernetes its API server tells its keys to service accounts, such as this process's own."""
    token = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    if url.partition("/")[0] not in IN_CLUSTER or not token.exists():
        return {}
    return {"Authorization": f"Bearer {token.read_text().strip()}"}


async def _get(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise IamError("IDPCommunicationError", f"{url} answers {response.status}")
        body = b""
        async for piece in response.content.iter_chunked(65536):
            body += piece
            if len(body) > DOCUMENT_BYTES:
                raise IamError("IDPCommunicationError", f"{url} answers more than {DOCUMENT_BYTES} bytes")
        return msgspec.json.decode(body)


async def _fetched(url: str) -> Keys:
    try:
        timeout = aiohttp.ClientTimeout(total=FETCH_S)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(ssl=_trust_store()), headers=_own_token(url)
        ) as session:
            found = await _get(session, f"https://{url.rstrip('/')}/.well-known/openid-configuration")
            address = found.get("jwks_uri", "") if isinstance(found, dict) else ""
            if not str(address).startswith("https://"):
                raise IamError("IDPCommunicationError", f"{url} names no https jwks_uri")
            listed = await _get(session, address)
        return read_keys(listed)
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, *UNREADABLE) as error:
        raise IamError("IDPCommunicationError", f"The keys of {url} cannot be had: {error}") from error


@lru_cache(maxsize=16)
def given_keys(text: str) -> Keys:
    """The keys of a set as it is kept with a provider, "" for none. Raises what the library does."""
    return read_keys(msgspec.json.decode(text)) if text else {}


def read_keys(listed: Any) -> Keys:
    """The keys of a JSON Web Key Set that can verify, by their ids. Raises what the library does."""
    found = ((one.key_id or "", one.key) for one in jwt.PyJWKSet.from_dict(listed).keys)
    return {name: key for name, key in found if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)}
