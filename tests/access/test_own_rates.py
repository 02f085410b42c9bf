"""A rate of one user's or one bucket's own: kept, shown, obeyed by every gateway. What is owed, by a byte a second, is
owed for hours."""

from __future__ import annotations

import json
from subprocess import CalledProcessError
from typing import Any

import pytest

from access import where
from raw import Answer, call

server = where.server
BODY = b"x" * 50_000


@pytest.fixture
def buckets(server: Any) -> list[str]:
    names = [where.new_name(), where.new_name()]
    for name in names:
        assert call(server.endpoint, "PUT", f"/{name}").status == 200
    return names


def _admin(server: Any, *arguments: str) -> Any:
    return json.loads(server.admin_cli("--json", *arguments).stdout)


def _user(server: Any) -> dict[str, str]:
    made = _admin(server, "user", "add", name := where.new_name(), "--grant", "Writer")
    return {"name": name, "access": made["access_key"], "secret": made["secret_key"]}


def _asked(server: Any, method: str, path: str, user: dict[str, str], body: bytes = b"") -> Answer:
    return call(server.endpoint, method, path, body=body, access=user["access"], secret=user["secret"])


def _refused_everywhere(server: Any, path: str, user: dict[str, str]) -> None:
    """By each gateway, once it has sent or taken something for whom the rate is of."""
    for _ in range(2):
        first = _asked(server, "PUT", path, user, BODY)
        assert first.status in (200, 503)
    for _ in range(2):
        _asked(server, "PUT", path, user, BODY)  # of a bucket a process knows the rate from its second request on
    for _ in range(2):
        again = _asked(server, "GET", path, user)
        assert (again.status, again.code) == (503, "SlowDown")
        assert int(again.headers["retry-after"]) > 40_000


def test_one_users_rate_is_that_users_alone_and_ends_when_it_is_taken_back(server: Any, buckets: list[str]) -> None:
    user, other = _user(server), _user(server)
    assert _admin(server, "user", "rate", user["name"], "--bytes", "1") == {
        "name": user["name"],
        "requests_per_s": 0,
        "bytes_per_s": 1,
    }
    (listed,) = (one for one in _admin(server, "user", "list")["users"] if one["name"] == user["name"])
    assert (listed["requests_per_s"], listed["bytes_per_s"]) == (0, 1)
    _refused_everywhere(server, f"/{buckets[0]}/k", user)
    assert _asked(server, "GET", f"/{buckets[0]}/k", other).body == BODY
    _admin(server, "user", "set", user["name"], "--grant", "Reader")
    assert _asked(server, "GET", f"/{buckets[0]}/k", user).status == 503, "a change of something else leaves it"
    _admin(server, "user", "rate", user["name"], "--bytes", "0")
    assert [_asked(server, "GET", f"/{buckets[0]}/k", user).status for _ in range(2)] == [200, 200]


def test_one_buckets_rate_is_everybodys_in_that_bucket(server: Any, buckets: list[str]) -> None:
    user, other = _user(server), _user(server)
    text = server.admin_cli("bucket", "rate", buckets[0], "--bytes", "1", "--requests", "5000").stdout
    assert text == f"{buckets[0]}: 5000/s, 1 B/s\n"
    assert f"{text.partition(': ')[2]}" in "".join(
        line for line in server.admin_cli("buckets").stdout.splitlines(keepends=True) if buckets[0] in line
    )
    _refused_everywhere(server, f"/{buckets[0]}/k", user)
    assert _asked(server, "GET", f"/{buckets[0]}/k", other).status == 503
    assert _asked(server, "PUT", f"/{buckets[1]}/k", user, BODY).status == 200
    _admin(server, "bucket", "rate", buckets[0], "--bytes", "0")  # the requests stay
    assert [_asked(server, "GET", f"/{buckets[0]}/k", user).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("user", "rate", "nobody-of-this-name", "--requests", "5"), "nobody-of-this-name"),
        (("bucket", "rate", "no-bucket-of-this-name", "--requests", "5"), "does not exist"),
        (("user", "rate", "root", "--requests", "5"), "root"),
        (("bucket", "rate", "any"), "say --requests"),
        (("bucket", "rate", "any", "--bytes", "fast"), "'fast' is not a size"),
        (("bucket", "rate", "any", "--requests", "-5"), "-5"),
        (("user", "rate", "any", "--requests", str(1 << 60)), "a rate is a whole number a second"),
    ],
)
def test_what_cannot_be_a_rate_is_refused_in_words(server: Any, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(CalledProcessError) as refused:
        server.admin_cli(*arguments)
    assert said in refused.value.stderr
    assert "Traceback" not in refused.value.stderr
