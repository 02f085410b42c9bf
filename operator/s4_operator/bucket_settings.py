"""What a Bucket asks of its bucket beside keys: one row of SETTINGS each, how it is made and taken back.

A setting that is asked for is made as asked in every round, over whatever S3's clients did to it. One that is not asked
for is left to them. One that was asked for and is no more is taken back, once: which those are is in the status,
written before anything is done (buckets.py). All that makes up who else gets in is one row's work: `access`, `grants`,
`policy` and `publicAccessBlock` are statements of one policy, of which those of S3's clients stay, and one block.

Where several Buckets ask for one setting of a bucket and not for the same, the one that comes first has it, and the
others say so (without). A Bucket that was lent its bucket takes back all of it when that ends (end), but what somebody
has changed since: what each setting was like once it was made is in the status too (marks). Its statements have names
of its own, and stand beside those of the Bucket that made the bucket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from s4.access.checks import read_new_of_bucket
from s4.access.patterns import PolicyError
from s4.metadata.events import NotificationRule
from s4.s3 import cors, encryption, notification, tags, website
from s4.s3.lifecycle import Rule
from s4.s3.lock import Default
from s4.s3.xml import document
from s4_operator import ownership
from s4_operator.bucket_models import BucketRate, BucketSpec, BucketWebsite, ClusterRef, LifecycleRule, RedirectRule
from s4_operator.daemons import DaemonError, Daemons, parts
from s4_operator.iam import Document
from s4_operator.models import Rates, size
from s4_operator.resources import UnmetError
from s4_operator.sweep import BUCKET_USER

OURS = "S4Operator"  # what Sids of the operator's statements begin with, of a Bucket that made its bucket
OWN_TAGS = "s4.dev/"  # what tags that are not this resource's to set begin with
ROLES = {
    "Reader": ("s3:Get*", "s3:List*"),
    "Writer": ownership.USES,
    "Owner": (*ownership.USES, *ownership.OWNS),
}
BLOCK = {
    "BlockPublicAcls": "blockPublicAcls",
    "IgnorePublicAcls": "ignorePublicAcls",
    "BlockPublicPolicy": "blockPublicPolicy",
    "RestrictPublicBuckets": "restrictPublicBuckets",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a Bucket asks for, and what of it others decide: rates of all buckets, who is granted what."""

    spec: BucketSpec
    rates: Rates
    grants: dict[str, list[str]] = field(default_factory=dict)  # ARNs of users by role
    sids: tuple[str, ...] = (OURS,)  # what Sids of its statements begin with: the first now, the others once


def check(spec: BucketSpec, name: str) -> None:
    """Raises UnmetError where the daemons' parser would not take the policy."""
    if spec.policy is None:
        return
    if spec.policy.get("Version") != "2012-10-17":
        raise UnmetError("MalformedPolicy", 'policy needs "Version": "2012-10-17"')
    try:
        read_new_of_bucket(json.dumps({**spec.policy, "Statement": _said(spec, name, OURS)}), name)
    except PolicyError as error:
        raise UnmetError("MalformedPolicy", f"policy: {error}") from error


# -- one function for each setting


async def _quota(daemons: Daemons, name: str, asked: Asked) -> None:
    quota = asked.spec.quota
    await daemons.put_quota(name, size(quota) if quota is not None else 0)


async def _rate(daemons: Daemons, name: str, asked: Asked) -> None:
    await daemons.put_rate(name, *rate_of(asked.spec.rate, asked.rates))


async def _cors(daemons: Daemons, name: str, asked: Asked) -> None:
    rules = [
        cors.CorsRule(
            one.allowedOrigins, list(one.allowedMethods), one.allowedHeaders, one.exposeHeaders, one.maxAgeSeconds
        )
        for one in asked.spec.cors
    ]
    await daemons.put_cors(name, rules)


async def _lifecycle(daemons: Daemons, name: str, asked: Asked) -> None:
    await daemons.put_lifecycle(
        name, [lifecycle_rule(number, one) for number, one in enumerate(asked.spec.lifecycle, 1)]
    )


async def _encryption(daemons: Daemons, name: str, asked: Asked) -> None:
    how = asked.spec.encryption
    await daemons.put_encryption(name, encryption.Default(how.mode, how.key or "") if how is not None else None)


async def _lock(daemons: Daemons, name: str, asked: Asked) -> None:
    """For good: where it is not asked for any more the API server has refused that."""
    wanted = asked.spec.objectLock
    if wanted is not None:
        await daemons.put_lock(name, Default(wanted.mode, wanted.days or 0, wanted.years or 0) if wanted.mode else None)


