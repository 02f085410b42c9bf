"""From a claim to who it is: a user by its access key, or a session by its token.

Temporary credentials are kept nowhere. The token that goes with them is sealed with the master key and bound to the
access key: in it are the secret, the end, whose session it is and the policies that bound it. What its user or role may
do is looked up at every request, so that a session loses what these lose, and ends with them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace

import msgspec

from s4.access.keys import Values, by_key
from s4.access.policy import ACCOUNT
from s4.access.requester import ROLE, ROOT, USER, Requester, policy_of, read, requester, user_arn
from s4.crypto.keyring import KeyringError
from s4.gateway.accounts import open_secret
from s4.gateway.context import Gateway
from s4.peer.api import Identity
from s4.s3.errors import S3Error
from s4.s3.sigv4 import Claim

ROOT_USER = "root"
KNOWN = 4096
LONGEST_S = 129_600  # of a session, whatever its token says: nothing ends one before


class Session(msgspec.Struct, frozen=True):
    """What a token says. `parent` is user/NAME or role/NAME, `parent_id` its id, for another may have that name by now;
    one of `policies` must allow what the session does."""

    parent: str
    parent_id: str
    name: str
    secret: str
    issued_s: int
    until_s: int
    policies: list[str] = []
    provider: str = ""
    tags: dict[str, str] = {}


def role_arn(name: str, path: str = "/") -> str:
    return f"arn:aws:iam::{ACCOUNT}:role{path}{name}"


def session_arn(role: str, session: str) -> str:
    return f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}"


async def find(gateway: Gateway, claim: Claim) -> tuple[str, Requester]:
    """The secret that signatures are checked with, and who asks. Raises S3Error InvalidAccessKeyId, InvalidToken,
    ExpiredToken."""
    if claim.token:
        return await _of_session(gateway, claim)
    identity = await gateway.node.find_identity(claim.access_key) if "/" not in claim.access_key else None
    if identity is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
    return open_secret(gateway, claim.access_key, identity.secret), requester_of(identity)


async def _of_session(gateway: Gateway, claim: Claim) -> tuple[str, Requester]:
    try:
        if gateway.keyring is None:
            raise KeyringError("no master key")
        session = msgspec.json.decode(gateway.keyring.open(claim.token, claim.access_key), type=Session)
    except (KeyringError, msgspec.MsgspecError):
        raise S3Error("InvalidToken") from None
    if gateway.clock() >= min(session.until_s, session.issued_s + LONGEST_S):
        raise S3Error("ExpiredToken")
    identity = await gateway.node.find_identity(session.parent)
    if identity is None or identity.id != session.parent_id:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
    return session.secret, _kept(claim.token, identity, session)


_known: OrderedDict[int | str, tuple[Identity, Requester]] = OrderedDict()


def requester_of(identity: Identity) -> Requester:
    """Who an identity is, with its policies read; kept as long as the identity is."""
    return _kept(id(identity), identity, None)


def _kept(name: int | str, identity: Identity, session: Session | None) -> Requester:
    found = _known.get(name)
    if found is not None and found[0] is identity:
        return found[1]
    made = _requester(identity, session)
    _known[name] = identity, made
    if len(_known) > KNOWN:
        _known.popitem(last=False)
    return made


def _requester(identity: Identity, session: Session | None) -> Requester:
    name = identity.user
    policies = [policy_of(grant) for grant in identity.grants] + [read(text) for text in identity.policies]
    limits = [[read(text)] for text in identity.bounds]
    about: Values = {f"aws:principaltag/{key}": values for key, values in by_key(identity.tags).items()}
    if session is not None:
        limits += [[read(text) for text in session.policies]] if session.policies else []
        about |= {f"aws:principaltag/{key}": values for key, values in by_key(session.tags).items()}
        about["aws:multifactorauthpresent"] = ("false",)  # AWS says so of every session; there is no MFA here
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(session.issued_s))
        about |= {"aws:tokenissuetime": (issued,)} | (
            {"aws:federatedprovider": (session.provider,)} if session.provider else {}
        )
    if identity.role and session is not None:
        arns = [session_arn(name, session.name), role_arn(name, identity.path)]
        about["aws:userid"] = (f"{identity.id}:{session.name}",)
        ids = [f"{identity.id}:{session.name}", identity.id]
        return requester(ROLE, f"role/{name}", arns, policies, limits, about, ids, identity.canonical)
    if name == ROOT_USER:
        return requester(
            ROOT, name, [f"arn:aws:iam::{ACCOUNT}:root"], policies, limits, {"aws:userid": (ACCOUNT,), **about}
        )
    about |= {"aws:username": (name,), "aws:userid": (identity.id or name,)}
    ids = [identity.id] if identity.id else []
    made = requester(USER, name, [user_arn(name, identity.path)], policies, limits, about, ids, identity.canonical)
    return replace(made, rate=identity.rate)
