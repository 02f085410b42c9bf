"""One call of IAM or STS: read, authenticate, authorize, do it as one step, answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace

from s4.access import keys
from s4.access.actions import ON
from s4.access.policy import ACCOUNT, Ask
from s4.access.reasons import why_not
from s4.access.requester import ANONYMOUS, ROOT, USER, Requester, user_arn
from s4.gateway.accounts import Accounts, change
from s4.gateway.context import Gateway
from s4.http.admission import Admission
from s4.http.answers import Answer, respond
from s4.http.authorize import context_of
from s4.http.credentials import find, role_arn
from s4.http.doorstep import Doorstep
from s4.http.iam import policies, protocol, roles, sts, users
from s4.http.iam.asked import TAGGING, asked, tags_of
from s4.http.iam.protocol import Call, Form, Handler, IamError
from s4.http.request import S3Request
from s4.metadata.rows import Group, Role, User
from s4.s3 import amz, sigv4
from s4.s3.errors import S3Error

log = structlog.get_logger("s4.iam")

IAM: dict[str, Handler] = {**policies.OPERATIONS, **users.OPERATIONS, **roles.OPERATIONS}
OPEN = frozenset(
    ("GetCallerIdentity", "GetSessionToken", "AssumeRole", "AssumeRoleWithWebIdentity")
)  # decide themselves
UNSIGNED = "AssumeRoleWithWebIdentity"
XML = "text/xml"


def is_call(request: S3Request) -> bool:
    """Whether a request speaks the query protocol: S3 has no form at its root."""
    if request.method != "POST" or request.path != "/":
        return False
    return request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


class QueryEndpoint:
    """IAM and STS over one gateway."""

    def __init__(
        self,
        gateway: Gateway,
        region: str,
        clock: Callable[[], float],
        note: Callable[[sigv4.Claim], None],
        doorstep: Doorstep,
        admission: Admission,
    ) -> None:
        self._gateway, self._region, self._clock, self._note = gateway, region, clock, note
        self._doorstep, self._admission = doorstep, admission

    async def __call__(self, request: S3Request) -> Answer:
        service = "iam"
        try:
            amz.check(amz.QUERY, request.headers)
            # a hash that is given is that of the body, signed or not
            request.payload = sigv4.unsigned_payload(request.headers)
            async with self._doorstep.place(request):
                body = await request.small_body(protocol.FORM_BYTES)
            form = protocol.read_form(body)
            action = form.get("Action")
            service = "sts" if action in sts.OPERATIONS else "iam"
            request.operation = action if action in IAM or action in sts.OPERATIONS else "Unknown"
            await self._authenticate(request, body, service)
            if (
                request.claim is not None
            ):  # who brings a token of another issuer is at the door until that one was asked
                await self._admission.enter(request)
            handler = (sts.OPERATIONS if service == "sts" else IAM).get(action)
            if request.requester.kind == ANONYMOUS and action != UNSIGNED:
                raise S3Error("AccessDenied", "Request is missing Authentication Token")
            if handler is None:
                raise IamError("InvalidAction", f"Could not find operation {action} for version {form.get('Version')}")
            result = await self._do(handler, action, service, form, request)
        except (IamError, S3Error) as error:
            request.failure = error.code
            request.refusal = refused = S3Error(error.code, error.message)
            refused.why = error.why
            status, text = protocol.failure(service, error, request.id)
            return respond(status, {"Content-Type": XML}, text)
        return respond(200, {"Content-Type": XML}, protocol.answer(service, action, result, request.id))

    async def _authenticate(self, request: S3Request, body: bytes, service: str) -> None:
        signed = sigv4.Request(request.method, request.path, request.pairs, request.headers)
        claim = sigv4.parse(signed)
        if claim is None:
            return
        if claim.service != service:
            raise S3Error("SignatureDoesNotMatch", f"Credential should be scoped to correct service: '{service}'.")
        claim = replace(claim, payload_hash=hashlib.sha256(body).hexdigest())
        secret, who = await find(self._gateway, claim)
        limits = request.limits
        sigv4.check(claim, signed, secret, self._region, self._clock(), limits.clock_skew_s, limits.presign_s)
        request.claim, request.requester = claim, who
        self._note(claim)

    async def _do(
        self, handler: Handler, action: str, service: str, form: Form, request: S3Request
    ) -> Mapping[str, Any]:
        context = context_of(request, self._clock)

        async def work(accounts: Accounts) -> dict[str, Any]:
            temporary = request.claim is not None and bool(request.claim.token)
            if service == "iam":
                check_lasting(request.requester, temporary=temporary)
            call = Call(self._gateway, form, request.requester, accounts, context, temporary)
            if action not in OPEN:
                await judge(call, action)
            done = await handler(call)
            form.check()  # before anything of it is committed
            return done

        return await change(self._gateway, work)


def check_lasting(who: Requester, *, temporary: bool) -> None:
    """What outlives a session, such as a key, is not for a user's session to make: as on AWS without MFA, which S4 has
    not. Raises IamError."""
    if temporary and who.kind in (ROOT, USER):
        raise IamError("InvalidClientTokenId", "A user's session cannot call IAM: use the user's own access key.")


async def do(call: Call, action: str) -> Mapping[str, Any]:
    """Judge and do a call of IAM. Raises IamError."""
    await judge(call, action)
    return await IAM[action](call)


async def judge(call: Call, action: str) -> None:
    """Raises IamError where the caller may not do a call of IAM."""
    resource, about = await _resource(call, action), await asked(call, action, KINDS.get(action, ""))
    needed = [action, *([TAGGING[action]] if action in TAGGING and tags_of(call, action) else [])]
    for name in needed:
        context = keys.for_action({**call.context, **about}, f"iam:{name}")
        for one in (resource, *_becomes(call, action, resource)):
            ask = Ask(call.who.asker, f"iam:{name}", one, context)
            if not call.who.allowed(ask):
                denied = IamError(
                    "AccessDenied",
                    f"User: {call.who.asker.arns[0]} is not authorized to perform: iam:{name} on resource: {one}",
                )
                denied.why = partial(why_not, call.who, ask, None)
                raise denied


# What each operation is about. Of the operation alone: a parameter that it does not read must not say it.
KINDS: dict[str, str] = {
    **{name: kind for kind, names in ON.items() for name in names},
    **dict.fromkeys((*users.OF_GROUPS, *policies.Held("Group").operations()), "group"),
    "CreatePolicy": "new policy",
    "CreateOpenIDConnectProvider": "new provider",
}


def _becomes(call: Call, action: str, resource: str) -> list[str]:
    """The ARN that a user or group has afterwards, where a call moves it: who may not touch what is there moves
    nothing there."""
    if action not in ("UpdateUser", "UpdateGroup"):
        return []
    kind, _, rest = resource.partition("/")
    path, _, name = f"/{rest}".rpartition("/")
    new_name = call.form.get("NewGroupName" if action == "UpdateGroup" else "NewUserName", name)
    return [f"{kind}{call.form.get('NewPath', path + '/')}{new_name}"]


async def _resource(call: Call, action: str) -> str:
    """The ARN of what a call is about; `*` where it is about no single thing."""
    form, accounts, kind = call.form, call.accounts, KINDS.get(action, "")
    if kind == "policy":
        return form.get("PolicyArn")
    if kind == "new policy":
        return f"arn:aws:iam::{ACCOUNT}:policy{form.get('Path', '/')}{form.get('PolicyName')}"
    if kind == "provider":
        return form.get("OpenIDConnectProviderArn")
    if kind == "new provider":
        return roles.provider_arn(form.get("Url").removeprefix("https://"))
    if kind == "group":
        group = await accounts.get(Group, form.get("GroupName"))
        return f"arn:aws:iam::{ACCOUNT}:group{group.path if group else form.get('Path', '/')}{form.get('GroupName')}"
    if kind == "role":
        role = await accounts.get(Role, form.get("RoleName"))
        return role_arn(form.get("RoleName"), role.path if role else form.get("Path", "/"))
    if kind == "user" and not form.has("UserName"):
        return call.who.asker.arns[0]
    if kind == "user":
        user = await accounts.get(User, form.get("UserName"))
        return user_arn(form.get("UserName"), user.path if user else form.get("Path", "/"))
    return "*"
