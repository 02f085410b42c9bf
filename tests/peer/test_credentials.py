"""Certificates of peers that change while a process runs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

from s4.crypto.authority import Authority
from s4.peer.trust import Credentials


def place(authority: Authority, name: str, into: Path) -> tuple[Path, Path, Path]:
    """A certificate as a Secret's volume has it: the same file names, other files."""
    into.mkdir(exist_ok=True)
    made = authority.issue(name)
    found = into / "ca.pem", into / "tls.crt", into / "tls.key"
    for source, target in zip(made, found, strict=True):
        shutil.copy(source, into / "new")
        (into / "new").rename(target)
    return found


async def meets(server: Credentials, client: Credentials) -> bool:
    """Whether a connection between the two comes about, each side trusting the other."""
    seen: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1))
        seen.append(True)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server.server)
    try:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname(), ssl=client.client)
        writer.write(b"x")
        return await reader.read(1) == b"x"
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        listening.close()


def test_a_new_authority_follows_the_old_one_without_a_gap(tmp_path: Path) -> None:
    """Of two processes one has the new files before the other: they trust each other all the time."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    one, two = Credentials(*place(old, "one", tmp_path / "1")), Credentials(*place(old, "two", tmp_path / "2"))
    stranger = Credentials(*place(new, "x", tmp_path / "3"))

    async def test() -> None:
        assert await meets(one, two)
        assert not await meets(one, stranger)
        assert not one.reload(), "nothing changed"
        for number, own in (("1", one), ("2", two)):  # both are told of the new authority, then get its certificates
            bundle = (tmp_path / "new" / "ca.pem").read_bytes() + (tmp_path / "old" / "ca.pem").read_bytes()
            (tmp_path / number / "ca.pem").write_bytes(bundle)
            assert own.reload()
            assert await meets(one, two)
        place(new, "one", tmp_path / "1")
        assert one.reload()
        assert await meets(one, two)
        assert await meets(two, one)
        assert await meets(one, stranger)

    asyncio.run(test())


def test_files_that_cannot_be_used_leave_the_old_ones_in_force(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    one, two = (
        Credentials(*place(authority, "one", tmp_path / "1")),
        Credentials(*place(authority, "two", tmp_path / "2")),
    )
    (tmp_path / "1" / "tls.crt").write_text("half a certif")
    assert not one.reload()
    assert asyncio.run(meets(one, two))
