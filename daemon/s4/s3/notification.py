"""Notification configurations as requests and answers write them. Pure. Source: API:
PutBucketNotificationConfiguration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from s4.metadata.events import NAMES, NotificationRule
from s4.s3.errors import S3Error
from s4.s3.xml import Element, tag

MOST_RULES = 100
KINDS = {"QueueConfiguration": "Queue", "TopicConfiguration": "Topic"}  # S4 tells no difference
_OTHERS = ("CloudFunctionConfiguration", "LambdaFunctionConfiguration", "EventBridgeConfiguration")


def from_xml(root: Element, receivers: Collection[str], ids: Iterable[str]) -> list[NotificationRule]:
    """The rules of a configuration; none is an empty one. `ids` gives those that a client leaves out. Raises
    S3Error."""
    rules, fresh = [], iter(ids)
    for child in root.children:
        if child.name in _OTHERS:
            raise S3Error("NotImplemented", "S4 tells queues and topics: name a receiver in one of these.")
        if child.name not in KINDS:
            raise S3Error("MalformedXML")
        rules.append(_rule(child, receivers, fresh))
    if len(rules) > MOST_RULES:
        raise S3Error("TooManyConfigurations")
    if len({rule.id for rule in rules}) != len(rules):
        raise S3Error("InvalidArgument", "Same ID used for multiple configurations.")
    return rules


def _rule(element: Element, receivers: Collection[str], ids: Iterable[str]) -> NotificationRule:
    kind = KINDS[element.name]
    arns, events = [one.text for one in element.all(kind)], [one.text for one in element.all("Event")]
    known = {"Id", kind, "Event", "Filter"}
    if len(arns) != 1 or not events or not known.issuperset(child.name for child in element.children):
        raise S3Error("MalformedXML")
    target = arns[0].rpartition(":")[2]
    if not arns[0].startswith("arn:") or target not in receivers:
        raise S3Error(
            "InvalidArgument",
            "Unable to validate the following destination configurations",
            ArgumentName=arns[0],
            ArgumentValue="The ARN ends in the name of no receiver that this S4 was given with --receivers.",
        )
    name = element.get("Id") or next(iter(ids))
    if len(name) > 255 or not name.isprintable():
        raise S3Error("InvalidArgument", "The ID has at most 255 printable characters.")
    return NotificationRule(name, kind, arns[0], target, [_event(one) for one in events], **_filter(element))


def _event(text: str) -> str:
    name = text.removeprefix("s3:")
    stem = name.removesuffix("*")
    matches = name in NAMES or (name != stem and stem.endswith(":") and any(one.startswith(stem) for one in NAMES))
    if not matches or name == text:
        raise S3Error(
            "InvalidArgument",
            "A specified event is not supported for notifications.",
            ArgumentName="Event",
            ArgumentValue=text,
        )
    return name


def _filter(element: Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for outer in element.all("Filter"):
        for inner in outer.all("S3Key"):
            for one in inner.all("FilterRule"):
                name, value = (one.get("Name") or "").lower(), one.get("Value") or ""
                if name not in ("prefix", "suffix"):
                    raise S3Error(
                        "InvalidArgument",
                        "filter rule name must be either prefix or suffix",
                        ArgumentName="FilterRule.Name",
                    )
                if name in found:
                    raise S3Error(
                        "InvalidArgument",
                        f"Cannot specify more than one {name} rule in a filter.",
                        ArgumentName="FilterRule.Name",
                    )
                if len(value.encode()) > 1024:
                    raise S3Error(
                        "InvalidArgument", "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation"
                    )
                found[name] = value
    return found


def to_xml(rules: Sequence[NotificationRule]) -> str:
    outer = {kind: name for name, kind in KINDS.items()}
    return "".join(f"<{outer[rule.kind]}>{_to_xml(rule)}</{outer[rule.kind]}>" for rule in rules)


def _to_xml(rule: NotificationRule) -> str:
    filters = "".join(
        f"<FilterRule>{tag('Name', name)}{tag('Value', value)}</FilterRule>"
        for name, value in (("prefix", rule.prefix), ("suffix", rule.suffix))
        if value
    )
    shown = f"<Filter><S3Key>{filters}</S3Key></Filter>" if filters else ""
    return (
        tag("Id", rule.id)
        + tag(rule.kind, rule.arn)
        + "".join(tag("Event", f"s3:{one}") for one in rule.events)
        + shown
    )
