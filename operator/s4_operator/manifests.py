"""The Kubernetes objects of one cluster: pure builders, from the spec and what the plan says. Applied by clusters.py.

Nothing in a pod's template changes but by a change of what the pod runs: an object that is only relabelled, or a
setting that daemons do not read at start, restarts nobody.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from s4_operator.models import GROUP, VERSION, ClusterSpec, size

Object = dict[str, Any]
S3, ADMIN, PEER = 9000, 9001, 9002
TRUST, TLS, MASTER, KMS, RECEIVERS = (f"/etc/s4/{name}" for name in ("peers", "tls", "master", "kms", "receivers"))


def names(cluster: str) -> dict[str, str]:
    """What the objects of a cluster are called."""
    return {
        "daemon": f"{cluster}-daemon", "nodes": f"{cluster}-nodes", "node": f"{cluster}-node", "gateway": f"{cluster}-gateway",
        "root": f"{cluster}-root", "master": f"{cluster}-master", "authority": f"{cluster}-authority", "peers": f"{cluster}-peers", "gateway peers": f"{cluster}-gateway-peers", "tls": f"{cluster}-tls",
        "credentials": f"{cluster}-credentials", "dashboard": f"{cluster}-dashboard", "map": cluster, "s3": cluster,
    }  # fmt: skip


def labels(cluster: str, component: str = "") -> dict[str, str]:
    found = {"app.kubernetes.io/name": "s4", "app.kubernetes.io/instance": cluster, "s4.dev/cluster": cluster}
    return {**found, "app.kubernetes.io/component": component} if component else found


class Builder:
    """Objects of the cluster `name` in `namespace`, owned by the S4Cluster with this uid. `home` is the operator's namespace."""

    def __init__(self, namespace: str, name: str, uid: str, spec: ClusterSpec, home: str = "") -> None:
        self.namespace, self.name, self.uid, self.spec, self.home = namespace, name, uid, spec, home
        self.names = names(name)

    def object(self, api: str, kind: str, name: str, component: str = "", **parts: Any) -> Object:
        owner = {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": "S4Cluster", "name": self.name, "uid": self.uid,
            "controller": True, "blockOwnerDeletion": False,
        }  # fmt: skip
        metadata = {
            "name": name, "namespace": self.namespace, "ownerReferences": [owner],
            "labels": {**labels(self.name, component), "app.kubernetes.io/managed-by": "s4-operator"},
        }  # fmt: skip
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **parts}

    def secret(self, name: str, data: dict[str, str], kind: str = "Opaque") -> Object:
        return self.object("v1", "Secret", name, type=kind, stringData=data)

    # -- rights of the daemons

    def rights(self) -> list[Object]:
        rbac, name = "rbac.authorization.k8s.io", self.names["daemon"]
        role = self.object(f"{rbac}/v1", "Role", name, rules=[
            {"apiGroups": [GROUP], "resources": ["shardmaps"], "resourceNames": [self.names["map"]], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [GROUP], "resources": ["shardmaps/status"], "resourceNames": [self.names["map"]], "verbs": ["update"]},
        ])  # fmt: skip
        binding = self.object(f"{rbac}/v1", "RoleBinding", name,
                              roleRef={"apiGroup": rbac, "kind": "Role", "name": name},
                              subjects=[{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}])  # fmt: skip
        return [self.object("v1", "ServiceAccount", name), role, binding]

    # -- services

    def services(self) -> list[Object]:
        ports = [
            {"name": "s3", "port": S3, "targetPort": "s3"}, {"name": "admin", "port": ADMIN, "targetPort": "admin"},
            {"name": "peer", "port": PEER, "targetPort": "peer"},
        ]  # fmt: skip
        service = self.spec.gateway.service
        component = "gateway" if self.spec.gateway.replicas else "node"
        nodes = self.object("v1", "Service", self.names["nodes"], "node", spec={
            "clusterIP": "None", "publishNotReadyAddresses": True, "ports": ports, "ipFamilyPolicy": service.ipFamilyPolicy,
            "selector": labels(self.name, "node"),
        })  # fmt: skip
        s3 = self.object("v1", "Service", self.names["s3"], component, spec={
            "type": service.type, "ports": ports[:1], "ipFamilyPolicy": service.ipFamilyPolicy, "selector": labels(self.name, component),
        })  # fmt: skip
        s3["metadata"]["annotations"] = service.annotations
        return [nodes, s3]

    def hosts(self) -> list[str]:
        """Names for which the S3 certificate is: the service, every node, and what people call it outside."""
        service, nodes = self.names["s3"], self.names["nodes"]
        found = [f"{service}.{self.namespace}.svc", f"{service}.{self.namespace}.svc.cluster.local", f"{service}.{self.namespace}", service]
        found += [f"*.{nodes}.{self.namespace}.svc", f"*.{nodes}.{self.namespace}.svc.cluster.local", "localhost"]
        gateway = self.spec.gateway
        found += [name for domain in (gateway.domain, gateway.websiteDomain) if domain for name in (domain, f"*.{domain}")]
        return found + ([gateway.ingress.host] if gateway.ingress else [])

    @property
    def endpoint(self) -> str:
        scheme = "https" if self.spec.gateway.tls.enabled else "http"
        return f"{scheme}://{self.names['s3']}.{self.namespace}.svc:{S3}"

    # -- pods

    def _environment(self) -> list[Object]:
        spec = self.spec
        plain = {
            "S4_COORDINATOR": f"kubernetes://{self.namespace}/{self.names['map']}", "S4_LISTEN": f":{S3}", "S4_ADMIN_LISTEN": f":{ADMIN}",
            "S4_AUTHORITY": f"{TRUST}/ca.pem", "S4_PEER_CERTIFICATE": f"{TRUST}/tls.crt", "S4_PEER_KEY": f"{TRUST}/tls.key", "S4_MASTER_KEY": f"{MASTER}/master.key",
            "S4_REGION": spec.region, "S4_DEDUP": "on" if spec.dedup else "off", "S4_INLINE": str(size(spec.inlineThreshold)),
            "S4_STRICT": "on" if spec.strictWrites else "off", "S4_LOG_FORMAT": "json",
        }  # fmt: skip
        plain |= {name: value for name, value in (("S4_DOMAIN", spec.gateway.domain), ("S4_WEBSITE_DOMAIN", spec.gateway.websiteDomain)) if value}
        if spec.newBuckets != "aws":  # the daemons' own default is not said: who updates the operator restarts nobody
            plain["S4_NEW_BUCKETS"] = spec.newBuckets
        if spec.monitoring.bucketMetrics:
            plain["S4_BUCKET_METRICS"] = "on"
        if spec.signatureV2 != "query":
            plain["S4_SIGNATURE_V2"] = spec.signatureV2
        if spec.kms is not None:
            named = {"S4_KMS": spec.kms.url or f"{KMS}/keys", "S4_KMS_KEY": spec.kms.key, "S4_KMS_MOUNT": spec.kms.mount, "S4_KMS_TOKEN": f"{KMS}/token" if spec.kms.url else None,
                     "S4_KMS_ALLOW": ";".join(f"{use.key}={','.join(use.buckets)}" for use in spec.kms.allow)}  # fmt: skip
            plain |= {name: value for name, value in named.items() if value}
        if spec.receivers is not None:
            plain["S4_RECEIVERS"] = f"{RECEIVERS}/receivers.yaml"
        rates = spec.rates
        for of, requests, sent in (("USER", rates.userRequests, rates.userBytes), ("BUCKET", rates.bucketRequests, rates.bucketBytes)):
            plain |= {f"S4_LIMIT_{of}_REQUESTS_PER_S": str(requests)} if requests else {}
            plain |= {f"S4_LIMIT_{of}_BYTES_PER_S": str(size(sent))} if sent else {}
        if spec.gateway.tls.enabled:
            plain |= {"S4_CERTIFICATE": f"{TLS}/tls.crt", "S4_KEY": f"{TLS}/tls.key"}
        return [{"name": name, "value": value} for name, value in plain.items()]

    def _pod(self, component: str, image: str, command: list[str], environment: list[Object], resources: Object,
             mounts: list[Object]) -> Object:  # fmt: skip
        spec, placement = self.spec, self.spec.placement
        volumes: list[Object] = [{"name": "peers", "secret": {"secretName": self.names["gateway peers" if component == "gateway" else "peers"], "defaultMode": 0o440}}, {"name": "tmp", "emptyDir": {}}]
        volumes.append({"name": "master", "secret": {"secretName": self.names["master"], "defaultMode": 0o440}})
        mounts = [*mounts, {"name": "peers", "mountPath": TRUST, "readOnly": True}, {"name": "master", "mountPath": MASTER, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the pod's own
        if spec.gateway.tls.enabled:
            volumes.append({"name": "tls", "secret": {"secretName": spec.gateway.tls.secretName or self.names["tls"], "defaultMode": 0o440}})
            mounts.append({"name": "tls", "mountPath": TLS, "readOnly": True})
        for name, path, secret in (("kms", KMS, spec.kms.secretName if spec.kms else ""), ("receivers", RECEIVERS, spec.receivers.name if spec.receivers else "")):
            if secret:
                volumes.append({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}})
                mounts.append({"name": name, "mountPath": path, "readOnly": True})
        health: Object = {"httpGet": {"path": "/healthz", "port": "admin"}, "periodSeconds": 5, "timeoutSeconds": 5}
        container = {
            "name": "s4", "image": image, "imagePullPolicy": spec.imagePullPolicy, "args": command, "env": environment, "resources": resources,
            "ports": [{"name": "s3", "containerPort": S3}, {"name": "admin", "containerPort": ADMIN}, {"name": "peer", "containerPort": PEER}],
            "volumeMounts": mounts,
            "startupProbe": {**health, "failureThreshold": 720},  # a store that recovers many volumes takes its time
            "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 2, "timeoutSeconds": 5},
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},  # until nobody sends new requests here
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        }  # fmt: skip
        security: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "fsGroupChangePolicy": "OnRootMismatch"}
        if spec.podSecurity.runAsUser is not None:
            security |= {"runAsUser": spec.podSecurity.runAsUser, "runAsGroup": spec.podSecurity.runAsUser}
        if spec.podSecurity.fsGroup is not None:
            security["fsGroup"] = spec.podSecurity.fsGroup
        pod: Object = {
            "serviceAccountName": self.names["daemon"], "terminationGracePeriodSeconds": 60, "securityContext": security,
            "containers": [container], "volumes": volumes, "affinity": placement.affinity or self._affinity(component),
            "nodeSelector": placement.nodeSelector, "tolerations": placement.tolerations,
            "topologySpreadConstraints": placement.topologySpread or self._spread(component),
            "imagePullSecrets": [{"name": one.name} for one in spec.imagePullSecrets], "enableServiceLinks": False,
        }  # fmt: skip
        return {"metadata": {"labels": labels(self.name, component)}, "spec": pod}

    def _affinity(self, component: str) -> Object:
        term = {"labelSelector": {"matchLabels": labels(self.name, component)}, "topologyKey": "kubernetes.io/hostname"}
        if component == "node" and self.spec.placement.failureDomain != "none":
            return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        preferred = [{"weight": 100, "podAffinityTerm": term}]
        return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}

    def _spread(self, component: str) -> list[Object]:
        if self.spec.placement.failureDomain != "zone":
            return []
        return [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels(self.name, component)},
        }]  # fmt: skip

    def nodes(self, replicas: int, image: str) -> Object:
        """The StatefulSet. Its pods are started again by the operator only (OnDelete)."""
        spec, storage = self.spec, self.spec.storage
        field = {name: {"fieldRef": {"fieldPath": path}} for name, path in (("POD_NAME", "metadata.name"), ("HOST_NAME", "spec.nodeName"))}
        own = [{"name": name, "valueFrom": source} for name, source in field.items()]
        own += [
            {"name": "S4_NAME", "value": "$(POD_NAME)"}, {"name": "S4_ZONE", "value": "$(HOST_NAME)"},
            {"name": "S4_PEER_LISTEN", "value": f":{PEER}"},
            {"name": "S4_ADVERTISE", "value": f"$(POD_NAME).{self.names['nodes']}.{self.namespace}.svc:{PEER}"},
            {"name": "S4_RESERVE", "value": str(size(storage.reserve))},
            {"name": "S4_HEAL_RATE", "value": str(size(spec.rebuild.bandwidthPerNode) if spec.rebuild.bandwidthPerNode else 0)},
        ]  # fmt: skip
        own += [
            {"name": f"S4_ROOT_{part.upper()}_KEY", "valueFrom": {"secretKeyRef": {"name": self.names["root"], "key": f"{part}Key"}}}
            for part in ("access", "secret")
        ]
        mounts = [{"name": "data", "mountPath": "/data"}]
        template = self._pod("node", image, ["node", "/data/store"], own + self._environment(), spec.resources, mounts)
        claim: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
        if storage.storageClassName is not None:
            claim["storageClassName"] = storage.storageClassName
        return self.object("apps/v1", "StatefulSet", self.names["node"], "node", spec={
            "replicas": replicas, "serviceName": self.names["nodes"], "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": labels(self.name, "node")}, "template": template, "revisionHistoryLimit": 5,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": storage.reclaim, "whenScaled": "Retain"},
            "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": labels(self.name)}, "spec": claim}],
        })  # fmt: skip

    def gateways(self, image: str) -> list[Object]:
        """The gateway Deployment and its disruption budget; nothing while none are asked for."""
        replicas = self.spec.gateway.replicas
        if not replicas:
            return []
        template = self._pod("gateway", image, ["gateway"], self._environment(), self.spec.gateway.resources, [])
        deployment = self.object("apps/v1", "Deployment", self.names["gateway"], "gateway", spec={
            "replicas": replicas, "selector": {"matchLabels": labels(self.name, "gateway")}, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0 if replicas == 1 else 1, "maxSurge": 1}},
        })  # fmt: skip
        return [deployment, self._budget("gateway", 1)]

    def _budget(self, component: str, most: int) -> Object:
        return self.object("policy/v1", "PodDisruptionBudget", self.names[component], component, spec={
            "maxUnavailable": most, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": labels(self.name, component)},
        })  # fmt: skip

    def budget(self, most: int) -> Object:
        """Of the storage pods: as many as the data allows now."""
        return self._budget("node", most)

    # -- around it

    def network_policy(self) -> list[Object]:
        if not self.spec.networkPolicy.enabled:
            return []
        inside = [{"podSelector": {"matchLabels": labels(self.name)}}]
        home = {"matchLabels": {"kubernetes.io/metadata.name": self.home}} if self.home else {}
        operator = [{"namespaceSelector": home, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "s4-operator"}}}]
        everybody = {"from": self.spec.networkPolicy.s3From} if self.spec.networkPolicy.s3From else {}
        return [self.object("networking.k8s.io/v1", "NetworkPolicy", self.names["s3"], spec={
            "podSelector": {"matchLabels": labels(self.name)}, "policyTypes": ["Ingress"],
            "ingress": [
                {"from": inside, "ports": [{"port": PEER}]}, {"from": inside + operator, "ports": [{"port": S3}]},
                {"ports": [{"port": S3}], **everybody},
                {"from": inside + operator + self.spec.networkPolicy.adminFrom, "ports": [{"port": ADMIN}]},  # kubelets may always
            ],
        })]  # fmt: skip

    def ingress(self) -> list[Object]:
        asked = self.spec.gateway.ingress
        if asked is None:
            return []
        backend = {"service": {"name": self.names["s3"], "port": {"name": "s3"}}}
        spec: Object = {"rules": [{"host": asked.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}
        if asked.className:
            spec["ingressClassName"] = asked.className
        if asked.tlsSecretName:
            spec["tls"] = [{"hosts": [asked.host], "secretName": asked.tlsSecretName}]
        made = self.object("networking.k8s.io/v1", "Ingress", self.names["s3"], spec=spec)
        made["metadata"]["annotations"] = asked.annotations
        return [made]

    def monitoring(self) -> list[Object]:
        """For clusters that have the APIs of the Prometheus operator; the dashboard is for every Grafana with its sidecar."""
        if not self.spec.monitoring.enabled:
            return []
        monitor = self.object("monitoring.coreos.com/v1", "ServiceMonitor", self.names["s3"], spec={
            "selector": {"matchLabels": labels(self.name, "node")}, "endpoints": [{"port": "admin", "path": "/metrics", "interval": "30s"}],
        })  # fmt: skip
        rules = self.object("monitoring.coreos.com/v1", "PrometheusRule", self.names["s3"], spec={"groups": [{"name": "s4", "rules": self._alerts()}]})
        board = files("s4_operator").joinpath("dashboard.json").read_text().replace("$CLUSTER", self.name)
        dashboard = self.object("v1", "ConfigMap", self.names["dashboard"], data={f"s4-{self.namespace}-{self.name}.json": json.dumps(json.loads(board))})
        dashboard["metadata"]["labels"]["grafana_dashboard"] = "1"
        for one in (monitor, rules):
            one["metadata"]["labels"] |= self.spec.monitoring.labels
        return [monitor, rules, dashboard]

    def _alerts(self) -> list[Object]:
        here = f'namespace="{self.namespace}",service="{self.names["nodes"]}"'
        listed = (
            ("S4NodeDown", f"up{{{here}}} == 0", "5m", "critical", "A node of {cluster} does not answer."),
            ("S4NotWell", f"max(s4_health{{{here}}}) >= 2", "5m", "critical", "{cluster} is at risk or down: `s4 admin cluster status` says why."),
            ("S4SlowDrive", f"max(s4_drive_slow{{{here}}}) > 0", "5m", "warning", "A disk of {cluster} is slow."),
            ("S4FailingDrive", f"max(s4_drive_failing{{{here}}}) > 0", "1m", "warning", "A disk of {cluster} fails to read many places: drain or replace it."),
            ("S4HealQueue", f"sum(s4_partition_heal{{{here}}}) > 0", "30m", "warning", "Shards of {cluster} wait to be made again for half an hour."),
            ("S4DiskFull", f"s4_disk_free_bytes{{{here}}} / s4_disk_bytes{{{here}}} < 0.1", "10m", "warning", "A disk of {cluster} is nearly full: add nodes."),
        )  # fmt: skip
        return [
            {"alert": name, "expr": check, "for": wait, "labels": {"severity": grade}, "annotations": {"summary": text.format(cluster=self.name)}}
            for name, check, wait, grade, text in listed
        ]

    def all(self, *, replicas: int, image: str, max_unavailable: int) -> list[Object]:
        """Everything but Secrets and the ShardMap, in the order in which it is applied."""
        return [
            *self.rights(), *self.services(), self.nodes(replicas, image), *self.gateways(image), self.budget(max_unavailable),
            *self.network_policy(), *self.ingress(), *self.monitoring(),
        ]  # fmt: skip
