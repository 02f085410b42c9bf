"""Every alert by its real cause: processes that are killed, a disk that is slow, fails or is full, a certificate, a
receiver that is away. None fires before, and with each cause those that belong to it, and no others."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from monitoring.conftest import SMALL, World, room
from monitoring.watching import names
from process import injected, needs_strace, wait_until

pytestmark = pytest.mark.timeout(900)


def expect(world: World, *wanted: str, also: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Wait until these fire, and see that no others do, but those that may `also`."""
    found = world.prometheus.until(*wanted)
    assert {one["labels"]["alertname"] for one in found} <= {*wanted, *also}
    assert all("error" not in one["annotations"]["summary"] for one in found), "its words can be put together"
    return found


def of(found: list[dict[str, Any]], alert: str) -> set[str]:
    """The pods of which an alert tells."""
    return {one["labels"].get("pod", "") for one in found if one["labels"]["alertname"] == alert}


def put(world: World, bucket: str, count: int, node: str = "gateway-1", attempts: int = 2) -> None:
    client = world.cluster.client(node, attempts=attempts)
    client.create_bucket(Bucket=bucket)
    for number in range(count):
        client.put_object(Bucket=bucket, Key=f"k{number}", Body=os.urandom(150_000))


# -- what is away


def test_a_node_that_dies(world: World) -> None:
    """It is named by Prometheus, and by the others too once its pod, and with it its series, is no more."""
    world.cluster.act("kill", "node-4")
    try:
        put(world, "while-one-is-away", 20)
        found = expect(world, "S4NodeDown", "S4StoreAway", "S4Degraded", "S4HealQueue")
        assert of(found, "S4NodeDown") == {"node-4"}
        (away,) = (one for one in found if one["labels"]["alertname"] == "S4StoreAway")
        assert "do not answer the others: 1." in away["annotations"]["summary"]
        world.prometheus.see({name: where for name, where in world.pods.items() if name != "node-4"})
        wait_until(lambda: "S4NodeDown" not in world.prometheus.fires(), "Prometheus has forgotten the pod")
        expect(world, "S4StoreAway", "S4Degraded", "S4HealQueue")
    finally:
        world.cluster.act("start", "node-4")
        world.prometheus.see(world.pods)


def test_a_gateway_that_dies(world: World) -> None:
    world.cluster.act("kill", "gateway-1")
    try:
        assert of(expect(world, "S4NodeDown"), "S4NodeDown") == {"gateway-1"}
    finally:
        world.cluster.act("start", "gateway-1")


def test_more_nodes_die_than_parity_allows(world: World) -> None:
    for name in ("node-3", "node-4"):
        world.cluster.act("kill", name)
    try:
        expect(world, "S4NotWell", "S4NodeDown", "S4StoreAway", "S4Degraded", also=("S4HealQueue",))
    finally:
        for name in ("node-3", "node-4"):
            world.cluster.act("start", name)


def test_no_pod_is_there(world: World) -> None:
    """The series of all of them end: nothing is left that could be compared."""
    world.prometheus.see({})
    try:
        expect(world, "S4NotSeen")
    finally:
        world.prometheus.see(world.pods)


# -- disks


@needs_strace
def test_a_disk_that_is_slow(world: World) -> None:
    pid = world.cluster.lines["node-2"]["pid"]
    with injected(pid, "fdatasync,fsync", "delay_enter=2500000"):
        # What node-2 leads has fewer than two copies in sync, again and again: a sync of its own takes longer than the
        # lease, and those that follow it are given up. Such writes are refused at once (R9), and not by a race.
        put(world, "slow", 6, "node-1", attempts=8)
        found = expect(world, "S4SlowDrive", also=("S4Degraded", "S4HealQueue", "S4NodeDown", "S4StoreAway"))
    assert of(found, "S4SlowDrive") == {"node-2"}
    world.cluster.act("kill", "node-2")  # it says so for a minute; another process knows nothing of it
    world.cluster.act("start", "node-2")


@needs_strace
def test_a_disk_that_cannot_be_read(world: World) -> None:
    put(world, "failing", 110)  # three quarters of them have a shard there: more than FAILING places
    world.cluster.settled()
    volumes = (world.cluster.directory / "node-2" / "volumes").glob("*.vol")
    options = [option for path in volumes for option in ("-P", str(path))]
    with injected(world.cluster.lines["node-2"]["pid"], "preadv,preadv2,pread64", "error=EIO", *options):
        world.cluster.ask("POST", "/scrub", node="node-2")
        found = expect(world, "S4FailingDrive", "S4Degraded", also=("S4HealQueue",))
    assert of(found, "S4FailingDrive") == {"node-2"}
    world.cluster.act("kill", "node-2")
    world.cluster.act("start", "node-2")


