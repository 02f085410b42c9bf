"""One grammar: where and as whom may stand before or after an action, and a word that is none is answered with one
that is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from s4.cli import main as cli
from s4.cli import target
from s4.cli.admin_client import AdminError
from s4.cli.grammar import below

PARSER = cli.build_parser()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("admin statsu", "did you mean status?"),
        ("admin --endpont x status", "did you mean --endpoint?"),
        ("status", "did you mean `s4 admin status`?"),
        ("admin init", "did you mean `s4 admin cluster init`?"),
        ("admin cluster freeze of", "did you mean off?"),
        ("sever ./data", "did you mean server?"),
        ("admin status --dri x", "did you mean --dir?"),
        ("server --durabilty sync ./data", "did you mean --durability?"),
        ("admin user ad x", "did you mean add?"),
    ],
)
def test_a_word_that_is_none_is_answered_with_one_that_is(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_where_and_as_whom_may_stand_before_or_after_an_action() -> None:
    where = ["--dir", "D", "--endpoint", "E", "--authority", "A", "--region", "R", "--json"]
    for line in (
        ["admin", *where, "user", "remove", "ana"],
        ["admin", "user", *where, "remove", "ana"],
        ["admin", "user", "remove", *where, "ana"],
        ["admin", "user", "remove", "ana", *where],
    ):
        said = PARSER.parse_args(line)
        assert (said.dir, said.endpoint, said.authority, said.region, said.json, said.name) == (
            "D",
            "E",
            "A",
            "R",
            True,
            "ana",
        )
    assert PARSER.parse_args(["admin", "--dir", "first", "status", "--dir", "second"]).dir == "second"
    assert PARSER.parse_args(["admin", "--dir", "first", "status"]).dir == "first"


def test_every_command_of_admin_takes_them() -> None:
    admin = next(one for one in below(PARSER) if one.prog == "s4 admin")
    assert not [
        one.prog
        for one in below(admin)
        if not {"--dir", "--endpoint", "--authority", "--region", "--json"}
        <= {name for action in one._actions for name in action.option_strings}
    ]


def test_a_directory_knows_where_and_as_whom(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text(json.dumps({"access_key": "a", "secret_key": "s"}))
    env = {"S4_ROOT_ACCESS_KEY": "other", "S4_ROOT_SECRET_KEY": "others", "S4_ADMIN_ENDPOINT": "elsewhere:1"}
    assert target.find(str(tmp_path), "", "", env) == target.Target(
        "elsewhere:1", target.S3, "a", "s"
    )  # it never ran with this version
    target.write([tmp_path, tmp_path / "away"], "https://127.0.0.1:7000", "http://127.0.0.1:7001", "/cert.pem")
    assert target.find(str(tmp_path), "", "", env) == target.Target(
        "http://127.0.0.1:7001", "https://127.0.0.1:7000", "a", "s", "/cert.pem"
    )
    assert target.find(str(tmp_path), "typed:1", "", env).admin == "typed:1"
    assert target.find("", "", "", env) == target.Target("elsewhere:1", target.S3, "other", "others")
    (tmp_path / "root.json").unlink()
    assert (
        target.find(str(tmp_path), "", "", env).access_key == "other"
    )  # of a node, or of a server that is given its keys
    with pytest.raises(AdminError, match="no keys"):
        target.find(str(tmp_path), "", "", {})
    dev = {"members": {"node-1": {"admin": "127.0.0.1:5", "s3": "127.0.0.1:6"}}, "access_key": "d", "secret_key": "e"}
    (tmp_path / "dev.json").write_text(json.dumps(dev))
    assert target.find(str(tmp_path), "", "", env) == target.Target("127.0.0.1:5", "http://127.0.0.1:6", "d", "e")


def test_an_admin_port_is_asked_over_tls_where_others_reach_it() -> None:
    assert target.urls("127.0.0.1:1", "127.0.0.1:2", "c", "c") == ("https://127.0.0.1:1", "http://127.0.0.1:2")
    assert target.urls("10.0.0.1:1", "10.0.0.1:2", "", "ca") == ("http://10.0.0.1:1", "https://10.0.0.1:2")
    assert target.urls("10.0.0.1:1", "10.0.0.1:2", "", "") == ("http://10.0.0.1:1", "http://10.0.0.1:2")


def test_a_shell_completes_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    line = "source $0; COMP_WORDS=(s4 admin cluster st); COMP_CWORD=3; _shtab_s4 s4 st cluster; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", line, script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"status", "stop-check"}
