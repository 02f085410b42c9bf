"""The resources on a real API server: defaults, what is refused and in which words, and that crds/ is the models'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from kube.apiserver import ApiServer, missing
from s4_operator import crd
from s4_operator.bucket_models import BucketSpec
from s4_operator.models import ClusterSpec

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(missing(), reason="no kube-apiserver: make e2e-programs")


def cluster(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "S4Cluster",
        "metadata": {"name": "c", "namespace": "default"},
        "spec": spec,
    }


def apply(api: ApiServer, value: dict[str, Any]) -> str:
    """What the API server says; empty where it took it."""
    name = value["metadata"]["name"]
    plural = {"S4Policy": "s4policies"}.get(value["kind"], f"{value['kind'].lower()}s")
    path = f"/apis/s4.dev/v1alpha1/namespaces/default/{plural}"
    try:
        if kept := api.get(f"{path}/{name}"):
            version = {"resourceVersion": kept["metadata"]["resourceVersion"]}
            api.call("PUT", f"{path}/{name}", {**value, "metadata": {**value["metadata"], **version}})
        else:
            api.call("POST", path, value)
    except HTTPError as error:
        return str(json.loads(error.read())["message"])
    return ""


def kept_spec(api: ApiServer, resource: str, name: str) -> dict[str, Any]:
    return dict(api.get(f"/apis/s4.dev/v1alpha1/namespaces/default/{resource}/{name}")["spec"])


def test_the_files_are_those_of_the_models() -> None:
    assert {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")} == crd.written()


def test_defaults_are_the_models(api: ApiServer) -> None:
    assert apply(api, cluster()) == ""
    kept = kept_spec(api, "s4clusters", "c")
    assert ClusterSpec(**kept) == ClusterSpec()
    assert kept["erasure"] == {"data": 4, "parity": 2}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"nodes": 3}, "nodes must be at least erasure.data + erasure.parity"),
        ({"nodes": 18, "erasure": {"data": 14, "parity": 4}}, "erasure.data + erasure.parity must be at most 16"),
        ({"metadataReplicas": 2}, "metadataReplicas must be at least 3, and at least erasure.parity + 1"),
        ({"metadataReplicas": 3, "erasure": {"data": 2, "parity": 3}}, "at least erasure.parity + 1"),
        ({"metadataReplicas": 7}, "metadataReplicas must be at most erasure.data + erasure.parity"),
        ({"metadataReplicas": 1, "erasure": {"data": 1, "parity": 1}, "nodes": 2}, "at least erasure.parity + 1"),
        ({"durability": "none"}, "durability is sync in a cluster"),
        ({"durability": "interval"}, "durability is sync in a cluster"),
        ({"durability": "fast"}, "Unsupported value"),
        ({"gateway": {"workers": 2}}, "gateway.workers needs gateway.replicas"),
        ({"gateway": {"workers": 0, "replicas": 1}}, "greater than or equal to 1"),
        ({"gateway": {"tls": {"issuerRef": {"name": "i"}}}}, "gateway.tls.issuerRef needs gateway.tls.enabled"),
        (
            {"gateway": {"tls": {"enabled": True, "issuerRef": {"name": "i"}, "secretName": "s"}}},
            "gateway.tls takes secretName or issuerRef, not both",
        ),
        ({"gateway": {"tls": {"enabled": True, "issuerRef": {"name": "i", "kind": "no"}}}}, "should match"),
        ({"partitions": 100}, "partitions must be a power of two"),
        ({"inlineThreshold": "0"}, "inlineThreshold must be between 1 and 64Ki"),
        ({"inlineThreshold": "65Ki"}, "inlineThreshold must be between 1 and 64Ki"),
        ({"small": "4095"}, "small must be 0, or between inlineThreshold and 64Ki"),
        ({"small": "8Ki", "inlineThreshold": "16Ki"}, "small must be 0, or between inlineThreshold and 64Ki"),
        ({"small": "65Ki"}, "small must be 0, or between inlineThreshold and 64Ki"),
        ({"nodes": 0}, "greater than or equal to 1"),
        ({"storage": {"size": "many"}}, "should match"),
        ({"storage": {"reclaim": "Keep"}}, "Unsupported value"),
        ({"newBuckets": "public"}, "Unsupported value"),
        ({"storage": {"disksPerHost": 0}}, "disksPerHost is a number from 1 to 100, or all"),
        ({"storage": {"disksPerHost": "some"}}, "disksPerHost is a number from 1 to 100, or all"),
        ({"storage": {"disksPerHost": 4}}, "nodes must be a multiple of storage.disksPerHost"),
        ({"storage": {"disksPerHost": 3}}, "one host would hold more shards of an object than erasure.parity"),
        ({"kms": {"secretName": "k", "allow": [{"key": "a", "buckets": []}]}}, "should have at least 1 items"),
        ({"kms": {"secretName": "k", "allow": [{"key": "a;b", "buckets": ["*"]}]}}, "should match"),
        ({"erasure": {"data": 0}}, "greater than or equal to 1"),
        ({"failure": {"replaceAfter": "soon"}}, "should match"),
        ({"environment": [{"name": "S4_REGION", "value": "x"}]}, "has a field of its own"),
        ({"environment": [{"name": "S4_LIMIT_USER_REQUESTS_PER_S", "value": "1"}]}, "has a field of its own"),
        ({"environment": [{"name": "SSL_CERT_FILE", "value": "/x"}]}, "SSL_CERT_FILE is what `authorities` names"),
        ({"environment": [{"name": "A", "value": "b", "valueFrom": {}}]}, "value or valueFrom, not both"),
        ({"environment": [{"name": "1A", "value": "b"}]}, "should match"),
        ({"placement": {"priorityClassName": "No Class"}}, "should match"),
    ],
)
def test_what_cannot_be_is_refused(api: ApiServer, spec: dict[str, Any], message: str) -> None:
    assert message in apply(api, cluster(**spec))


@pytest.mark.parametrize("small", ["0", "0Ki", "16Ki", "65536"])
def test_content_in_rows_is_off_or_above_what_is_inline(api: ApiServer, small: str) -> None:
    assert apply(api, cluster(inlineThreshold="16Ki", small=small)) == ""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"erasure": {"data": 2, "parity": 2}}, "erasure cannot be changed"),
        ({"partitions": 16}, "partitions cannot be changed"),
        ({"storage": {"size": "90Gi"}}, "storage.size may grow, and shrink only as"),
        ({"storage": {"size": "100000Mi"}}, "storage.size may grow, and shrink only as"),
        ({"storage": {"storageClassName": "fast"}}, "changed to another one with storage.migrate: true"),
        ({"storage": {"size": "90Gi", "migrate": True}}, "shrink only as storage.storageClassName changes"),
        ({"storage": {"size": "90Gi", "storageClassName": "fast"}}, "shrink only as storage.storageClassName changes"),
    ],
)
def test_what_cannot_change_is_refused(api: ApiServer, spec: dict[str, Any], message: str) -> None:
    assert apply(api, cluster()) == ""
    assert message in apply(api, cluster(**spec))


def test_a_class_changes_where_that_is_allowed_and_is_named(api: ApiServer) -> None:
    """A smaller size with it: those are other volumes."""
    assert apply(api, cluster(storage={"size": "100Gi"})) == ""
    assert apply(api, cluster(storage={"storageClassName": "fast", "migrate": True, "size": "90Gi"})) == ""
    assert apply(api, cluster(storage={"storageClassName": "fast", "size": "90Gi"})) == ""
    assert "with storage.migrate: true" in apply(api, cluster(storage={"migrate": True, "size": "90Gi"}))
    assert "shrink only as" in apply(
        api, cluster(storage={"storageClassName": "fast", "migrate": True, "size": "80Gi"})
    )


def test_a_bucket_stays_where_it_is(api: ApiServer) -> None:
    def bucket(**spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "s4.dev/v1alpha1",
            "kind": "Bucket",
            "metadata": {"name": "b", "namespace": "default"},
            "spec": spec,
        }

    assert apply(api, bucket(clusterRef={"name": "c"}, bucketName="photos")) == ""
    assert "clusterRef cannot be changed" in apply(api, bucket(clusterRef={"name": "d"}, bucketName="photos"))
    assert "bucketName cannot be changed" in apply(api, bucket(clusterRef={"name": "c"}, bucketName="films"))
    assert "should match" in apply(
        api, {**bucket(clusterRef={"name": "c"}, bucketName="No"), "metadata": {"name": "n", "namespace": "default"}}
    )
    kept = kept_spec(api, "buckets", "b")
    assert BucketSpec(**kept).deletionPolicy == "Retain"


def bucket(name: str = "settings", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterRef": {"name": "c"}, **spec},
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"quota": "much"}, "should match"),
        ({"rate": {}}, "a rate needs requests, bytes, or both"),
        ({"rate": {"requests": 0}}, "greater than or equal to 1"),
        ({"rate": {"bytes": "0"}}, "should match"),
        ({"rate": {"bytes": "0.5Mi"}}, "should match"),
        ({"rate": {"bytes": "fast"}}, "should match"),
        ({"cors": [{"allowedOrigins": ["*"]}]}, "Required value"),
        ({"cors": [{"allowedOrigins": ["*"], "allowedMethods": ["PATCH"]}]}, "Unsupported value"),
        ({"access": "Public"}, "Unsupported value"),
        ({"lifecycle": [{"prefix": "a"}]}, "a lifecycle rule needs"),
        ({"lifecycle": [{"expireAfterDays": 1, "keepNoncurrent": 1}]}, "keepNoncurrent goes with"),
        ({"lifecycle": [{"abortUploadsAfterDays": 1, "tags": {"a": "b"}}]}, "uploads have no tags"),
        ({"objectLock": {"mode": "GOVERNANCE"}}, "objectLock takes mode together with"),
        ({"objectLock": {"days": 1}}, "objectLock takes mode together with"),
        ({"objectLock": {"mode": "COMPLIANCE", "days": 1, "years": 1}}, "objectLock takes mode together with"),
        ({"encryption": {"mode": "AES128"}}, "Unsupported value"),
        ({"encryption": {"key": "k"}}, "encryption.key goes with mode"),
        ({"objectLock": {}, "versioning": "Suspended"}, "versioning cannot be Suspended with objectLock"),
        ({"grants": [{"user": "ana", "role": "Admin"}]}, "Unsupported value"),
        ({"tags": {"s4.dev/adopted-by": "a/b"}}, "are not yours to set"),
        ({"notifications": [{"receiver": "a:b", "events": ["s3:ObjectCreated:*"]}]}, "should match"),
        ({"notifications": [{"receiver": "a", "events": []}]}, "should have at least 1 items"),
        ({"website": {}}, "either index or redirectAllTo"),
        ({"website": {"index": "i", "redirectAllTo": {"host": "h"}}}, "either index or redirectAllTo"),
        ({"website": {"redirectAllTo": {"host": "h"}, "error": "e"}}, "redirectAllTo goes alone"),
        ({"website": {"index": "i", "rules": [{"prefix": "a"}]}}, "a rule says where to"),
        ({"website": {"index": "i", "rules": [{"replaceKey": "a", "replacePrefix": "b"}]}}, "not both"),
        ({"access": "PublicRead", "publicAccessBlock": {}}, "access PublicRead needs publicAccessBlock without"),
    ],
)
def test_settings_of_a_bucket_that_cannot_be(api: ApiServer, spec: dict[str, Any], message: str) -> None:
    assert message in apply(api, bucket(**spec))


def of_people(kind: str, **spec: Any) -> dict[str, Any]:
    return {**bucket("p", **spec), "kind": kind}


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("S4User", {"groups": ["a b"]}, "should match"),
        ("S4User", {"policies": [{"name": str(n)} for n in range(10)]}, "must have at most 9 items"),
        ("S4User", {"keyGrace": "soon"}, "should match"),
        ("S4Policy", {}, "Required value"),
        ("S4Policy", {"document": {}, "allowedNamespaces": ["a-*"]}, "should match"),
        ("S4Role", {}, "Required value"),
        ("S4Role", {"serviceAccounts": []}, "should have at least 1 items"),
        ("S4Role", {"serviceAccounts": [{"name": "a"}], "maxSession": "30m"}, "maxSession is from 1h to 12h"),
    ],
)
def test_people_that_cannot_be(api: ApiServer, kind: str, spec: dict[str, Any], message: str) -> None:
    assert message in apply(api, of_people(kind, **spec))


def test_people_stay_with_their_cluster(api: ApiServer) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    assert apply(api, of_people("S4Policy", document=document)) == ""
    assert kept_spec(api, "s4policies", "p")["document"] == document, "as it was written"
    moved = of_people("S4Policy", document=document)
    moved["spec"]["clusterRef"] = {"name": "d"}
    assert "clusterRef cannot be changed" in apply(api, moved)


def test_object_lock_is_for_good(api: ApiServer) -> None:
    lifecycle = [
        {"prefix": "logs/", "expireAfterDays": 30},
        {"noncurrentAfterDays": 7, "keepNoncurrent": 2, "abortUploadsAfterDays": 3},
    ]
    assert apply(api, bucket("locked", objectLock={"mode": "GOVERNANCE", "days": 1}, lifecycle=lifecycle)) == ""
    assert apply(api, bucket("locked", objectLock={})) == ""
    assert "objectLock is for good" in apply(api, bucket("locked"))


@pytest.mark.parametrize(
    ("nodes", "disks", "domain"), [(12, 2, "hostname"), (12, 4, "hostname"), (7, "all", "hostname"), (6, 3, "none")]
)
def test_shapes_of_hosts_that_stand_a_loss_or_are_meant(api: ApiServer, nodes: int, disks: Any, domain: str) -> None:
    spec = {"nodes": nodes, "storage": {"disksPerHost": disks}, "placement": {"failureDomain": domain}}
    assert (
        apply(api, {**cluster(**spec), "metadata": {"name": f"h{nodes}-{disks}-{domain}", "namespace": "default"}})
        == ""
    )
    kept = kept_spec(api, "s4clusters", f"h{nodes}-{disks}-{domain}")
    assert ClusterSpec(**kept).storage.disksPerHost == disks


def test_kubectl_scale_changes_the_nodes(api: ApiServer) -> None:
    assert apply(api, cluster()) == ""
    api.kubectl("scale", "s4clusters/c", "--replicas=8")
    assert kept_spec(api, "s4clusters", "c")["nodes"] == 8


@pytest.mark.parametrize("path", sorted((ROOT / "operator" / "samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_samples_are_taken(api: ApiServer, path: Path) -> None:
    for name in ("s4", "app"):
        api.kubectl("create", "namespace", name, check=False)
    for document in yaml.safe_load_all(path.read_text()):
        assert not api.kubectl("apply", "--dry-run=server", "-f", "-", text=json.dumps(document)).stderr
