"""Brings one Bucket from what is to what is asked for.

Whose a bucket is comes first (ownership.py), and is asked of S4 in every round: nothing that a tenant may write (a
status, a Secret, its notes) is believed. So a crash between making a bucket and saying so loses nothing, and nothing
is given, set or deleted that is not this resource's. A refusal takes back what was given before. A key works before
the Secret has it, and the Secret says which keys may still work; any other key of the user goes. A resource that keeps
its bucket needs no finalizer: its user is removed once it is gone (clusters.py).
"""

from __future__ import annotations

import re
import time
from typing import Any

from s4.s3 import cors, encryption
from s4.s3.lifecycle import Rule
from s4.s3.lock import Default
from s4_operator import ownership
from s4_operator.bucket_models import BucketKey, BucketRate, BucketSpec, BucketState, LifecycleRule
from s4_operator.cache import Cache
from s4_operator.clusters import BUCKET_USER, Clusters, buckets_of, write_status
from s4_operator.daemons import DaemonError, Daemons
from s4_operator.kube import Kube, Object, TakenError
from s4_operator.manifests import Builder
from s4_operator.models import GROUP, VERSION, ClusterSpec, Rates, seconds, size
from s4_operator.observe import stamp
from s4_operator.ownership import RefusedError
from s4_operator.pods import S3
from s4_operator.report import conditions, text_time
from s4_operator.secrets_of import Keys, Secrets, new_keys, read

FINALIZER = "s4.dev/bucket"
ROTATE = "s4.dev/rotate-key"
PREVIOUS = "s4.dev/previous-keys"  # of the Secret: ACCESS=END in Unix seconds, with commas
AT_REST_S, SOON_S, LATER_S, LONG_S = 600.0, 3.0, 30.0, 60.0