async def _tags(daemons: Daemons, name: str, asked: Asked) -> None:
    kept = {key: value for key, value in (await ownership.tags(daemons, name)).items() if key.startswith(OWN_TAGS)}
    wanted = {**asked.spec.tags, **kept}
    if wanted:
        await daemons.s3("PUT", f"/{quote(name)}?tagging=", document("Tagging", tags.to_xml(wanted)))
    else:
        await daemons.s3("DELETE", f"/{quote(name)}?tagging=")


async def _notifications(daemons: Daemons, name: str, asked: Asked) -> None:
    rules = [
        NotificationRule(
            f"s4-{number}",
            "Queue",
            f"arn:aws:sqs:us-east-1:000000000000:{one.receiver}",
            one.receiver,
            [event.removeprefix("s3:") for event in one.events],
            one.prefix,
            one.suffix,
        )
        for number, one in enumerate(asked.spec.notifications, 1)
    ]
    body = document("NotificationConfiguration", notification.to_xml(rules))
    await daemons.s3("PUT", f"/{quote(name)}?notification=", body)


async def _website(daemons: Daemons, name: str, asked: Asked) -> None:
    site = asked.spec.website
    if site is None:
        await daemons.s3("DELETE", f"/{quote(name)}?website=")
    else:
        body = document("WebsiteConfiguration", website.to_xml(site_of(site)))
        await daemons.s3("PUT", f"/{quote(name)}?website=", body)


# -- who else gets in


async def _statements(daemons: Daemons, name: str, asked: Asked) -> None:
    """The operator's statements of the bucket's policy, as asked for now; other ones stay."""
    policy: Document = {"Version": "2012-10-17", "Statement": []}
    try:
        policy = json.loads(await daemons.s3("GET", f"/{quote(name)}?policy="))
    except DaemonError as error:
        if error.code != "NoSuchBucketPolicy":
            raise
    held = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    wanted = [one for one in held if not str(one.get("Sid", "")).startswith(asked.sids)] + _ours(name, asked)
    if wanted == held:
        return
    if wanted:
        await daemons.s3("PUT", f"/{quote(name)}?policy=", json.dumps({**policy, "Statement": wanted}).encode())
    else:
        await daemons.s3("DELETE", f"/{quote(name)}?policy=")


def _ours(name: str, asked: Asked) -> list[Document]:
    arns, sid = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"], asked.sids[0]
    found: list[Document] = []
    if asked.spec.access == "PublicRead":
        everybody: Document = {"Sid": f"{sid}PublicRead", "Effect": "Allow", "Principal": "*"}
        found.append({**everybody, "Action": "s3:GetObject", "Resource": arns[1]})
    for role, users in sorted(asked.grants.items()):
        who: Document = {"Sid": f"{sid}{role}", "Effect": "Allow", "Principal": {"AWS": sorted(users)}}
        found.append({**who, "Action": list(ROLES[role]), "Resource": arns})
    return found + _said(asked.spec, name, sid)


def _said(spec: BucketSpec, name: str, sid: str) -> list[Any]:
    """The statements of `policy`, each with a name that tells whose it is, and with the bucket where it names none."""
    if spec.policy is None:
        return []
    listed = spec.policy.get("Statement", [])
    arns = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    made: list[Any] = []
    for number, one in enumerate(listed if isinstance(listed, list) else [listed], 1):
        if not isinstance(one, dict):
            made.append(one)
            continue
        where = {} if {"Resource", "NotResource"} & one.keys() else {"Resource": arns}
        made.append({**one, **where, "Sid": f"{sid}Policy{number}{one.get('Sid', '')}"})
    return made


async def _block(daemons: Daemons, name: str, asked: Asked) -> None:
    flags = block_of(asked.spec)
    body = "".join(f"<{part}>{str(value).lower()}</{part}>" for part, value in flags.items())
    await daemons.s3("PUT", f"/{quote(name)}?publicAccessBlock=", document("PublicAccessBlockConfiguration", body))


def block_of(spec: BucketSpec) -> dict[str, bool]:
    """As asked for; else what `access` needs; else all, as of a new bucket."""
    if spec.publicAccessBlock is not None:
        return {part: bool(getattr(spec.publicAccessBlock, called)) for part, called in BLOCK.items()}
    return {part: part.endswith("Acls") or spec.access != "PublicRead" for part in BLOCK}


