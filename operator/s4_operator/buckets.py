"""Brings one Bucket from what is to what is asked for.

Whose a bucket is comes first (ownership.py), and is asked of S4 in every round: nothing that a tenant may write (a
status, a Secret, its notes) is believed. So a crash between making a bucket and saying so loses nothing, and nothing
is given, set or deleted that is not this resource's. A refusal takes back what was given before, and so does the end
of a resource that was lent its bucket. Keys are key_secrets.py's. A resource that keeps a bucket of its own needs no
finalizer: its user is removed once it is gone (sweep.py).
"""

from __future__ import annotations

from s4_operator import bucket_settings, key_secrets, ownership
from s4_operator.bounds import Bounds
from s4_operator.bucket_models import BucketSpec, BucketState
from s4_operator.cache import Cache
from s4_operator.clusters import Clusters, buckets_of, write_status
from s4_operator.daemons import Daemons, parts
from s4_operator.iam import Iam
from s4_operator.key_secrets import rotation_of
from s4_operator.kube import Kube, Object
from s4_operator.manifests import Builder
from s4_operator.models import ClusterSpec
from s4_operator.ownership import RefusedError
from s4_operator.pods import S3
from s4_operator.resources import (
    again_s,
    cluster_for,
    cluster_of,
    full_name,
    is_going,
    name_of,
    owned,
    place,
    reference_of,
    say,
)
from s4_operator.rounds import Reconciler
from s4_operator.secrets_of import Keys
from s4_operator.sweep import BUCKET_USER, USER


