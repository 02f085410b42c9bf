"""What a command that cannot start says: one line that names the file, directory, option or variable at fault, and no
traceback."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from addresses import own_address
from process import wait_until
from s4.crypto.authority import Authority

ADDRESSES = ("x", "http://h:x", "http://h:99999", "http://[::1", "http://a b:1", "http://.:1", "http://u@h:1")
KEYS = {"S4_ROOT_ACCESS_KEY": "testroot", "S4_ROOT_SECRET_KEY": "testrootsecret"}


class Forks:
    """Runs commands; see forked.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, environment: Mapping[str, str] = KEYS) -> tuple[int, str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            json.dumps({"arguments": list(map(str, arguments)), "environment": dict(environment)}) + "\n"
        )
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        return said["status"], said["out"], said["err"]

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


def seen(directory: Path) -> dict[str, Any]:
    """Everything below a directory, to see that nothing changed."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else "" for path in directory.rglob("*")
    }


def wrong(name: str, ran: tuple[int, str, str], expected: str, status: int = 2) -> str:
    code, _, said = ran
    last = said.rstrip("\n").rpartition("\n")[2]  # lines of the log may come before
    if (
        code != status
        or "Traceback" in said
        or "fault of S4" in said
        or not re.match(r"s4( \w+)*: ", last)
        or not re.search(expected, last)
    ):
        return f"{name}: {code} {said}"
    return ""


def spoiled(directory: Path, name: str, content: bytes) -> Path:
    """A data directory with one file that is not as it should be."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(content)
    return directory


def wrong_options(tmp_path: Path, taken: str) -> list[tuple[list[object], str]]:
    """Options that cannot be, each with what the refusal names. `taken` is an address that somebody listens on."""
    files = {name: tmp_path / name for name in ("none", "garbage", "some", "empty")}
    files["garbage"].write_text("garbage: [")
    files["some"].mkdir()
    files["empty"].write_text("")
    named = {name: re.escape(str(path)) for name, path in files.items()}
    _, certificate, key = Authority(tmp_path / "trust").issue("node-1")
    other = Authority(tmp_path / "other").issue("node-2")[2]
    return [
        (["--erasure", "x"], "erasure"),
        (["--workers", "x"], "--workers x"),
        (["--workers", "2.5"], "--workers 2.5: give a whole number"),
        (["--workers", "²"], "--workers ²"),
        (["--listen", "127.0.0.1:²"], "'127.0.0.1:²'.*HOST:PORT"),
        (["--listen", "x"], "'x'.*HOST:PORT"),
        (["--listen", taken], f"cannot listen on {taken}"),
        (["--admin-listen", taken], f"cannot listen on {taken}"),
        (["--listen", "no-such-address.invalid:1"], "no-such-address.invalid"),
        (["--reserve", "x"], "--reserve"),
        (["--volume-size", "x"], "--volume-size"),
        (["--inline", "x"], "--inline"),
        (["--scrub-rate", "x"], "--scrub-rate"),
        (["--heal-rate", "x"], "--heal-rate"),
        (["--preallocate", "x"], "--preallocate"),
        (["--scrub-every", "x"], "--scrub-every x"),
        (["--garbage", "7"], "--garbage 7"),
        (["--limit", "x"], "--limit x"),
        (["--limit", "x=1"], "limit named 'x'"),
        (["--limit", "presign_s=x"], "presign_s"),
        (["--limit", "request_s=x"], "request_s"),
        (["--certificate", certificate], "--key"),
        (["--certificate", files["none"], "--key", key], named["none"]),
        (["--certificate", certificate, "--key", files["none"]], named["none"]),
        (["--certificate", files["garbage"], "--key", key], named["garbage"]),
        (["--certificate", certificate, "--key", other], re.escape(str(other))),
        (["--certificate", files["some"], "--key", key], named["some"]),
        (["--master-key", files["none"]], named["none"]),
        (["--master-key", files["garbage"]], named["garbage"]),
        (["--master-key", files["some"]], named["some"]),
        (["--master-key", files["empty"]], named["empty"]),
        (["--kms", files["none"]], named["none"]),
        (["--kms", files["garbage"]], named["garbage"]),
        (["--kms", files["some"]], named["some"]),
        (["--kms", "https://vault:8200"], "--kms-key"),
        (["--receivers", files["none"]], named["none"]),
        (["--receivers", files["garbage"]], named["garbage"]),
        (["--receivers", files["some"]], named["some"]),
        (["--audit-log", tmp_path / "none" / "log"], re.escape(str(tmp_path / "none" / "log"))),
        (["--audit-log", files["some"]], named["some"]),
    ]


