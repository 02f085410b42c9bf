"""The query protocol: a form with an Action in, XML out. Source: IAM and STS API references, "Making query
requests"."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

from s4.access.checks import read_new
from s4.access.patterns import PolicyError
from s4.access.policy import ACCOUNT
from s4.access.requester import Requester
from s4.gateway.accounts import Accounts
from s4.gateway.context import Gateway
from s4.s3 import names
from s4.s3.errors import S3Error, text

NAMESPACES = {"iam": "https://iam.amazonaws.com/doc/2010-05-08/", "sts": "https://sts.amazonaws.com/doc/2011-06-15/"}
FORM_BYTES = 512 * 1024
PAGE = 100
_NAME = re.compile(r"[\w+=,.@-]+", re.ASCII)
_ARN = re.compile(rf"arn:aws:iam::({ACCOUNT}|aws):[\x21-\x7e]+")
_PATH = re.compile(r"/|/[\x21-\x7e]+/")
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

# Statuses of errors. Source: IAM API reference, each operation's "Errors", and "Common errors".
STATUS = {
    "AccessDenied": 403,
    "NoSuchEntity": 404,
    "EntityAlreadyExists": 409,
    "DeleteConflict": 409,
    "LimitExceeded": 409,
    "MalformedPolicyDocument": 400,
    "ValidationError": 400,
    "InvalidInput": 400,
    "InvalidAction": 400,
    "MissingAction": 400,
    "UnmodifiableEntity": 400,
    "PolicyNotAttachable": 400,
    "PackedPolicyTooLarge": 400,
    "ExpiredTokenException": 400,
    "InvalidIdentityToken": 400,
    "IDPCommunicationError": 400,
    "IDPRejectedClaim": 403,
    "InvalidClientTokenId": 403,
    "NotImplemented": 501,
}

T = TypeVar("T")


class IamError(Exception):
    """An answer other than success."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, STATUS[code]
        self.why: Callable[[], str] | None = None  # for the log, as S3Error has it


def missing(what: str, name: str) -> IamError:
    return IamError("NoSuchEntity", f"The {what} with name {name} cannot be found.")


def exists(what: str, name: str) -> IamError:
    return IamError("EntityAlreadyExists", f"{what} with name {name} already exists.")


def invalid(message: str) -> IamError:
    return IamError("ValidationError", message)


class Form:
    """The parameters of a call. What no operation read of them was not obeyed, and is refused (`check`)."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._read = {"Action", "Version"}

    def check(self) -> None:
        """Raises IamError where the call says what nobody read. An empty value is how SDKs write an empty list."""
        for name, value in self._values.items():
            if value and name not in self._read:
                raise IamError("NotImplemented", f"S4 does not implement the parameter {name} of this call.")

    def _value(self, name: str) -> str | None:
        self._read.add(name)
        return self._values.get(name)

    def get(self, name: str, default: str = "") -> str:
        value = self._value(name)
        return default if value is None else value

    def has(self, name: str) -> bool:
        return name in self._values

    def need(self, name: str) -> str:
        value = self._value(name)
        if not value:
            raise invalid(
                f"1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
            )
        return value

    def text(self, parameter: str, most: int, default: str = "") -> str:
        value = self.get(parameter, default)
        if len(value) > most:
            raise invalid(f"Value at '{parameter}' must have at most {most} characters")
        return value

    def one_of(self, parameter: str, *values: str) -> str:
        """One of the values, or empty where it is not there."""
        value = self.get(parameter)
        if value and value not in values:
            raise invalid(f"Value '{value}' at '{parameter}' must be one of {', '.join(values)}")
        return value

    def name(self, parameter: str, most: int = 64) -> str:
        """A name by IAM's rules."""
        value = self.need(parameter)
        if len(value) > most or not _NAME.fullmatch(value):
            raise invalid(
                f"The specified value for {parameter} is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_- and have at most {most} characters"
            )
        return value

    def arn(self, parameter: str) -> str:
        value = self.need(parameter)
        if not 20 <= len(value) <= 2048:
            raise invalid(f"ARN {value} is not valid.")
        if not _ARN.fullmatch(value):
            raise IamError("InvalidInput", f"ARN {value} is not valid.")
        return value

    def path(self, parameter: str = "Path") -> str:
        value = self.get(parameter, "/")
        if len(value) > 512 or not _PATH.fullmatch(value):
            raise invalid(
                f"The specified value for {parameter} is invalid. It must begin and end with / and contain only visible characters"
            )
        return value

    def number(self, parameter: str, default: int, least: int, most: int) -> int:
        value = self.get(parameter) or str(default)
        found = names.number(value, least, most)
        if found is None:
            raise invalid(f"Value '{value}' at '{parameter}' must be a number between {least} and {most}")
        return found

    def members(self, parameter: str) -> list[str]:
        """The values of `parameter.member.1` and on."""
        found: list[str] = []
        while (value := self._value(f"{parameter}.member.{len(found) + 1}")) is not None:
            found.append(value)
        return found

    def tags(self) -> dict[str, str]:
        found: dict[str, str] = {}
        number = 1
        while (key := self._value(f"Tags.member.{number}.Key")) is not None:
            value = self.get(f"Tags.member.{number}.Value")
            if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
                raise IamError("InvalidInput", f"The tag {key!r} is not valid")
            if key.lower() in (one.lower() for one in found):
                raise IamError(
                    "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive."
                )
            found[key] = value
            number += 1
        return bounded_tags(found)

    def document(self, parameter: str = "PolicyDocument", most: int = 6144, *, trust: bool = False) -> str:
        """A policy, as it was sent."""
        value = self.need(parameter)
        if len("".join(value.split())) > most:
            raise IamError("LimitExceeded", f"Maximum policy size of {most} bytes exceeded")
        try:
            read_new(value, principals=trust, resources=not trust)
        except PolicyError as error:
            raise IamError("MalformedPolicyDocument", str(error)) from error
        return value


