from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from hypothesis import HealthCheck, settings

from kube.apiserver import ApiServer, missing, started
from process import ACCESS, REGION, SECRET, ServerProcess

settings.register_profile("s4", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("s4")

_numbers = itertools.count(1)


def make_client(endpoint: str, access: str = ACCESS, secret: str = SECRET, **options: Any) -> Any:
    """A boto3 client without retries, so that each answer is seen as it is."""
    chosen = {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}, "max_pool_connections": 64, **options}
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret, region_name=REGION,
        config=Config(**chosen), verify=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that leave it as they found it."""
    process = ServerProcess(tmp_path_factory.mktemp("shared") / "data", "--reserve", "64MiB").start()
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session")
def s3(server: ServerProcess) -> Iterator[Any]:
    client = make_client(server.endpoint)
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any) -> str:
    """A new bucket of this test's own."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes servers of this test's own; whatever still runs at the end is stopped."""
    made: list[ServerProcess] = []

    def make(*options: str, name: str = "data", **more: Any) -> ServerProcess:
        process = ServerProcess(tmp_path / name, "--reserve", "64MiB", *options, **more)
        made.append(process)
        return process.start()

    yield make
    for process in made:
        if process.process is not None:
            process.kill()


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """Makes boto3 clients that are closed at the end."""
    made: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(make_client(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def one_api() -> Iterator[ApiServer]:
    """One API server for all tests."""
    if missing():
        pytest.skip("no kube-apiserver: make e2e-programs")
    server = started()
    try:
        server.install_crds()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)


@pytest.fixture
def api(one_api: ApiServer) -> ApiServer:
    """That API server without resources of ours."""
    for plural in ("s4clusters", "buckets.s4.dev", "shardmaps"):
        one_api.kubectl("delete", plural, "--all", "-A", "--wait=true")
    return one_api
