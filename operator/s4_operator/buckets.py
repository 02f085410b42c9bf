"""Brings one Bucket from what is to what is asked for.

Who made a bucket is said by the bucket itself: it is made with the keys of the resource's own user, and S4 keeps the
owner. So a crash between making it and saying so loses nothing, and nothing is deleted that this resource did not make.
A key works before the Secret has it, and the Secret says which keys may still work; any other key of the user
goes. A resource that keeps its bucket needs no finalizer: its user is removed once it is gone (clusters.py).
"""

from __future__ import annotations

import time
from typing import Any

from s4.s3 import cors, encryption
from s4.s3.lifecycle import Rule
from s4.s3.lock import Default
from s4_operator.cache import Cache
from s4_operator.clusters import BUCKET_USER, Clusters, write_status
from s4_operator.daemons import DaemonError, Daemons
from s4_operator.kube import Kube, Object
from s4_operator.manifests import S3, Builder
from s4_operator.models import (
    GROUP,
    VERSION,
    BucketKey,
    BucketSpec,
    BucketState,
    ClusterSpec,
    LifecycleRule,
    seconds,
    size,
)
from s4_operator.observe import stamp
from s4_operator.report import conditions, text_time
from s4_operator.secrets_of import Keys, Secrets, new_keys, read

FINALIZER = "s4.dev/bucket"
ROTATE = "s4.dev/rotate-key"
PREVIOUS = "s4.dev/previous-keys"  # of the Secret: ACCESS=END in Unix seconds, with commas
AT_REST_S, SOON_S, LATER_S, LONG_S = 1800.0, 3.0, 30.0, 60.0


