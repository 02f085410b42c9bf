"""The Bucket as people write it (models.py has what this is made of, and the S4Cluster)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from s4_operator.models import Conditions, Duration, Model, Name, Quantity, rule, rules


class ClusterRef(Model):
    name: Name
    namespace: Name | None = Field(None, description="The Bucket's own where absent.")


class CorsRule(Model):
    allowedOrigins: Annotated[list[str], Field(min_length=1, max_length=100)]
    allowedMethods: Annotated[list[Literal["GET", "PUT", "HEAD", "POST", "DELETE"]], Field(min_length=1, max_length=5)]
    allowedHeaders: Annotated[list[str], Field(max_length=100)] = []
    exposeHeaders: Annotated[list[str], Field(max_length=100)] = []
    maxAgeSeconds: int | None = Field(None, ge=0, le=86_400_000)


class ObjectLock(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.mode) == (has(self.days) != has(self.years))",
                "objectLock takes mode together with either days or years, or none of them",
            ),
        )
    )
    mode: Literal["GOVERNANCE", "COMPLIANCE"] | None = Field(
        None, description="Of the default retention; without it only what asks for a lock has one."
    )
    days: int | None = Field(None, ge=1, le=36_500)
    years: int | None = Field(None, ge=1, le=100)


class LifecycleRule(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.expireAfterDays) || has(self.noncurrentAfterDays) || has(self.abortUploadsAfterDays)",
                "a lifecycle rule needs expireAfterDays, noncurrentAfterDays or abortUploadsAfterDays",
            ),
            rule(
                "!has(self.keepNoncurrent) || has(self.noncurrentAfterDays)",
                "keepNoncurrent goes with noncurrentAfterDays",
            ),
            rule(
                "!has(self.abortUploadsAfterDays) || !has(self.tags) || size(self.tags) == 0",
                "uploads have no tags: give abortUploadsAfterDays a rule of its own",
            ),
        )
    )
    prefix: str = Field("", max_length=1024)
    tags: Annotated[dict[str, str], Field(max_length=10)] = {}
    expireAfterDays: int | None = Field(None, ge=1, le=36_500)
    noncurrentAfterDays: int | None = Field(None, ge=1, le=36_500)
    keepNoncurrent: int | None = Field(
        None, ge=1, le=100, description="So many of the newest noncurrent versions stay."
    )
    abortUploadsAfterDays: int | None = Field(None, ge=1, le=36_500)


class BucketEncryption(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(self.key) || self.mode == 'aws:kms'", "encryption.key goes with mode aws:kms"),
        )
    )
    mode: Literal["AES256", "aws:kms"] = Field(
        "AES256", description="Under the cluster's master key, or under one of its KMS."
    )
    key: str | None = Field(None, max_length=255, description="A key of the KMS; its default where absent.")


class BucketRate(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.requests) || has(self.bytes)", "a rate needs requests, bytes, or both"),
        )
    )
    requests: int | None = Field(None, ge=1, le=1_000_000, description="Requests to the bucket a second, at each pod.")
    bytes: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,14}(Ki|Mi|Gi|k|M|G)?$", max_length=32)] | None = Field(
        None, description="Bytes to and from the bucket a second, at each pod."
    )


class Grant(Model):
    user: Name = Field(description="Of an S4User of the same S4Cluster.")
    namespace: Name | None = Field(None, description="The Bucket's own where absent.")
    role: Literal["Reader", "Writer", "Owner"] = Field(
        description="Reader reads and lists, Writer may all that the Bucket's own keys may, Owner also lets others in."
    )


class BucketSpec(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(oldSelf.objectLock) || has(self.objectLock)", "objectLock is for good: it cannot be removed"),
            rule(
                "!has(self.objectLock) || self.versioning != 'Suspended'",
                "versioning cannot be Suspended with objectLock",
            ),
            rule("self.clusterRef == oldSelf.clusterRef", "clusterRef cannot be changed: make another Bucket"),
            rule(
                "has(self.bucketName) == has(oldSelf.bucketName) && (!has(self.bucketName) || self.bucketName == oldSelf.bucketName)",
                "bucketName cannot be changed: make another Bucket",
            ),
        )
    )
    clusterRef: ClusterRef
    bucketName: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = Field(
        None, description="Made of namespace, name and uid where absent."
    )
    versioning: Literal["Enabled", "Suspended", "Off"] = "Off"
    quota: Quantity | None = Field(None, description="Bytes that the bucket may hold; no bound where absent.")
    rate: BucketRate | None = Field(
        None,
        description="What may be asked of the bucket: beyond is 503 with Retry-After. Never more than the S4Cluster's rates for each bucket; those where absent.",
    )
    cors: Annotated[list[CorsRule], Field(max_length=100)] = Field(
        default_factory=list,
        description="What browsers may do from other origins. Where absent, what is set by S3 stays.",
    )
    objectLock: ObjectLock | None = Field(
        None, description="Versions can be locked against deletion. It brings versioning, and is for good."
    )
    lifecycle: Annotated[list[LifecycleRule], Field(max_length=100)] = Field(
        default_factory=list, description="What ends, and when. Where absent, what is set by S3 stays."
    )
    encryption: BucketEncryption | None = Field(
        None,
        description="How what comes is encrypted where a request does not say. Where absent, what is set by S3 stays.",
    )
    access: Literal["Private", "PublicRead"] = Field(
        "Private", description="PublicRead lets everybody read every object, and list none."
    )
    grants: Annotated[list[Grant], Field(max_length=100)] = Field(
        default_factory=list, description="Who may use the bucket beside its own keys."
    )
    deletionPolicy: Literal["Retain", "Delete"] = Field(
        "Retain", description="Delete removes the bucket and every object in it with this resource."
    )
    adoptExisting: bool = Field(
        False,
        description="Use a bucket that is there already, where the S4Cluster's adoptions or the bucket's tag s4.dev/adopted-by name this resource. It is never deleted with it.",
    )
    keyGrace: Duration = Field("24h", description="How long an old key works after `s4.dev/rotate-key` was changed.")


class IssuedKey(Model):
    accessKey: str
    createdAt: str
    expiresAt: str | None = None


class ResourceState(Model):
    """What the status of every resource that uses a cluster has."""

    observedGeneration: int = 0
    phase: str = ""
    message: str = ""
    conditions: Conditions = Field(default_factory=list)


class BucketState(ResourceState):
    bucketName: str = ""
    owned: bool = Field(False, description="Whether this resource made the bucket.")
    endpoint: str = ""
    secretName: str = ""
    configMapName: str = ""
    keys: list[IssuedKey] = Field(default_factory=list)
    applied: list[str] = Field(
        default_factory=list,
        description="Settings that this resource made, and takes back when it no longer asks for them.",
    )
    rotation: str = Field("", description="The value of `s4.dev/rotate-key` that the newest key was made for.")
