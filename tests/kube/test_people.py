"""S4Users and S4Policies on a real API server and a real S4 server: what they give, what they never give, and what is
left of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from kube.apiserver import ApiServer
from kube.tenants import HOME, ONE, OTHER, Reconcilers, Tenants
from kube.test_tenants import is_refused
from process import ACCESS, REGION, SECRET, ServerProcess, make_client
from s4_operator.people import USER

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def may(action: str, *buckets: str) -> dict[str, Any]:
    arns = [arn for name in buckets for arn in (f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*")]
    return {"Effect": "Allow", "Action": action, "Resource": arns}


@pytest.fixture
def tenants(one_api: ApiServer, server: ServerProcess) -> Iterator[Tenants]:
    made = Tenants(one_api, server)
    yield made
    for kind in ("s4users", "s4policies", "s4roles"):
        one_api.remove_at_once(kind)
    made.operate(swept)


async def swept(made: Reconcilers) -> None:
    from s4_operator.sweep import sweep

    await sweep(made.kube, made.daemons, "tests")


class Person:
    """An S4User and what there is of it."""

    def __init__(self, tenants: Tenants, namespace: str, name: str = "ana") -> None:
        self.tenants, self.at = tenants, (namespace, name)

    def write(self, **spec: Any) -> Person:
        self.tenants.write("S4User", *self.at, **spec)
        return self

    def look(self) -> Person:
        self.tenants.rounds(("S4User", *self.at))
        return self

    @property
    def reason(self) -> str:
        return self.tenants.reason(*self.at, "S4User")

    @property
    def status(self) -> dict[str, Any]:
        return self.tenants.status(*self.at, "S4User")

    @property
    def user(self) -> str:
        return USER + str(self.tenants.get("S4User", *self.at)["metadata"]["uid"])

    def keys(self) -> tuple[str, str]:
        namespace, name = self.at
        return self.tenants.keys(namespace, f"{name}-s4-user")

    def client(self) -> Any:
        return make_client(self.tenants.server.endpoint, *self.keys())


def iam_of(tenants: Tenants, keys: tuple[str, str] = (ACCESS, SECRET)) -> Any:
    return boto3.client(
        "iam",
        endpoint_url=tenants.server.endpoint,
        region_name=REGION,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
    )


def own_bucket(tenants: Tenants, namespace: str, name: str = "own", **spec: Any) -> str:
    tenants.bucket(namespace, name, **spec)
    tenants.look((namespace, name))
    assert tenants.reason(namespace, name) == "Ready"
    return str(tenants.status(namespace, name)["bucketName"])


def test_an_inline_policy_is_what_a_user_may_do(tenants: Tenants, bucket: str) -> None:
    """In the cluster's own namespace, where nothing else bounds it."""
    person = Person(tenants, HOME).write(inline=[document(may("s3:PutObject", bucket))]).look()
    assert person.reason == "Ready"
    s3 = person.client()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert is_refused(lambda: s3.get_object(Bucket=bucket, Key="k"), "AccessDenied")
    person.write(inline=[document(may("s3:GetObject", bucket))]).look()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert is_refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x"), "AccessDenied")
    assert person.status["arn"].endswith(f":user/s4.dev/users/{HOME}/ana/{person.user}")
    assert tenants.get("ConfigMap", HOME, "ana-s4-user")["data"]["AWS_ENDPOINT_URL_S3"]
    assert tenants.known_keys(person.user) == [person.keys()[0]], "and no key that nobody knows of"


def test_whatever_a_tenants_policies_say_only_its_own_buckets_are_reached(tenants: Tenants, bucket: str) -> None:
    own, others = own_bucket(tenants, ONE), own_bucket(tenants, OTHER)
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)]).look()
    assert person.reason == "Ready"
    s3, iam = person.client(), iam_of(tenants, person.keys())
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    assert s3.get_object(Bucket=own, Key="k")["Body"].read() == b"x"
    everybody = json.dumps(document({**may("s3:*", others), "Principal": "*"}))
    tenants.server_client().put_bucket_policy(
        Bucket=others,
        Policy=json.dumps(document({**may("s3:GetObject", others), "Principal": {"AWS": person.status["arn"]}})),
    )
    for name in (bucket, others):
        for call in (
            lambda name=name: s3.get_object(Bucket=name, Key="k"),
            lambda name=name: s3.list_objects_v2(Bucket=name),
            lambda name=name: s3.put_object(Bucket=name, Key="k", Body=b"x"),
            lambda name=name: s3.put_bucket_policy(Bucket=name, Policy=everybody),
            lambda name=name: s3.copy_object(Bucket=own, Key="stolen", CopySource={"Bucket": name, "Key": "k"}),
        ):
            assert is_refused(call, "AccessDenied")
    for call in (
        lambda: s3.create_bucket(Bucket="of-nobody-yet"),
        lambda: s3.delete_bucket(Bucket=own),
        lambda: iam.create_access_key(UserName=person.user),
        iam.list_users,
        lambda: iam.detach_user_policy(
            UserName=person.user, PolicyArn=f"arn:aws:iam::000000000000:policy/s4.dev/namespaces/{ONE}/namespace-{ONE}"
        ),
    ):
        assert is_refused(call, "AccessDenied")


