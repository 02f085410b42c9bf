"""The Kubernetes objects of one cluster: pure builders, from the spec and what the plan says. Applied by
clusters.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from importlib.resources import files
from typing import Any

from s4_operator.alerts import alerts
from s4_operator.models import GROUP, VERSION, ClusterSpec, size
from s4_operator.pods import ADMIN, PEER, S3, Object, Pods, labels, names


class Builder:
    """Objects of the cluster `name` in `namespace`, owned by the S4Cluster with this uid. `home` is the operator's
    namespace."""

    def __init__(self, namespace: str, name: str, uid: str, spec: ClusterSpec, home: str = "") -> None:
        self.namespace, self.name, self.uid, self.spec, self.home = namespace, name, uid, spec, home
        self.names, self._pods = names(name), Pods(namespace, name, spec)

    def owner(self) -> Object:
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "S4Cluster",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }

    def object(self, api: str, kind: str, name: str, component: str = "", **parts: Any) -> Object:
        metadata = {
            "name": name,
            "namespace": self.namespace,
            "ownerReferences": [self.owner()],
            "labels": {**labels(self.name, component), "app.kubernetes.io/managed-by": "s4-operator"},
        }
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **parts}

    def reclaimed(self, found: Object) -> Object | None:
        """The change by which what the volumes cannot be used without goes with the S4Cluster, or outlives it, as they
        do by storage.reclaim; None where it is so. What is another's, of that name too, goes with that one."""
        held = found["metadata"].get("ownerReferences") or []
        others = [one for one in held if one["uid"] != self.uid]
        wanted = [*others, self.owner()] if self.spec.storage.reclaim == "Delete" else others
        if len(held) == len(wanted) or any(one.get("controller") for one in others):
            return None
        return {"metadata": {"uid": found["metadata"]["uid"], "ownerReferences": wanted}}

    def secret(self, name: str, data: dict[str, str], kind: str = "Opaque") -> Object:
        return self.object("v1", "Secret", name, type=kind, stringData=data)

    # -- rights of the daemons

    def rights(self) -> list[Object]:
        rbac, name = "rbac.authorization.k8s.io", self.names["daemon"]
        role = self.object(
            f"{rbac}/v1",
            "Role",
            name,
            rules=[
                {
                    "apiGroups": [GROUP],
                    "resources": ["shardmaps"],
                    "resourceNames": [self.names["map"]],
                    "verbs": ["get", "list", "watch"],
                },
                {
                    "apiGroups": [GROUP],
                    "resources": ["shardmaps/status"],
                    "resourceNames": [self.names["map"]],
                    "verbs": ["update"],
                },
            ],
        )
        binding = self.object(
            f"{rbac}/v1",
            "RoleBinding",
            name,
            roleRef={"apiGroup": rbac, "kind": "Role", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
        )
        return [self.object("v1", "ServiceAccount", name), role, binding]

    # -- services

    def services(self) -> list[Object]:
        ports = [
            {"name": "s3", "port": S3, "targetPort": "s3"},
            {"name": "admin", "port": ADMIN, "targetPort": "admin"},
            {"name": "peer", "port": PEER, "targetPort": "peer"},
        ]
        service = self.spec.gateway.service
        component = "gateway" if self.spec.gateway.replicas else "node"
        every = [
            self.object(
                "v1",
                "Service",
                self.names[name],
                of,
                spec={
                    "clusterIP": "None",
                    "publishNotReadyAddresses": True,
                    "ports": listed,
                    "ipFamilyPolicy": service.ipFamilyPolicy,
                    "selector": labels(self.name, of),
                },
            )
            for name, of, listed in (
                ("nodes", "node", ports),
                ("gateways", "gateway", ports[1:2]),  # that for Prometheus
            )
            if of == "node" or component == "gateway"
        ]
        s3 = self.object(
            "v1",
            "Service",
            self.names["s3"],
            component,
            spec={
                "type": service.type,
                "ports": ports[:1],
                "ipFamilyPolicy": service.ipFamilyPolicy,
                "selector": labels(self.name, component),
            },
        )
        s3["metadata"]["annotations"] = service.annotations
        return [*every, s3]

    def hosts(self) -> list[str]:
        """Names for which the S3 certificate is: the service, every node, and what people call it outside."""
        service, nodes = self.names["s3"], self.names["nodes"]
        found = [
            f"{service}.{self.namespace}.svc",
            f"{service}.{self.namespace}.svc.cluster.local",
            f"{service}.{self.namespace}",
            service,
        ]
        found += [f"*.{nodes}.{self.namespace}.svc", f"*.{nodes}.{self.namespace}.svc.cluster.local", "localhost"]
        gateway = self.spec.gateway
        found += [
            name for domain in (gateway.domain, gateway.websiteDomain) if domain for name in (domain, f"*.{domain}")
        ]
        return found + ([gateway.ingress.host] if gateway.ingress else [])

    @property
    def endpoint(self) -> str:
        scheme = "https" if self.spec.gateway.tls.enabled else "http"
        return f"{scheme}://{self.names['s3']}.{self.namespace}.svc:{S3}"

    # -- pods

    def nodes(self, replicas: int, image: str) -> Object:
        """The StatefulSet. Its pods are started again by the operator only (OnDelete)."""
        spec, storage = self.spec, self.spec.storage
        field = {
            name: {"fieldRef": {"fieldPath": path}}
            for name, path in (("POD_NAME", "metadata.name"), ("HOST_NAME", "spec.nodeName"))
        }
        own = [{"name": name, "valueFrom": source} for name, source in field.items()]
        own += [
            {"name": "S4_NAME", "value": "$(POD_NAME)"},
            {"name": "S4_ZONE", "value": "$(HOST_NAME)"},
            {"name": "S4_PEER_LISTEN", "value": f":{PEER}"},
            {"name": "S4_ADVERTISE", "value": f"$(POD_NAME).{self.names['nodes']}.{self.namespace}.svc:{PEER}"},
            {"name": "S4_RESERVE", "value": str(size(storage.reserve))},
            {
                "name": "S4_HEAL_RATE",
                "value": str(size(spec.rebuild.bandwidthPerNode) if spec.rebuild.bandwidthPerNode else 0),
            },
        ]
        own += [
            {
                "name": f"S4_ROOT_{part.upper()}_KEY",
                "valueFrom": {"secretKeyRef": {"name": self.names["root"], "key": f"{part}Key"}},
            }
            for part in ("access", "secret")
        ]
        mounts = [{"name": "data", "mountPath": "/data"}]
        template = self._pods.template(
            "node", image, ["node", "/data/store"], own + self._pods.environment(), spec.resources, mounts
        )
        claim: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
        if storage.storageClassName is not None:
            claim["storageClassName"] = storage.storageClassName
        return self.object(
            "apps/v1",
            "StatefulSet",
            self.names["node"],
            "node",
            spec={
                "replicas": replicas,
                "serviceName": self.names["nodes"],
                "podManagementPolicy": "Parallel",
                "updateStrategy": {"type": "OnDelete"},
                "selector": {"matchLabels": labels(self.name, "node")},
                "template": template,
                "revisionHistoryLimit": 5,
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": storage.reclaim, "whenScaled": "Retain"},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": labels(self.name)}, "spec": claim}],
            },
        )

    def gateways(self, image: str) -> list[Object]:
        """The gateway Deployment and its disruption budget; nothing while none are asked for."""
        replicas = self.spec.gateway.replicas
        if not replicas:
            return []
        workers, resources, more = self.spec.gateway.workers, self.spec.gateway.resources, list[Object]()
        if workers > 1:
            more = [{"name": "S4_WORKERS", "value": str(workers - 1)}]  # beside the first
            needs = {"cpu": str(workers), "memory": f"{512 * workers}Mi"}
            resources = {
                **resources,
                "requests": {**needs, **(resources.get("limits") or {}), **(resources.get("requests") or {})},
            }
        template = self._pods.template("gateway", image, ["gateway"], more + self._pods.environment(), resources, [])
        deployment = self.object(
            "apps/v1",
            "Deployment",
            self.names["gateway"],
            "gateway",
            spec={
                "replicas": replicas,
                "selector": {"matchLabels": labels(self.name, "gateway")},
                "template": template,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0 if replicas == 1 else 1, "maxSurge": 1},
                },
            },
        )
        return [deployment, self._budget("gateway", 1)]

    def _budget(self, component: str, most: int) -> Object:
        return self.object(
            "policy/v1",
            "PodDisruptionBudget",
            self.names[component],
            component,
            spec={
                "maxUnavailable": most,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": labels(self.name, component)},
            },
        )

    def budget(self, most: int, leaving: Collection[str] = ()) -> Object:
        """Of the storage pods: as many as the data allows now. Pods that are `leaving` may all be evicted."""
        made = self._budget("node", most)
        if leaving:
            names = {"key": "statefulset.kubernetes.io/pod-name", "operator": "NotIn", "values": sorted(leaving)}
            made["spec"]["selector"]["matchExpressions"] = [names]
        return made

    # -- around it

    def network_policy(self) -> list[Object]:
        if not self.spec.networkPolicy.enabled:
            return []
        inside = [{"podSelector": {"matchLabels": labels(self.name)}}]
        home = {"matchLabels": {"kubernetes.io/metadata.name": self.home}} if self.home else {}
        operator = [
            {"namespaceSelector": home, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "s4-operator"}}}
        ]
        everybody = {"from": self.spec.networkPolicy.s3From} if self.spec.networkPolicy.s3From else {}
        return [
            self.object(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                self.names["s3"],
                spec={
                    "podSelector": {"matchLabels": labels(self.name)},
                    "policyTypes": ["Ingress"],
                    "ingress": [
                        {"from": inside, "ports": [{"port": PEER}]},
                        {"from": inside + operator, "ports": [{"port": S3}]},
                        {"ports": [{"port": S3}], **everybody},
                        {
                            "from": inside + operator + self.spec.networkPolicy.adminFrom,
                            "ports": [{"port": ADMIN}],
                        },  # kubelets may always
                    ],
                },
            )
        ]

    def ingress(self) -> list[Object]:
        asked = self.spec.gateway.ingress
        if asked is None:
            return []
        backend = {"service": {"name": self.names["s3"], "port": {"name": "s3"}}}
        spec: Object = {
            "rules": [
                {"host": asked.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            ]
        }
        if asked.className:
            spec["ingressClassName"] = asked.className
        if asked.tlsSecretName:
            spec["tls"] = [{"hosts": [asked.host], "secretName": asked.tlsSecretName}]
        made = self.object("networking.k8s.io/v1", "Ingress", self.names["s3"], spec=spec)
        made["metadata"]["annotations"] = asked.annotations
        return [made]

    def monitoring(self) -> list[Object]:
        """For clusters that have the APIs of the Prometheus operator; the dashboard is for every Grafana with its
        sidecar."""
        if not self.spec.monitoring.enabled:
            return []
        monitor = self.object(
            "monitoring.coreos.com/v1",
            "ServiceMonitor",
            self.names["s3"],
            spec={
                "selector": {"matchLabels": labels(self.name)},  # the S3 Service has no such port
                "endpoints": [{"port": "admin", "path": "/metrics", "interval": "30s"}],
            },
        )
        services = "|".join(self.names[name] for name in ("nodes", "gateways"))
        here = f'namespace="{self.namespace}",service=~"{services}"'
        rules = self.object(
            "monitoring.coreos.com/v1",
            "PrometheusRule",
            self.names["s3"],
            spec={"groups": [{"name": "s4", "rules": alerts(self.name, here)}]},
        )
        board = files("s4_operator").joinpath("dashboard.json").read_text()
        uid = hashlib.sha256(f"{self.namespace}/{self.name}".encode()).hexdigest()[:16]  # Grafana takes 40 characters
        for name, value in (("NAME", f"{self.namespace}/{self.name}"), ("UID", uid), ("HERE", json.dumps(here)[1:-1])):
            board = board.replace(f"${name}", value)
        dashboard = self.object(
            "v1",
            "ConfigMap",
            self.names["dashboard"],
            data={f"s4-{self.namespace}-{self.name}.json": json.dumps(json.loads(board))},
        )
        dashboard["metadata"]["labels"]["grafana_dashboard"] = "1"
        for one in (monitor, rules):
            one["metadata"]["labels"] |= self.spec.monitoring.labels
        return [monitor, rules, dashboard]

    def all(self, *, replicas: int, image: str, max_unavailable: int, leaving: Collection[str] = ()) -> list[Object]:
        """Everything but Secrets and the ShardMap, in the order in which it is applied: who may be evicted is said
        before anything is done."""
        return [
            self.budget(max_unavailable, leaving),
            *self.rights(),
            *self.services(),
            self.nodes(replicas, image),
            *self.gateways(image),
            *self.network_policy(),
            *self.ingress(),
            *self.monitoring(),
        ]
