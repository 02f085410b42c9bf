"""Receivers of events: webhook, Kafka, NATS. What an administrator writes in the file of `--receivers`, by name:

    orders: {webhook: "https://example.org/hook", token: /etc/s4/hook-token}
    audit:  {kafka: "kafka-1:9092,kafka-2:9092", topic: s4-events, user: s4, password: /etc/s4/kafka-password, tls: true}
    bus:    {nats: "nats://nats:4222", subject: s4.events, credentials: /etc/s4/s4.creds}

`send` returns once the receiver has taken an event: an answer of 2xx, all of Kafka's replicas in sync, NATS'
JetStream. It raises ReceiverError otherwise, and may be called again with the same event, which has the same id then:
a header, and for JetStream the id by which it drops what it has. `token`, `password` and `credentials` are files, read
at each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp
import msgspec
import yaml

from s4.base.said import words

TIMEOUT_S = 10.0
ID = "x-s4-event-id"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ReceiverError(Exception):
    """The receiver did not take an event; why."""


class Receiver(Protocol):
    async def send(self, event_id: str, key: bytes, body: bytes) -> None:
        """`key` is what events are in order of. Raises ReceiverError."""
        ...

    async def close(self) -> None: ...


class _Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    webhook: str
    token: str = ""
    ca: str = ""


class _Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kafka: str
    topic: str
    tls: bool = False
    ca: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    user: str = ""
    password: str = ""


class _Nats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nats: str
    subject: str
    credentials: str = ""
    ca: str = ""


Settings = _Webhook | _Kafka | _Nats
_KINDS: dict[str, type[Settings]] = {"webhook": _Webhook, "kafka": _Kafka, "nats": _Nats}


def read(path: Path) -> dict[str, Settings]:
    """Receivers by name. Raises ValueError that says what to change."""
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the receivers in {path} cannot be read: {words(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ValueError(f"{path}: write NAME: {{webhook: URL}}, or kafka or nats, for each receiver")
    return {str(name): _one(f"{path}: {name}", str(name), settings) for name, settings in found.items()}


def _one(where: str, name: str, settings: Mapping[str, Any]) -> Settings:
    kinds = _KINDS.keys() & settings.keys()
    if not _NAME.fullmatch(name) or len(kinds) != 1:
        raise ValueError(f"{where}: a name of letters, digits, - and _, and one of {', '.join(_KINDS)}")
    try:
        return msgspec.convert(settings, _KINDS[kinds.pop()])
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from error


def make(settings: Settings) -> Receiver:
    if isinstance(settings, _Webhook):
        return Webhook(settings)
    return Kafka(settings) if isinstance(settings, _Kafka) else Nats(settings)


def _tls(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca or None)


def _secret(path: str) -> str:
    return Path(path).read_text().strip() if path else ""


class Webhook:
    """POSTs S3's JSON."""

    def __init__(self, settings: _Webhook) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def send(self, event_id: str, key: bytes, body: bytes) -> None:
        settings = self._settings
        headers = {"Content-Type": "application/json", ID: event_id}
        try:
            if self._session is None:
                connector = aiohttp.TCPConnector(ssl=_tls(settings.ca)) if settings.ca else None
                timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
                self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
            if settings.token:
                headers["Authorization"] = f"Bearer {_secret(settings.token)}"
            async with self._session.post(
                settings.webhook, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise ReceiverError(f"it answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ReceiverError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Kafka:
    """Events of one key go to one partition of the topic."""

    def __init__(self, settings: _Kafka) -> None:
        self._settings = settings
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def _start(self) -> Any:
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - only where there is a Kafka

        async with self._starting:
            if self._producer is None:
                settings = self._settings
                protocol = ("SASL_" if settings.user else "") + ("SSL" if settings.tls else "PLAINTEXT")
                producer = AIOKafkaProducer(
                    bootstrap_servers=settings.kafka,
                    acks="all",
                    enable_idempotence=True,
                    security_protocol=protocol,
                    request_timeout_ms=int(TIMEOUT_S * 1000),
                    ssl_context=_tls(settings.ca) if settings.tls else None,
                    sasl_mechanism=settings.mechanism,
                    sasl_plain_username=settings.user or None,
                    sasl_plain_password=_secret(settings.password) or None,
                )
                try:
                    await _in_time(producer.start())
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
        return self._producer

    async def send(self, event_id: str, key: bytes, body: bytes) -> None:
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        try:
            producer = self._producer or await self._start()
            headers = [(ID, event_id.encode())]
            await _in_time(producer.send_and_wait(self._settings.topic, body, key=key, headers=headers))
        except (KafkaError, TimeoutError, OSError) as error:
            await self.close()  # a producer that failed for good would fail for ever
            raise ReceiverError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await _in_time(producer.stop())


class Nats:
    """A stream of JetStream must take the subject: nothing else says that an event is kept."""

    def __init__(self, settings: _Nats) -> None:
        self._settings = settings
        self._client: Any = None
        self._starting = asyncio.Lock()

    async def _start(self) -> Any:
        import nats  # noqa: PLC0415 - only where there is a NATS

        async with self._starting:
            if self._client is None or self._client.is_closed:
                settings = self._settings
                options: dict[str, Any] = {"user_credentials": settings.credentials} if settings.credentials else {}
                if settings.ca:
                    options["tls"] = _tls(settings.ca)
                self._client = await _in_time(
                    nats.connect(
                        settings.nats.split(","),
                        allow_reconnect=False,
                        connect_timeout=int(TIMEOUT_S),
                        error_cb=_quiet,
                        **options,
                    )
                )
        return self._client

    async def send(self, event_id: str, key: bytes, body: bytes) -> None:
        from nats.errors import Error  # noqa: PLC0415

        try:
            client = self._client
            if client is None or client.is_closed:
                client = await self._start()
            headers = {"Nats-Msg-Id": event_id, ID: event_id}
            await client.jetstream().publish(self._settings.subject, body, timeout=TIMEOUT_S, headers=headers)
        except (Error, TimeoutError, OSError) as error:
            raise ReceiverError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


async def _quiet(_: Exception) -> None:
    """What goes wrong comes back from the call that it breaks."""


async def _in_time(work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, TIMEOUT_S)
