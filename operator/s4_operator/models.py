"""The resources as people write them. crds/ is generated from these models (`python -m s4_operator.crd`), and the
operator reads every object through them, so that neither can say what the other does not.

A field that is immutable, and a combination that cannot be, are refused by the API server (CEL), with the message
that is given here. Quantities are those of Kubernetes (10Gi), durations a number with s, m or h.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

GROUP, VERSION = "s4.dev", "v1alpha1"

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$", max_length=32)]
Duration = Annotated[str, Field(pattern=r"^[0-9]+(s|m|h)$", max_length=16)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
PerHost = Annotated[
    int | Literal["all"],
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == int ? self >= 1 && self <= 100 : self == 'all'",
                    "message": "storage.disksPerHost is a number from 1 to 100, or all",
                }
            ],
        }
    ),
]
FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


def rule(check: str, message: str) -> dict[str, str]:
    """One CEL validation."""
    return {"rule": check, "message": message}


def rules(*checks: dict[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(checks)}


class Model(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Erasure(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self == oldSelf", "erasure cannot be changed: make another S4Cluster and copy the data to it"),
            rule(
                "self.data + self.parity <= 16", "erasure.data + erasure.parity must be at most 16: shards of an object"
            ),
        )
    )
    data: int = Field(4, ge=1, le=16, description="Shards of which an object is read.")
    parity: int = Field(2, ge=1, le=8, description="Shards beside them: so many stores may be lost at once.")


SAME_CLASS = (
    "(has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || "
    "self.storageClassName == oldSelf.storageClassName))"
)


class Storage(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0 || (self.migrate && !{SAME_CLASS})",
                "storage.size may grow, and shrink only as storage.storageClassName changes, with storage.migrate: true: a "
                "smaller volume is another one, made anew node by node",
            ),
            rule(
                f"{SAME_CLASS} || (self.migrate && has(self.storageClassName))",
                "storage.storageClassName is changed to another one with storage.migrate: true: then one node after the other "
                "is drained and made anew on the new class",
            ),
        )
    )
    storageClassName: str | None = Field(
        None, max_length=253, description="Class of the volumes; the default class where there is none."
    )
    migrate: bool = Field(
        False, description="Let storageClassName change: each node in turn is drained, and made anew on the new class."
    )
    size: Quantity = Field(
        "100Gi",
        description="Size of each node's volume. It may grow where the class allows it, one volume after the other; nothing restarts.",
    )
    reclaim: Literal["Retain", "Delete"] = Field(
        "Retain", description="What becomes of volumes of nodes that are no more."
    )
    reserve: Quantity = Field("1Gi", description="Free disk below which uploads are refused.")
    disksPerHost: PerHost = Field(
        1,
        description="Stores that a Kubernetes node has, one pod and one volume for each of its disks; `all` sets no bound.",
    )

    @property
    def shares_hosts(self) -> bool:
        """Whether a host has several stores."""
        return self.disksPerHost != 1


class Placement(Model):
    failureDomain: Literal["hostname", "zone", "none"] = Field(
        "hostname", description="What fails together: no two shards of an object there where avoidable."
    )
    nodeSelector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[FreeForm] = Field(default_factory=list)
    affinity: FreeForm = Field(default_factory=dict)
    topologySpread: list[FreeForm] = Field(default_factory=list)
    priorityClassName: Name | None = Field(
        None, description="Class by which the scheduler makes room for pods, and evicts them last; restarts."
    )


class Variable(Model):
    """One variable of the environment, as in a pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!self.name.startsWith('S4_') || (self.name.startsWith('S4_LIMIT_') && "
                "!self.name.startsWith('S4_LIMIT_USER_') && !self.name.startsWith('S4_LIMIT_BUCKET_'))",
                "environment: what S4 reads from variables has a field of its own here, but for S4_LIMIT_*, of which rates has those of "
                "users and buckets",
            ),
            rule("self.name != 'SSL_CERT_FILE'", "environment: SSL_CERT_FILE is what `authorities` names"),
            rule(
                "!has(self.value) || !has(self.valueFrom)", "environment: a variable has value or valueFrom, not both"
            ),
        )
    )
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)
    value: str | None = Field(None, max_length=4096)
    valueFrom: FreeForm | None = Field(None, description="As in a pod: secretKeyRef, configMapKeyRef, fieldRef.")


class S3Service(Model):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    annotations: dict[str, str] = Field(default_factory=dict)
    ipFamilyPolicy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] = "SingleStack"


class Issuer(Model):
    name: str = Field(min_length=1, max_length=253)
    kind: str = Field("Issuer", pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=63, description="Issuer, or ClusterIssuer.")
    group: str = Field("cert-manager.io", max_length=253)


