"""docs/kubernetes.md has every setting and every condition, and its samples are what the models take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from s4_operator import models
from s4_operator.bucket_models import BucketSpec
from s4_operator.people_models import PolicySpec, RoleSpec, UserSpec
from s4_operator.rights import check

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
SETTINGS = "".join(part.partition("\n## ")[0] for part in GUIDE.split("## Every setting")[1:])
EXAMPLE = re.compile(r"```yaml\n(.*?)```", re.S)
PEOPLE = GUIDE.partition("## People and programs")[2].partition("\n## ")[0]


SPECS: dict[str, type[models.Model]] = {
    "S4Cluster": models.ClusterSpec,
    "Bucket": BucketSpec,
    "S4User": UserSpec,
    "S4Policy": PolicySpec,
    "S4Role": RoleSpec,
}


@pytest.mark.parametrize("kind", list(SPECS))
def test_every_setting_is_in_the_guide(kind: str) -> None:
    spec = SPECS[kind]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", EXAMPLE.sub("", SETTINGS + PEOPLE)))))
    assert not [name for name in spec.model_fields if name not in named]


def test_every_condition_is_in_the_guide() -> None:
    rows = GUIDE.partition("## What each condition means")[2].partition("\n## ")[0]
    report = (ROOT / "operator" / "s4_operator" / "report.py").read_text()
    others = "".join(path.read_text() for path in (ROOT / "operator" / "s4_operator").glob("*.py"))
    said = set(re.findall(r'\(\s*"(\w+)",\s+(?:_truth|\*_)', report)) | set(
        re.findall(r'(?:RefusedError|UnmetError)\(\s*"(\w+)"', others)
    )
    assert len(said) >= 12
    assert not [one for one in said if not re.search(rf"\b{one}\b", rows)]


def samples() -> list[dict[str, Any]]:
    return [
        one for path in (ROOT / "operator" / "samples").glob("*.yaml") for one in yaml.safe_load_all(path.read_text())
    ]


def test_samples_are_what_the_models_take() -> None:
    """And the sample Bucket is one that the sample cluster lets in: the two are applied one after the other."""
    for one in samples():
        if one["kind"] in SPECS:
            SPECS[one["kind"]].model_validate(one["spec"])
    (cluster,) = yaml.safe_load_all((ROOT / "operator" / "samples" / "cluster.yaml").read_text())
    (bucket,) = (one for one in samples() if one["kind"] == "Bucket")
    where = bucket["spec"]["clusterRef"]
    assert (where["name"], where["namespace"]) == (cluster["metadata"]["name"], cluster["metadata"]["namespace"])
    assert bucket["metadata"]["namespace"] in (where["namespace"], *cluster["spec"].get("allowedNamespaces", []))


def examples() -> list[dict[str, Any]]:
    """Of the guide itself."""
    return [one for text in EXAMPLE.findall(GUIDE) for one in yaml.safe_load_all(text)]


def test_examples_are_what_the_models_take_and_say_nothing_else() -> None:
    ours = [one for one in examples() if one.get("apiVersion", "").startswith("s4.dev")]
    assert {one["kind"] for one in ours} >= {"S4User", "S4Policy", "S4Role", "Bucket"}
    for one in ours:
        spec = SPECS[one["kind"]].model_validate(one["spec"])
        assert set(one["spec"]) <= set(type(spec).model_fields), one
        if isinstance(spec, PolicySpec):
            check(spec.document, "document")
