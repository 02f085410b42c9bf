"""Policy evaluation once more, as small and slow as can be: over the JSON itself, with wildcards by recursion."""

from __future__ import annotations

import ipaddress
from typing import Any


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


LITERAL = {"\x01": "*", "\x02": "?"}  # a star or question mark that a variable brought is no wildcard


def like(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] in LITERAL:
        return bool(text) and text[0] == LITERAL[pattern[0]] and like(pattern[1:], text[1:])
    if pattern[0] == "*":
        return any(like(pattern[1:], text[skip:]) for skip in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and like(pattern[1:], text[1:])


def fill(text: str, context: dict[str, list[str]]) -> str | None:
    if "${" not in text:
        return text
    front, _, rest = text.partition("${")
    name, _, back = rest.partition("}")
    name, comma, default = name.partition(",")
    values = context.get(name.lower(), [])
    tail = fill(back, context)
    if len(values) != 1 and comma and tail is not None:
        return front + default.strip().strip("'") + tail
    return (
        None if len(values) != 1 or tail is None else front + values[0].replace("*", "\x01").replace("?", "\x02") + tail
    )


def one(operator: str, have: str, want: str) -> bool:
    if operator == "StringEquals":
        return have == want.replace("\x01", "*").replace("\x02", "?")
    if operator == "StringLike":
        return like(want, have)
    if operator == "NumericLessThan":
        return float(have) < float(want)
    if operator == "Bool":
        return have.lower() == want.lower()
    if operator == "IpAddress":
        return ipaddress.ip_address(have) in ipaddress.ip_network(want)
    raise AssertionError(operator)


def condition(name: str, key: str, wanted: list[str], context: dict[str, list[str]]) -> bool:
    have = context.get(key.lower(), [])
    if name == "Null":
        return any((want == "true") == (not have) for want in wanted)
    every = name.startswith("ForAllValues:")
    some = name.startswith("ForAnyValue:")
    operator = name.rsplit(":", maxsplit=1)[-1]
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    negated = "Not" in operator
    operator = operator.replace("Not", "")
    if not have:
        return if_exists or every or (negated and not some)
    if operator.startswith("String"):
        wanted = [text for text in (fill(want, context) for want in wanted) if text is not None]
    results = []
    for value in have:
        hit = any(one(operator, value, want) for want in wanted)
        results.append(not hit if negated else hit)
    return all(results) if every or (negated and not some) else any(results)


def applies(
    statement: dict[str, Any], who: str | None, action: str, resource: str, context: dict[str, list[str]]
) -> bool:
    if "Principal" in statement:
        named = statement["Principal"] == "*" or (who is not None and who in as_list(statement["Principal"]["AWS"]))
        if not named:
            return False
    if "NotPrincipal" in statement and who is not None and who in as_list(statement["NotPrincipal"]["AWS"]):
        return False
    if "Action" in statement and not any(like(one.lower(), action.lower()) for one in as_list(statement["Action"])):
        return False
    if "NotAction" in statement and statement["Effect"] == "Allow" and action.lower().split(":")[0] == "s4":
        return False  # S4's own administration is given by name or by `*` only
    if "NotAction" in statement and any(like(one.lower(), action.lower()) for one in as_list(statement["NotAction"])):
        return False
    named = any(
        text is not None and like(text, resource)
        for text in (fill(one, context) for one in as_list(statement.get("Resource", statement.get("NotResource"))))
    )
    if named == ("NotResource" in statement):
        return False
    return all(
        condition(name, key, as_list(wanted), context)
        for name, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def decide(document: dict[str, Any], who: str | None, action: str, resource: str, context: dict[str, list[str]]) -> str:
    effects = [one["Effect"] for one in as_list(document["Statement"]) if applies(one, who, action, resource, context)]
    return "Deny" if "Deny" in effects else "Allow" if effects else ""