WRONG_VARIABLES = (
    ({"S4_ROOT_ACCESS_KEY": "x"}, "S4_ROOT_SECRET_KEY"),
    ({"S4_ROOT_ACCESS_KEY": "x", "S4_ROOT_SECRET_KEY": "y"}, "S4_ROOT_ACCESS_KEY"),
    ({"S4_LIMIT_NONE": "1"}, "limit named 'none'"),
    ({"S4_RESERVE": "x"}, "--reserve|S4_RESERVE"),
    ({"S4_DURABILITY": "never"}, "durability"),
    ({"S4_STRICT": "perhaps"}, "strict"),
)
# Of these it is known that they are wrong before there is a directory.
READ_FIRST = ("--listen", "--admin-listen", "--certificate", "--master-key", "--kms", "--receivers", "--erasure")


def test_settings_that_cannot_be_are_named(forks: Forks, tmp_path: Path) -> None:
    listening = socket.create_server((own_address(), 0))
    taken = "{}:{}".format(*listening.getsockname())
    addresses = ["--listen", f"{own_address()}:0", "--admin-listen", f"{own_address()}:0"]
    found = []
    for number, (more, expected) in enumerate(wrong_options(tmp_path, taken)):
        directory = tmp_path / f"data-{number}"
        ran = forks.run("server", directory, *addresses, "--reserve", "1MiB", *more)
        found.append(wrong(f"server {more}", ran, expected))
        if more[0] in READ_FIRST and directory.exists():
            found.append(f"{more} has made {seen(directory)}")
    for variables, expected in WRONG_VARIABLES:
        ran = forks.run("server", tmp_path / "data", *addresses, environment=variables)
        found.append(wrong(f"server with {variables}", ran, expected))
    listening.close()
    assert not [text for text in found if text]


def test_directories_that_cannot_be_used_are_named_and_stay_as_they_are(forks: Forks, tmp_path: Path) -> None:
    where = own_address()

    def serve(*directories: Path) -> tuple[int, str, str]:
        return forks.run(
            "server", *directories, "--listen", f"{where}:0", "--admin-listen", f"{where}:0", "--reserve", "1MiB"
        )

    spoiled(tmp_path / "foreign", "thesis.tex", b"mine")
    spoiled(tmp_path / "damaged", "s4.json", b"{")
    spoiled(tmp_path / "strange", "s4.json", b"[]")
    spoiled(
        tmp_path / "newer",
        "s4.json",
        b'{"cluster": "00", "store": "00", "created_s": 1, "partitions": 16, "format": 99}',
    )
    (tmp_path / "file").write_text("a file")
    (tmp_path / "empty").mkdir()
    before = seen(tmp_path)
    rows: list[tuple[list[str], str]] = [
        (["foreign"], "foreign has files that are not S4's, such as thesis.tex"),
        (["damaged"], r"damaged/s4\.json"),
        (["strange"], r"strange/s4\.json"),
        (["newer"], "newer has format 99"),
        (["file"], "file cannot be used: there is a file where a directory should be"),
        (["file/below"], "file/below cannot be used: there is a file where a directory should be"),
        (["empty", "foreign"], "foreign has files"),
        (["new/er", "foreign"], "foreign has files"),
        (["new", "empty", "file"], "file: .*cannot be used|file cannot be used"),
        (["empty", "empty"], "same directory"),
        (["empty", "new", "new"], "same directory"),
        (["new", "damaged"], r"damaged/s4\.json"),
    ]
    found = []
    for names, expected in rows:
        found.append(wrong(f"server {names}", serve(*(tmp_path / name for name in names)), expected))
        found.append(f"{names} has changed {seen(tmp_path).keys() ^ before.keys()}" if seen(tmp_path) != before else "")
    assert not [one for one in found if one]


