"""Each test here finds no resources."""

from __future__ import annotations

import pytest

from kube.apiserver import ApiServer


@pytest.fixture
def api(one_api: ApiServer) -> ApiServer:
    for plural in ("s4clusters", "buckets.s4.dev", "shardmaps"):
        one_api.kubectl("delete", plural, "--all", "-A", "--wait=true")
    return one_api