def test_a_bucket_that_comes_later_is_reached_and_one_that_goes_is_not(tenants: Tenants) -> None:
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)]).look()
    own = own_bucket(tenants, ONE, bucketName="of-one-then-of-another", deletionPolicy="Delete")
    person.look()
    s3 = person.client()
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    tenants.delete(ONE, "own")
    tenants.look((ONE, "own"))
    assert own_bucket(tenants, OTHER, bucketName=own, deletionPolicy="Delete") == own
    assert is_refused(lambda: s3.list_objects_v2(Bucket=own), "AccessDenied"), "though nobody looked at the user since"


def test_a_name_that_an_administrator_freed_is_the_next_ones_alone(tenants: Tenants, s3: Any) -> None:
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)])
    own = own_bucket(tenants, ONE, bucketName="freed-by-hand")
    person.look()
    person.client().list_objects_v2(Bucket=own)
    tenants.delete(ONE, "own")  # kept, with Retain; and then
    s3.delete_bucket(Bucket=own)
    own_bucket(tenants, OTHER, bucketName=own)
    assert is_refused(lambda: person.client().list_objects_v2(Bucket=own), "AccessDenied")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"inline": [{"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}]}, "document 1 of inline"),
        ({"inline": [{"Statement": [EVERYTHING]}]}, 'needs "Version": "2012-10-17"'),
        ({"inline": [document({**EVERYTHING, "Action": "s3:GetObjcet"})]}, "s3:getobjcet"),
        (
            {"inline": [document({**EVERYTHING, "Condition": {"StringEquals": {"s3:nothing": "x"}}})]},
            "There is no such thing as the condition key s3:nothing",
        ),
    ],
)
def test_a_document_that_daemons_would_not_take_is_refused_in_words(
    tenants: Tenants, spec: dict[str, Any], words: str
) -> None:
    person = Person(tenants, HOME).write(**spec).look()
    assert person.reason == "MalformedPolicy"
    assert words in person.status["message"]
    assert tenants.known_keys(person.user) is None, "nothing was made"


def test_a_mistake_leaves_what_was_before(tenants: Tenants, bucket: str) -> None:
    person = Person(tenants, HOME).write(inline=[document(may("s3:PutObject", bucket))]).look()
    person.write(inline=[document({**EVERYTHING, "Action": "s3:GetObjcet"})]).look()
    assert person.reason == "MalformedPolicy"
    person.client().put_object(Bucket=bucket, Key="k", Body=b"x")


def test_a_policy_of_ones_own_namespace_can_be_had_and_follows_its_document(tenants: Tenants) -> None:
    own = own_bucket(tenants, ONE)
    tenants.write("S4Policy", ONE, "reads", document=document(may("s3:GetObject", own)))
    person = Person(tenants, ONE).write(policies=[{"name": "reads"}]).look()
    assert person.reason == "NoSuchPolicy"
    assert not tenants.get("Secret", ONE, "ana-s4-user")
    tenants.rounds(("S4Policy", ONE, "reads"))
    assert person.look().reason == "Ready"
    s3 = person.client()
    assert is_refused(lambda: s3.put_object(Bucket=own, Key="k", Body=b"x"), "AccessDenied")
    for _ in range(7):  # more than IAM keeps versions of
        tenants.write("S4Policy", ONE, "reads", document=document(may("s3:PutObject", own)))
        tenants.rounds(("S4Policy", ONE, "reads"))
        s3.put_object(Bucket=own, Key="k", Body=b"x")
        tenants.write("S4Policy", ONE, "reads", document=document(may("s3:GetObject", own)))
        tenants.rounds(("S4Policy", ONE, "reads"))
        s3.get_object(Bucket=own, Key="k")
    person.write(policies=[]).look()
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"), "AccessDenied")