def test_kept_files_that_are_damaged_are_named(forks: Forks, tmp_path: Path) -> None:
    where = own_address()
    found = []
    for name, content, expected in (
        ("root.json", b"{", r"root\.json"),
        ("root.json", b'{"access_key": 7}', r"root\.json"),
        ("master.key", b"x", r"master\.key"),
        ("master.key", b"\xff\xfe", r"master\.key"),
    ):
        directory = spoiled(
            tmp_path / f"data-{len(found)}",
            "s4.json",
            b'{"cluster": "00", "store": "00000000000000000000000000000000", "created_s": 1, "partitions": 16}',
        )
        spoiled(directory, name, content)
        found.append(
            wrong(
                name,
                forks.run(
                    "server",
                    directory,
                    "--listen",
                    f"{where}:0",
                    "--admin-listen",
                    f"{where}:0",
                    "--reserve",
                    "1MiB",
                    environment={},
                ),
                expected,
            )
        )
        if name == "root.json":
            found.append(
                wrong(
                    f"admin {name}",
                    forks.run("admin", "--dir", directory, "--endpoint", f"{where}:1", "status", environment={}),
                    expected,
                    1,
                )
            )
    assert not [one for one in found if one]


def test_parts_of_a_cluster_say_what_is_wrong(forks: Forks, tmp_path: Path) -> None:
    authority, certificate, key = Authority(tmp_path / "trust").issue("node-1")
    none, garbage = tmp_path / "none", tmp_path / "garbage"
    garbage.write_text("garbage")
    right: dict[str, object] = {
        "--coordinator": "etcd://127.0.0.1:1/none",
        "--authority": authority,
        "--peer-certificate": certificate,
        "--peer-key": key,
        "--listen": f"{own_address()}:0",
        "--admin-listen": f"{own_address()}:0",
        "--peer-listen": f"{own_address()}:0",
        "--advertise": "localhost:9002",
    }
    found = []
    for option, value, expected in (
        ("--coordinator", "zoo://x", "--coordinator 'zoo://x'"),
        ("--coordinator", "", "--coordinator ''"),
        ("--authority", "", "--authority"),
        ("--authority", none, "none"),
        ("--authority", garbage, "garbage"),
        ("--peer-certificate", none, "none"),
        ("--peer-certificate", garbage, "garbage"),
        ("--peer-key", none, "none"),
        ("--peer-key", garbage, "garbage"),
        ("--weight", "x", "--weight x"),
        ("--advertise", "x", "--advertise"),
        ("--peer-listen", "x", "--peer-listen"),
        ("--durability", "none", "--durability none: a node's is sync.*for `s4 server`"),
    ):
        options = [str(part) for pair in {**right, option: value}.items() for part in pair]
        found.append(wrong(f"node {option} {value}", forks.run("node", tmp_path / "store", *options), expected))
        if option not in ("--weight", "--advertise", "--peer-listen", "--durability"):
            named = {
                name: what
                for name, what in {**right, option: value}.items()
                if name not in ("--peer-listen", "--advertise")
            }
            found.append(
                wrong(
                    f"gateway {option} {value}",
                    forks.run("gateway", *[part for pair in named.items() for part in pair]),
                    expected,
                )
            )
    found.append(
        wrong(
            "node without keys",
            forks.run("node", tmp_path / "store", *[part for pair in right.items() for part in pair], environment={}),
            "S4_ROOT_ACCESS_KEY",
        )
    )
    found.append(
        wrong(
            "node with a scale",
            forks.run(
                "node",
                tmp_path / "store",
                *[part for pair in right.items() for part in pair],
                environment={**KEYS, "S4_TIMING_SCALE": "x"},
            ),
            "S4_TIMING_SCALE",
        )
    )
    assert not (tmp_path / "store").exists()
    assert not [one for one in found if one]


