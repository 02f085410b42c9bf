"""Programs in Java. Each is one source file, which Java compiles when it is run, beside what its pom.xml names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clients.test_programs import program, run
from compat.made import made
from process import ServerProcess

SOURCES = Path(__file__).parent / "java"


@pytest.mark.parametrize(
    "name", sorted(path.name for path in SOURCES.iterdir()), ids=lambda name: name.replace("-", "_")
)
def test_java(name: str, server: ServerProcess, s3: Any, bucket: str, tmp_path: Path) -> None:
    libraries = f"{made(name)}/*"
    run(
        program("java"),
        "-Xmx512m",
        "-cp",
        libraries,
        str(SOURCES / name / "Main.java"),
        server.endpoint,
        bucket,
        str(tmp_path),
        home=tmp_path,
    )