async def _others(daemons: Daemons, name: str, asked: Asked, touched: set[str]) -> None:
    """A block refuses what it blocks: it goes before what it would refuse, and comes after."""
    steps = []
    if {"access", "grants", "policy"} & touched:
        steps.append(_statements)
    if {"access", "publicAccessBlock"} & touched:
        steps.append(_block)
    if not block_of(asked.spec)["BlockPublicPolicy"]:
        steps.reverse()
    for step in steps:
        await step(daemons, name, asked)


# -- all of them

Put = Callable[[Daemons, str, Asked], Awaitable[None]]

# In this order: (its name, whether a Bucket asks for it, how it is made or taken back).
SETTINGS: tuple[tuple[str, Callable[[BucketSpec], bool], Put | None], ...] = (
    ("quota", lambda spec: spec.quota is not None, _quota),
    ("rate", lambda spec: spec.rate is not None, _rate),
    ("cors", lambda spec: bool(spec.cors), _cors),
    ("lifecycle", lambda spec: bool(spec.lifecycle), _lifecycle),
    ("encryption", lambda spec: spec.encryption is not None, _encryption),
    ("objectLock", lambda spec: spec.objectLock is not None, _lock),
    ("tags", lambda spec: bool(spec.tags), _tags),
    ("notifications", lambda spec: bool(spec.notifications), _notifications),
    ("website", lambda spec: spec.website is not None, _website),
    ("access", lambda spec: spec.access != "Private", None),  # these four together: _others
    ("grants", lambda spec: bool(spec.grants), None),
    ("policy", lambda spec: spec.policy is not None, None),
    ("publicAccessBlock", lambda spec: spec.publicAccessBlock is not None, None),
)


def asked_for(spec: BucketSpec) -> set[str]:
    return {name for name, is_asked, _ in SETTINGS if is_asked(spec)}


def without(spec: BucketSpec, first: BucketSpec) -> tuple[BucketSpec, list[str]]:
    """A Bucket's spec without what another Bucket of the same bucket asks for that comes first and asks otherwise, and
    what that is. Statements of both stand beside each other."""
    both = asked_for(spec) & asked_for(first) - {"grants", "policy"}
    taken = {setting for setting in both if getattr(spec, setting) != getattr(first, setting)}
    if spec.versioning != first.versioning and "Off" not in (spec.versioning, first.versioning):
        taken.add("versioning")
    block = {"access", "publicAccessBlock"}
    if block & asked_for(first) and block_of(spec) != block_of(first):
        taken |= block & asked_for(spec)
    fields = BucketSpec.model_fields
    nothing = {setting: fields[setting].get_default(call_default_factory=True) for setting in taken}
    return spec.model_copy(update=nothing), sorted(taken)


async def put(daemons: Daemons, name: str, asked: Asked, touched: set[str]) -> None:
    """Make those of the touched settings that are asked for, and take the others back. Raises DaemonError."""
    for setting, _, made in SETTINGS:
        if made is not None and setting in touched:
            await made(daemons, name, asked)
    await _others(daemons, name, asked, touched)


# -- of a bucket that is lent


def lent_sids(uid: str, owner: str) -> tuple[str, ...]:
    """`sids` of a Bucket that was lent its bucket. What 0.7 wrote for it has the name that owners' statements have:
    where the owner is no Bucket (sweep.py), that is its own too."""
    mine = f"S4Lent{uid[:8]}"
    return (mine,) if owner.startswith(BUCKET_USER) else (mine, OURS)


_NUMBERS = {"quota": ("quota_bytes",), "rate": ("requests_per_s", "bytes_per_s")}  # as the admin port has them


async def marks(daemons: Daemons, name: str, settings: set[str]) -> dict[str, str]:
    """What settings of a bucket are like, to tell later whether somebody changed them; of those alone that can be
    taken back and are one's own as a whole. Raises DaemonError."""
    found = {}
    for setting in sorted(settings - {"objectLock", "grants", "policy"}):
        if setting in _NUMBERS:
            rows = (await daemons.admin("GET", "/buckets"))["buckets"]
            row: Document = next((one for one in rows if one["name"] == name), {})
            said = json.dumps([row.get(one) for one in _NUMBERS[setting]])
        elif setting == "tags":
            held = await ownership.tags(daemons, name)
            said = json.dumps(sorted(one for one in held.items() if not one[0].startswith(OWN_TAGS)))
        else:
            said = await _as_it_is(daemons, name, SEEN.get(setting, SEEN["publicAccessBlock"])[0])
        found[setting] = hashlib.sha256(said.encode()).hexdigest()[:16]
    return found


async def _as_it_is(daemons: Daemons, name: str, query: str) -> str:
    """Empty where there is none."""
    try:
        return (await daemons.s3("GET", f"/{quote(name)}?{query}=")).decode()
    except DaemonError as error:
        if error.status != 404:
            raise
        return ""