@contextmanager
def ballast(directory: Path, free: Callable[[int], int]) -> Iterator[None]:
    """Something else fills a file system until `free(all bytes)` are left of it."""
    left, total = room(directory)
    path = directory / "ballast"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, left - free(total))
        yield
    finally:
        path.unlink()


def test_a_disk_that_is_filled(world: World) -> None:
    if not world.small:
        pytest.skip("only root can mount a small disk")
    disk = world.cluster.directory / SMALL
    with ballast(disk, lambda total: total * 13 // 100):
        assert of(expect(world, "S4CapacityLow"), "S4CapacityLow") == {SMALL}
    world.prometheus.is_quiet()
    with ballast(disk, lambda total: total * 8 // 100):
        found = expect(world, "S4CapacityLow", "S4DiskFull")
        assert of(found, "S4DiskFull") == {SMALL}


def test_a_disk_that_has_reached_its_reserve(world: World) -> None:
    """However much of it is free."""
    plan = world.cluster.directory / "dev.json"
    before = plan.read_text()
    changed = json.loads(before)
    changed["members"]["node-4"]["reserve"] = "1000TiB"
    try:
        world.cluster.act("stop", "node-4")
        plan.write_text(json.dumps(changed))
        world.cluster.act("start", "node-4")
        found = expect(world, "S4DiskFull", "S4Degraded", also=("S4HealQueue",))
        assert of(found, "S4DiskFull") == {"node-4"}
    finally:
        plan.write_text(before)
        world.cluster.act("stop", "node-4")
        world.cluster.act("start", "node-4")


# -- the rest


def test_moves_that_stand(world: World) -> None:
    """A store is to be emptied, and nothing moves, since somebody has forgotten that moves are frozen."""
    world.cluster.ask("POST", "/cluster/freeze")
    world.cluster.ask("POST", "/cluster/drain", {"stores": ["node-4"]})
    try:
        expect(world, "S4MovesStand", also=("S4Degraded",))
    finally:
        world.cluster.ask("POST", "/cluster/add", {"stores": ["node-4"]})
        world.cluster.ask("POST", "/cluster/unfreeze")


def test_events_that_nobody_takes(world: World) -> None:
    client = world.cluster.client("gateway-1")
    client.create_bucket(Bucket="told")
    wanted = {"QueueArn": f"arn:aws:sqs:us-east-1::{world.hook.name}", "Events": ["s3:ObjectCreated:*"]}
    client.put_bucket_notification_configuration(
        Bucket="told",
        NotificationConfiguration={"QueueConfigurations": [wanted]},
        SkipDestinationValidation=True,
    )
    for number in range(5):
        client.put_object(Bucket="told", Key=f"k{number}", Body=b"")
    (found,) = expect(world, "S4EventsWaiting")
    assert found["labels"]["receiver"] == world.hook.name
    world.hook.start()
    wait_until(lambda: len(world.hook.arrived()) >= 5, "they have arrived")
    wait_until(lambda: not world.prometheus.fires(), "nobody is told any more")
    client.put_object(Bucket="told", Key="k5", Body=b"")
    wait_until(lambda: len(world.hook.arrived()) >= 6, "one more has arrived")
    world.prometheus.is_quiet()
    client.put_bucket_notification_configuration(Bucket="told", NotificationConfiguration={})


def ending(trust: Path, name: str) -> bytes:
    """A member's certificate as the authority would have made it a hundred days ago, for a hundred days and one."""
    old = x509.load_pem_x509_certificate((trust / f"{name}.pem").read_bytes())
    key = serialization.load_pem_private_key((trust / "ca.key").read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder(extensions=list(old.extensions))
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=100))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def test_a_certificate_that_nobody_renews(world: World) -> None:
    path = world.cluster.directory / "trust" / "node-1.pem"
    before = path.read_bytes()
    path.write_bytes(ending(path.parent, "node-1"))
    try:
        found = expect(world, "S4CertificateEnds")
        (alert,) = found
        assert (alert["labels"]["pod"], alert["labels"]["certificate"]) == ("node-1", "peers")
        assert "ends in 23h" in alert["annotations"]["summary"]
    finally:
        path.write_bytes(before)


def test_every_alert_has_its_cause_here() -> None:
    """Whatever of it is skipped on this machine."""
    waited = re.findall(r"expect\(world, ([^)]*?)(?:, also=|\))", Path(__file__).read_text())
    assert {name for one in waited for name in re.findall(r'"(S4\w+)"', one)} == names()
