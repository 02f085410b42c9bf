"""STS: temporary credentials. A session is its token (http/credentials.py); nothing is stored.

A web identity is a JSON Web Token of a provider that IAM knows (tokens.py). Source: STS API reference.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

import msgspec

from s4.access import keys
from s4.access.checks import read_new
from s4.access.patterns import PolicyError
from s4.access.policy import ACCOUNT, ALLOW, DENY, Ask, Asker, parse
from s4.access.requester import ANONYMOUS, ROLE, ROOT, UNREADABLE
from s4.gateway.accounts import Accounts
from s4.http.credentials import LONGEST_S, Session, role_arn, session_arn
from s4.http.iam import tokens
from s4.http.iam.policies import check_arn
from s4.http.iam.protocol import Call, Handler, IamError, date, invalid, new_id
from s4.http.iam.roles import provider_arn
from s4.metadata.builtin import BUILT_IN
from s4.metadata.rows import Managed, Provider, Role

SESSION_POLICY = 2048
TOKEN_S = 43_200
ROOT_S = 3600  # of the account's own sessions: one that is asked for longer lasts so long (STS API: GetSessionToken)
_SESSION = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


def _credentials(call: Call, session: Session) -> dict[str, Any]:
    """Raises IamError where there is nothing to seal the token with."""
    if call.gateway.keyring is None:
        raise IamError(
            "NotImplemented", "This S4 gives no temporary credentials: start every process with --master-key."
        )
    access = new_id("ASIA", 16)
    token = call.gateway.keyring.seal(msgspec.json.encode(session).decode(), access)
    return {
        "AccessKeyId": access,
        "SecretAccessKey": session.secret,
        "SessionToken": token,
        "Expiration": date(session.until_s * 1000),
    }


async def caller_identity(call: Call) -> dict[str, Any]:
    about = call.who.about.get("aws:userid", ("",))[0]
    return {"UserId": about, "Account": ACCOUNT, "Arn": call.who.asker.arns[0]}


async def session_token(call: Call) -> dict[str, Any]:
    """For a user: what the user may do, for a time."""
    if call.who.kind in (ROLE, ANONYMOUS) or call.temporary:
        raise IamError("AccessDenied", "Cannot call GetSessionToken with session credentials")
    now, lasts = int(call.gateway.clock()), call.form.number("DurationSeconds", TOKEN_S, 900, LONGEST_S)
    lasts = min(lasts, ROOT_S) if call.who.kind == ROOT else lasts
    parent = await call.gateway.node.find_identity(f"user/{call.who.name}")
    if parent is None:
        raise IamError("AccessDenied", "The user is no more")
    session = Session(f"user/{call.who.name}", parent.id, call.who.name, secrets.token_urlsafe(30), now, now + lasts)
    return {"Credentials": _credentials(call, session)}


async def _session_policies(call: Call) -> list[str]:
    found = []
    text = call.form.get("Policy")
    if text:
        if len(text) > SESSION_POLICY:
            raise IamError("PackedPolicyTooLarge", f"A session policy has at most {SESSION_POLICY} characters")
        try:
            read_new(text)
        except PolicyError as error:
            raise IamError("MalformedPolicyDocument", str(error)) from error
        found.append(text)
    number = 1
    while arn := call.form.get(f"PolicyArns.member.{number}.arn"):
        await check_arn(call.accounts, arn)
        row = await call.accounts.get(Managed, arn.rpartition("/")[2]) if arn not in BUILT_IN else None
        found.append(row.versions[row.default][0] if row is not None else BUILT_IN[arn])
        number += 1
    return found


async def _role(accounts: Accounts, arn: str) -> Role | None:
    row = await accounts.get(Role, arn.rpartition("/")[2]) if ":role/" in arn else None
    return row if row is not None and role_arn(row.name, row.path) == arn else None


def _trusts(row: Role, ask: Ask) -> str:
    try:
        policy = parse(row.trust, principals=True, resources=False)
    except PolicyError:
        policy = UNREADABLE
    return policy.decide(ask)


def _lasts(call: Call, row: Role) -> int:
    most = 3600 if call.temporary else row.session_s  # a chain of roles lasts an hour at most
    return call.form.number("DurationSeconds", min(3600, most), 900, most)


def _name(call: Call) -> str:
    name = call.form.need("RoleSessionName")
    if not _SESSION.fullmatch(name):
        raise invalid(
            f"Value '{name}' at 'roleSessionName' must have 2 to 64 characters out of letters, digits and +=,.@_-"
        )
    return name


async def assume_role(call: Call) -> dict[str, Any]:
    """Who is trusted by name may; who is trusted as part of the account needs a policy of its own too."""
    arn, name = call.form.need("RoleArn"), _name(call)
    denied = IamError(
        "AccessDenied",
        f"User: {call.who.asker.arns[0]} is not authorized to perform: sts:AssumeRole on resource: {arn}",
    )
    row = await _role(call.accounts, arn)
    if row is None or call.who.kind == ROOT:
        raise denied
    tags = call.form.tags()
    context = {**call.context, **keys.of_labels(tags), **keys.resource_tags(row.tags)}
    if call.form.has("ExternalId"):
        context["sts:externalid"] = (call.form.get("ExternalId"),)
    context["sts:rolesessionname"] = (name,)
    for action in ("sts:AssumeRole", *(("sts:TagSession",) if tags else ())):  # tags are what policies may go by
        about = keys.for_action(context, action)
        ask = Ask(call.who.asker, action, arn, about)
        account = Ask(Asker((f"arn:aws:iam::{ACCOUNT}:root",)), action, arn, about)
        said, by_account = _trusts(row, ask), _trusts(row, account)
        if said == DENY or ALLOW not in (said, by_account) or not call.who.allowed(ask, granted=said == ALLOW):
            raise denied
    return await _assumed(call, row, name, "", tags)


async def _assumed(call: Call, row: Role, name: str, provider: str, tags: dict[str, str]) -> dict[str, Any]:
    now = int(call.gateway.clock())
    session = Session(
        f"role/{row.name}",
        row.id,
        name,
        secrets.token_urlsafe(30),
        now,
        now + _lasts(call, row),
        await _session_policies(call),
        provider,
        tags,
    )
    user = {"AssumedRoleId": f"{row.id}:{name}", "Arn": session_arn(row.name, name)}
    return {"Credentials": _credentials(call, session), "AssumedRoleUser": user}


# -- web identities


async def _claims(call: Call) -> tuple[Provider, dict[str, Any]]:
    """The provider and the claims of the token, once they are proven. Raises IamError."""
    token = call.form.need("WebIdentityToken")
    issuer, name = tokens.unverified(token)
    row = await call.accounts.get(Provider, issuer.removeprefix("https://"))
    if row is None or not issuer.startswith("https://"):
        raise IamError("InvalidIdentityToken", "No OpenIDConnect provider found in your account for the token's issuer")
    claims = tokens.verified(token, await tokens.key_of(row.url, name, row.keys), row.clients, issuer)
    return row, claims


async def assume_with_web_identity(call: Call) -> dict[str, Any]:
    arn, name = call.form.need("RoleArn"), _name(call)
    provider, claims = await _claims(call)
    row = await _role(call.accounts, arn)
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    about = {f"{provider.url.lower()}:{key}": (str(claims[key]),) for key in ("sub", "email", "azp") if key in claims}
    action = "sts:AssumeRoleWithWebIdentity"
    context = {
        **call.context,
        **about,
        **(keys.resource_tags(row.tags) if row is not None else {}),
        f"{provider.url.lower()}:aud": tuple(map(str, audience)),
        "sts:rolesessionname": (name,),
    }
    asker = Asker((provider_arn(provider.url), provider.url))
    if row is None or _trusts(row, Ask(asker, action, arn, keys.for_action(context, action))) != ALLOW:
        raise IamError("AccessDenied", f"Not authorized to perform {action}")
    made = await _assumed(call, row, name, provider_arn(provider.url), {})
    return {
        **made,
        "SubjectFromWebIdentityToken": str(claims["sub"]),
        "Audience": str(audience[0]),
        "Provider": provider_arn(provider.url),
    }


OPERATIONS: dict[str, Handler] = {
    "GetCallerIdentity": caller_identity,
    "GetSessionToken": session_token,
    "AssumeRole": assume_role,
    "AssumeRoleWithWebIdentity": assume_with_web_identity,
}