def bounded_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > 50:
        raise IamError("LimitExceeded", "There can be at most 50 tags")
    return tags


@dataclass(slots=True)
class Call:
    """One call: what is asked, by whom."""

    gateway: Gateway
    form: Form
    who: Requester
    accounts: Accounts
    context: Mapping[str, tuple[str, ...]]
    temporary: bool  # the caller is a session

    async def room(self, kind: Any, name: str) -> None:
        """Raises IamError where there are as many of a kind as there may be."""
        most = self.gateway.limits.users
        if len(await self.accounts.all(kind)) >= most:
            raise IamError("LimitExceeded", f"Cannot exceed quota for {name}PerAccount: {most}")

    async def taken(self, kind: Any, name: str, *, but: str = "") -> bool:
        """Whether there is one of a kind whose name differs in case at most; `but` one that gets the name."""
        if await self.accounts.get(kind, name) is not None:
            return True
        return any(one.casefold() == name.casefold() and one != but for one, _ in await self.accounts.all(kind))

    def page(self, rows: Iterable[T], name: Callable[[T], str]) -> tuple[list[T], dict[str, Any]]:
        """The rows after Marker, at most MaxItems of them, and what says whether there are more."""
        marker, most = self.form.get("Marker"), self.form.number("MaxItems", PAGE, 1, 1000)
        left = [row for row in sorted(rows, key=name) if not marker or name(row) > marker]
        page = left[:most]
        more: dict[str, Any] = {"IsTruncated": len(left) > most}
        if len(left) > most:
            more["Marker"] = name(page[-1])
        return page, more


Handler = Callable[[Call], Awaitable[dict[str, Any]]]


def new_id(prefix: str, length: int = 17) -> str:
    return prefix + "".join(secrets.choice(_BASE32) for _ in range(length))


def date(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))


def quoted(document: str) -> str:
    """A document as IAM gives it."""
    return quote(document, safe="")


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def to_xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{name}>{to_xml(one)}</{name}>" for name, one in value.items() if one is not None)
    if isinstance(value, list):
        return "".join(f"<member>{to_xml(one)}</member>" for one in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(str(value))


def answer(service: str, action: str, result: Mapping[str, Any], request_id: str) -> bytes:
    inner = f"<{action}Result>{to_xml(result)}</{action}Result>"
    return (
        f'<{action}Response xmlns="{NAMESPACES[service]}">{inner}<ResponseMetadata><RequestId>{request_id}</RequestId>'
        f"</ResponseMetadata></{action}Response>"
    ).encode()


def failure(service: str, error: IamError | S3Error, request_id: str) -> tuple[int, bytes]:
    """(status, body)."""
    kind = "Sender" if error.status < 500 else "Receiver"
    code = "InvalidClientTokenId" if error.code == "InvalidAccessKeyId" else error.code
    body = (
        f'<ErrorResponse xmlns="{NAMESPACES[service]}"><Error><Type>{kind}</Type><Code>{code}</Code>'
        f"<Message>{text(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return error.status, body.encode()


def read_form(body: bytes) -> Form:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except (UnicodeDecodeError, ValueError) as error:
        raise invalid("The request's body is no form") from error
    values: dict[str, str] = {}
    for name, value in pairs:
        if values.setdefault(name, value) != value:
            raise invalid(f"The parameter {name} is given twice, with different values")
    return Form(values)
