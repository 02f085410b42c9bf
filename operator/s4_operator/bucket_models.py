"""The Bucket as people write it (models.py has what this is made of, and the S4Cluster)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from s4_operator.models import Duration, FreeForm, Model, Name, Quantity, rule, rules
from s4_operator.state_models import Conditions


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


class Notification(Model):
    receiver: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$", description="One of the S4Cluster's receivers.")
    events: Annotated[
        list[Annotated[str, Field(pattern=r"^s3:[A-Za-z0-9:]+\*?$", max_length=100)]],
        Field(min_length=1, max_length=50),
    ] = Field(description="As s3:ObjectCreated:*")
    prefix: str = Field("", max_length=1024)
    suffix: str = Field("", max_length=1024)


Protocol = Literal["http", "https"]
Host = Annotated[str, Field(pattern=r"^[^ /?#]{1,253}$")]


class RedirectAll(Model):
    host: Host
    protocol: Protocol | None = None


class RedirectRule(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!(has(self.replacePrefix) && has(self.replaceKey))", "replacePrefix or replaceKey, not both"),
            rule(
                "has(self.host) || has(self.protocol) || has(self.code) || has(self.replacePrefix) || has(self.replaceKey)",
                "a rule says where to: host, protocol, code, replacePrefix or replaceKey",
            ),
        )
    )
    prefix: str = Field("", max_length=1024, description="Of the keys that it is for.")
    errorCode: int | None = Field(None, ge=400, le=599, description="The status that reading failed with.")
    host: Host | None = None
    protocol: Protocol | None = None
    code: int | None = Field(None, ge=301, le=399)
    replacePrefix: str | None = Field(None, max_length=1024)
    replaceKey: str | None = Field(None, max_length=1024)


class BucketWebsite(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.index) != has(self.redirectAllTo)", "a website has either index or redirectAllTo"),
            rule(
                "!has(self.redirectAllTo) || (!has(self.error) && (!has(self.rules) || size(self.rules) == 0))",
                "redirectAllTo goes alone",
            ),
        )
    )
    index: str | None = Field(None, pattern=r"^[^/]{1,255}$", description="What folders show, as index.html.")
    error: str | None = Field(None, min_length=1, max_length=1024, description="The key of what errors show.")
    redirectAllTo: RedirectAll | None = None
    rules: Annotated[list[RedirectRule], Field(max_length=50)] = Field(default_factory=list)


class PublicAccessBlock(Model):
    blockPublicAcls: bool = True
    ignorePublicAcls: bool = True
    blockPublicPolicy: bool = True
    restrictPublicBuckets: bool = True


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
            rule(
                "self.access != 'PublicRead' || !has(self.publicAccessBlock) || "
                "!(self.publicAccessBlock.blockPublicPolicy || self.publicAccessBlock.restrictPublicBuckets)",
                "access PublicRead needs publicAccessBlock without blockPublicPolicy and restrictPublicBuckets, or none",
            ),
            rule(
                "!has(self.tags) || !self.tags.exists(key, key.startsWith('s4.dev/') || key.startsWith('aws:'))",
                "tags that begin with s4.dev/ or aws: are not yours to set",
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
    tags: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=40)] = Field(
        default_factory=dict,
        description="Of the bucket, and no others then but s4.dev/*. Where absent, what is set by S3 stays.",
    )
    notifications: Annotated[list[Notification], Field(max_length=100)] = Field(
        default_factory=list, description="Who is told of what. Where absent, what is set by S3 stays."
    )
    website: BucketWebsite | None = Field(
        None, description="How visitors see the bucket. Where absent, what is set by S3 stays."
    )
    policy: FreeForm | None = Field(
        None,
        description="Statements of the bucket's policy, beside those that S3's clients put. Without Resource: the bucket and all in it.",
    )
    publicAccessBlock: PublicAccessBlock | None = Field(
        None, description="What is refused of public access. Where absent, what `access` needs, or what is set by S3."
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
    marks: dict[str, str] = Field(
        default_factory=dict,
        description="Of a bucket that was lent: what these settings were like once they were made. What is otherwise when the loan ends is somebody else's by then, and stays.",
    )
    settings: dict[str, str] = Field(
        default_factory=dict, description="What the bucket has, whoever set it, as seen last."
    )
    rotation: str = Field("", description="The value of `s4.dev/rotate-key` that the newest key was made for.")
