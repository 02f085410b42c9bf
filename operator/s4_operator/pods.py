"""What the pods of one cluster run, and with what: pure, from the spec. manifests.py puts them into a StatefulSet and a
Deployment.

Nothing in a pod's template changes but by a change of what the pod runs: an object that is only relabelled, or a
setting that daemons do not read at start, restarts nobody.
"""

from __future__ import annotations

from typing import Any

from s4_operator.models import ClusterSpec, size

Object = dict[str, Any]
S3, ADMIN, PEER = 9000, 9001, 9002
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
MORE_THAN_HOSTS = 100_000
TRUST, TLS, MASTER, KMS, RECEIVERS, AUTHORITIES = (
    f"/etc/s4/{name}" for name in ("peers", "tls", "master", "kms", "receivers", "authorities")
)


def names(cluster: str) -> dict[str, str]:
    """What the objects of a cluster are called."""
    return {
        "daemon": f"{cluster}-daemon",
        "nodes": f"{cluster}-nodes",
        "node": f"{cluster}-node",
        "gateway": f"{cluster}-gateway",
        "gateways": f"{cluster}-gateways",
        "root": f"{cluster}-root",
        "master": f"{cluster}-master",
        "authority": f"{cluster}-authority",
        "peers": f"{cluster}-peers",
        "gateway peers": f"{cluster}-gateway-peers",
        "tls": f"{cluster}-tls",
        "issued": f"{cluster}-issued-tls",
        "credentials": f"{cluster}-credentials",
        "dashboard": f"{cluster}-dashboard",
        "map": cluster,
        "s3": cluster,
    }


def labels(cluster: str, component: str = "") -> dict[str, str]:
    found = {"app.kubernetes.io/name": "s4", "app.kubernetes.io/instance": cluster, "s4.dev/cluster": cluster}
    return {**found, "app.kubernetes.io/component": component} if component else found


