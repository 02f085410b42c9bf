"""Builds s4/s3/_fused.c with the wheel, and in place for an editable install, where a C compiler and an x86-64 are at hand.

It is optional: what cannot be built is said in one line, and hashlib does the same (s4/s3/hashing.py). One file serves every
Python from 3.11 (the stable ABI), so the wheel is for `cp311-abi3`. The compiler is $CC, what Python was built with, cc, or
that of the package ziglang, which comes by its hash where an image has none.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "daemon/s4/s3/_fused.c"
TARGET = "daemon/s4/s3/_fused.abi3.so"
OPTIONS = ("-std=gnu11", "-O3", "-Wall", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000")


class ExtensionHook(BuildHookInterface[Any]):
    """Called by hatchling; `build_data` says what comes with the wheel, and for which machines it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        why_not = _build(Path(self.root))
        if why_not:
            self.app.display_warning(f"{SOURCE} was not built, hashlib does it: {why_not}")
            return
        build_data["artifacts"].append(TARGET)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _compilers() -> list[list[str]]:
    asked = [shlex.split(words) for words in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc") if words]
    found = [words for words in asked if words and shutil.which(words[0])]
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def _build(root: Path) -> str:
    """Empty once it is there, or why it is not."""
    if platform.machine() not in ("x86_64", "AMD64") or not sys.platform.startswith("linux"):
        return f"it is for x86-64 under Linux, and this is {platform.machine()} under {sys.platform}"
    said = "no C compiler was found"
    target = root / TARGET
    if target.exists() and target.stat().st_mtime > (root / SOURCE).stat().st_mtime:
        return ""
    target.unlink(missing_ok=True)
    for words in _compilers():
        new = target.with_suffix(".new")
        include = sysconfig.get_path("include")
        done = subprocess.run(  # noqa: S603 - the compiler of this machine
            [*words, *OPTIONS, f"-I{include}", str(root / SOURCE), "-o", str(new)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            new.rename(target)
            return ""
        said = f"{words[0]}: {(done.stderr.strip() or 'failed').splitlines()[0]}"
    return said