class GatewayTls(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.issuerRef) || !has(self.secretName)",
                "gateway.tls takes secretName or issuerRef, not both: what cert-manager makes is in a Secret of its own",
            ),
            rule("!has(self.issuerRef) || self.enabled", "gateway.tls.issuerRef needs gateway.tls.enabled"),
        )
    )
    enabled: bool = Field(False, description="Serve S3 over TLS, with a certificate of the cluster's own authority.")
    secretName: str | None = Field(
        None,
        max_length=253,
        description="A Secret with tls.crt and tls.key to use instead, and ca.crt of a private authority.",
    )
    issuerRef: Issuer | None = Field(
        None,
        description="Have cert-manager make the certificate, by an issuer that signs names of this Kubernetes: a "
        "public one does not, and belongs to an Ingress. Peers and the admin port stay with the cluster's own authority, "
        "by whose certificates they know each other.",
    )


class Ingress(Model):
    host: str = Field(max_length=253)
    className: str | None = Field(None, max_length=253)
    annotations: dict[str, str] = Field(default_factory=dict)
    tlsSecretName: str | None = Field(None, max_length=253)


class GatewaySpec(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!self.autoscaled || self.replicas > 0",
                "gateway.autoscaled needs gateway.replicas: with 0 there are no gateways beside the nodes",
            ),
            rule(
                "self.workers == 1 || self.replicas > 0",
                "gateway.workers needs gateway.replicas: with 0 the nodes serve S3, a process for each disk",
            ),
            rule(
                "!has(self.domain) || !has(self.websiteDomain) || self.domain != self.websiteDomain",
                "gateway.domain and gateway.websiteDomain must differ: one speaks S3, the other to visitors",
            ),
        )
    )
    replicas: int = Field(
        0, ge=0, le=1000, description="Gateways beside the nodes, which serve S3 themselves while there are none."
    )
    autoscaled: bool = Field(
        False, description="How many there are is for a HorizontalPodAutoscaler to say, of the Deployment NAME-gateway."
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that serve S3 in each gateway's pod, each on a core of its own; restarts. Where "
        "gateway.resources says nothing else, a pod requests a core and 512Mi for each.",
    )
    service: S3Service = Field(default_factory=S3Service)
    tls: GatewayTls = Field(default_factory=GatewayTls)
    ingress: Ingress | None = None
    domain: str | None = Field(None, max_length=253, description="Serve BUCKET.DOMAIN as virtual hosts.")
    websiteDomain: str | None = Field(None, max_length=253, description="Show buckets as websites at BUCKET.DOMAIN.")
    resources: FreeForm = Field(default_factory=dict)


class KmsUse(Model):
    key: str = Field(min_length=1, max_length=255, pattern=r"^[^=;/]+$", description="A key of the KMS.")
    buckets: Annotated[
        list[Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9.*?-]+$")]], Field(min_length=1, max_length=1000)
    ] = Field(description="Names of buckets, with * and ?.")


class Kms(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(self.url) || has(self.key)", "kms.url needs kms.key: the key where a request names none"),
        )
    )
    secretName: Name = Field(
        description="A Secret with `keys`, lines of NAME:BASE64; with url, one with `token`, which is read again as it changes."
    )
    url: str | None = Field(
        None, max_length=2048, pattern=r"^https?://", description="Vault, whose transit engine has the keys."
    )
    key: str | None = Field(
        None,
        max_length=255,
        description="The key where a request names none; the first one of the Secret where absent.",
    )
    allow: Annotated[list[KmsUse], Field(max_length=1000)] = Field(
        default_factory=list,
        description="Which buckets may use which keys, and no others then: restarts. Every bucket every key where it is empty.",
    )
    mount: str = Field("transit", max_length=255, description="Where Vault's transit engine is mounted.")


class Failure(Model):
    replaceAfter: Duration = Field(
        "10m", description="How long a Kubernetes node is away until its store is made again elsewhere."
    )
    maxConcurrent: int = Field(
        1,
        ge=0,
        le=16,
        description="Hosts, with all of their stores, that are replaced at the same time; 0 replaces none.",
    )


class Upgrade(Model):
    strategy: Literal["Supervised", "Automatic"] = Field(
        "Supervised",
        description="After a node that fails with a new version: wait for a person, or roll back. A node that is added or made again while the first one fails waits for nobody: then the image is rolled back in any case.",
    )
    pause: bool = Field(False, description="Restart no node.")
    progressDeadline: Duration = Field("5m", description="How long a node may take until it serves again.")
    unit: Literal["node", "host"] = Field(
        "node", description="What starts again at once: one node, or all nodes of a host where the data allows it."
    )


class Rebuild(Model):
    bandwidthPerNode: Quantity | None = Field(
        None, description="Bytes a second that healing reads on a node; no bound where absent."
    )


