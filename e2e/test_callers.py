"""People and programs on the real cluster of test_buckets.py: an S4User's keys, and pods that have none."""

from __future__ import annotations

import json
import os

import pytest
from apps import bucket, bucket_ready, ends_well, pod_spec, programs
from world import HANGS_S, Object, World

AUDIENCE = "demo.s4.s4.dev"
BUCKETS = (("callers", "app"), ("not-callers", "s4"))  # what the callers of this file may use, and what not


def resource(kind: str, name: str, namespace: str = "app", **spec: object) -> Object:
    reference = {"name": "demo", "namespace": "s4"}
    return {
        "apiVersion": "s4.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterRef": reference, **spec},
    }


def everything(action: str = "*") -> Object:
    return {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}}


def ready(world: World, kind: str, name: str, namespace: str = "app") -> Object:
    world.kubectl("wait", "--for=condition=Ready", f"{kind}/{name}", "-n", namespace, "--timeout=300s")
    return world.get(kind, name, namespace)


def run(
    world: World, name: str, sources: list[Object], goal: str, *, more: Object | None = None, at: str = "app"
) -> None:
    """Run caller.py with the environment of some Secrets and ConfigMaps; `more` is of the pod."""
    spec = pod_spec("unused", "caller.py")
    own, other = (world.get("buckets.s4.dev", *one)["status"]["bucketName"] for one in BUCKETS)
    values = {"BUCKET": own, "OTHER": other, "GOAL": goal}
    main = spec["containers"][0]
    main |= {"envFrom": sources, "env": [{"name": key, "value": value} for key, value in values.items()]}
    extra = more or {}
    main["volumeMounts"] += extra.pop("mounts", [])
    spec["volumes"] += extra.pop("volumes", [])
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": at}, "spec": {**spec, **extra}}
    ends_well(world, pod, hangs_s=2 * HANGS_S)


def with_token(account: str, audience: str = AUDIENCE) -> Object:
    """As docs/kubernetes.md has it."""
    token = {"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 600}}
    return {
        "serviceAccountName": account,
        "mounts": [{"name": "token", "mountPath": "/var/run/secrets/s4.dev", "readOnly": True}],
        "volumes": [{"name": "token", "projected": {"sources": [token]}}],
    }


@pytest.fixture(scope="module")
def callers(world: World) -> World:
    """The buckets of this file, and ServiceAccounts in two namespaces."""
    programs(world, "app", "s4")
    world.apply(*(bucket(*one, deletionPolicy="Delete") for one in BUCKETS))
    for one in BUCKETS:
        bucket_ready(world, *one)
    accounts = [("app", "program"), ("app", "another"), ("s4", "program")]
    world.apply(
        *(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
            for namespace, name in accounts
        )
    )
    return world


def test_a_user_has_what_its_policies_and_grants_say_and_no_more(callers: World) -> None:
    world = callers
    world.apply(
        resource("S4Policy", "reads", document=everything("s3:Get*")),
        resource("S4User", "ana", policies=[{"name": "reads"}]),
        bucket("callers", deletionPolicy="Delete", grants=[{"user": "ana", "role": "Writer"}]),
    )
    ready(world, "s4policies", "reads")
    ready(world, "s4users", "ana")

    def granted() -> bool:
        found = world.get("buckets.s4.dev", "callers", "app")
        status = found["status"]
        return bool(status["observedGeneration"] == found["metadata"]["generation"] and status["phase"] == "Ready")

    world.wait("the bucket grants it", granted)
    sources = [{"secretRef": {"name": "ana-s4-user"}}, {"configMapRef": {"name": "ana-s4-user"}}]
    run(world, "ana-served", sources, "served")
    world.kubectl("delete", "s4policies/reads", "-n", "app", "--wait=false")
    said = world.wait(
        "the policy is in use", lambda: world.get("s4policies", "reads", "app")["status"].get("message", "")
    )
    assert "it is used by the S4User app/ana" in said
    before = world.kubectl("get", "secret", "ana-s4-user", "-n", "app", "-o", "json")
    world.kubectl("delete", "s4users/ana", "-n", "app", "--timeout=300s")
    kept = {**json.loads(before), "metadata": {"name": "of-ana", "namespace": "app"}}
    world.apply(kept)
    ends = [{"secretRef": {"name": "of-ana"}}, {"configMapRef": {"name": "callers"}}]
    run(world, "ana-gone", ends, "InvalidAccessKeyId")
    world.wait(
        "the policy is gone too",
        lambda: "NotFound" in world.kubectl("get", "s4policies/reads", "-n", "app", check=False),
    )


def test_a_pod_without_keys_is_served_and_those_of_others_are_not(callers: World) -> None:
    world = callers
    world.apply(resource("S4Role", "program", serviceAccounts=[{"name": "program"}], inline=[everything()]))
    assert ready(world, "s4roles", "program")["status"]["audience"] == AUDIENCE
    sources = [{"configMapRef": {"name": "program-s4-role"}}]
    run(world, "program-served", sources, "served", more=with_token("program"))
    run(world, "wrong-audience", sources, "InvalidIdentityToken", more=with_token("program", "nobodys"))
    run(world, "wrong-name", sources, "AccessDenied", more=with_token("another"))
    found = world.get("configmap", "program-s4-role", "app")
    world.apply({**found, "metadata": {"name": "of-app", "namespace": "s4"}})
    run(
        world,
        "wrong-namespace",
        [{"configMapRef": {"name": "of-app"}}],
        "AccessDenied",
        more=with_token("program"),
        at="s4",
    )


@pytest.mark.skipif(not os.environ.get("S4_E2E_RENEWAL"), reason="S4_E2E_RENEWAL=1: eleven minutes of waiting")
def test_a_pod_goes_on_when_its_token_is_renewed(callers: World) -> None:
    """Kubernetes gives tokens ten minutes at least."""
    world = callers
    world.apply(resource("S4Role", "program", serviceAccounts=[{"name": "program"}], inline=[everything()]))
    ready(world, "s4roles", "program")
    run(world, "renewed", [{"configMapRef": {"name": "program-s4-role"}}], "renewed", more=with_token("program"))


def test_nothing_of_it_is_left(callers: World) -> None:
    world = callers
    world.kubectl("delete", "s4roles,s4users,s4policies", "--all", "-n", "app", "--timeout=300s")
    for name, namespace in BUCKETS:
        world.kubectl("delete", "buckets.s4.dev", name, "-n", namespace, "--timeout=300s")
    listed = world.kubectl("exec", "-n", "s4", "demo-node-0", "--", "s4", "admin", "user", "list")
    assert "user-" not in listed
