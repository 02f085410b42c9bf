"""Clients that are slow on purpose, and those beside them: against a real server with little memory and few slots."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from process import ServerProcess, make_client, wait_until
from raw import begun

SLOW = 60
LARGE = 64 << 20


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    limits = ("memory_bytes=48MiB", "requests=32", "waiting_commands=64", "stall_s=600")
    options = [word for limit in limits for word in ("--limit", limit)]
    server = ServerProcess(tmp_path_factory.mktemp("tight") / "data", "--reserve", "64MiB", *options).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(tight: ServerProcess) -> Iterator[Any]:
    client = make_client(tight.endpoint)
    client.create_bucket(Bucket="slow")
    yield client
    client.close()


def _begun(server: ServerProcess, stack: ExitStack, method: str, path: str, sent: bytes, length: int) -> socket.socket:
    """A request of which so much was sent, whose client then does nothing more."""
    return stack.enter_context(begun(server.endpoint, method, path, sent, length))


def _others_work(s3: Any, tag: str, size: int = 1 << 20, times: int = 5) -> None:
    data = tag.encode() * size
    for number in range(times):
        s3.put_object(Bucket="slow", Key=f"{tag}-{number}", Body=data)
        assert s3.get_object(Bucket="slow", Key=f"{tag}-{number}")["Body"].read() == data


@pytest.mark.parametrize("sent", [1_000, 200_000])
def test_uploads_that_do_not_go_on_keep_nobody_waiting(tight: ServerProcess, s3: Any, sent: int) -> None:
    """Counted by what they announced, four of them had all memory; by requests in flight, thirty-two all slots."""
    with ExitStack() as stack:
        begun = []
        for number in range(SLOW):
            begun.append(_begun(tight, stack, "PUT", f"/slow/never-{number}", bytes(sent), LARGE))
            if number % 16 == 15:  # a slot is a client's who waits only once it was waited for
                wait_until(lambda: _answers(s3), "those that wait are not counted any more")
        _others_work(s3, "u")
        assert not _ended(begun), "there was room for all"


def test_forms_that_do_not_go_on_keep_nobody_waiting(tight: ServerProcess, s3: Any) -> None:
    signer = make_client(tight.endpoint, signature_version="s3v4")
    fields = signer.generate_presigned_post("slow", "form")["fields"]
    signer.close()
    with ExitStack() as stack:
        begun = []
        for number in range(SLOW):
            begun.append(stack.enter_context(_form_begun(tight.endpoint, fields, 200_000)))
            if number % 16 == 15:
                wait_until(lambda: _answers(s3), "those that wait are not counted any more")
        _others_work(s3, "b")
        assert not _ended(begun), "there was room for all"


def _form_begun(endpoint: str, fields: dict[str, str], sent: int) -> socket.socket:
    """A connection with a browser's form, of whose file so much was sent."""
    said = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    said += '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    host = urlsplit(endpoint)
    head = f"POST /slow HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    made = socket.create_connection((host.hostname or "", host.port or 0))
    made.sendall(f"{head}Content-Length: {LARGE}\r\n\r\n{said}".encode() + bytes(sent))
    return made


def test_uploads_that_came_far_before_they_stopped_give_way(tight: ServerProcess, s3: Any) -> None:
    """Each had a share of 12 MiB while it came, and really holds more than 1 MiB: all of them more than there is."""
    with ExitStack() as stack:
        begun = []
        for number in range(40):
            begun.append(_begun(tight, stack, "PUT", f"/slow/far-{number}", bytes(3_000_000), LARGE))
        _others_work(s3, "f", 8 << 20, 2)
        assert 0 < len(_ended(begun)) < 40, "those that waited longest, and only as many as had to"


def _ended(begun: list[socket.socket]) -> list[socket.socket]:
    """Those that the server has answered, or let go of."""
    return select.select(begun, [], [], 0)[0]


def _answers(s3: Any) -> bool:
    try:
        s3.head_bucket(Bucket="slow")
    except Exception:
        return False
    return True


def _takes(one: socket.socket, size: int) -> int:
    """How much comes, of so much or until the end."""
    taken = 0
    while taken < size and (data := one.recv(1 << 20)):
        taken += len(data)
    return taken


def test_downloads_that_nobody_reads_keep_nobody_waiting(tight: ServerProcess, s3: Any) -> None:
    s3.put_object(Bucket="slow", Key="large", Body=bytes(LARGE))
    with ExitStack() as stack:
        begun = []
        for number in range(SLOW):
            begun.append(_begun(tight, stack, "GET", "/slow/large", b"", 0))
            if number % 16 == 15:
                begun[-1].recv(1)
                wait_until(lambda: _answers(s3), "those that wait are not counted any more")
        _others_work(s3, "d")
        assert s3.get_object(Bucket="slow", Key="large")["Body"].read() == bytes(LARGE)
        for one in begun[:3]:  # none had to end: who takes nothing holds little, and may go on
            assert _takes(one, 4 << 20) >= 4 << 20


def test_many_deletes_at_once_wait_and_lose_none(tight: ServerProcess, s3: Any) -> None:
    """Each key was told SlowDown by itself, behind a 200 that no SDK repeats."""
    names = [[f"gone/{client}/{number}" for number in range(200)] for client in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda some: s3.delete_objects(Bucket="slow", Delete={"Objects": [{"Key": key} for key in some]}), names
            )
        )
    assert [len(answer.get("Errors", [])) for answer in answers] == [0] * 8


def test_equal_completions_at_once_all_get_the_winners_answer(s3: Any, tight: ServerProcess) -> None:
    upload = s3.create_multipart_upload(Bucket="slow", Key="five")["UploadId"]
    part = s3.upload_part(Bucket="slow", Key="five", UploadId=upload, PartNumber=1, Body=b"x" * 5000)["ETag"]

    def complete(_: int) -> str:
        client = make_client(tight.endpoint)
        try:
            done = client.complete_multipart_upload(
                Bucket="slow",
                Key="five",
                UploadId=upload,
                MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]},
                IfNoneMatch="*",
            )
            return str(done["ETag"])
        finally:
            client.close()

    with ThreadPoolExecutor(5) as pool:
        assert len(set(pool.map(complete, range(5)))) == 1
