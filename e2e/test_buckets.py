"""Buckets as applications and their administrators meet them. One cluster lives through this, and then through
test_cluster.py, which pytest runs next."""

from __future__ import annotations

import json

import pytest
from apps import bucket, bucket_ready, ends_well, pod_spec, programs
from world import KubectlError, Object, World

decides = pytest.mark.decides  # what `.ci/run` runs of this file; the marked tests need none of the others


@decides
def test_an_sdk_program_needs_only_what_a_bucket_gives(world: World) -> None:
    programs(world, "app", "s4")
    world.apply(bucket("photos"))
    bucket_ready(world, "photos")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "program", "namespace": "app"},
        "spec": {"backoffLimit": 0, "template": {"spec": pod_spec("photos", "program.py")}},
    }
    world.apply(job)
    world.wait(
        "the program ends",
        lambda: any(
            one["type"] in ("Complete", "Failed")
            for one in world.get("job", "program", "app")["status"].get("conditions", [])
        ),
    )
    assert "all done" in world.kubectl("logs", "-n", "app", "job/program")


def test_settings_of_a_bucket_are_made_and_taken_back(world: World) -> None:
    rule = {"allowedOrigins": ["https://example.org"], "allowedMethods": ["GET"]}
    for goal, spec in (
        (
            "made",
            {
                "quota": "1Mi",
                "cors": [rule],
                "access": "PublicRead",
                "lifecycle": [{"prefix": "logs/", "expireAfterDays": 3}],
                "encryption": {"mode": "aws:kms"},
            },
        ),
        ("taken-back", dict.fromkeys(("quota", "cors", "access", "lifecycle", "encryption"))),
    ):
        if goal == "made":
            world.apply(bucket("set", deletionPolicy="Delete", **spec))
        else:
            world.kubectl(
                "patch", "buckets.s4.dev", "set", "-n", "app", "--type=merge", "-p", json.dumps({"spec": spec})
            )

        def current() -> bool:
            found = world.get("buckets.s4.dev", "set", "app")
            return bool(
                found["status"]["observedGeneration"] == found["metadata"]["generation"]
                and found["status"]["phase"] == "Ready"
            )

        world.wait("the bucket is as it is asked for", current)
        run = pod_spec("set", "settings.py")
        run["containers"][0]["env"] = [{"name": "GOAL", "value": goal}]
        ends_well(
            world,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"settings-{goal}", "namespace": "app"},
                "spec": run,
            },
        )
    world.kubectl("delete", "buckets.s4.dev", "set", "-n", "app", "--timeout=300s")


def test_a_service_accounts_token_buys_credentials(world: World) -> None:
    run = pod_spec("unused", "identity.py")
    values = {
        "AWS_ENDPOINT_URL_S3": "http://demo.s4.svc:9000",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SUBJECT": "system:serviceaccount:s4:default",
    }
    token = {"serviceAccountToken": {"path": "token", "audience": "s4", "expirationSeconds": 600}}
    main = run["containers"][0]
    main |= {
        "envFrom": [{"secretRef": {"name": "demo-credentials"}}],
        "env": [{"name": name, "value": value} for name, value in values.items()],
    }
    main["volumeMounts"].append({"name": "token", "mountPath": "/token"})
    run["volumes"].append({"name": "token", "projected": {"sources": [token]}})
    ends_well(
        world, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "identity", "namespace": "s4"}, "spec": run}
    )


def test_helm_test_writes_and_reads_an_object(world: World) -> None:
    world.helm("test", "s4", "-n", "s4", "--timeout", "2m")


def test_a_bucket_elsewhere_is_refused_in_words(world: World) -> None:
    world.apply(bucket("stray", "default"))
    message = world.wait(
        "a message", lambda: world.get("buckets.s4.dev", "stray", "default").get("status", {}).get("message")
    )
    assert "add it to allowedNamespaces" in message
    world.kubectl("delete", "buckets.s4.dev", "stray", "-n", "default", "--timeout=300s")


def refused(world: World, name: str, reason: str) -> bool:
    """Whether a Bucket of the first tenant is refused for a reason; once it is, it has nothing."""
    found = world.get("buckets.s4.dev", name, "tenant-one").get("status", {}).get("conditions", [])
    if not any(one["type"] == "Ready" and one["reason"] == reason for one in found):
        return False
    assert not world.get("buckets.s4.dev", name, "tenant-one")["status"]["keys"]
    return True