class Rates(Model):
    """A second, at each pod that serves S3; no bound where absent."""

    userRequests: int | None = Field(
        None, ge=1, le=1_000_000, description="Requests of each user a second, at each pod."
    )
    userBytes: Quantity | None = Field(None, description="Bytes that each user sends and reads a second, at each pod.")
    bucketRequests: int | None = Field(
        None, ge=1, le=1_000_000, description="Requests to each bucket a second, at each pod."
    )
    bucketBytes: Quantity | None = Field(None, description="Bytes to and from each bucket a second, at each pod.")


class Monitoring(Model):
    enabled: bool = Field(
        True, description="Make a ServiceMonitor, a PrometheusRule and a dashboard where their APIs exist."
    )
    bucketMetrics: bool = Field(
        False,
        description="Tell buckets by their names at /metrics, which anybody reads who reaches the admin port; restarts.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels for them, such as `release: prometheus`.")


class NetworkPolicySpec(Model):
    enabled: bool = Field(
        True,
        description="Let only this cluster's pods reach its peer ports, and beside them the operator its admin ports.",
    )
    s3From: list[FreeForm] = Field(
        default_factory=list, description="Who may reach S3, as peers of a NetworkPolicy; everybody where empty."
    )
    adminFrom: list[FreeForm] = Field(
        default_factory=list,
        description="Who else may reach the admin ports, such as your Prometheus, as peers of a NetworkPolicy.",
    )


class PodSecurity(Model):
    runAsUser: int | None = Field(10001, description="null leaves it to the platform, as OpenShift wants.")
    fsGroup: int | None = Field(10001)


class SecretRef(Model):
    name: Name


class Adoption(Model):
    """Who may use a bucket that it did not make."""

    bucket: Annotated[
        str,
        Field(pattern=r"^[a-z0-9*][a-z0-9.*-]{0,62}$", description="A bucket; `*` stands for any part of its name."),
    ]
    by: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?/[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$",
            max_length=320,
            description="NAMESPACE/NAME of Buckets; `*` stands for any part of either.",
        ),
    ]