def test_a_policy_of_others_is_had_where_they_say_so_and_only_as_long(tenants: Tenants) -> None:
    own = own_bucket(tenants, ONE)
    tenants.write("S4Policy", HOME, "all", document=document(EVERYTHING))
    tenants.rounds(("S4Policy", HOME, "all"))
    person = Person(tenants, ONE).write(policies=[{"name": "all", "namespace": HOME}]).look()
    assert person.reason == "NotShared"
    assert not tenants.get("Secret", ONE, "ana-s4-user")
    tenants.write("S4Policy", HOME, "all", document=document(EVERYTHING), allowedNamespaces=[ONE])
    assert person.look().reason == "Ready"
    s3 = person.client()
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    tenants.write("S4Policy", HOME, "all", document=document(EVERYTHING), allowedNamespaces=[])
    assert person.look().reason == "NotShared"
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"))
    assert tenants.known_keys(person.user) == []


def test_who_is_not_bounded_takes_no_policy_that_others_can_change(tenants: Tenants) -> None:
    tenants.write("S4Policy", ONE, "trap", document=document(EVERYTHING), allowedNamespaces=["*"])
    tenants.rounds(("S4Policy", ONE, "trap"))
    person = Person(tenants, HOME).write(policies=[{"name": "trap", "namespace": ONE}]).look()
    assert person.reason == "NotShared"


def test_a_boundary_bounds(tenants: Tenants, bucket: str) -> None:
    tenants.write("S4Policy", HOME, "reads", document=document(may("s3:Get*", bucket)))
    tenants.rounds(("S4Policy", HOME, "reads"))
    person = Person(tenants, HOME).write(inline=[document(EVERYTHING)], permissionsBoundary={"name": "reads"}).look()
    s3 = person.client()
    assert is_refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x"), "AccessDenied")
    person.write(inline=[document(EVERYTHING)], permissionsBoundary=None).look()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_what_iam_clients_made_besides_stays(tenants: Tenants, bucket: str) -> None:
    person = Person(tenants, HOME).write(inline=[document(may("s3:PutObject", bucket))]).look()
    iam = iam_of(tenants)
    iam.put_user_policy(
        UserName=person.user, PolicyName="besides", PolicyDocument=json.dumps(document(may("s3:GetObject", bucket)))
    )
    other = iam.create_access_key(UserName=person.user)["AccessKey"]
    person.write(inline=[]).look()
    s3 = make_client(tenants.server.endpoint, other["AccessKeyId"], other["SecretAccessKey"])
    assert is_refused(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x"), "AccessDenied")
    assert is_refused(lambda: s3.get_object(Bucket=bucket, Key="none"), "(NoSuchKey|AccessDenied)")
    assert iam.list_user_policies(UserName=person.user)["PolicyNames"] == ["besides"]


def test_groups_are_joined_and_left_and_those_of_iam_clients_stay(tenants: Tenants) -> None:
    iam = iam_of(tenants)
    for name in ("of-the-resource", "of-a-client"):
        iam.create_group(GroupName=name)
    try:
        person = Person(tenants, HOME).write(groups=["of-the-resource", "of-nobody"]).look()
        assert person.reason == "NoSuchGroup"
        person.write(groups=["of-the-resource"]).look()
        iam.add_user_to_group(UserName=person.user, GroupName="of-a-client")
        assert person.look().reason == "Ready"

        def held() -> set[str]:
            return {one["GroupName"] for one in iam.list_groups_for_user(UserName=person.user)["Groups"]}

        assert held() == {"of-the-resource", "of-a-client"}
        person.write(groups=[]).look()
        assert held() == {"of-a-client"}
        stranger = Person(tenants, ONE).write(groups=["of-the-resource"]).look()
        assert stranger.reason == "GroupsNotAllowed"
    finally:
        tenants.delete(*person.at, "S4User")
        person.look()
        for name in ("of-the-resource", "of-a-client"):
            iam.delete_group(GroupName=name)


def test_a_namespace_that_is_no_longer_allowed_loses_keys_and_sessions(tenants: Tenants) -> None:
    own = own_bucket(tenants, ONE)
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)]).look()
    s3 = person.client()
    s3.put_object(Bucket=own, Key="k", Body=b"x")
    tenants.cluster(allowedNamespaces=[OTHER])
    assert person.look().reason == "NotAllowed"
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"))
    assert not person.status["keys"]
    assert tenants.known_keys(person.user) == []
    tenants.cluster()
    assert person.look().reason == "Ready"
    tenants.look((ONE, "own"))
    person.look()
    assert person.client().get_object(Bucket=own, Key="k")["Body"].read() == b"x"


