"""Lifecycle judges a version in a scan and ends it later: what it rested on is looked at again when that is decided."""

from __future__ import annotations

import pytest

from metadata.test_repeats import World
from s4.metadata import keys
from s4.metadata.commands import (
    AbortUpload,
    AnyCommand,
    BucketMade,
    ChangeObject,
    CreateBucket,
    CreateUpload,
    Deleted,
    DeleteIfNewest,
    DeleteJob,
    DeleteObject,
    Done,
    Expire,
    Judged,
    PutJob,
    PutObject,
    Refused,
    SetDocument,
    Settings,
    SpreadSettings,
    Stale,
    Taken,
    Written,
)
from s4.metadata.rows import Job, Object, Upload

ON, NEWER = Settings(7, 2, "Enabled"), Settings(7, 3, "Enabled")
TAGS = {"keep": "no"}
SEEN = Judged(2, TAGS)


def put(world: World) -> str:
    answer = world.do(PutObject(ON, b"k", Object(1, 0, "e", False, False, "ana", tags=TAGS)))
    assert isinstance(answer, Written)
    return answer.version


def ending(version: str, current: bool, judged: Judged = SEEN) -> AnyCommand:
    return (
        DeleteIfNewest(7, b"k", version, None, "LifecycleExpiration", judged)
        if current
        else Expire(7, b"k", version, None, judged)
    )


def world_with(current: bool) -> tuple[World, str]:
    world = World()
    version = put(world)
    if not current:
        put(world)
    return world, version


@pytest.mark.parametrize("current", [True, False])
def test_what_is_as_it_was_judged_ends(current: bool) -> None:
    world, version = world_with(current)
    answer = world.do(ending(version, current))
    assert isinstance(answer, Deleted)
    assert answer.version


@pytest.mark.parametrize("current", [True, False])
def test_a_version_whose_tags_changed_since_the_scan_stays(current: bool) -> None:
    world, version = world_with(current)
    world.do(ChangeObject(ON, b"k", version, tags={"keep": "yes"}))
    before = world.rows()
    answer = world.do(ending(version, current))
    assert isinstance(answer, Refused)
    assert world.rows() == before


@pytest.mark.parametrize("current", [True, False])
def test_nothing_ends_by_rules_that_were_withdrawn_since(current: bool) -> None:
    """The call that withdraws them tells every partition before it returns (L2)."""
    world, version = world_with(current)
    assert world.do(SpreadSettings(NEWER)) == Done()
    before = world.rows()
    assert isinstance(world.do(ending(version, current)), Refused)
    assert world.rows() == before
    assert isinstance(world.do(ending(version, current, Judged(3, TAGS))), Deleted)


def test_an_upload_is_not_ended_by_rules_that_were_withdrawn_since() -> None:
    world = World()
    world.do(CreateUpload(ON, b"k", b"u" * 16, Upload(1, "ana")))
    world.do(SpreadSettings(NEWER))
    assert isinstance(world.do(AbortUpload(ON, b"k", b"u" * 16, 1 << 60)), Stale)
    assert world.do(AbortUpload(NEWER, b"k", b"u" * 16, 1 << 60)) == Done()


def test_a_version_that_is_among_the_newest_by_now_stays() -> None:
    """A rule keeps two versions of the past. There were two newer ones than this when it was judged, and one is
    gone."""
    world = World()
    versions = [put(world) for _ in range(4)]
    judged = Judged(2, TAGS, 2)
    assert isinstance(world.do(DeleteObject(ON, b"k", versions[1])), Deleted)
    assert isinstance(world.do(ending(versions[0], False, judged)), Refused)
    put(world)
    assert isinstance(world.do(ending(versions[0], False, judged)), Deleted)


def test_other_rules_are_another_revision_of_the_settings_and_other_texts_are_not() -> None:
    world = World()
    made = world.do(CreateBucket("photos", "ana", 10, 10))
    assert isinstance(made, BucketMade)
    revisions = []
    for setting in ("lifecycle", "policy", "lifecycle"):
        answer = world.do(SetDocument("photos", setting, "[]"))
        assert isinstance(answer, BucketMade)
        revisions.append(answer.bucket.revision - made.bucket.revision)
    assert revisions == [1, 1, 2]
    assert keys.named_row(keys.BUCKET, "photos") in world.rows()


def test_a_setting_is_kept_beside_those_that_it_was_judged_by_only() -> None:
    """A public policy, where the bucket's block of such came between the look and the change."""
    world = World()
    world.do(CreateBucket("photos", "ana", 10, 10))
    policy = SetDocument("photos", "policy", "public", {"block": ""})
    assert isinstance(world.do(SetDocument("photos", "block", "all")), BucketMade)
    before = world.rows()
    assert isinstance(world.do(policy), Refused)
    assert world.rows() == before
    assert isinstance(world.do(SetDocument("photos", "block", "")), BucketMade)
    assert isinstance(world.do(policy), BucketMade)


def test_a_job_that_was_forgotten_does_not_come_back() -> None:
    """Who runs it may be another node than the one that was told to forget it."""
    world, job = World(), Job("photos", "a/", "b/", 1)
    following = Job("photos", "a/", "b/", 1, b"a/x", 256)
    assert world.do(PutJob("1-a", job)) == Taken(True)
    assert world.do(PutJob("1-a", following, job)) == Taken(True)
    assert world.do(PutJob("1-a", following, job)) == Taken(False), "somebody else went on with it"
    world.do(DeleteJob("1-a"))
    assert world.do(PutJob("1-a", job, following)) == Taken(False)
    assert not [key for key in world.rows() if key[2:3] == keys.JOB]
