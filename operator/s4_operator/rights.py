"""What an S4User or an S4Role may do: from the resource to IAM's calls.

Documents are read by the daemons' own parser before anything is asked of daemons. The namespace's bound (bounds.py) is
attached before all else. S4Policies are whose namespace they are in: others have them where the S4Policy says so; and
who is not bounded, in the S4Cluster's own namespace, takes none of others, whose people could change it then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s4.access.checks import read_new
from s4.access.patterns import PolicyError
from s4_operator.bounds import Bounds
from s4_operator.cache import Cache
from s4_operator.iam import Document, Holder, Iam, path_of, policy_arn, text_of
from s4_operator.kube import Object
from s4_operator.ownership import RefusedError
from s4_operator.people_models import HolderSpec, PolicyRef, PolicySpec
from s4_operator.resources import UnmetError, cluster_for, reference_of

VERSION = "2012-10-17"


def check(document: Document, what: str) -> None:
    """Raises UnmetError where a document is none that the daemons take."""
    if document.get("Version") != VERSION:
        raise UnmetError("MalformedPolicy", f'{what} needs "Version": "{VERSION}"')
    try:
        read_new(text_of(document))
    except PolicyError as error:
        raise UnmetError("MalformedPolicy", f"{what}: {error}") from error


def statements(documents: list[Document]) -> list[Document]:
    """The statements of inline documents, together. Raises UnmetError."""
    found: list[Any] = []
    for number, one in enumerate(documents, 1):
        check(one, f"document {number} of inline")
        found += one["Statement"] if isinstance(one["Statement"], list) else [one["Statement"]]
    return found


def arn_of(policy: Object) -> str:
    """What IAM calls an S4Policy: nobody chooses it, and no other has it."""
    metadata = policy["metadata"]
    return policy_arn(path_of("policies", metadata["namespace"], metadata["name"]), f"policy-{metadata['uid']}")


def names(holder: Object, policy: Object) -> bool:
    """Whether an S4User or S4Role asks for an S4Policy."""
    spec, metadata = holder["spec"], policy["metadata"]
    named = [one for one in (*spec.get("policies", ()), spec.get("permissionsBoundary")) if one]
    where = [(one.get("namespace") or holder["metadata"]["namespace"], one["name"]) for one in named]
    return (metadata["namespace"], metadata["name"]) in where and reference_of(holder) == reference_of(policy)


@dataclass(frozen=True, slots=True)
class Rights:
    statements: list[Document]
    policies: list[str]
    boundary: str


async def resolved(cache: Cache, iam: Iam, resource: Object, spec: HolderSpec) -> Rights:
    """Raises RefusedError, UnmetError, DaemonError."""
    found = [await _policy(cache, iam, resource, one) for one in spec.policies]
    boundary = spec.permissionsBoundary
    return Rights(
        statements(spec.inline),
        list(dict.fromkeys(found)),
        await _policy(cache, iam, resource, boundary) if boundary is not None else "",
    )


async def _policy(cache: Cache, iam: Iam, resource: Object, reference: PolicyRef) -> str:
    here = resource["metadata"]["namespace"]
    namespace = reference.namespace or here
    named = f"the S4Policy {namespace}/{reference.name}"
    policy = cache.get("S4Policy", namespace, reference.name)
    if policy is None:
        raise UnmetError("NoSuchPolicy", f"there is no S4Policy {reference.name} in the namespace {namespace}")
    spec = PolicySpec(**policy["spec"])
    if here != namespace:
        if here not in spec.allowedNamespaces and "*" not in spec.allowedNamespaces:
            raise RefusedError(
                "NotShared", f"{named} is not for the namespace {here}: its owner adds it to allowedNamespaces"
            )
        if here == reference_of(resource)[0]:
            raise RefusedError("NotShared", f"{named} is of another namespace, whose people could make it say anything")
    if reference_of(policy) != reference_of(resource):
        raise UnmetError("NoSuchPolicy", f"{named} is of another S4Cluster")
    cluster_for(cache, policy, spec.clusterRef)
    arn = arn_of(policy)
    if await iam.document(arn) is None:
        raise UnmetError("NoSuchPolicy", f"{named} is not Ready yet")
    return arn


async def grant(bounds: Bounds, holder: Holder, cluster: Object, resource: Object, rights: Rights) -> None:
    """Have a user or role do this and no more. Raises DaemonError."""
    bound = await bounds.ensure(holder.iam, cluster, resource["metadata"]["namespace"])
    if bound and bound not in await holder.attached():
        await holder.attach(bound)
    await holder.have(rights.statements, [*([bound] if bound else []), *rights.policies], rights.boundary)
