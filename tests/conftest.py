from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import tiers
from access import where
from events.processes import Webhook, said
from kube.apiserver import RESOURCES, ApiServer, missing
from process import COVERED, ServerProcess, make_client

pytest_plugins = ["costs", "held", "traced"]

# Where Python is told to write no bytecode, each of the hundreds of processes that tests start would compile everything
# anew,
# which takes longer than the rest of its start. It is kept, but not beside the sources.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).parents[1] / ".tools" / "pycache")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# aiohttp reads the authorities of the whole world when it is imported. Nothing here speaks to any of them.
os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)

settings.register_profile("s4", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("s4")

_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.arrange(items)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that leave it as they found it."""
    options = ("--reserve", "64MiB", "--bucket-metrics", "on", "--signature-v2", "all")
    process = ServerProcess(tmp_path_factory.mktemp("shared") / "data", *options, environment=COVERED).start()
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """The receiver of events that `open_server` and `two_gateways` know."""
    made = Webhook(tmp_path_factory.mktemp("hook") / "receiver")
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="session")
def open_server(tmp_path_factory: pytest.TempPathFactory, hook: Webhook) -> Iterator[ServerProcess]:
    """One server for the tests of access, encryption and events."""
    directory = tmp_path_factory.mktemp("open")
    with where.serving("one server", directory / "data", "--receivers", said([hook], directory / "receivers")) as made:
        yield made


@pytest.fixture(scope="session")
def two_gateways(tmp_path_factory: pytest.TempPathFactory, hook: Webhook) -> Iterator[where.TwoGateways]:
    """A cluster with two gateways, for the same tests."""
    directory = tmp_path_factory.mktemp("gateways")
    with where.serving(
        "two gateways", directory / "data", "--receivers", said([hook], directory / "receivers")
    ) as made:
        yield made


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
def one_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One API server for all tests."""
    if missing():
        pytest.skip("no kube-apiserver: make e2e-programs")
    server = ApiServer(tmp_path_factory.mktemp("api"))
    try:
        server.start()
        server.install_crds()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)


@pytest.fixture
def api(one_api: ApiServer) -> ApiServer:
    """That API server without resources of ours."""
    for resource in RESOURCES:
        one_api.remove_at_once(resource)
    return one_api