def test_dev_and_the_commands_of_clusters_say_what_is_wrong(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    spoiled(tmp_path / "damaged", "dev.json", b"{")
    spoiled(tmp_path / "strange", "dev.json", b"[]")
    none, some = {"PATH": str(tmp_path), **KEYS}, {"S4_ETCD": "/bin/false", **KEYS}
    found = [
        wrong(
            " ".join(map(str, arguments)),
            forks.run(*arguments, environment=none if "etcd" in expected else some),
            expected,
            1,
        )
        for arguments, expected in (
            (["dev", tmp_path / "file"], "file"),
            (["dev", tmp_path / "damaged"], r"dev\.json"),
            (["dev", tmp_path / "strange"], r"dev\.json"),
            (["dev", tmp_path / "new", "--listen", "x"], "'x'.*HOST:PORT"),
            (["dev", tmp_path / "new", "--erasure", "x"], "erasure|'x'"),
            (["dev", tmp_path / "new", "--nodes", "0"], "nodes"),
            (["dev", tmp_path / "new", "--nodes", "2", "--erasure", "4+2"], "4\\+2"),
            (["dev", tmp_path / "new", "--partitions", "7"], "partitions"),
            (["dev", tmp_path / "new", "--reserve", "x"], "--reserve|not a size"),
            (["dev", tmp_path / "good", "--listen", "127.0.0.1:0"], "no etcd"),
            (["dev", tmp_path / "none", "kill", "node-1"], "no cluster runs in .*none"),
            (["dev", tmp_path / "none", "status"], "no cluster runs"),
            (["dev", tmp_path / ("x" * 120), "status"], "no cluster runs in .*: AF_UNIX path too long"),
            (["admin", "--dir", tmp_path / "none", "status"], "none"),
            (["admin", "--dir", tmp_path / "file", "status"], "file"),
            (["admin", "cluster", "init", "--coordinator", "zoo://x"], "zoo://x"),
            (["admin", "cluster", "init", "--coordinator", "etcd://127.0.0.1:1/x", "--erasure", "x"], "erasure|'x'"),
            (
                ["admin", "cluster", "init", "--coordinator", "etcd://127.0.0.1:1/x", "--partitions", "x"],
                "--partitions x",
            ),
            (["admin", "cluster", "init", "--coordinator", "etcd://127.0.0.1:1/x", "--partitions", "7"], "partitions"),
            (["admin", "cluster", "init", "--coordinator", "etcd://127.0.0.1:1/x", "--partitions", "64.5"], "64.5"),
            (["admin", "cluster", "init", "--coordinator", "etcd://127.0.0.1:1/x", "--copies", "3.9"], "--copies 3.9"),
            (["admin", "cluster", "init", "--coordinator", "etcd://127.0.0.1:1/x"], "no etcd endpoint answers"),
            (["admin", "cluster", "certificates", tmp_path / "file", "node-1"], "file"),
            (["admin", "check", "--s3", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
            *((["admin", "check", "--s3", one], re.escape(repr(one))) for one in ADDRESSES),
            (["admin", "quota", "b", "x"], "not a size"),
        )
    ]
    assert not (tmp_path / "new").exists()
    assert not [one for one in found if one]


@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_cannot_be_written_is_said(tmp_path: Path, buffered: str) -> None:
    words = [sys.executable, "-m", "s4.cli", "admin", "cluster", "certificates", str(tmp_path / "trust"), "node-1"]
    with Path("/dev/full").open("wb") as full:
        environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
        ran = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False, env=environment)
    assert ran.returncode == 1
    assert re.fullmatch(rb"s4[ a-z]*: No space left on device\n", ran.stderr)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_runs_without_standard_streams(tmp_path: Path, closed: str) -> None:
    """It began with `this is a fault of S4 itself`, or ended by an assertion of libuv."""
    directory, host = tmp_path / "data", own_address()
    words = f"-m s4.cli server {directory} --listen {host}:0 --admin-listen {host}:0 --reserve 1MiB"
    process = subprocess.Popen(["sh", "-c", f"exec {sys.executable} {words} {closed}"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or (directory / "addresses.json").exists(), "it serves")
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            "sh",
            "-c",
            f"{sys.executable} -m s4.cli --help | true; {sys.executable} -m s4.cli admin cluster certificates {tmp_path / 'trust'} node-1 | true",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    assert ran.stderr == ""
