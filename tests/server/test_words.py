"""No traceback reaches a user: every command of `s4 admin` against every kind of endpoint, with what it says and its
status.

Commands are taken from the parser, with arguments made up from it, so that a new one is in the table by itself. They
run in this process, against servers that many tests share: a run takes milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from process import ACCESS, SECRET, ServerProcess
from s4.cli import main as cli
from s4.crypto.authority import Authority

PARSER = cli.build_parser()  # once: it takes longer than most commands
Ran = Callable[..., tuple[int, str, str]]
LOCAL = {
    ("cluster", "init"),
    ("cluster", "certificates"),
    ("backup-keys",),
    ("restore-keys",),
}  # they ask no admin port
GIVEN = {"coordinator": "etcd://127.0.0.1:1/none", "grant": "Reader", "size": "1GiB", "copies": "3"}

MORE = {
    ("log",): ["--access", "refused"],
    ("user", "rate"): ["--requests", "0"],
    ("bucket", "rate"): ["--requests", "0"],
}  # options of which a command needs one


def commands(
    parser: argparse.ArgumentParser, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(name, arguments that make it whole) of every command below a parser; with words to choose from, of each of
    these, and where there may be none, without."""
    nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not nested:
        forms: list[list[str]] = [[]]
        for one in parser._actions:
            if one.option_strings:
                added = [[one.option_strings[0], GIVEN.get(one.dest, "made-up")]] if one.required else [[]]
            elif one.choices:
                added = [[str(word)] for word in one.choices]
                added = [[], *added] if one.nargs == "?" else added
            else:
                value = GIVEN.get(one.dest, "made-up")
                added = [[value]] if one.nargs not in ("*", "?") else [[]]
            forms = [[*form, *more] for form in forms for more in added]
        for form in forms:
            yield (
                before,
                [*form, *MORE.get(before[1:], []), *(["made-up"] if before[1:] == ("drives",) and form else [])],
            )
    for name, below in nested[0].choices.items() if nested else ():
        yield from commands(below, (*before, name))


def admin_commands() -> list[tuple[tuple[str, ...], list[str]]]:
    found = [(name[1:], arguments) for name, arguments in commands(PARSER) if name[0] == "admin"]
    return [one for one in found if one[0] not in LOCAL and one[0] != ("check",)]


def test_every_command_is_in_the_table_of_commands() -> None:
    table = (Path(__file__).parents[2] / "docs" / "operations.md").read_text().partition("\n## Commands\n")[2]
    told = set(re.findall(r"`(?:s4 admin )?([a-z -]+)`", table.partition("\n## ")[0]))
    assert {" ".join(name[1:]) for name, _ in commands(PARSER) if name[0] == "admin"} - told == set()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Runs `s4` here: (exit status, standard output, standard error)."""
    monkeypatch.setenv("S4_ROOT_ACCESS_KEY", ACCESS)
    monkeypatch.setenv("S4_ROOT_SECRET_KEY", SECRET)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(PARSER.parse_args(arguments))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def wrong(name: tuple[str, ...], status: int, said: str, expected: str) -> str:
    """What is not as it should be of a command that fails: one line, which says why, and a status that says so."""
    if status != 1 or said.count("\n") != 1 or not said.startswith("s4 admin: ") or not re.search(expected, said):
        return f"{' '.join(name)}: {status} {said}"
    return ""


# -- endpoints that are none of S4's


class _Page(http.server.BaseHTTPRequestHandler):
    content, kind, status = b"<html>It works</html>", "text/html", 200

    def answer(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(page: type[_Page], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """An HTTP server that gives everybody the same page."""

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # who speaks no TLS

    with Quiet(("127.0.0.1", 0), page) as made:
        if context is not None:
            made.socket = context.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()


for _method in ("GET", "PUT", "POST", "DELETE"):
    setattr(_Page, f"do_{_method}", _Page.answer)


def page(kind: str, content: bytes, status: int = 200) -> type[_Page]:
    return type("Page", (_Page,), {"kind": kind, "content": content, "status": status})


@contextlib.contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """Says this to everybody, whatever is asked, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listening.accept()
                    with taken:
                        taken.recv(1 << 16)
                        taken.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


