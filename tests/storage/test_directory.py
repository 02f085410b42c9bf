"""A store says the oldest program that may open it, and programs obey: this one by that, older ones by the format."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from s4 import __version__
from s4.storage import directory as directories
from s4.storage.directory import (
    DirectoryError,
    Identity,
    format_directory,
    keeps_out,
    note_opened,
    open_directory,
    refuse_older,
    version,
)
from s4.storage.files import Files
from storage.fakes import AilingFiles

FILES = Files()


def kept(path: Path) -> dict[str, object]:
    found: dict[str, object] = msgspec.json.decode((path / "s4.json").read_bytes())
    return found


def reopened(path: Path) -> Identity:
    identity, lock = open_directory(path, make=False)
    os.close(lock)
    assert identity is not None
    return identity


def test_a_store_of_0_7_opens_and_is_marked(tmp_path: Path) -> None:
    (tmp_path / "s4.json").write_text('{"cluster": "c", "store": "00", "created_s": 1, "partitions": 16, "format": 1}')
    assert note_opened(FILES, tmp_path, reopened(tmp_path)) == "0.7 or older"
    assert kept(tmp_path) | {"opened_by": __version__, "oldest": directories.OLDEST, "format": 1} == kept(tmp_path)
    assert note_opened(FILES, tmp_path, reopened(tmp_path)) == "", "said once"


def test_a_store_that_needs_a_newer_program_is_refused_in_words(tmp_path: Path) -> None:
    identity = format_directory(FILES, tmp_path, "c", 16)
    FILES.replace(
        tmp_path / "s4.json", msgspec.json.encode(msgspec.structs.replace(identity, oldest="99.1", opened_by="99.2.0"))
    )
    with pytest.raises(
        DirectoryError, match=r"was used by S4 99\.2\.0, which left what this S4 .* would misread: run 99\.1 or newer"
    ):
        open_directory(tmp_path, make=False)


def test_programs_that_do_not_look_are_kept_out_by_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.7 knows format 1 alone. Once a program writes what 0.7 would misread, it says format 2."""
    identity = format_directory(FILES, tmp_path, "c", 16)
    assert identity.format == 1
    monkeypatch.setattr(directories, "OLDEST", "0.8.0")
    note_opened(FILES, tmp_path, identity)
    assert (kept(tmp_path)["format"], kept(tmp_path)["oldest"]) == (2, "0.8.0")
    assert reopened(tmp_path).format == 2, "and this one opens it"
    monkeypatch.undo()
    note_opened(FILES, tmp_path, reopened(tmp_path))
    assert kept(tmp_path)["oldest"] == "0.8.0", "never taken back"


def test_older_programs_are_kept_out_before_something_is_written_for_newer_ones(tmp_path: Path) -> None:
    identity = format_directory(FILES, tmp_path, "c", 16)
    assert (identity.format, identity.oldest) == (1, directories.OLDEST)
    assert refuse_older(FILES, tmp_path, directories.ALIGNED)
    assert (kept(tmp_path)["format"], kept(tmp_path)["oldest"]) == (2, directories.ALIGNED)
    assert refuse_older(FILES, tmp_path, "0.7.9"), "and never let in again"
    assert kept(tmp_path)["oldest"] == directories.ALIGNED
    assert note_opened(FILES, tmp_path, reopened(tmp_path)) == ""
    assert (kept(tmp_path)["format"], kept(tmp_path)["oldest"]) == (2, directories.ALIGNED)
    assert version("0.7.999") < version(directories.ALIGNED) < version("0.8.0"), "peers may be of 0.7 as before"
    assert not keeps_out(tmp_path, "0.8.0")


def test_a_disk_that_takes_nothing_cannot_keep_them_out(tmp_path: Path) -> None:
    files = AilingFiles()
    format_directory(files, tmp_path, "c", 16)
    files.room_bytes = 0
    assert not refuse_older(files, tmp_path, directories.ALIGNED)
    assert kept(tmp_path)["format"] == 1
    assert not refuse_older(files, tmp_path / "none", directories.ALIGNED)


def test_versions_compare_by_their_numbers() -> None:
    assert version("0.10.0") > version("0.9.9") > version("0.9") > version("")
