"""The authority of a cluster's certificates: what is there is kept, and another follows it step by step."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from peer.test_credentials import meets
from process import run
from s4.crypto.authority import Authority, AuthorityError
from s4.peer.trust import Credentials


def told(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run(["admin", "--json", "cluster", "certificates", str(directory), *more], dict(os.environ), check=False)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def files(directory: Path, name: str) -> tuple[Path, Path, Path]:
    return directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key"


def meet(one: tuple[Path, Path, Path], two: tuple[Path, Path, Path]) -> bool:
    """Whether processes with these files trust each other, whoever calls."""
    return all(asyncio.run(meets(Credentials(*a), Credentials(*b))) for a, b in ((one, two), (two, one)))


def test_one_more_certificate_leaves_all_others_as_they_are(tmp_path: Path) -> None:
    """The words of docs/cluster.md, twice: the second call made another authority, which nobody trusted."""
    assert told(tmp_path, "node-1", "node-2").returncode == 0
    before = content(tmp_path)
    assert (
        stat.S_IMODE((tmp_path / "ca.key").stat().st_mode)
        == stat.S_IMODE((tmp_path / "node-1.key").stat().st_mode)
        == 0o600
    )
    done = told(tmp_path, "node-8", "gateway-1")
    assert json.loads(done.stdout)["issued"] == [str(tmp_path / "node-8.pem"), str(tmp_path / "gateway-1.pem")]
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    assert meet(files(tmp_path, "node-1"), files(tmp_path, "node-8"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Neither a certificate, nor a key alone, nor an authority without its key; what is refused changes nothing."""
    authority = Authority(tmp_path)
    authority.add(["node-1"])
    (tmp_path / "node-3.key").write_text("somebody's")
    before = content(tmp_path)
    for names, why in (
        (["node-2", "node-1"], "node-1.pem"),
        (["node-3"], "node-3.key"),
        (["ca"], "no name"),
        (["../x"], "no name"),
        ([""], "no name"),
        (["ca.old"], "no name"),
    ):
        with pytest.raises(AuthorityError, match=why):
            authority.add(names)
    refused = told(tmp_path, "node-1")
    assert refused.returncode == 1
    assert "nothing is overwritten" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert content(tmp_path) == before
    (tmp_path / "ca.key").unlink()  # as 0.7 left it
    for more in (("node-2",), ("--renew",), ("--forget-authority",)):
        refused = told(tmp_path, *more)
        assert refused.returncode == 1
        assert "--replace-authority" in refused.stderr
    assert {name for name in before if name != "ca.key"} == set(content(tmp_path))
    (tmp_path / "ca.key").write_bytes(b"nonsense")
    assert "no key" in told(tmp_path, "node-2").stderr


def test_words_that_do_not_go_together(tmp_path: Path) -> None:
    for more, why in (
        ((), "name the nodes"),
        (("--renew",), "no authority"),
        (("--replace-authority",), "no authority"),
        (("--forget-authority",), "no authority"),
    ):
        refused = told(tmp_path / "none", *more)
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    assert not (tmp_path / "none").exists()
    Authority(tmp_path).add(["node-1"])
    for more, why in (
        (("--renew", "node-2"), "no certificate to renew"),
        (("node-1", "--replace-authority"), "no names"),
        (("--forget-authority",), "no authority is being replaced"),
    ):
        assert why in told(tmp_path, *more).stderr


def test_a_renewed_certificate_has_the_role_it_had(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.add(["node-1"])
    authority.issue("odd", "gateway")
    before = content(tmp_path)
    assert authority.renew([]) == [tmp_path / "node-1.pem", tmp_path / "odd.pem"]
    changed = {name for name, found in content(tmp_path).items() if found != before[name]}
    assert changed == {"node-1.pem", "node-1.key", "odd.pem", "odd.key"}
    assert b"".join(_roles(tmp_path / "odd.pem")) == b"s4:gateway"


def _roles(path: Path) -> list[bytes]:
    from cryptography import x509

    names = (
        x509.load_pem_x509_certificate(path.read_bytes())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    return [one.encode() for one in names.get_values_for_type(x509.UniformResourceIdentifier)]


@pytest.mark.parametrize("kept", [True, False])
def test_an_authority_follows_another_without_a_gap(tmp_path: Path, kept: bool) -> None:
    """Of two machines one has what is new before the other, at each step; also where 0.7 had kept no key."""
    trust, machines = tmp_path / "trust", [tmp_path / "1", tmp_path / "2"]
    authority = Authority(trust)
    authority.add(["node-1", "node-2"])
    if not kept:
        (trust / "ca.key").unlink()

    def bring(number: int) -> None:
        machines[number].mkdir(exist_ok=True)
        for path in files(trust, f"node-{number + 1}"):
            shutil.copy(path, machines[number])

    def bring_all() -> None:
        for number in (0, 1):
            bring(number)
            assert meet(files(machines[0], "node-1"), files(machines[1], "node-2"))

    bring(1)
    bring_all()
    first = content(trust)
    assert told(trust, "--replace-authority").returncode == 0
    assert ("ca.old.key" in content(trust)) == kept
    refused = told(trust, "--replace-authority")
    assert "being replaced already" in refused.stderr
    bring_all()
    assert "node-1, node-2: of the old authority" in told(trust, "--forget-authority").stderr
    assert told(trust, "--renew", "node-1").returncode == 0
    bring_all()
    assert "node-2: of the old authority" in told(trust, "--forget-authority").stderr
    assert told(trust, "--renew").returncode == 0
    bring_all()
    assert told(trust, "--forget-authority").returncode == 0
    bring_all()
    assert not {"ca.old.pem", "ca.old.key"} & set(content(trust))
    for name, old in first.items():
        (machines[1] / name).write_bytes(old)
    assert not meet(files(machines[0], "node-1"), files(machines[1], "node-2")), "the old authority is trusted still"


class CutError(Exception):
    pass


@pytest.mark.parametrize("after", range(4))
def test_a_replacement_that_was_cut_off_is_called_again(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    authority.add(["node-1"])
    old, replace = content(tmp_path), type(authority._files).replace
    written: list[Path] = []

    def cutting(self: object, path: Path, data: bytes, mode: int = 0o600) -> None:
        if len(written) == after:
            raise CutError
        written.append(path)
        replace(self, path, data, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(type(authority._files), "replace", cutting)
    with pytest.raises(CutError):
        authority.replace()
    monkeypatch.undo()
    assert len(written) == after
    again = Authority(tmp_path)
    again.replace()
    again.renew([])
    again.forget()
    assert meet(files(tmp_path, "node-1"), files(tmp_path, "node-1"))
    assert content(tmp_path)["ca.pem"] != old["ca.pem"]
    assert set(content(tmp_path)) == set(old)


def test_what_forgetting_left_is_cleared_away(tmp_path: Path) -> None:
    """Cut off behind its one write, the rest of an old authority stands in nobody's way."""
    authority = Authority(tmp_path)
    authority.add(["node-1"])
    authority.replace()
    authority.renew([])
    left = content(tmp_path)
    authority.forget()
    for name in ("ca.old.pem", "ca.old.key"):
        (tmp_path / name).write_bytes(left[name])
    again = Authority(tmp_path)
    again.replace()
    assert content(tmp_path)["ca.old.pem"] != left["ca.old.pem"]
    again.renew(["node-1"])
    again.forget()
