"""Python programs that keep their data in S3. Each is a script of python/, which names at its head what it needs, and
runs in an environment of that alone; it compares what it reads with what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clients.test_programs import run
from compat.made import made
from process import ServerProcess

SCRIPTS = Path(__file__).parent / "python"
NEEDS = {"barman": Path("/usr/lib/postgresql")}


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_python(name: str, server: ServerProcess, s3: Any, bucket: str, tmp_path: Path) -> None:
    if name in NEEDS and not NEEDS[name].exists():
        pytest.skip(f"{name} needs {NEEDS[name]}, which Debian's package `{NEEDS[name].name}` brings")
    run(
        str(made(name) / "bin" / "python"),
        "-P",
        str(SCRIPTS / f"{name}.py"),
        server.endpoint,
        bucket,
        str(tmp_path),
        home=tmp_path,
    )