class Buckets(Reconciler[BucketSpec, BucketState]):
    """Reconciles Buckets."""

    kind, finalizer, models = "Bucket", "s4.dev/bucket", (BucketSpec, BucketState)

    def __init__(self, kube: Kube, cache: Cache, clusters: Clusters, bounds: Bounds) -> None:
        super().__init__(kube, cache, clusters)
        self._bounds = bounds
        # By namespace and name: (uid, the bucket that this process gave the use of, or "" where it took all back).
        self._given: dict[tuple[str, str], tuple[str, str]] = {}

    def _forget(self, namespace: str, name: str) -> None:
        """Its user goes with the next sweep."""
        self._given.pop((namespace, name), None)

    async def _take_back(self, bucket: Object, before: BucketState) -> None:
        """All that a Bucket was given, and what it made of a bucket that it was lent. Raises DaemonError."""
        cluster = cluster_of(self._cache, bucket)
        if cluster is None or self._given.get(place(bucket)) == (bucket["metadata"]["uid"], ""):
            return
        _, daemons = await self._connect(cluster)
        await self._withdraw(daemons, bucket, before)
        self._given[place(bucket)] = bucket["metadata"]["uid"], ""

    async def _withdraw(self, daemons: Daemons, bucket: Object, before: BucketState) -> None:
        user, name = BUCKET_USER + bucket["metadata"]["uid"], name_of(bucket)
        await ownership.shut_out(daemons, user)
        held = await ownership.owner(daemons, name)
        # Its rights go last: that S4 has them is what shows that it was lent the bucket. A status shows nothing.
        if held not in (None, user) and await ownership.is_allowed(Iam(daemons), user, name):
            sids = bucket_settings.lent_sids(bucket["metadata"]["uid"], held)
            await bucket_settings.end(daemons, name, sids, before.marks)
            if not is_going(bucket):
                said = before.model_copy(update={"applied": [], "marks": {}})
                await write_status(self._kube, self._cache, bucket, before, said)
            before.applied, before.marks = [], {}
        await ownership.withdraw(daemons, user)

    # -- making it so

    async def _ensure(self, bucket: Object, spec: BucketSpec, before: BucketState) -> tuple[BucketState, float]:
        cluster = cluster_for(self._cache, bucket, spec.clusterRef)
        for kind in ("Secret", "ConfigMap"):  # before anything is given
            await self._kube.ours(owned(bucket, kind, bucket["metadata"]["name"]))
        builder, daemons = await self._connect(cluster)
        metadata, name = bucket["metadata"], name_of(bucket)
        user = BUCKET_USER + metadata["uid"]
        bucket_settings.check(spec, name)
        held = await self._have(bucket, spec, cluster, daemons, name)
        is_own = held == user
        spec, taken, said = await self._yielded(bucket, spec, cluster, Iam(daemons), held)
        if self._given.get(place(bucket)) != (metadata["uid"], name):
            await ownership.allow(daemons, user, name)
            self._given[place(bucket)] = metadata["uid"], name
        kept, wait_s = await key_secrets.ensure(
            self._kube, daemons, bucket, user, spec.keyGrace, lambda keys: self._secret(bucket, name, keys)
        )
        ends = not is_own or spec.deletionPolicy == "Delete"
        await self._set_finalizer(bucket, wanted=ends)
        if spec.versioning != "Off":
            await daemons.set_versioning(name, spec.versioning)
        grants, missing = await self._granted(bucket, spec, Iam(daemons), lent=not is_own)
        sids = (bucket_settings.OURS,) if is_own else bucket_settings.lent_sids(metadata["uid"], held)
        asked = bucket_settings.Asked(spec, ClusterSpec(**cluster["spec"]).rates, grants, sids)
        before.applied = [setting for setting in before.applied if setting not in taken]
        applied = await self._settings(bucket, before, daemons, name, asked)
        await self._kube.have(self._config_map(bucket, builder, name))
        state = BucketState(
            bucketName=name,
            owned=is_own,
            applied=applied,
            marks={} if is_own else await bucket_settings.marks(daemons, name, set(applied)),
            endpoint=builder.endpoint,
            secretName=metadata["name"],
            configMapName=metadata["name"],
            keys=kept,
            rotation=rotation_of(bucket),
            settings=await bucket_settings.seen(daemons, name),
        )
        reason = "NotGranted" if missing else "AskedByAnother" if said else "Ready"
        say(bucket, state, before, reason, "; ".join(filter(None, (missing, said))) or "the bucket can be used")
        return state, wait_s if reason == "Ready" else again_s(state)

    async def _have(self, bucket: Object, spec: BucketSpec, cluster: Object, daemons: Daemons, name: str) -> str:
        """Have the bucket, of one's own or lent; the user whose it is. Raises RefusedError."""
        metadata = bucket["metadata"]
        user, by = BUCKET_USER + str(metadata["uid"]), full_name(bucket)
        held = await ownership.owner(daemons, name)
        if held is None:
            for other in buckets_of(self._cache, cluster["metadata"]["namespace"], cluster["metadata"]["name"]):
                if (
                    other["metadata"]["uid"] != metadata["uid"] and name_of(other) == name
                ):  # it had one of that name, which is no more
                    await ownership.withdraw(daemons, BUCKET_USER + other["metadata"]["uid"])
                    self._given.pop(place(other), None)
            self._given.pop(place(bucket), None)
            await self._bounds.forget(Iam(daemons), name)
            held = user if await ownership.claim(daemons, user, name) else await ownership.owner(daemons, name)
        if held == user:
            return user
        if not spec.adoptExisting:
            raise RefusedError(
                "BucketExists",
                f"there is a bucket {name} that this resource did not make: choose another bucketName, or ask for it with adoptExisting",
            )
        adoptions = ClusterSpec(**cluster["spec"]).adoptions
        if not ownership.is_lent(name, by, adoptions, await ownership.tags(daemons, name)):
            raise RefusedError(
                "NotLent",
                f"the bucket {name} is somebody else's: whoever owns the S4Cluster adds {{bucket: {name}, by: {by}}} to its adoptions, or who owns the bucket tags it {ownership.ADOPTED_BY}={by}",
            )
        return held or ""

    async def _yielded(
        self, bucket: Object, spec: BucketSpec, cluster: Object, iam: Iam, held: str
    ) -> tuple[BucketSpec, set[str], str]:
        """The spec without what another Bucket asks of the same bucket that comes first: the one that made it, then
        the older; what that is, and in words. One that was not lent the bucket does not count. Raises DaemonError."""

        def turn(other: Object) -> tuple[bool, str, str]:
            metadata = other["metadata"]
            return BUCKET_USER + metadata["uid"] != held, metadata["creationTimestamp"], metadata["uid"]

        name, at = name_of(bucket), cluster["metadata"]
        taken, words, before = set[str](), list[str](), list[BucketSpec]()
        for other in sorted(buckets_of(self._cache, at["namespace"], at["name"]), key=turn):
            if turn(other) >= turn(bucket):
                break
            user = BUCKET_USER + other["metadata"]["uid"]
            if name_of(other) != name or is_going(other) or not await ownership.is_allowed(iam, user, name):
                continue
            theirs = BucketSpec(**other["spec"])
            for earlier in before:
                theirs, _ = bucket_settings.without(theirs, earlier)
            before.append(theirs)
            spec, these = bucket_settings.without(spec, theirs)
            if these:
                taken |= {*these}
                words.append(f"{', '.join(these)} of this bucket is as {full_name(other)} asks, which comes first")
        return spec, taken, "; ".join(words)

    async def _settings(
        self, bucket: Object, before: BucketState, daemons: Daemons, name: str, asked: bucket_settings.Asked
    ) -> list[str]:
        """Have what this resource asks for, and take back what it asked for once; what it has made now."""
        made = bucket_settings.asked_for(asked.spec)
        touched = made | set(before.applied)
        if touched != set(before.applied):  # said before it is done, so that it is taken back whatever ends in between
            said = before.model_copy(update={"applied": sorted(touched)})
            await write_status(self._kube, self._cache, bucket, before, said)
            before.applied = said.applied
        await bucket_settings.put(daemons, name, asked, touched)
        return sorted(made)

    async def _granted(
        self, bucket: Object, spec: BucketSpec, iam: Iam, *, lent: bool
    ) -> tuple[dict[str, list[str]], str]:
        """ARNs of users by role, and what of the grants cannot be had yet, in words."""
        found: dict[str, list[str]] = {}
        missing = []
        for one in spec.grants:
            namespace = one.namespace or bucket["metadata"]["namespace"]
            user = self._cache.get("S4User", namespace, one.user)
            said = None
            if user is not None and not is_going(user) and reference_of(user) == reference_of(bucket):
                said = await iam.find("GetUser", UserName=USER + user["metadata"]["uid"])
            if said is None:
                missing.append(f"there is no S4User {namespace}/{one.user} yet that is Ready")
            elif lent and one.role == "Owner":
                missing.append(f"{namespace}/{one.user} cannot be Owner of a bucket that is somebody else's")
            else:
                found.setdefault(one.role, []).append(next(parts(said, "Arn"), ""))
        return found, "; ".join(missing)

    # -- what pods read

    def _secret(self, bucket: Object, name: str, keys: Keys) -> Object:
        return owned(
            bucket,
            "Secret",
            bucket["metadata"]["name"],
            stringData={
                "AWS_ACCESS_KEY_ID": keys.access,
                "AWS_SECRET_ACCESS_KEY": keys.secret,
                "COSI_S3_ACCESS_KEY_ID": keys.access,
                "COSI_S3_ACCESS_SECRET_KEY": keys.secret,
                "COSI_S3_BUCKET_NAME": name,
            },
        )

    def _config_map(self, bucket: Object, builder: Builder, name: str) -> Object:
        host = builder.endpoint.partition("//")[2].rpartition(":")[0]
        return owned(
            bucket,
            "ConfigMap",
            bucket["metadata"]["name"],
            data={
                "BUCKET_NAME": name,
                "BUCKET_HOST": host,
                "BUCKET_PORT": str(S3),
                "BUCKET_REGION": builder.spec.region,
                "AWS_REGION": builder.spec.region,
                "AWS_ENDPOINT_URL_S3": builder.endpoint,
                "COSI_S3_ENDPOINT": builder.endpoint,
                "COSI_S3_REGION": builder.spec.region,
            },
        )

    # -- deleting

    async def _drop(self, bucket: Object, before: BucketState, cluster: Object, daemons: Daemons) -> None:
        """Remove the bucket that this resource made, or end its loan."""
        user, name = BUCKET_USER + bucket["metadata"]["uid"], name_of(bucket)
        await self._withdraw(daemons, bucket, before)  # nobody writes to it meanwhile
        is_deleted = BucketSpec(**bucket["spec"]).deletionPolicy == "Delete"
        if is_deleted and await ownership.owner(daemons, name) == user:
            await self._bounds.forget(Iam(daemons), name)
            await daemons.empty_bucket(name)
            await daemons.delete_bucket(name)
        await daemons.delete_user(user)