class RefusedError(Exception):
    """The Bucket cannot be as it is asked for: (reason, message) for its Ready condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Buckets:
    """Reconciles Buckets."""

    def __init__(self, kube: Kube, cache: Cache, clusters: Clusters, secrets: Secrets) -> None:
        self._kube, self._cache, self._clusters, self._secrets = kube, cache, clusters, secrets

    async def reconcile(self, namespace: str, name: str) -> float:
        """One round; seconds until the next, 0 where the Bucket is no more. Raises KubeError."""
        bucket = self._cache.get("Bucket", namespace, name)
        if bucket is None:
            return 0.0
        spec, before = BucketSpec(**bucket["spec"]), BucketState(**(bucket.get("status") or {}))
        try:
            if bucket["metadata"].get("deletionTimestamp"):
                return await self._delete(bucket, spec)
            state, wait_s = await self._ensure(bucket, spec, before)
        except (RefusedError, DaemonError) as error:
            answered = isinstance(error, DaemonError) and 400 <= error.status < 500
            reason = error.reason if isinstance(error, RefusedError) else "RefusedByCluster" if answered else "ClusterNotReachable"
            state = before.model_copy()
            self._say(bucket, state, before, reason, str(error))
            wait_s = SOON_S if time.time() - stamp(state.conditions[0].lastTransitionTime) < LONG_S else LATER_S
        await write_status(self._kube, self._cache, bucket, before, state)
        return wait_s

    def _say(self, bucket: Object, state: BucketState, before: BucketState, reason: str, message: str) -> None:
        ready, deleting = reason == "Ready", bool(bucket["metadata"].get("deletionTimestamp"))
        listed = [("Ready", "True" if ready else "False", reason, message), ("DeletionBlocked", "True" if deleting else "False", reason if deleting else "Free", message if deleting else "")]
        state.conditions = conditions(before.conditions, listed, time.time(), bucket["metadata"]["generation"])
        state.phase = "Ready" if ready else ("Deleting" if deleting else "Pending")
        state.message = "" if ready else message[:500]
        state.observedGeneration = bucket["metadata"]["generation"]

    # -- making it so

    def _cluster(self, bucket: Object, spec: BucketSpec) -> Object:
        """The cluster that a Bucket may use. Raises RefusedError."""
        here = bucket["metadata"]["namespace"]
        namespace = spec.clusterRef.namespace or here
        found = self._cache.get("S4Cluster", namespace, spec.clusterRef.name)
        if found is None:
            raise RefusedError("NoSuchCluster", f"there is no S4Cluster {spec.clusterRef.name} in the namespace {namespace}")
        allowed = ClusterSpec(**found["spec"]).allowedNamespaces
        if here != namespace and here not in allowed and "*" not in allowed:
            raise RefusedError("NotAllowed", f"the S4Cluster {namespace}/{spec.clusterRef.name} does not take Buckets of the namespace {here}: add it to allowedNamespaces")
        return found

    async def _daemons(self, cluster: Object) -> tuple[Builder, Daemons]:
        metadata = cluster["metadata"]
        builder = Builder(metadata["namespace"], metadata["name"], metadata["uid"], ClusterSpec(**cluster["spec"]))
        trusted = await self._secrets.ensure(builder, time.time())
        return builder, self._clusters.daemons(builder, trusted)

    async def _ensure(self, bucket: Object, spec: BucketSpec, before: BucketState) -> tuple[BucketState, float]:
        cluster = self._cluster(bucket, spec)
        builder, daemons = await self._daemons(cluster)
        metadata = bucket["metadata"]
        name = spec.bucketName or before.bucketName or f"{metadata['namespace'][:20]}-{metadata['name'][:20]}-{metadata['uid'][:8]}".strip("-.")
        keys, kept, wait_s = await self._keys(bucket, spec, before, daemons, name)
        owned = await self._bucket(spec, name, daemons.as_user(keys.access, keys.secret))
        await self._finalizer(bucket, wanted=owned and spec.deletionPolicy == "Delete")
        if spec.versioning != "Off":
            await daemons.set_versioning(name, spec.versioning)
        applied = await self._settings(bucket, spec, before, daemons, name)
        await self._kube.apply(self._config_map(bucket, builder, name))
        state = BucketState(
            bucketName=name, owned=owned, applied=applied, endpoint=builder.endpoint, secretName=metadata["name"], configMapName=metadata["name"],
            keys=kept, rotation=metadata.get("annotations", {}).get(ROTATE, ""),
        )  # fmt: skip
        self._say(bucket, state, before, "Ready", "the bucket can be used")
        return state, wait_s

    async def _bucket(self, spec: BucketSpec, name: str, own: Daemons) -> bool:
        """Have the bucket; whether this resource made it. Raises RefusedError."""
        try:
            await own.s3("PUT", f"/{name}")
        except DaemonError as error:
            if error.code == "BucketAlreadyOwnedByYou":
                return True
            if error.code != "BucketAlreadyExists":
                raise
            if not spec.adoptExisting:
                raise RefusedError("BucketExists", f"there is a bucket {name} that this resource did not make: choose another bucketName, or set adoptExisting") from error
            return False
        return True

    async def _settings(self, bucket: Object, spec: BucketSpec, before: BucketState, daemons: Daemons, name: str) -> list[str]:
        """Have what this resource asks for, and take back what it asked for once; what it has made now."""
        asked = {part for part, is_asked in (("quota", spec.quota is not None), ("cors", bool(spec.cors)), ("lifecycle", bool(spec.lifecycle)), ("access", spec.access != "Private"), ("encryption", spec.encryption is not None)) if is_asked}
        touched = asked | set(before.applied)
        if touched != set(before.applied):  # said before it is done, so that it is taken back whatever ends in between
            said = before.model_copy(update={"applied": sorted(touched)})
            await write_status(self._kube, self._cache, bucket, before, said)
            before.applied = said.applied
        if "quota" in touched:
            await daemons.put_quota(name, size(spec.quota) if spec.quota is not None else 0)
        if "cors" in touched:
            await daemons.put_cors(name, [cors.Rule(one.allowedOrigins, list(one.allowedMethods), one.allowedHeaders, one.exposeHeaders, one.maxAgeSeconds) for one in spec.cors])
        if "lifecycle" in touched:
            await daemons.put_lifecycle(name, [lifecycle_rule(number, one) for number, one in enumerate(spec.lifecycle, 1)])
        if "encryption" in touched:
            how = spec.encryption
            await daemons.put_encryption(name, encryption.Default(how.mode, how.key or "") if how is not None else None)
        if spec.objectLock is not None:
            wanted = spec.objectLock
            await daemons.put_lock(name, Default(wanted.mode, wanted.days or 0, wanted.years or 0) if wanted.mode else None)
        if "access" in touched:
            await daemons.set_public(name, public=spec.access == "PublicRead")
        return sorted(asked)

    async def _keys(self, bucket: Object, spec: BucketSpec, before: BucketState, daemons: Daemons, name: str) -> tuple[Keys, list[BucketKey], float]:
        """The newest key, all that work, and when one of them ends."""
        metadata, now_s = bucket["metadata"], time.time()
        secret = await self._kube.get("Secret", metadata["namespace"], metadata["name"])
        held = read(secret)
        notes = (secret or {}).get("metadata", {}).get("annotations", {})
        if secret is not None and not any(one["uid"] == metadata["uid"] for one in secret["metadata"].get("ownerReferences", ())):
            raise RefusedError("SecretExists", f"there is a Secret {metadata['name']} that belongs to somebody else: choose another name for the Bucket")
        wanted, user = metadata.get("annotations", {}).get(ROTATE, ""), BUCKET_USER + metadata["uid"]
        previous = {part.partition("=")[0]: float(part.partition("=")[2]) for part in notes.get(PREVIOUS, "").split(",") if part}
        previous = {access: end for access, end in previous.items() if end > now_s}
        fresh = "AWS_ACCESS_KEY_ID" not in held or notes.get(ROTATE, "") != wanted
        keys = new_keys() if fresh else Keys(held["AWS_ACCESS_KEY_ID"], held["AWS_SECRET_ACCESS_KEY"])
        made_at = text_time(now_s) if fresh else notes.get("s4.dev/made-at", "")
        if fresh and "AWS_ACCESS_KEY_ID" in held:
            previous[held["AWS_ACCESS_KEY_ID"]] = now_s + seconds(spec.keyGrace)
        if fresh or not before.bucketName or secret is None or PREVIOUS in notes or before.observedGeneration != metadata["generation"]:
            await daemons.put_user(user, [f"Writer:{name}"])
            await daemons.put_key(user, keys.access, keys.secret)
        if fresh:
            await self._kube.apply(self._secret(bucket, keys, name, {ROTATE: wanted, "s4.dev/made-at": made_at, PREVIOUS: _noted(previous)}))
        for access in (await daemons.users()).get(user, []):
            if access != keys.access and access not in previous:
                await daemons.delete_key(user, access)
        listed = [BucketKey(accessKey=keys.access, createdAt=made_at)]
        listed += [BucketKey(accessKey=access, createdAt="", expiresAt=text_time(end)) for access, end in previous.items()]
        return keys, listed, min([AT_REST_S, *(end - now_s + 1 for end in previous.values())])

    async def _finalizer(self, bucket: Object, *, wanted: bool) -> None:
        metadata = bucket["metadata"]
        held = metadata.get("finalizers", [])
        if wanted != (FINALIZER in held):
            kept = [one for one in held if one != FINALIZER] + ([FINALIZER] if wanted else [])
            change: Object = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
            found = await self._kube.patch("Bucket", metadata["namespace"], metadata["name"], change)
            if kept or not found["metadata"].get("deletionTimestamp"):  # else it is gone, and the watch may have said so before
                self._cache.see("Bucket", {"kind": "Bucket", **found})

    # -- what pods read

    def _object(self, bucket: Object, kind: str, **parts: Any) -> Object:
        metadata = bucket["metadata"]
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Bucket", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
        labels = {"app.kubernetes.io/name": "s4", "app.kubernetes.io/managed-by": "s4-operator", "s4.dev/bucket": metadata["name"]}
        head = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels, "ownerReferences": [owner]}
        return {"apiVersion": "v1", "kind": kind, "metadata": head, **parts}

    def _secret(self, bucket: Object, keys: Keys, name: str, notes: dict[str, str]) -> Object:
        made = self._object(bucket, "Secret", stringData={
            "AWS_ACCESS_KEY_ID": keys.access, "AWS_SECRET_ACCESS_KEY": keys.secret,
            "COSI_S3_ACCESS_KEY_ID": keys.access, "COSI_S3_ACCESS_SECRET_KEY": keys.secret, "COSI_S3_BUCKET_NAME": name,
        })  # fmt: skip
        made["metadata"]["annotations"] = notes
        return made

    def _config_map(self, bucket: Object, builder: Builder, name: str) -> Object:
        host = builder.endpoint.partition("//")[2].rpartition(":")[0]
        return self._object(bucket, "ConfigMap", data={
            "BUCKET_NAME": name, "BUCKET_HOST": host, "BUCKET_PORT": str(S3), "BUCKET_REGION": builder.spec.region,
            "AWS_REGION": builder.spec.region, "AWS_ENDPOINT_URL_S3": builder.endpoint,
            "COSI_S3_ENDPOINT": builder.endpoint, "COSI_S3_REGION": builder.spec.region,
        })  # fmt: skip

    # -- deleting

    async def _delete(self, bucket: Object, spec: BucketSpec) -> float:
        """With the finalizer: remove the bucket that this resource made. A cluster that is gone has no bucket."""
        if FINALIZER not in bucket["metadata"].get("finalizers", []):
            return 0.0
        namespace = spec.clusterRef.namespace or bucket["metadata"]["namespace"]
        cluster = self._cache.get("S4Cluster", namespace, spec.clusterRef.name)
        if cluster is None:  # the cache may be late: ask
            cluster = await self._kube.get("S4Cluster", namespace, spec.clusterRef.name)
        state = BucketState(**(bucket.get("status") or {}))
        if cluster is not None and not cluster["metadata"].get("deletionTimestamp") and spec.deletionPolicy == "Delete":
            _, daemons = await self._daemons(cluster)
            held = read(await self._kube.get("Secret", bucket["metadata"]["namespace"], bucket["metadata"]["name"]))
            user = BUCKET_USER + bucket["metadata"]["uid"]
            keys = Keys(held["AWS_ACCESS_KEY_ID"], held["AWS_SECRET_ACCESS_KEY"]) if "AWS_ACCESS_KEY_ID" in held else new_keys()
            await daemons.put_user(user, [f"Writer:{state.bucketName}"])
            await daemons.put_key(user, keys.access, keys.secret)
            if await self._is_ours(daemons, state.bucketName, user):
                own = daemons.as_user(keys.access, keys.secret)
                await own.empty_bucket(state.bucketName)
                await own.delete_bucket(state.bucketName)
            await daemons.delete_user(user)
        await self._finalizer(bucket, wanted=False)
        return 0.0

    @staticmethod
    async def _is_ours(daemons: Daemons, name: str, user: str) -> bool:
        listed = (await daemons.admin("GET", "/buckets"))["buckets"]
        return any(one["name"] == name and one["owner"] == user for one in listed)


def lifecycle_rule(number: int, one: LifecycleRule) -> Rule:
    """As S3 has it; a rule that ends current versions clears the markers that then stand for nothing."""
    return Rule(
        f"rule-{number}", True, one.prefix, one.tags, days=one.expireAfterDays or 0, noncurrent_days=one.noncurrentAfterDays or 0,
        newer=one.keepNoncurrent or 0, abort_days=one.abortUploadsAfterDays or 0,
    )  # fmt: skip


def _noted(previous: dict[str, float]) -> str:
    return ",".join(f"{access}={end:.0f}" for access, end in previous.items())