class Pods:
    """Templates of the pods of the cluster `name` in `namespace`."""

    def __init__(self, namespace: str, name: str, spec: ClusterSpec) -> None:
        self.namespace, self.name, self.spec = namespace, name, spec
        self.names = names(name)

    def environment(self) -> list[Object]:
        spec = self.spec
        plain = {
            "S4_COORDINATOR": f"kubernetes://{self.namespace}/{self.names['map']}",
            "S4_LISTEN": f":{S3}",
            "S4_ADMIN_LISTEN": f":{ADMIN}",
            "S4_AUTHORITY": f"{TRUST}/ca.pem",
            "S4_PEER_CERTIFICATE": f"{TRUST}/tls.crt",
            "S4_PEER_KEY": f"{TRUST}/tls.key",
            "S4_MASTER_KEY": f"{MASTER}/master.key",
            "S4_REGION": spec.region,
            "S4_DEDUP": "on" if spec.dedup else "off",
            "S4_INLINE": str(size(spec.inlineThreshold)),
            "S4_STRICT": "on" if spec.strictWrites else "off",
            "S4_LOG_FORMAT": "json",
        }
        plain |= {
            name: value
            for name, value in (("S4_DOMAIN", spec.gateway.domain), ("S4_WEBSITE_DOMAIN", spec.gateway.websiteDomain))
            if value
        }
        if spec.newBuckets != "aws":  # the daemons' own default is not said: who updates the operator restarts nobody
            plain["S4_NEW_BUCKETS"] = spec.newBuckets
        if spec.small is not None:
            plain["S4_SMALL"] = str(size(spec.small))
        if spec.monitoring.bucketMetrics:
            plain["S4_BUCKET_METRICS"] = "on"
        if spec.signatureV2 != "query":
            plain["S4_SIGNATURE_V2"] = spec.signatureV2
        if spec.kms is not None:
            named = {
                "S4_KMS": spec.kms.url or f"{KMS}/keys",
                "S4_KMS_KEY": spec.kms.key,
                "S4_KMS_MOUNT": spec.kms.mount,
                "S4_KMS_TOKEN": f"{KMS}/token" if spec.kms.url else None,
                "S4_KMS_ALLOW": ";".join(f"{use.key}={','.join(use.buckets)}" for use in spec.kms.allow),
            }
            plain |= {name: value for name, value in named.items() if value}
        if spec.receivers is not None:
            plain["S4_RECEIVERS"] = f"{RECEIVERS}/receivers.yaml"
        rates = spec.rates
        for of, requests, sent in (
            ("USER", rates.userRequests, rates.userBytes),
            ("BUCKET", rates.bucketRequests, rates.bucketBytes),
        ):
            plain |= {f"S4_LIMIT_{of}_REQUESTS_PER_S": str(requests)} if requests else {}
            plain |= {f"S4_LIMIT_{of}_BYTES_PER_S": str(size(sent))} if sent else {}
        if spec.gateway.tls.enabled:
            plain |= {"S4_CERTIFICATE": f"{TLS}/tls.crt", "S4_KEY": f"{TLS}/tls.key"}
        if spec.authorities is not None:  # the system's own are read from their directory all the same
            plain["SSL_CERT_FILE"] = f"{AUTHORITIES}/ca.crt"
        more = [one.model_dump(exclude_none=True) for one in spec.environment]
        return [*more, *({"name": name, "value": value} for name, value in plain.items())]

    def _volumes(self, component: str) -> tuple[list[Object], list[Object]]:
        """What every pod of S4 is given to read: (volumes, mounts)."""
        spec = self.spec
        volumes: list[Object] = [
            {
                "name": "peers",
                "secret": {
                    "secretName": self.names["gateway peers" if component == "gateway" else "peers"],
                    "defaultMode": 0o440,
                },
            },
            {"name": "tmp", "emptyDir": {}},
        ]
        volumes.append({"name": "master", "secret": {"secretName": self.names["master"], "defaultMode": 0o440}})
        mounts: list[Object] = [
            {"name": "peers", "mountPath": TRUST, "readOnly": True},
            {"name": "master", "mountPath": MASTER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ]
        if spec.gateway.tls.enabled:
            volumes.append(
                {
                    "name": "tls",
                    "secret": {"secretName": self._tls_secret(), "defaultMode": 0o440},
                }
            )
            mounts.append({"name": "tls", "mountPath": TLS, "readOnly": True})
        for name, path, secret in (
            ("kms", KMS, spec.kms.secretName if spec.kms else ""),
            ("receivers", RECEIVERS, spec.receivers.name if spec.receivers else ""),
        ):
            if secret:
                volumes.append({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}})
                mounts.append({"name": name, "mountPath": path, "readOnly": True})
        if spec.authorities is not None:
            volumes.append({"name": "authorities", "configMap": {"name": spec.authorities.name}})
            mounts.append({"name": "authorities", "mountPath": AUTHORITIES, "readOnly": True})
        return [*volumes, *spec.volumes], [*mounts, *spec.volumeMounts]

    def _tls_secret(self) -> str:
        tls = self.spec.gateway.tls
        return tls.secretName or self.names["tls" if tls.issuerRef is None else "issued"]

    def _security(self) -> Object:
        spec = self.spec
        security: Object = {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "fsGroupChangePolicy": "OnRootMismatch",
        }
        if spec.podSecurity.runAsUser is not None:
            security |= {"runAsUser": spec.podSecurity.runAsUser, "runAsGroup": spec.podSecurity.runAsUser}
        if spec.podSecurity.fsGroup is not None:
            security["fsGroup"] = spec.podSecurity.fsGroup
        return security

    def _container(
        self, image: str, command: list[str], environment: list[Object], resources: Object, mounts: list[Object]
    ) -> Object:
        health: Object = {"httpGet": {"path": "/healthz", "port": "admin"}, "periodSeconds": 5, "timeoutSeconds": 5}
        return {
            "name": "s4",
            "image": image,
            "imagePullPolicy": self.spec.imagePullPolicy,
            "args": command,
            "env": environment,
            "resources": resources,
            "ports": [
                {"name": "s3", "containerPort": S3},
                {"name": "admin", "containerPort": ADMIN},
                {"name": "peer", "containerPort": PEER},
            ],
            "volumeMounts": mounts,
            "startupProbe": {**health, "failureThreshold": 720},  # a store that recovers many volumes takes its time
            "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": "admin"},
                "periodSeconds": 2,
                "timeoutSeconds": 5,
            },
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},  # until nobody sends new requests here
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }

    def template(
        self,
        component: str,
        image: str,
        command: list[str],
        environment: list[Object],
        resources: Object,
        mounts: list[Object],
    ) -> Object:
        """Of a pod."""
        placement = self.spec.placement
        volumes, own = self._volumes(component)
        pod: Object = {
            "serviceAccountName": self.names["daemon"],
            "terminationGracePeriodSeconds": 60,
            "securityContext": self._security(),
            "containers": [self._container(image, command, environment, resources, [*mounts, *own])],
            "volumes": volumes,
            "affinity": placement.affinity or self._affinity(component),
            "nodeSelector": placement.nodeSelector,
            "tolerations": placement.tolerations,
            "topologySpreadConstraints": placement.topologySpread or self._spread(component),
            "imagePullSecrets": [{"name": one.name} for one in self.spec.imagePullSecrets],
            "enableServiceLinks": False,
        }
        if placement.priorityClassName is not None:
            pod["priorityClassName"] = placement.priorityClassName
        return {"metadata": {"labels": labels(self.name, component)}, "spec": pod}

    def _shares(self, component: str) -> bool:
        """Whether a host has several of these pods."""
        return component == "node" and self.spec.storage.shares_hosts

    def _affinity(self, component: str) -> Object:
        if self._shares(component):
            return {}
        term = {"labelSelector": {"matchLabels": labels(self.name, component)}, "topologyKey": HOST}
        if component == "node" and self.spec.placement.failureDomain != "none":
            return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        preferred = [{"weight": 100, "podAffinityTerm": term}]
        return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}

    def _spread(self, component: str) -> list[Object]:
        """Evenly over zones where they fail together, and over hosts where these have several.

        That is a wish: were it a demand, a host that is away or new, and has none, would keep pods of others from the
        hosts that their volumes are on. What is demanded is that a host has no more than its number: with fewer
        domains than `minDomains` Kubernetes takes the least of any for zero, and the skew for what the host has.
        """
        found = [HOST] if self._shares(component) else []
        found = [ZONE, *found] if self.spec.placement.failureDomain == "zone" else found
        selector = {"matchLabels": labels(self.name, component)}
        spread: list[Object] = [
            {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
            for key in found
        ]
        most = self.spec.storage.disksPerHost
        if self._shares(component) and isinstance(most, int):
            bound = {"maxSkew": most, "minDomains": MORE_THAN_HOSTS, "topologyKey": HOST}
            spread.append({**bound, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector})
        return spread
