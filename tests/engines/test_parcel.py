"""A run's files from one machine to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkd_bench.engines.ray import files as parcel
from dfkd_bench.errors import DiskError


def fill(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_folder_arrives_as_it_is(tmp_path: Path) -> None:
    here = fill(tmp_path / "here", checkpoint="c", snapshots__a="1", snapshots__b="2")
    fill(here, **{".lock": "", "running.json": "{}", ".checkpoint.1.tmp": "half"})
    there = fill(tmp_path / "there", checkpoint="old", snapshots__gone="0", old__deep="0", **{".lock": ""})
    parcel.unpack(there, parcel.pack(here))
    assert parcel.pack(there) == {"checkpoint": b"c", "snapshots/a": b"1", "snapshots/b": b"2"}
    assert (there / ".lock").exists()
    assert not (there / "running.json").exists()
    assert not (there / "old").exists()


def test_nothing_is_an_empty_parcel(tmp_path: Path) -> None:
    assert parcel.pack(tmp_path / "none") == {}


def test_the_record_comes_after_all_it_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"record.json": b"{}", "a.csv": b"", "z.safetensors": b"", "snapshots/x": b""}
    written: list[str] = []
    monkeypatch.setattr(parcel, "write_atomic", lambda path, payload: written.append(path.name))
    parcel.unpack(tmp_path, files)
    assert written == ["a.csv", "x", "z.safetensors", "record.json"]


def test_a_disk_that_refuses_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = parcel.write_atomic

    def refuse(path: Path, payload: bytes) -> None:
        if path.name == "student":
            raise DiskError("full")
        write(path, payload)

    monkeypatch.setattr(parcel, "write_atomic", refuse)
    with pytest.raises(DiskError):
        parcel.unpack(tmp_path, {"record.json": b"{}", "curves": b"", "student": b""})
    assert sorted(parcel.pack(tmp_path)) == ["curves"]
