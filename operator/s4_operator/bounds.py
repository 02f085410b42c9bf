"""What people and programs of a namespace can do at most, whatever their policies say: use the namespace's own buckets.

Who may write S4Users writes policies, and a policy may name any bucket. So every user and role of a namespace other
than the S4Cluster's own has one more policy, which denies all but the use of buckets that the namespace's Buckets have,
or that Buckets of others grant to it. Whose a bucket is is asked of S4 each time, as ownership.py does. A Deny cannot be
allowed back, by a bucket's policy neither; and who is bounded may call nothing of IAM. Without this policy nobody of
such a namespace gets a key or a policy (rights.py attaches it first).

It goes by names, so a name leaves it before the bucket of that name is deleted, or made (buckets.py): one of another
namespace may have it next. One writer at a time, for what was worked out a moment ago must not undo that.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from s4_operator import ownership
from s4_operator.bucket_models import BucketSpec
from s4_operator.cache import Cache
from s4_operator.clusters import buckets_of
from s4_operator.daemons import DaemonError
from s4_operator.iam import OURS, ROOT_PATH, Document, Iam, text_of
from s4_operator.kube import Object
from s4_operator.models import ClusterSpec
from s4_operator.ownership import RefusedError
from s4_operator.resources import cluster_for, full_name, is_going, name_of
from s4_operator.sweep import BUCKET_USER

PATH = f"{ROOT_PATH}namespaces/"
POLICY_BYTES = 6144  # of a managed policy of IAM, without white space


def document(own: list[str], lent: list[str]) -> Document:
    """The policy of a namespace that has the use of some buckets; of those that it was lent no more than that."""
    arns = [arn for name in sorted({*own, *lent}) for arn in _arns(name)]
    others: Document = {"NotResource": arns} if arns else {"Resource": "*"}
    statements: list[dict[str, Any]] = [
        {"Effect": "Deny", "NotAction": [*ownership.USES, *ownership.OWNS], "Resource": "*"},
        {"Effect": "Deny", "Action": "*", **others},
    ]
    if lent:
        resources = [arn for name in sorted(lent) for arn in _arns(name)]
        statements.append({"Effect": "Deny", "Action": list(ownership.OWNS), "Resource": resources})
    return {"Version": "2012-10-17", "Statement": statements}


def without(found: Document, name: str) -> Document:
    """The policy once a name is none of its buckets any more."""
    text = json.dumps(found)
    if json.dumps(_arns(name)[0]) not in text:
        return found
    changed = json.loads(text)
    for one in changed["Statement"]:
        for element in ("NotResource", "Resource"):
            if isinstance(one.get(element), list):
                one[element] = [arn for arn in one[element] if arn not in _arns(name)]
    kept = []
    for one in changed["Statement"]:
        if one.get("NotResource") == []:
            del one["NotResource"]
            one["Resource"] = "*"
        if one.get("Resource") != []:
            kept.append(one)
    return {**changed, "Statement": kept}


def _arns(name: str) -> list[str]:
    return [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]


class Bounds:
    """Keeps these policies, one for each namespace, in each cluster."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._writing = asyncio.Lock()

    async def ensure(self, iam: Iam, cluster: Object, namespace: str) -> str:
        """The ARN of the policy of a namespace, as it must be now; "" for the cluster's own, which has none. Raises
        DaemonError."""
        if namespace == cluster["metadata"]["namespace"]:
            return ""
        async with self._writing:
            own, lent = await self._buckets(iam, cluster, namespace)
            made = document(own, lent)
            if len(text_of(made)) > POLICY_BYTES:
                raise DaemonError(
                    409,
                    "LimitExceeded",
                    f"the namespace {namespace} has the use of {len(own) + len(lent)} buckets, more than one policy can name: its S4Users and S4Roles stay as they were",
                )
            return await iam.have_policy(f"{PATH}{namespace}/", f"namespace-{namespace}", made)

    async def _buckets(self, iam: Iam, cluster: Object, namespace: str) -> tuple[list[str], list[str]]:
        """The buckets that a namespace has the use of: (its own, those that are lent to it)."""
        own, lent = [], []
        spec = ClusterSpec(**cluster["spec"])
        for one in buckets_of(self._cache, cluster["metadata"]["namespace"], cluster["metadata"]["name"]):
            asked = BucketSpec(**one["spec"])
            here = one["metadata"]["namespace"] == namespace
            if is_going(one) or not (here or _grants(one, asked, namespace)):
                continue
            try:
                cluster_for(self._cache, one, asked.clusterRef)
            except RefusedError:
                continue
            name = name_of(one)
            held = await ownership.owner(iam.daemons, name)
            if held is not None and held == BUCKET_USER + one["metadata"]["uid"]:
                own.append(name)
            elif held is not None and asked.adoptExisting:
                tags = await ownership.tags(iam.daemons, name)
                if ownership.is_lent(name, full_name(one), spec.adoptions, tags):
                    lent.append(name)
        return own, lent

    async def forget(self, iam: Iam, name: str) -> None:
        """Have no namespace count a bucket of this name as its own. Raises DaemonError."""
        async with self._writing:
            for arn in await iam.listed("ListPolicies", "Arn", Scope="Local", PathPrefix=PATH):
                found = await iam.document(arn)
                changed = without(found, name) if found is not None else found
                if changed is not None and changed != found:
                    path, _, policy = arn.removeprefix(OURS).rpartition("/")
                    await iam.have_policy(f"{ROOT_PATH}{path}/", policy, changed)


def _grants(bucket: Object, spec: BucketSpec, namespace: str) -> bool:
    """Whether a Bucket grants anything to a user of a namespace."""
    return any((one.namespace or bucket["metadata"]["namespace"]) == namespace for one in spec.grants)