class ClusterSpec(Model):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.nodes >= self.erasure.data + self.erasure.parity",
                "nodes must be at least erasure.data + erasure.parity: every shard of an object is on a node of its own",
            ),
            rule(
                "type(self.storage.disksPerHost) == string || self.nodes % self.storage.disksPerHost == 0",
                "nodes must be a multiple of storage.disksPerHost: every host has as many",
            ),
            rule(
                "type(self.storage.disksPerHost) == string || self.placement.failureDomain != 'hostname' || "
                "(self.erasure.data + self.erasure.parity + self.nodes / self.storage.disksPerHost - 1) / "
                "(self.nodes / self.storage.disksPerHost) <= self.erasure.parity",
                "one host would hold more shards of an object than erasure.parity, and its loss would lose data: there must be "
                "more hosts (nodes / storage.disksPerHost); where that is meant, set placement.failureDomain to none",
            ),
            rule(
                "!has(self.metadataReplicas) || (self.metadataReplicas > self.erasure.parity && "
                "(self.metadataReplicas >= 3 || self.metadataReplicas == self.erasure.data + self.erasure.parity))",
                "metadataReplicas must be at least 3, and at least erasure.parity + 1: with fewer copies of its "
                "metadata an object would be lost with fewer stores than its shards allow",
            ),
            rule(
                "!has(self.metadataReplicas) || self.metadataReplicas <= self.erasure.data + self.erasure.parity",
                "metadataReplicas must be at most erasure.data + erasure.parity: a partition's metadata is where its "
                "shards are",
            ),
            rule(
                "self.durability == 'sync'",
                "durability is sync in a cluster: a store that lost with its power what it acknowledged could lead, "
                "and have the good copies made like its own; interval and none are for `s4 server`",
            ),
            rule(
                "self.partitions == oldSelf.partitions",
                "partitions cannot be changed: they are fixed when the cluster is made",
            ),
            rule(
                "self.partitions in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]",
                "partitions must be a power of two up to 4096",
            ),
            rule(
                "quantity(self.inlineThreshold).compareTo(quantity('1')) >= 0 && "
                "quantity(self.inlineThreshold).compareTo(quantity('64Ki')) <= 0",
                "inlineThreshold must be between 1 and 64Ki",
            ),
            rule(
                "!has(self.small) || sign(quantity(self.small)) == 0 || "
                "(quantity(self.small).compareTo(quantity(self.inlineThreshold)) >= 0 && "
                "quantity(self.small).compareTo(quantity('64Ki')) <= 0)",
                "small must be 0, or between inlineThreshold and 64Ki: what is smaller is in objects' rows anyway",
            ),
        )
    )
    image: str | None = Field(
        None, max_length=512, description="The image of the daemons; the operator's own where absent."
    )
    version: str | None = Field(None, max_length=128, description="Another tag of that image.")
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    imagePullSecrets: list[SecretRef] = Field(default_factory=list)
    nodes: int = Field(6, ge=1, le=5000, description="Stores, one pod and one volume each.")
    erasure: Erasure = Field(default_factory=Erasure)
    partitions: int = Field(256, ge=1, le=4096, description="Parts that the key space is cut into; a power of two.")
    metadataReplicas: int | None = Field(
        None,
        ge=1,
        le=16,
        description="Copies of each partition's metadata; 3, and at least erasure.parity + 1, where absent. May be "
        "changed: replicas join, or leave, while all goes on.",
    )
    storage: Storage = Field(default_factory=Storage)
    placement: Placement = Field(default_factory=Placement)
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    resources: FreeForm = Field(default_factory=dict, description="Requests and limits of each node.")
    region: str = Field("us-east-1", max_length=64)
    durability: Literal["sync", "interval", "none"] = Field(
        "sync",
        description="A write is acknowledged once its shards, and its row on every copy in sync, are on disks: it "
        "survives the loss of power of all hosts at once. There is no other here.",
    )
    dedup: bool = True
    inlineThreshold: Quantity = Field("4Ki", description="Smaller objects live in their metadata row.")
    small: Quantity | None = Field(
        None,
        description="Content up to this (8Ki unless given, 64Ki at most, 0 for none) that is not inline lives in its "
        "blob's row, once every pod can read it; restarts. 0.7 does not open such stores.",
    )
    strictWrites: bool = Field(False, description="Refuse writes while not every store of a partition can take them.")
    newBuckets: Literal["aws", "open"] = Field(
        "aws",
        description="What a new bucket begins with: as on S3 today (nothing public, no ACLs), or open to ACLs and public policies, as programs written for MinIO or Ceph expect.",
    )
    signatureV2: Literal["query", "all", "off"] = Field(
        "query",
        description="Where requests signed by version 2 are taken: in presigned addresses, in headers and forms too (all), or nowhere.",
    )
    kms: Kms | None = Field(
        None,
        description="What wraps keys of objects that ask for SSE-KMS. A Secret by another name has every pod read it.",
    )
    receivers: SecretRef | None = Field(
        None,
        description="A Secret with receivers.yaml: whom buckets may tell of events. What it names as files is mounted beside it, at /etc/s4/receivers.",
    )
    authorities: SecretRef | None = Field(
        None,
        description="A ConfigMap with ca.crt: authorities, in PEM, that are trusted beside the system's where a pod connects to a KMS, receivers or an issuer of tokens; restarts.",
    )
    environment: Annotated[list[Variable], Field(max_length=100)] = Field(
        default_factory=list, description="More variables for every pod, such as HTTPS_PROXY or S4_LIMIT_*; restarts."
    )
    volumes: Annotated[list[FreeForm], Field(max_length=50)] = Field(
        default_factory=list, description="More volumes for every pod, as in a pod; restarts."
    )
    volumeMounts: Annotated[list[FreeForm], Field(max_length=50)] = Field(
        default_factory=list, description="Where they are mounted, as in a container; restarts."
    )
    failure: Failure = Field(default_factory=Failure)
    upgrade: Upgrade = Field(default_factory=Upgrade)
    rebuild: Rebuild = Field(default_factory=Rebuild)
    rates: Rates = Field(
        default_factory=Rates,
        description="What users and buckets may ask for: beyond is 503 with Retry-After; restarts.",
    )
    allowedNamespaces: list[str] = Field(
        default_factory=list, description="Where Buckets may be beside the cluster's own namespace; `*` is everywhere."
    )
    adoptions: Annotated[list[Adoption], Field(max_length=1000)] = Field(
        default_factory=list, description="Which Buckets may have a bucket that is there already, with adoptExisting."
    )
    monitoring: Monitoring = Field(default_factory=Monitoring)
    networkPolicy: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)
    podSecurity: PodSecurity = Field(default_factory=PodSecurity)
    credentialsSecretRef: SecretRef | None = Field(
        None, description="A Secret with accessKey and secretKey of an administrator; one is made where absent."
    )


def seconds(duration: str) -> int:
    """Seconds of a Duration."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def size(quantity: str) -> int:
    """Bytes of a Quantity."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?", quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity; write 10Gi, 500Mi or a number of bytes")
    unit, base = match[2] or "", 1024 if (match[2] or "").endswith("i") else 1000
    return int(float(match[1]) * base ** (["", "K", "M", "G", "T", "P"].index(unit[:1].upper())))
