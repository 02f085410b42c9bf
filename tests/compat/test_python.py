"""Python programs that keep their data in S3. Each is a script of python/, which names at its head what it needs, and runs in an
environment of that alone; it compares what it reads with what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clients.test_programs import run
from process import ServerProcess

SCRIPTS = Path(__file__).parent / "python"
MADE = Path(__file__).parents[2] / ".tools" / "compat"


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_python(name: str, server: ServerProcess, s3: Any, bucket: str, tmp_path: Path) -> None:
    python = MADE / name / "bin" / "python"
    if not (MADE / f"{name}.made").exists():
        pytest.skip(f"{name} is not here: `make compat` installs what can be had")
    run(str(python), "-P", str(SCRIPTS / f"{name}.py"), server.endpoint, bucket, str(tmp_path), home=tmp_path)