class Buckets:
    """Reconciles Buckets."""

    def __init__(self, kube: Kube, cache: Cache, clusters: Clusters, secrets: Secrets) -> None:
        self._kube, self._cache, self._clusters, self._secrets = kube, cache, clusters, secrets
        # By namespace and name: (uid, the bucket that this process gave the use of, or "" where it took all back).
        self._given: dict[tuple[str, str], tuple[str, str]] = {}

    async def reconcile(self, namespace: str, name: str) -> float:
        """One round; seconds until the next, 0 where the Bucket is no more. Raises KubeError."""
        bucket = self._cache.get("Bucket", namespace, name)
        if bucket is None:
            self._given.pop((namespace, name), None)
            return 0.0  # its user goes with the next sweep
        spec, before = BucketSpec(**bucket["spec"]), BucketState(**(bucket.get("status") or {}))
        try:
            if bucket["metadata"].get("deletionTimestamp"):
                return await self._delete(bucket, spec)
            state, wait_s = await self._ensure(bucket, spec, before)
        except (RefusedError, DaemonError, TakenError) as error:
            state = before.model_copy()
            reason, message = await self._refused(bucket, spec, error, state)
            self._say(bucket, state, before, reason, message)
            wait_s = SOON_S if time.time() - stamp(state.conditions[0].lastTransitionTime) < LONG_S else LATER_S
        await write_status(self._kube, self._cache, bucket, before, state)
        return wait_s

    async def _refused(self, bucket: Object, spec: BucketSpec, error: Exception, state: BucketState) -> tuple[str, str]:
        """(reason, message) of what stands against a Bucket; what it was given is taken back where it may not have
        it."""
        if isinstance(error, DaemonError):
            return "RefusedByCluster" if 400 <= error.status < 500 else "ClusterNotReachable", str(error)
        reason = (
            error.reason
            if isinstance(error, RefusedError)
            else f"{error.kind}Exists"
            if isinstance(error, TakenError)
            else ""
        )
        cluster = self._cluster_of(bucket, spec)
        if cluster is None:
            return reason, str(error)
        if self._given.get(_place(bucket)) != (bucket["metadata"]["uid"], ""):
            try:
                _, daemons = await self._daemons(cluster)
                await ownership.withdraw(daemons, BUCKET_USER + bucket["metadata"]["uid"])
            except DaemonError as why:
                return reason, f"{error}; what it was given could not be taken back yet: {why}"
            self._given[_place(bucket)] = bucket["metadata"]["uid"], ""
        state.keys, state.owned = [], False
        return reason, str(error)

    def _say(self, bucket: Object, state: BucketState, before: BucketState, reason: str, message: str) -> None:
        ready, deleting = reason == "Ready", bool(bucket["metadata"].get("deletionTimestamp"))
        listed = [
            ("Ready", "True" if ready else "False", reason, message),
            (
                "DeletionBlocked",
                "True" if deleting else "False",
                reason if deleting else "Free",
                message if deleting else "",
            ),
        ]
        state.conditions = conditions(before.conditions, listed, time.time(), bucket["metadata"]["generation"])
        state.phase = "Ready" if ready else ("Deleting" if deleting else "Pending")
        state.message = "" if ready else message[:500]
        state.observedGeneration = bucket["metadata"]["generation"]

    # -- making it so

    def _cluster_of(self, bucket: Object, spec: BucketSpec) -> Object | None:
        return self._cache.get(
            "S4Cluster", spec.clusterRef.namespace or bucket["metadata"]["namespace"], spec.clusterRef.name
        )

    def _cluster(self, bucket: Object, spec: BucketSpec) -> Object:
        """The cluster that a Bucket may use. Raises RefusedError."""
        here = bucket["metadata"]["namespace"]
        namespace = spec.clusterRef.namespace or here
        found = self._cluster_of(bucket, spec)
        if found is None:
            raise RefusedError(
                "NoSuchCluster", f"there is no S4Cluster {spec.clusterRef.name} in the namespace {namespace}"
            )
        allowed = ClusterSpec(**found["spec"]).allowedNamespaces
        if here != namespace and here not in allowed and "*" not in allowed:
            raise RefusedError(
                "NotAllowed",
                f"the S4Cluster {namespace}/{spec.clusterRef.name} does not take Buckets of the namespace {here}: add it to allowedNamespaces",
            )
        return found

    async def _daemons(self, cluster: Object) -> tuple[Builder, Daemons]:
        metadata = cluster["metadata"]
        builder = Builder(metadata["namespace"], metadata["name"], metadata["uid"], ClusterSpec(**cluster["spec"]))
        trusted = await self._secrets.ensure(builder, time.time())
        return builder, self._clusters.daemons(builder, trusted)

    async def _ensure(self, bucket: Object, spec: BucketSpec, before: BucketState) -> tuple[BucketState, float]:
        cluster = self._cluster(bucket, spec)
        for kind in ("Secret", "ConfigMap"):  # before anything is given
            await self._kube.ours(self._object(bucket, kind))
        builder, daemons = await self._daemons(cluster)
        metadata, name = bucket["metadata"], name_of(bucket)
        user = BUCKET_USER + metadata["uid"]
        owned = await self._have(bucket, spec, cluster, daemons, name)
        if self._given.get(_place(bucket)) != (metadata["uid"], name):
            await ownership.allow(daemons, user, name)
            self._given[_place(bucket)] = metadata["uid"], name
        kept, wait_s = await self._keys(bucket, spec, daemons, name)
        await self._finalizer(bucket, wanted=owned and spec.deletionPolicy == "Delete")
        if spec.versioning != "Off":
            await daemons.set_versioning(name, spec.versioning)
        applied = await self._settings(bucket, spec, before, daemons, name, ClusterSpec(**cluster["spec"]).rates)
        await self._kube.have(self._config_map(bucket, builder, name))
        state = BucketState(
            bucketName=name,
            owned=owned,
            applied=applied,
            endpoint=builder.endpoint,
            secretName=metadata["name"],
            configMapName=metadata["name"],
            keys=kept,
            rotation=metadata.get("annotations", {}).get(ROTATE, ""),
        )
        self._say(bucket, state, before, "Ready", "the bucket can be used")
        return state, wait_s

    async def _have(self, bucket: Object, spec: BucketSpec, cluster: Object, daemons: Daemons, name: str) -> bool:
        """Have the bucket; whether it is this resource's own. Raises RefusedError."""
        metadata = bucket["metadata"]
        user, by = BUCKET_USER + metadata["uid"], f"{metadata['namespace']}/{metadata['name']}"
        held = await ownership.owner(daemons, name)
        if held is None:
            for other in buckets_of(self._cache, cluster["metadata"]["namespace"], cluster["metadata"]["name"]):
                if (
                    other["metadata"]["uid"] != metadata["uid"] and name_of(other) == name
                ):  # it had one of that name, which is no more
                    await ownership.withdraw(daemons, BUCKET_USER + other["metadata"]["uid"])
                    self._given.pop(_place(other), None)
            self._given.pop(_place(bucket), None)
            held = user if await ownership.claim(daemons, user, name) else await ownership.owner(daemons, name)
        if held == user:
            return True
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
        return False

    async def _settings(
        self, bucket: Object, spec: BucketSpec, before: BucketState, daemons: Daemons, name: str, of_all: Rates
    ) -> list[str]:
        """Have what this resource asks for, and take back what it asked for once; what it has made now."""
        asked = {
            part
            for part, is_asked in (
                ("quota", spec.quota is not None),
                ("rate", spec.rate is not None),
                ("cors", bool(spec.cors)),
                ("lifecycle", bool(spec.lifecycle)),
                ("access", spec.access != "Private"),
                ("encryption", spec.encryption is not None),
            )
            if is_asked
        }
        touched = asked | set(before.applied)
        if touched != set(before.applied):  # said before it is done, so that it is taken back whatever ends in between
            said = before.model_copy(update={"applied": sorted(touched)})
            await write_status(self._kube, self._cache, bucket, before, said)
            before.applied = said.applied
        if "quota" in touched:
            await daemons.put_quota(name, size(spec.quota) if spec.quota is not None else 0)
        if "rate" in touched:
            await daemons.put_rate(name, *rate_of(spec.rate, of_all))
        if "cors" in touched:
            await daemons.put_cors(
                name,
                [
                    cors.CorsRule(
                        one.allowedOrigins,
                        list(one.allowedMethods),
                        one.allowedHeaders,
                        one.exposeHeaders,
                        one.maxAgeSeconds,
                    )
                    for one in spec.cors
                ],
            )
        if "lifecycle" in touched:
            await daemons.put_lifecycle(
                name, [lifecycle_rule(number, one) for number, one in enumerate(spec.lifecycle, 1)]
            )
        if "encryption" in touched:
            how = spec.encryption
            await daemons.put_encryption(name, encryption.Default(how.mode, how.key or "") if how is not None else None)
        if spec.objectLock is not None:
            wanted = spec.objectLock
            await daemons.put_lock(
                name, Default(wanted.mode, wanted.days or 0, wanted.years or 0) if wanted.mode else None
            )
        if "access" in touched:
            await daemons.set_public(name, public=spec.access == "PublicRead")
        return sorted(asked)

    async def _keys(
        self, bucket: Object, spec: BucketSpec, daemons: Daemons, name: str
    ) -> tuple[list[BucketKey], float]:
        """All keys that work, the newest first, and when one of them ends. A key that only the Secret knows is
        nobody's: one that S4 made is known to S4."""
        metadata, now_s = bucket["metadata"], time.time()
        secret = await self._kube.get("Secret", metadata["namespace"], metadata["name"])
        held, notes = read(secret), (secret or {}).get("metadata", {}).get("annotations", {})
        wanted, user = metadata.get("annotations", {}).get(ROTATE, ""), BUCKET_USER + metadata["uid"]
        known = (await daemons.users()).get(user, [])
        previous = {
            access: end
            for access, end in _read_notes(notes.get(PREVIOUS, "")).items()
            if access in known and end > now_s
        }
        access = held.get("AWS_ACCESS_KEY_ID", "")
        made_at = notes.get("s4.dev/made-at", "")
        if access not in known or "AWS_SECRET_ACCESS_KEY" not in held or notes.get(ROTATE, "") != wanted:
            if access in known:
                previous[access] = now_s + seconds(spec.keyGrace)
            keys, made_at = new_keys(), text_time(now_s)
            access = keys.access
            await daemons.put_key(user, keys.access, keys.secret)
            await self._kube.have(
                self._secret(
                    bucket, keys, name, {ROTATE: wanted, "s4.dev/made-at": made_at, PREVIOUS: _noted(previous)}
                )
            )
        for other in known:
            if other != access and other not in previous:
                await daemons.delete_key(user, other)
        listed = [BucketKey(accessKey=access, createdAt=made_at)]
        listed += [BucketKey(accessKey=one, createdAt="", expiresAt=text_time(end)) for one, end in previous.items()]
        return listed, min([AT_REST_S, *(end - now_s + 1 for end in previous.values())])

    async def _finalizer(self, bucket: Object, *, wanted: bool) -> None:
        metadata = bucket["metadata"]
        held = metadata.get("finalizers", [])
        if wanted != (FINALIZER in held):
            kept = [one for one in held if one != FINALIZER] + ([FINALIZER] if wanted else [])
            change: Object = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
            found = await self._kube.patch("Bucket", metadata["namespace"], metadata["name"], change)
            if kept or not found["metadata"].get(
                "deletionTimestamp"
            ):  # else it is gone, and the watch may have said so before
                self._cache.see("Bucket", {"kind": "Bucket", **found})

    # -- what pods read

    def _object(self, bucket: Object, kind: str, **parts: Any) -> Object:
        metadata = bucket["metadata"]
        owner = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Bucket",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
        }
        labels = {
            "app.kubernetes.io/name": "s4",
            "app.kubernetes.io/managed-by": "s4-operator",
            "s4.dev/bucket": metadata["name"],
        }
        head = {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        }
        return {"apiVersion": "v1", "kind": kind, "metadata": head, **parts}

    def _secret(self, bucket: Object, keys: Keys, name: str, notes: dict[str, str]) -> Object:
        made = self._object(
            bucket,
            "Secret",
            stringData={
                "AWS_ACCESS_KEY_ID": keys.access,
                "AWS_SECRET_ACCESS_KEY": keys.secret,
                "COSI_S3_ACCESS_KEY_ID": keys.access,
                "COSI_S3_ACCESS_SECRET_KEY": keys.secret,
                "COSI_S3_BUCKET_NAME": name,
            },
        )
        made["metadata"]["annotations"] = notes
        return made

    def _config_map(self, bucket: Object, builder: Builder, name: str) -> Object:
        host = builder.endpoint.partition("//")[2].rpartition(":")[0]
        return self._object(
            bucket,
            "ConfigMap",
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

    async def _delete(self, bucket: Object, spec: BucketSpec) -> float:
        """With the finalizer: remove the bucket that this resource made. A cluster that is gone has no bucket."""
        if FINALIZER not in bucket["metadata"].get("finalizers", []):
            return 0.0
        namespace = spec.clusterRef.namespace or bucket["metadata"]["namespace"]
        cluster = self._cache.get("S4Cluster", namespace, spec.clusterRef.name)
        if cluster is None:  # the cache may be late: ask
            cluster = await self._kube.get("S4Cluster", namespace, spec.clusterRef.name)
        if cluster is not None and not cluster["metadata"].get("deletionTimestamp") and spec.deletionPolicy == "Delete":
            _, daemons = await self._daemons(cluster)
            user, name = BUCKET_USER + bucket["metadata"]["uid"], name_of(bucket)
            await ownership.withdraw(daemons, user)  # nobody writes to it meanwhile
            if await ownership.owner(daemons, name) == user:
                await daemons.empty_bucket(name)
                await daemons.delete_bucket(name)
            await daemons.delete_user(user)
        await self._finalizer(bucket, wanted=False)
        return 0.0


def _place(bucket: Object) -> tuple[str, str]:
    return bucket["metadata"]["namespace"], bucket["metadata"]["name"]


def name_of(bucket: Object) -> str:
    """What the bucket of a Bucket is called: chosen, or made of what nobody can change. Not what a status says."""
    metadata = bucket["metadata"]
    made = f"{metadata['namespace'][:20]}-{metadata['name'][:20]}-{metadata['uid'][:8]}".strip("-.")
    return str(bucket["spec"].get("bucketName") or made)


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


def _read_notes(text: str) -> dict[str, float]:
    """Ends by access key; what a person changed into something else is passed over."""
    found = {}
    for part in text.split(","):
        access, _, end = part.partition("=")
        if access and re.fullmatch(r"[0-9]{1,12}", end):
            found[access] = float(end)
    return found


def _noted(previous: dict[str, float]) -> str:
    return ",".join(f"{access}={end:.0f}" for access, end in previous.items())