STRANGERS = {
    "a web server": (page("text/html", b"<html>It works</html>"), r"answers, but not as S4's admin port does"),
    "a web server that refuses": (page("text/html", b"<h1>no</h1>", 404), r"answers, but not as S4's admin port does"),
    "something that has JSON too": (
        page("application/json", b'["a list"]'),
        r"answers, but not as S4's admin port does",
    ),
    "an admin port of another version": (
        page("application/json", b'{"other": 1}'),
        r"of another version|stopped before it was done",
    ),
    "one that refuses in JSON of its own": (
        page("application/json", b'{"detail": "no"}', 404),
        r"answers, but not as S4's admin port does",
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_commands_say_what_answers_there_instead(ran: Ran, kind: str) -> None:
    handler, expected = STRANGERS[kind]
    found = []
    with serving(handler) as endpoint:
        for name, arguments in admin_commands():
            status, _, said = ran("admin", "--endpoint", endpoint, *name, *arguments)
            if kind == "an admin port of another version" and (status == 0 or name == ("cluster", "status")):
                continue  # what shows nothing of the answer, and what takes it for `s4 server`'s
            found.append(wrong(name, status, said, expected))
    assert not [one for one in found if one]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", r"hangs up"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", r"not as S4 does"),
        (b"\x15\x03\x03\x00\x02\x02\x0a", r"speaks TLS: use https://"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", r"not as S4's admin port does|hangs up"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe\n", r"not as S4's admin port does"),
    ],
)
def test_commands_say_that_no_http_is_spoken(ran: Ran, answer: bytes, expected: str) -> None:
    with saying(answer) as endpoint:
        assert not [
            one
            for name, more in admin_commands()
            if (one := wrong(name, *ran("admin", "--endpoint", endpoint, *name, *more)[::2], expected))
        ]


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("127.0.0.1:1", r"nobody listens at 127\.0\.0\.1:1"),
        ("127.0.0.1:port", r"write \[https://\]HOST:PORT"),
        ("ftp://127.0.0.1:9001", r"write \[https://\]HOST:PORT"),
        ("[::1", r"write \[https://\]HOST:PORT"),
        ("http://", r"write \[https://\]HOST:PORT"),
        ("127.0.0.1:99999", r"write \[https://\]HOST:PORT"),
        ("a b:9001", r"write \[https://\]HOST:PORT"),
        ("127.0.0.1:9001/admin", r"write \[https://\]HOST:PORT"),
        ("n\u00f6de..:9001", r"write \[https://\]HOST:PORT|no name"),
    ],
)
def test_commands_say_that_nobody_is_there(ran: Ran, endpoint: str, expected: str) -> None:
    assert not [
        one
        for name, more in admin_commands()
        if (one := wrong(name, *ran("admin", "--endpoint", endpoint, *name, *more)[::2], expected))
    ]


