"""What runs when, how much of it, and what runs beside what.

Five tiers: `make check` (marker `check`: no process is started, or hardly any), `make test` (everything but the markers
of the others), `make compat` (marker `compat`: programs that package registries have), `make prometheus` (marker
`prometheus`: what takes minutes to build), `make soak` (everything but those two, and as much of it as `amount` says
for that tier). A test that can go on for ever asks `amount` how far it shall go; a variable of that name overrides the
tier, to search somewhere else or longer.

Tests run beside each other on several workers. Tests that share what is expensive to make (a server, a pair of
gateways, users that a module made once) stay together on one worker; all others go to whichever worker is free. What
takes longest begins first, so that no worker is left alone with it at the end.
"""

from __future__ import annotations

import os

import pytest

SOAK = os.environ.get("S4_TIER") == "soak"

# `make check`: files and folders of tests that need no other process.
CHECK = (
    "access/test_against_aws.py",
    "access/test_condition_keys.py",
    "access/test_policy.py",
    "cluster/test_halves.py",
    "cluster/test_map.py",
    "cluster/test_placement.py",
    "cluster/test_router.py",
    "cluster/test_reach.py",
    "cluster/test_recovery.py",
    "cluster/test_shardmap.py",
    "encryption/test_backup_keys.py",
    "encryption/test_segments.py",
    "erasure/",
    "fuzz/",
    "gateway/",
    "kube/test_certificates.py",
    "kube/test_chart.py",
    "kube/test_comers.py",
    "kube/test_crds.py",
    "kube/test_guide.py",
    "kube/test_hosts.py",
    "kube/test_image.py",
    "kube/test_lost.py",
    "kube/test_kind.py",
    "kube/test_lacking.py",
    "kube/test_manifests.py",
    "kube/test_plan.py",
    "kube/test_queue.py",
    "kube/test_sizes.py",
    "kube/test_watched.py",
    "metadata/",
    "peer/test_frames.py",
    "replica/",
    "s3/test_lifecycle_rules.py",
    "s3/test_model.py",
    "s3/test_table.py",
    "server/test_doorstep.py",
    "sim/test_simulator.py::test_seeds[0]",
    "sim/test_moves.py::test_no_shard_is_lost[0]",
    "storage/",
    "test_costs.py",
    "test_grammar.py",
    "test_packages.py",
    "test_restart.py",
    "test_rules.py",
    "test_shape.py",
    "test_texts.py",
    "test_trials.py",
    "upkeep/",
    "whole/test_judging.py",
)

# What takes long begins first: these, in this order, then the rest as it stands.
LONG = (
    "crash/test_points.py",
    "events/test_receivers.py",
    "guides/",
    "model/test_stateful.py",
    "crash/",
    "server/test_inventory.py",
    "server/test_drives.py",
    "whole/",
    "sim/",
    "model/test_time.py",
    "cluster/",
    "server/test_running.py",
    "server/test_admin.py",
    "server/",
    "clients/",
    "kube/",
)

# Clusters of many processes: no more of them at once than there are groups here, or a small machine does nothing but
# switch.
CLUSTERS = (
    (
        "cluster/test_six_nodes.py",
        "cluster/test_traces.py",
        "cluster/test_two_gateways.py",
        "cluster/test_failing_reads.py",
        "cluster/test_metadata_copies.py",
        "cluster/test_damaged_metadata.py",
        "cluster/test_lost_metadata.py",
        "cluster/test_trust_grows.py",
        "cluster/test_own_machines.py",
    ),
    (
        "faults/",
        "upgrade/",
        "cluster/test_dedup.py",
        "cluster/test_large_deletes.py",
        "cluster/test_histories.py",
        "cluster/test_power.py",
        "cluster/test_replication.py",
    ),
)


# What coverage does not trace (traced.py): tests of what runs in other processes, and what repeats the same many times.
UNTRACED = (
    "clients/",
    "crash/",
    "events/",
    "faults/",
    "guides/",
    "model/",
    "sim/",
    "upgrade/",
    "whole/",
    *(file for files in CLUSTERS for file in files),
)
SERVERS = {"server", "own_server", "open_server", "two_gateways"}  # fixtures that are processes ...
INSIDE = ("kube/", "s3/test_amz.py")  # ... but here the operator, or the server itself, is the test's own process


def amount(name: str, usual: int, soak: int) -> int:
    """How many rounds, seeds, seconds or steps; the variable `name` overrides the tier."""
    return int(os.environ.get(name) or (soak if SOAK else usual))


def group(item: pytest.Item) -> str:
    """Tests of one group run on one worker, one after the other; "" for a test that may run anywhere."""
    path = item.nodeid.partition("::")[0]
    for number, files in enumerate(CLUSTERS):
        if item.nodeid.startswith(tuple(f"tests/{file}" for file in files)):
            return f"cluster {number}"
    if "one_api" in getattr(item, "fixturenames", ()) or path == "tests/cluster/test_coordinator.py":
        return "kubernetes"  # one API server
    if "two gateways" in item.nodeid:
        return "two gateways"  # one cluster for all of them: five processes that go on to the end
    scopes = {found[-1].scope for found in item._fixtureinfo.name2fixturedefs.values()}  # type: ignore[attr-defined]
    return path if "module" in scopes else ""


def is_untraced(item: pytest.Item) -> bool:
    def below(paths: tuple[str, ...]) -> bool:
        return item.nodeid.startswith(tuple(f"tests/{path}" for path in paths))

    return below(UNTRACED) or (not SERVERS.isdisjoint(getattr(item, "fixturenames", ())) and not below(INSIDE))


def rank(item: pytest.Item, of: str) -> tuple[int, int, str]:
    """Groups of clusters, then what takes long, then files that stay together; what may run anywhere, a moment each,
    is last."""
    if of.startswith(("cluster", "two gateways")):
        return 0, 0, of
    return (
        1,
        next((at for at, start in enumerate(LONG) if item.nodeid.startswith(f"tests/{start}")), len(LONG)),
        of or "~",
    )


def arrange(items: list[pytest.Item]) -> None:
    """Mark, group and order what was collected."""
    groups = {item: group(item) for item in items}
    for item, name in groups.items():
        if item.nodeid.startswith(tuple(f"tests/{start}" for start in CHECK)):
            item.add_marker(pytest.mark.check)
        if item.nodeid.startswith("tests/compat/"):
            item.add_marker(pytest.mark.compat)
        if item.nodeid.startswith("tests/monitoring/"):
            item.add_marker(pytest.mark.prometheus)
        if is_untraced(item):
            item.add_marker(pytest.mark.untraced)
        if name:
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: rank(item, groups[item]))
