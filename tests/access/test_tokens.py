"""Web identities' tokens that are no good, and issuers that are down: refused cleanly, and nobody waits in a row."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from access.accounts import client
from process import ServerProcess
from s4.http.iam import tokens
from s4.http.iam.protocol import IamError
from s4.http.iam.tokens import AGAIN_S, KEYS_S, PATIENT, Issuer
from s4.s3.encryption import key_name
from s4.s3.errors import S3Error

EC = {
    name: ec.generate_private_key(curve)
    for name, curve in (("ES256", ec.SECP256R1()), ("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1()))
}
KEYS: dict[str, Any] = {**EC, "RS256": rsa.generate_private_key(65537, 2048)}


def token(algorithm: str, **claims: Any) -> str:
    now = int(time.time())
    return jwt.encode(
        {"iss": "https://i", "aud": "s4", "sub": "x", "iat": now, "exp": now + 60, **claims}, KEYS[algorithm], algorithm
    )


def test_an_algorithm_that_does_not_fit_the_key_is_a_bad_token() -> None:
    for algorithm in KEYS:
        for name, key in KEYS.items():
            if name == algorithm:
                assert tokens.verified(token(algorithm), key.public_key(), ["s4"], "https://i")["sub"] == "x"
                continue
            with pytest.raises(IamError, match="not valid") as caught:
                tokens.verified(token(algorithm), key.public_key(), ["s4"], "https://i")
            assert caught.value.code == "InvalidIdentityToken"


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(IamError) as caught:
        call()
    return caught.value.code


def test_whatever_a_token_holds_it_is_a_clean_error() -> None:
    for claims in (
        {"exp": float("inf")},
        {"nbf": float("nan")},
        {"iat": "never"},
        {"sub": "\ud800"},
        {"aud": {"a": 1}},
    ):
        made = token("ES256", **claims)
        code = refused(partial(tokens.verified, made, KEYS["ES256"].public_key(), ["s4"], "https://i"))
        assert code == "InvalidIdentityToken", claims
    assert refused(lambda: tokens.unverified("x" * 20_001)) == "InvalidIdentityToken"
    assert refused(lambda: tokens.unverified("\udcff.a.b")) == "InvalidIdentityToken"


class Down:
    """An issuer that answers when it is told to, by what it is told."""

    def __init__(self) -> None:
        self.asked, self.now, self.keys = 0, 0.0, dict[str, Any]()
        self.open = asyncio.Event()
        self.failing = False
        self.issuer = Issuer(self.fetch, lambda: self.now)

    async def fetch(self) -> dict[str, Any]:
        self.asked += 1
        await self.open.wait()
        if self.failing:
            raise IamError("IDPCommunicationError", "it is down")
        return dict(self.keys)


def test_an_issuer_that_is_down_is_asked_once_and_holds_nobody_up() -> None:
    async def test() -> None:
        down = Down()
        calls = [asyncio.create_task(down.issuer.key("a")) for _ in range(300)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert down.asked == 1
        assert sum(not one.done() for one in calls) == PATIENT  # the others are answered: no slot of theirs is held
        down.failing = True
        down.open.set()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {getattr(one, "code", "") for one in found} == {"IDPCommunicationError"}
        with pytest.raises(IamError, match="it is down"):
            await down.issuer.key("a")
        assert down.asked == 1  # the failure is remembered
        down.now, down.failing, down.keys = AGAIN_S + 1, False, {"a": 1}
        assert await down.issuer.key("a") == 1
        assert down.asked == 2

    asyncio.run(test())


def test_a_key_that_is_known_never_waits_for_one_that_is_not() -> None:
    async def test() -> None:
        down = Down()
        down.keys = {"a": 1}
        down.open.set()
        assert await down.issuer.key("a") == 1
        down.open.clear()
        down.now = AGAIN_S + 1
        unknown = asyncio.create_task(down.issuer.key("nobody's"))
        for _ in range(5):  # turns of the loop
            await asyncio.sleep(0)
        assert (await down.issuer.key("a"), down.asked) == (1, 2)
        down.open.set()
        with pytest.raises(IamError, match="does not have"):
            await unknown
        with pytest.raises(IamError, match="does not have"):
            await down.issuer.key("nobody's")
        assert down.asked == 2
        down.now += KEYS_S + 1
        down.failing = True
        with pytest.raises(IamError, match="it is down"):
            await down.issuer.key("a")  # what it may have withdrawn is not taken for ever

    asyncio.run(test())


def test_who_waits_for_an_issuer_takes_nobodys_place(own_server: Callable[..., ServerProcess]) -> None:
    """A server of one place: while a caller waits for keys that do not come, everybody else is served."""
    server = own_server("--limit", "requests=1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        iam, s3 = client(server, "iam"), client(server, "s3")
        provider = iam.create_open_id_connect_provider(Url=url, ClientIDList=["s4"], ThumbprintList=["0" * 40])[
            "OpenIDConnectProviderArn"
        ]
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity"}
            ],
        }
        role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        sts = client(server, "sts", signature_version=UNSIGNED)
        told: list[str] = []

        def assume() -> None:
            with pytest.raises(ClientError) as caught:
                sts.assume_role_with_web_identity(
                    RoleArn=role, RoleSessionName="pod", WebIdentityToken=token("ES256", iss=url)
                )
            told.append(caught.value.response["Error"]["Code"])

        caller = threading.Thread(target=assume)
        caller.start()
        connection, _ = silent.accept()
        assert s3.list_buckets()["Buckets"] == []
        connection.close()
        caller.join()
        assert told == ["IDPCommunicationError"]


def test_an_error_that_nobody_thought_of_is_told_too() -> None:
    async def broken() -> Any:
        raise AttributeError("of the library")

    async def test() -> None:
        issuer = Issuer(broken)
        for _ in range(2):  # the second is told without asking again
            with pytest.raises(IamError) as told:
                await issuer.key("a")
            assert told.value.code == "IDPCommunicationError" and issuer.running is None

    asyncio.run(test())


def test_a_key_of_the_kms_is_no_step_in_a_path() -> None:
    for text in (".", "..", "alias/..", "arn:aws:kms:us-east-1:000000000000:key/.", "a/b", "a\n"):
        with pytest.raises(S3Error):
            key_name(text)
    assert key_name("alias/..a") == "..a"