def test_rotation_gives_a_new_key_and_the_old_one_its_grace(tenants: Tenants, bucket: str) -> None:
    person = Person(tenants, HOME).write(inline=[document(may("s3:*", bucket))]).look()
    old, s3 = person.keys(), person.client()
    tenants.annotate("S4User", *person.at, **{"s4.dev/rotate-key": "1"})
    person.look()
    assert person.keys()[0] != old[0]
    assert [one["accessKey"] for one in person.status["keys"]] == [person.keys()[0], old[0]]
    s3.list_objects_v2(Bucket=bucket)
    person.client().list_objects_v2(Bucket=bucket)
    person.write(inline=[document(may("s3:*", bucket))], keyGrace="0s")
    tenants.annotate("S4User", *person.at, **{"s4.dev/rotate-key": "2"})
    newer = person.keys()
    person.look()
    assert is_refused(lambda: make_client(tenants.server.endpoint, *newer).list_objects_v2(Bucket=bucket))


def test_a_secret_that_is_refused_again_and_again_leaves_no_keys_behind_and_says_why(
    tenants: Tenants, bucket: str
) -> None:
    """Each try left one, until the user had as many as one may have: then nothing went on, though it was allowed
    again."""
    person = Person(tenants, HOME).write(inline=[document(may("s3:*", bucket))]).look()
    secret = f"/api/v1/namespaces/{HOME}/secrets/{person.status['secretName']}"
    old = person.keys()[0]
    tenants.api.change(secret, {"immutable": True})
    for number in range(18):
        tenants.annotate("S4User", *person.at, **{"s4.dev/rotate-key": str(number)})
        assert person.look().reason == "RefusedByKubernetes"
    assert "immutable" in person.status["message"]
    known = tenants.known_keys(person.user) or []
    assert old in known, "what the Secret has goes on"
    assert len(known) <= 2
    tenants.api.call("DELETE", secret)
    assert person.look().reason == "Ready"
    assert (tenants.known_keys(person.user) or []) == [person.keys()[0]]


def test_a_user_that_is_deleted_leaves_nothing_usable(tenants: Tenants, bucket: str) -> None:
    person = Person(tenants, HOME).write(inline=[document(may("s3:*", bucket))]).look()
    s3, user = person.client(), person.user
    tenants.delete(*person.at, "S4User")
    assert tenants.get("S4User", *person.at), "it waits for the operator"
    person.look()
    assert not tenants.get("S4User", *person.at)
    assert is_refused(lambda: s3.list_objects_v2(Bucket=bucket))
    assert tenants.known_keys(user) is None


def test_a_policy_that_somebody_has_is_not_deleted_from_under_them(tenants: Tenants, bucket: str) -> None:
    tenants.write("S4Policy", HOME, "denies", document=document({**may("s3:Get*", bucket), "Effect": "Deny"}))
    tenants.rounds(("S4Policy", HOME, "denies"))
    person = Person(tenants, HOME).write(inline=[document(EVERYTHING)], policies=[{"name": "denies"}]).look()
    tenants.delete(HOME, "denies", "S4Policy")
    tenants.rounds(("S4Policy", HOME, "denies"))
    said = tenants.status(HOME, "denies", "S4Policy")
    assert said["message"] == f"it is used by the S4User {HOME}/ana"
    assert is_refused(lambda: person.client().get_object(Bucket=bucket, Key="k"), "AccessDenied")
    person.write(inline=[document(EVERYTHING)], policies=[]).look()
    arn = said["arn"]
    iam = iam_of(tenants)
    iam.attach_user_policy(UserName=person.user, PolicyArn=arn)
    tenants.rounds(("S4Policy", HOME, "denies"))
    assert "somebody has it attached" in tenants.status(HOME, "denies", "S4Policy")["message"]
    iam.detach_user_policy(UserName=person.user, PolicyArn=arn)
    tenants.rounds(("S4Policy", HOME, "denies"))
    assert not tenants.get("S4Policy", HOME, "denies")


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
def test_what_is_somebody_elses_is_not_overwritten(tenants: Tenants, kind: str) -> None:
    data = {"stringData": {"of": "another"}} if kind == "Secret" else {"data": {"of": "another"}}
    tenants.make(kind, ONE, "ana-s4-user", **data)
    before = tenants.get(kind, ONE, "ana-s4-user")
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)]).look()
    assert person.reason == f"{kind}Exists"
    assert tenants.get(kind, ONE, "ana-s4-user") == before
    assert tenants.known_keys(person.user) is None