def test_tls_where_there_is_none_and_none_where_there_is(ran: Ran, server: ServerProcess, tmp_path: Path) -> None:
    authority, certificate, key = Authority(tmp_path / "trust").issue("node-1")
    other = Authority(tmp_path / "other").ca
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # as the port for peers does
    asking.load_cert_chain(certificate, key)
    asking.load_verify_locations(authority)
    asking.verify_mode = ssl.CERT_REQUIRED
    plain = server.admin.partition("//")[2]
    with serving(_Page, context) as secure, serving(_Page, asking) as peers:
        rows: list[tuple[list[str], str]] = [
            (["--endpoint", f"https://{plain}"], r"speaks no TLS: use http://"),
            (["--endpoint", plain, "--authority", str(authority)], r"speaks no TLS: use http://"),
            (["--endpoint", secure], r"hangs up.*https://|speaks TLS: use https://"),
            (["--endpoint", f"https://{secure}"], r"certificate .*--authority"),
            (["--endpoint", secure, "--authority", str(other)], rf"certificate .*{re.escape(str(other))}"),
            (["--endpoint", secure, "--authority", str(authority)], r"answers, but not as S4's admin port does"),
            (["--endpoint", secure, "--authority", str(key)], re.escape(str(key))),
            (["--endpoint", secure, "--authority", str(tmp_path / "none.pem")], re.escape(str(tmp_path / "none.pem"))),
            (["--endpoint", peers, "--authority", str(authority)], r"--peer-listen"),
        ]
        found = [
            wrong((*where, *name), *ran("admin", *where, *name, *more)[::2], expected)
            for where, expected in rows
            for name, more in admin_commands()
        ]
    assert not [one for one in found if one]


# -- S4's own ports


def test_other_keys_and_the_s3_port(ran: Ran, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        wrong(name, *ran("admin", "--endpoint", server.endpoint, *name, *more)[::2], r"is an S3 port.*--admin-listen")
        for name, more in admin_commands()
    ]
    for access, secret, expected in (
        (ACCESS, "another-secret", "SignatureDoesNotMatch"),
        ("NOBODY", SECRET, "InvalidAccessKeyId"),
        ("a\nb", SECRET, "access key"),
        ("schl\u00fcssel\u0416", SECRET, "access key"),
    ):
        monkeypatch.setenv("S4_ROOT_ACCESS_KEY", access)
        monkeypatch.setenv("S4_ROOT_SECRET_KEY", secret)
        found += [
            wrong(name, *ran("admin", "--endpoint", server.admin, *name, *more)[::2], expected)
            for name, more in admin_commands()
        ]
    for name in ("S4_ROOT_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    found += [
        wrong(name, *ran("admin", "--endpoint", server.admin, *name, *more)[::2], "no keys")
        for name, more in admin_commands()
    ]
    assert not [one for one in found if one]


LACKING = {
    "one server": {("cluster",): r"`s4 server`.*no cluster"},
    "a node": {("drives",): r"each node has one drive: see `cluster \w+`", ("verify",): r"a node"},
    "a gateway": {
        ("drives",): r"each node has one drive: see `cluster \w+`",
        ("verify",): r"a gateway",
        ("compact",): r"a gateway",
        ("scrub",): r"a gateway",
        ("audit",): r"a gateway",
    },
}


@pytest.mark.parametrize("kind", LACKING)
def test_every_command_works_or_says_why_not(ran: Ran, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "one server":
        endpoint = request.getfixturevalue("open_server").admin
    else:
        lines = request.getfixturevalue("two_gateways").cluster.lines
        endpoint = lines["node-1" if kind == "a node" else "gateway-1"]["admin"]
    found = []
    for name, arguments in admin_commands():
        for form in ((), ("--json",)):
            status, shown, said = ran("admin", *form, "--endpoint", endpoint, *name, *arguments)
            expected = next((text for start, text in LACKING[kind].items() if name[: len(start)] == start), "")
            if form and status == 1:
                said = f"s4 admin: {json.loads(said)['error']}\n"
            if expected or status == 1:
                found.append(wrong(name, status, said, expected or "."))
            elif status not in (0, 3) or said or not shown or (form and not isinstance(json.loads(shown), dict | list)):
                found.append(f"{' '.join(name)}: {status} {said}")
    assert not [one for one in found if one]


def test_a_directory_is_enough(ran: Ran, open_server: ServerProcess) -> None:
    """Addresses come from it; keys too, where they were made there."""
    directory = str(open_server.directory)
    assert ran("admin", "--dir", directory, "status")[0] in (0, 3)
    status, shown, said = ran("admin", "check", "--dir", directory, "--json")
    assert (status, said) == (0, "")
    assert json.loads(shown)["milliseconds"] > 0