async def end(daemons: Daemons, name: str, sids: tuple[str, ...], made: dict[str, str]) -> None:
    """Take back what a Bucket made of a bucket that it was lent, and nobody changed since. Raises DaemonError."""
    now = await marks(daemons, name, set(made) & {setting for setting, _, _ in SETTINGS})
    mine = {setting for setting, mark in now.items() if mark == made[setting]}
    nothing = BucketSpec(clusterRef=ClusterRef(name="c"))
    await put(daemons, name, Asked(nothing, Rates(), sids=sids), {*mine, "policy"})


# -- as S3 has them


def rate_of(asked: BucketRate | None, of_all: Rates) -> tuple[int, int]:
    """(requests, bytes) a second of one bucket, 0 where it is what all buckets have. S4 takes a bucket's own instead
    of that, and a Bucket is written by whom that is to bound: so it may only be less."""
    if asked is None:
        return 0, 0
    every = of_all.bucketRequests or 0, size(of_all.bucketBytes) if of_all.bucketBytes is not None else 0
    own = asked.requests or 0, size(asked.bytes) if asked.bytes is not None else 0
    requests, size_bytes = (0 if most and one >= most else one for one, most in zip(own, every, strict=True))
    return requests, size_bytes


def lifecycle_rule(number: int, one: LifecycleRule) -> Rule:
    """As S3 has it; a rule that ends current versions clears the markers that then stand for nothing."""
    return Rule(
        f"rule-{number}",
        True,
        one.prefix,
        one.tags,
        days=one.expireAfterDays or 0,
        noncurrent_days=one.noncurrentAfterDays or 0,
        newer=one.keepNoncurrent or 0,
        abort_days=one.abortUploadsAfterDays or 0,
    )


def site_of(site: BucketWebsite) -> website.Website:
    everything = site.redirectAllTo
    return website.Website(
        site.index or "",
        site.error or "",
        website.RoutingRule(host=everything.host, protocol=everything.protocol or "")
        if everything is not None
        else None,
        [_routing(one) for one in site.rules],
    )


def _routing(one: RedirectRule) -> website.RoutingRule:
    return website.RoutingRule(
        one.prefix,
        one.errorCode or 0,
        one.host or "",
        one.protocol or "",
        one.code or 301,
        one.replacePrefix,
        one.replaceKey,
        coded=one.code is not None,
    )


# -- what there is


def _count(element: str, what: str) -> Callable[[ElementTree.Element], str]:
    def words(said: ElementTree.Element) -> str:
        number = sum(one.tag.rpartition("}")[2].endswith(element) for one in said.iter())
        return f"{number} {what}{'' if number == 1 else 's'}" if number else ""

    return words


def _first(*elements: str) -> Callable[[ElementTree.Element], str]:
    return lambda said: " ".join(text for element in elements for text in [next(parts(said, element), "")] if text)


def _tag_words(said: ElementTree.Element) -> str:
    return ", ".join(f"{key}={value}" for key, value in zip(parts(said, "Key"), parts(said, "Value"), strict=True))


def _block_words(said: ElementTree.Element) -> str:
    return ", ".join(part for part in BLOCK if next(parts(said, part), "") == "true") or "nothing"


SEEN: dict[str, tuple[str, Callable[[ElementTree.Element], str]]] = {
    "versioning": ("versioning", _first("Status")),
    "objectLock": ("object-lock", _first("ObjectLockEnabled", "Mode", "Days", "Years")),
    "encryption": ("encryption", _first("SSEAlgorithm", "KMSMasterKeyID")),
    "lifecycle": ("lifecycle", _count("Rule", "rule")),
    "cors": ("cors", _count("CORSRule", "rule")),
    "tags": ("tagging", _tag_words),
    "notifications": ("notification", _count("Configuration", "rule")),
    "website": ("website", _first("Suffix", "HostName")),
    "publicAccessBlock": ("publicAccessBlock", _block_words),
    "public": ("policyStatus", _first("IsPublic")),
}


async def seen(daemons: Daemons, name: str) -> dict[str, str]:
    """What a bucket has, whoever made it, in few words; nothing of what it has not. Raises DaemonError."""
    found = {}
    for setting, (query, words) in SEEN.items():
        try:
            said = ElementTree.fromstring(await daemons.s3("GET", f"/{quote(name)}?{query}="))  # noqa: S314 - our own daemons' answer
        except DaemonError as error:
            if error.status != 404:
                raise
            continue
        if text := words(said):
            found[setting] = text[:256]
    return found