def test_two_tenants_stay_apart(world: World) -> None:
    """The first tries what it may write, and what its pods reach, on the bucket of the other and on the cluster
    itself."""
    tenants = ("tenant-one", "tenant-two")
    secure = {"pod-security.kubernetes.io/enforce": "restricted"}
    world.apply(
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": one, "labels": secure}} for one in tenants)
    )
    programs(world, "tenant-one")
    world.patch({"allowedNamespaces": ["app", *tenants]})
    world.apply(
        bucket("victim", "tenant-two", deletionPolicy="Delete"), bucket("own", "tenant-one", deletionPolicy="Delete")
    )
    for name, namespace in (("victim", "tenant-two"), ("own", "tenant-one")):
        bucket_ready(world, name, namespace)
    victim = world.get("buckets.s4.dev", "victim", "tenant-two")["status"]["bucketName"]
    world.apply(
        bucket("theft", "tenant-one", bucketName=victim),
        bucket("lent", "tenant-one", bucketName=victim, adoptExisting=True, access="PublicRead"),
        bucket("locked", "tenant-one", bucketName=victim, adoptExisting=True, objectLock={}),
    )
    for name, reason in (("theft", "BucketExists"), ("lent", "NotLent"), ("locked", "NotLent")):
        world.wait(f"{name} is refused", lambda name=name, reason=reason: refused(world, name, reason))
        assert "NotFound" in world.kubectl("get", "secret", name, "-n", "tenant-one", check=False)
    tries(world, "kept", victim)
    world.patch({"allowedNamespaces": ["app", "tenant-two"]})
    world.wait("what it had is taken back", lambda: refused(world, "own", "NotAllowed"))
    tries(world, "taken-back", victim)
    world.patch({"adoptions": [{"bucket": victim, "by": "tenant-one/lent"}], "allowedNamespaces": ["app", *tenants]})
    for name in ("own", "lent"):
        bucket_ready(world, name, "tenant-one")
    world.kubectl("delete", "buckets.s4.dev", "--all", "-n", "tenant-one", "--timeout=300s")
    bucket_ready(world, "victim", "tenant-two")
    world.kubectl("delete", "buckets.s4.dev", "--all", "-n", "tenant-two", "--timeout=300s")
    world.kubectl("delete", "namespace", *tenants, "--timeout=300s")
    world.patch({"adoptions": [], "allowedNamespaces": ["app"]})


def tries(world: World, goal: str, victim: str) -> None:
    """A pod of the first tenant, with the keys of its own Bucket, as e2e/tenant.py."""
    run = pod_spec("own", "tenant.py")
    values = {"GOAL": goal, "VICTIM": victim, "ADMIN": "demo-node-0.demo-nodes.s4.svc:9001"}
    run["containers"][0]["env"] = [{"name": name, "value": value} for name, value in values.items()]
    ends_well(
        world,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"tries-{goal}", "namespace": "tenant-one"},
            "spec": run,
        },
    )


def test_the_image_has_its_bytecode(world: World) -> None:
    """A pod cannot write it, and would compile everything at each start."""
    asks = "import os, sys, s4.cli.main, s4.server.standalone, s4_operator.main; print([name for name, one in sys.modules.items() if getattr(one, '__cached__', None) and not os.path.exists(one.__cached__)])"
    assert world.kubectl("exec", "-n", "s4", "demo-node-0", "--", "python3", "-c", asks).strip() == "[]"


def test_keys_are_rotated_and_old_ones_end(world: World) -> None:
    world.apply(bucket("rotated", keyGrace="5s"))
    bucket_ready(world, "rotated")

    def key() -> str:
        return str(world.get("secret", "rotated", "app")["data"]["AWS_ACCESS_KEY_ID"])

    before = key()
    world.kubectl("annotate", "buckets.s4.dev", "rotated", "-n", "app", "s4.dev/rotate-key=once")
    world.wait("another key", lambda: key() != before)
    world.wait("both are shown", lambda: len(world.get("buckets.s4.dev", "rotated", "app")["status"]["keys"]) == 2)
    world.wait("the old one ends", lambda: len(world.get("buckets.s4.dev", "rotated", "app")["status"]["keys"]) == 1)
    world.kubectl("delete", "buckets.s4.dev", "rotated", "-n", "app", "--timeout=300s")


def test_a_bucket_is_deleted_with_its_objects_where_that_is_asked(world: World) -> None:
    world.apply(bucket("scratch", deletionPolicy="Delete", versioning="Enabled"))
    bucket_ready(world, "scratch")
    run = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "scratch", "namespace": "app"},
        "spec": pod_spec("scratch", "program.py"),
    }
    world.apply(run)
    world.wait("the program ends", lambda: world.get("pod", "scratch", "app")["status"]["phase"] == "Succeeded")
    name = world.get("buckets.s4.dev", "scratch", "app")["status"]["bucketName"]
    world.kubectl("delete", "buckets.s4.dev", "scratch", "-n", "app", "--timeout=300s")
    world.apply(bucket("again", bucketName=name))
    bucket_ready(world, "again")
    assert world.get("buckets.s4.dev", "again", "app")["status"]["owned"], "the old one is gone, so this one made it"
    world.kubectl("delete", "buckets.s4.dev", "again", "-n", "app", "--timeout=300s")


def test_a_cluster_in_use_is_not_deleted(world: World) -> None:
    world.wait("the cluster knows that it is used", lambda: world.cluster()["status"]["buckets"] == 1)
    with pytest.raises(KubectlError, match="used by 1 Buckets: delete them first"):
        world.kubectl("delete", "s4clusters", "demo", "-n", "s4", "--wait=false")
    assert world.condition("DeletionBlocked")["status"] == "True"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"nodes": 3}, "nodes must be at least"),
        ({"erasure": {"data": 3}}, "erasure cannot be changed"),
        ({"storage": {"size": "5Gi"}}, "storage.size may grow, and shrink only as"),
        ({"storage": {"storageClassName": "another"}}, "is changed to another one with storage.migrate: true"),
        ({"partitions": 32}, "partitions cannot be changed"),
    ],
)
def test_invalid_edits_are_refused_in_words(world: World, spec: Object, words: str) -> None:
    with pytest.raises(KubectlError, match=words):
        world.patch(spec)