def test_a_crash_between_any_two_calls_is_gone_on_from(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator dies before its first, second, ... call of daemons; the next one ends as if nothing had been, and
    at no moment is there a key without the namespace's bound."""
    from s4_operator.daemons import Daemons

    own = own_bucket(tenants, ONE)
    others = own_bucket(tenants, OTHER)
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)])
    calls = 0
    real = Daemons._send

    class Died(BaseException):
        pass

    async def counted(self: Daemons, base: str, method: str, target: str, body: bytes, *more: str) -> Any:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Died
        return await real(self, base, method, target, body, *more)

    monkeypatch.setattr(Daemons, "_send", counted)
    for step in range(100):
        calls = step
        try:
            person.look()
        except Died:
            held = tenants.known_keys(person.user) or []
            if held:
                arns = iam_of(tenants).list_attached_user_policies(UserName=person.user)["AttachedPolicies"]
                assert [one["PolicyName"] for one in arns] == [f"namespace-{ONE}"]
            continue
        break
    else:
        raise AssertionError("it never ends")
    monkeypatch.undo()
    assert step > 5
    assert person.look().reason == "Ready"
    assert tenants.known_keys(person.user) == [person.keys()[0]]
    person.client().put_object(Bucket=own, Key="k", Body=b"x")
    assert is_refused(lambda: person.client().list_objects_v2(Bucket=others), "AccessDenied")


def test_a_bucket_grants_its_use_to_users_even_of_other_namespaces(tenants: Tenants) -> None:
    """The Bucket's owner says so; and only what the role has is had, as long as it is granted."""
    reader, writer = Person(tenants, OTHER, "reader").write().look(), Person(tenants, ONE, "writer").write().look()
    grants = [{"user": "reader", "namespace": OTHER, "role": "Reader"}, {"user": "writer", "role": "Writer"}]
    own = own_bucket(tenants, ONE, grants=grants)
    reader.look()
    writer.look()
    writer.client().put_object(Bucket=own, Key="k", Body=b"x")
    s3 = reader.client()
    assert s3.get_object(Bucket=own, Key="k")["Body"].read() == b"x"
    assert is_refused(lambda: s3.put_object(Bucket=own, Key="k", Body=b"x"), "AccessDenied")
    assert is_refused(lambda: writer.client().delete_bucket_policy(Bucket=own), "AccessDenied")
    tenants.bucket(ONE, "own", grants=[{"user": "writer", "role": "Owner"}])
    tenants.look((ONE, "own"))
    assert is_refused(lambda: s3.get_object(Bucket=own, Key="k"), "AccessDenied")
    writer.look()
    assert "S4OperatorOwner" in writer.client().get_bucket_policy(Bucket=own)["Policy"]
    writer.client().put_bucket_policy(
        Bucket=own, Policy=json.dumps(document({**may("s3:GetObject", own), "Principal": {"AWS": "000000000000"}}))
    )
    tenants.bucket(ONE, "own", grants=[])
    tenants.look((ONE, "own"))
    assert is_refused(lambda: writer.client().get_object(Bucket=own, Key="k"), "AccessDenied")


def test_a_grant_to_nobody_yet_is_said_and_the_rest_is_done(tenants: Tenants) -> None:
    tenants.bucket(ONE, "own", grants=[{"user": "ana", "role": "Writer"}], tags={"team": "a"})
    tenants.look((ONE, "own"))
    assert tenants.reason(ONE, "own") == "NotGranted"
    assert tenants.status(ONE, "own")["message"] == f"there is no S4User {ONE}/ana yet that is Ready"
    assert tenants.status(ONE, "own")["settings"]["tags"] == "team=a"
    tenants.client(ONE, "own").put_object(Bucket=tenants.status(ONE, "own")["bucketName"], Key="k", Body=b"x")
    person = Person(tenants, ONE).write().look()
    tenants.look((ONE, "own"))
    assert tenants.reason(ONE, "own") == "Ready"
    person.client().get_object(Bucket=tenants.status(ONE, "own")["bucketName"], Key="k")


def test_a_bucket_that_is_lent_is_used_and_not_given_on(tenants: Tenants, bucket: str) -> None:
    person = Person(tenants, ONE).write(inline=[document(EVERYTHING)])
    tenants.cluster(adoptions=[{"bucket": bucket, "by": f"{ONE}/lent"}])
    tenants.bucket(ONE, "lent", bucketName=bucket, adoptExisting=True, grants=[{"user": "ana", "role": "Owner"}])
    person.look()
    tenants.look((ONE, "lent"))
    assert "cannot be Owner of a bucket that is somebody else's" in tenants.status(ONE, "lent")["message"]
    person.look()
    s3 = person.client()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert is_refused(lambda: s3.delete_bucket_policy(Bucket=bucket), "AccessDenied")
    tenants.cluster(adoptions=[])
    person.look()
    assert is_refused(lambda: s3.get_object(Bucket=bucket, Key="k"), "AccessDenied")
