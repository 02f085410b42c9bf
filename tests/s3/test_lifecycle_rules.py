"""Which versions lifecycle rules end, and when, against a model of the user guide's sentences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s4.s3 import lifecycle
from s4.s3.lifecycle import CURRENT, MARKER, NONCURRENT, Rule, Version

DAY = 1000


def model(rules: list[Rule], versions: list[Version], now: int) -> set[tuple[str, str]]:
    """From the user guide's sentences, one rule and one version after the other."""

    def takes(rule: Rule, one: Version) -> bool:
        small = rule.below < 0 or one.size < rule.below
        large = rule.above < 0 or one.size > rule.above
        return (
            rule.enabled
            and one.key[: len(rule.prefix)] == rule.prefix
            and small
            and large
            and rule.tags.items() <= dict(one.tags).items()
        )

    def over(start: int, days: int) -> bool:
        midnight = start + days * DAY
        while midnight % DAY:
            midnight += 1
        return now >= midnight

    out = set()
    for place, one in enumerate(versions):
        for rule in rules:
            if place == 0 and not one.marker and takes(rule, one):
                if (rule.days and over(one.modified_ms, rule.days)) or (rule.date_ms and now >= rule.date_ms):
                    out.add((CURRENT, one.id))
            elif place == 0 and one.marker and len(versions) == 1:
                whole = not rule.tags and rule.above < 0 and rule.below < 0
                if (
                    rule.enabled
                    and whole
                    and one.key.startswith(rule.prefix)
                    and (rule.markers or (rule.days and over(one.modified_ms, rule.days)))
                ):
                    out.add((MARKER, one.id))
            elif place > 0 and rule.noncurrent_days and takes(rule, one):
                newer_noncurrent = place - 1
                if newer_noncurrent >= rule.newer and over(versions[place - 1].modified_ms, rule.noncurrent_days):
                    out.add((NONCURRENT, one.id))
    return out


RULES = st.builds(
    lambda when, **rest: Rule(**when, **rest),
    id=st.just("r"),
    enabled=st.booleans(),
    prefix=st.sampled_from(("", "a", "ab", "b")),
    tags=st.sampled_from(({}, {"t": "1"}, {"t": "1", "u": "2"})),
    above=st.sampled_from((-1, 0, 5)),
    below=st.sampled_from((-1, 6, 10)),
    when=st.sampled_from([{"days": days} for days in range(4)] + [{"date_ms": 2 * DAY}, {"date_ms": 5 * DAY}]),
    markers=st.booleans(),
    noncurrent_days=st.integers(0, 3),
    newer=st.integers(0, 2),
)


@given(
    st.lists(RULES, max_size=4),
    st.lists(
        st.tuples(
            st.integers(0, 3 * DAY),
            st.integers(0, 12),
            st.booleans(),
            st.sampled_from(({}, {"t": "1"}, {"t": "1", "u": "2"})),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(("a", "abc", "b", "c")),
    st.integers(0, 7 * DAY),
)
def test_rules_are_those_of_the_model(
    rules: list[Rule], rows: list[tuple[int, int, bool, dict[str, str]]], key: str, now: int
) -> None:
    versions = [
        Version(key, str(number), at, size, marker, tags)
        for number, (at, size, marker, tags) in enumerate(sorted(rows, key=lambda row: -row[0]))
    ]
    found = [(kind, one.id) for kind, one in lifecycle.due(rules, versions, now, DAY)]
    assert len(found) == len(set(found)), "ended twice"
    assert set(found) == model(rules, versions, now)
