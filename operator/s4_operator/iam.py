"""IAM's calls on the daemons of a cluster, as the operator's people, policies and roles need them.

What belongs to a resource is under a path of its own, /s4.dev/..., so that it is told from what IAM's clients made
besides, which stays. Source: IAM API reference.
"""

from __future__ import annotations

import json
from typing import Any, Literal
from urllib.parse import unquote
from xml.etree import ElementTree

from s4_operator.daemons import DaemonError, Daemons, parts

ACCOUNT = "000000000000"
ROOT_PATH = "/s4.dev/"
OURS = f"arn:aws:iam::{ACCOUNT}:policy{ROOT_PATH}"
INLINE = "S4Operator"  # the one inline policy of a user or role that is a resource's
PAGE = "1000"
VERSIONS = 5  # of a managed policy

Document = dict[str, Any]


def text_of(document: Document) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def namespace_path(kind: str, namespace: str) -> str:
    return f"{ROOT_PATH}{kind}/{namespace}/"


def path_of(kind: str, namespace: str, name: str) -> str:
    return f"{namespace_path(kind, namespace)}{name}/"


def policy_arn(path: str, name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:policy{path}{name}"


class Iam:
    """Each call raises DaemonError."""

    def __init__(self, daemons: Daemons) -> None:
        self.daemons = daemons

    async def call(self, action: str, **fields: str) -> ElementTree.Element:
        return ElementTree.fromstring(await self.daemons.iam(action, **fields))  # noqa: S314 - our own daemons' answer

    async def find(self, action: str, **fields: str) -> ElementTree.Element | None:
        """None where what is asked for is not there."""
        try:
            return await self.call(action, **fields)
        except DaemonError as error:
            if error.code == "NoSuchEntity":
                return None
            raise

    async def listed(self, action: str, element: str, **fields: str) -> list[str]:
        """The texts of an element of every page."""
        found: list[str] = []
        more = fields
        while True:
            page = await self.call(action, MaxItems=PAGE, **more)
            found += parts(page, element)
            if next(parts(page, "IsTruncated"), "") != "true":
                return found
            more = {**fields, "Marker": next(parts(page, "Marker"), "")}

    # -- managed policies

    async def document(self, arn: str) -> Document | None:
        """What a policy says now; None where there is none."""
        found = await self.find("GetPolicy", PolicyArn=arn)
        if found is None:
            return None
        version = next(parts(found, "DefaultVersionId"), "")
        said = await self.call("GetPolicyVersion", PolicyArn=arn, VersionId=version)
        return dict(json.loads(unquote(next(parts(said, "Document"), ""))))

    async def have_policy(self, path: str, name: str, document: Document) -> str:
        """Have a policy say this; its ARN. Another document takes the place of the one before in one step."""
        arn = policy_arn(path, name)
        before = await self.document(arn)
        if before is None:
            await self.call("CreatePolicy", PolicyName=name, Path=path, PolicyDocument=text_of(document))
        elif before != document:
            versions = await self._spare_versions(arn)
            if len(versions) >= VERSIONS - 1:
                await self.call("DeletePolicyVersion", PolicyArn=arn, VersionId=versions[0])
            await self.call("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=text_of(document), SetAsDefault="true")
        return arn

    async def _spare_versions(self, arn: str) -> list[str]:
        """Versions that do not count, the oldest first."""
        page = await self.call("ListPolicyVersions", PolicyArn=arn, MaxItems=PAGE)
        listed = zip(parts(page, "VersionId"), parts(page, "IsDefaultVersion"), strict=True)
        return sorted((name for name, default in listed if default != "true"), key=lambda one: int(one[1:]))

    async def drop_policy(self, arn: str) -> None:
        """One that is attached to somebody is refused (DeleteConflict)."""
        if await self.find("GetPolicy", PolicyArn=arn) is None:
            return
        for version in await self._spare_versions(arn):
            await self.find("DeletePolicyVersion", PolicyArn=arn, VersionId=version)
        await self.find("DeletePolicy", PolicyArn=arn)

    def holder(self, kind: Literal["User", "Role"], name: str) -> Holder:
        return Holder(self, kind, name)


class Holder:
    """The policies of one user or role. IAM has the same calls for both."""

    def __init__(self, iam: Iam, kind: Literal["User", "Role"], name: str) -> None:
        self.iam, self.kind, self.name = iam, kind, name
        self._named = {f"{kind}Name": name}

    async def find(self) -> ElementTree.Element | None:
        return await self.iam.find(f"Get{self.kind}", **self._named)

    async def attached(self) -> list[str]:
        return await self.iam.listed(f"ListAttached{self.kind}Policies", "PolicyArn", **self._named)

    async def attach(self, arn: str) -> None:
        await self.iam.call(f"Attach{self.kind}Policy", PolicyArn=arn, **self._named)

    async def have(self, statements: list[Document], attached: list[str], boundary: str) -> None:
        """Have exactly these of the resource's policies, and its boundary or none. What bounds is there before what it
        bounds, inline statements change in one step, and what goes goes last."""
        found = await self.find()
        before = next(parts(found, "PermissionsBoundaryArn"), "") if found is not None else ""
        if boundary and boundary != before:
            await self.iam.call(f"Put{self.kind}PermissionsBoundary", PermissionsBoundary=boundary, **self._named)
        held = await self.attached()
        for arn in attached:
            if arn not in held:
                await self.attach(arn)
        await self._inline(statements)
        for arn in held:
            if arn.startswith(OURS) and arn not in attached:
                await self.iam.find(f"Detach{self.kind}Policy", PolicyArn=arn, **self._named)
        if not boundary and before.startswith(OURS):
            await self.iam.find(f"Delete{self.kind}PermissionsBoundary", **self._named)

    async def _inline(self, statements: list[Document]) -> None:
        said = await self.iam.find(f"Get{self.kind}Policy", PolicyName=INLINE, **self._named)
        before = json.loads(unquote(next(parts(said, "PolicyDocument"), ""))) if said is not None else None
        wanted = {"Version": "2012-10-17", "Statement": statements} if statements else None
        if wanted == before:
            return
        if wanted is None:
            await self.iam.find(f"Delete{self.kind}Policy", PolicyName=INLINE, **self._named)
            return
        await self.iam.call(f"Put{self.kind}Policy", PolicyName=INLINE, PolicyDocument=text_of(wanted), **self._named)

    async def shut_out(self) -> None:
        """Have it do nothing, in one step, whatever it has besides: sessions that run neither."""
        await self._inline([{"Effect": "Deny", "Action": "*", "Resource": "*"}])

    async def strip(self) -> None:
        """Take all policies away, whoever gave them."""
        for arn in await self.attached():
            await self.iam.find(f"Detach{self.kind}Policy", PolicyArn=arn, **self._named)
        for name in await self.iam.listed(f"List{self.kind}Policies", "member", **self._named):
            await self.iam.find(f"Delete{self.kind}Policy", PolicyName=name, **self._named)
