"""The lock of a folder: one process at a time, told at once; and SHA-256, known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from dfkd_bench.errors import BusyError, RunError
from dfkd_bench.utils.hashing import file_sha256, sha256
from dfkd_bench.utils.locks import LOCK, folder_lock, is_locked


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    assert not is_locked(folder)
    with folder_lock(folder):
        assert is_locked(folder)
        with (
            pytest.raises(BusyError, match=f"another process is working on this run .{folder}.: wait for it"),
            folder_lock(folder),
        ):
            pass
        with pytest.raises(BusyError, match=r"^taken$"), folder_lock(folder, busy="taken"):
            pass
        assert is_locked(folder)
    assert not is_locked(folder)
    assert (folder / LOCK).exists()


def test_a_lock_file_stays_only_where_it_is_to_be_kept(tmp_path: Path) -> None:
    with folder_lock(tmp_path, keep=False):
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()
    with FileLock(tmp_path / LOCK):
        with pytest.raises(BusyError), folder_lock(tmp_path, keep=False):
            pass
        assert (tmp_path / LOCK).exists()


def test_a_disk_that_refuses_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = folder_lock(tmp_path / "file" / "run", where="to there", remedy="choose another --out")
    with pytest.raises(RunError, match=r"^cannot write to there: .+; choose another --out$"), refused:
        pass


def test_known_sums(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert sha256("abc") == sha256(b"abc") == file_sha256(tmp_path / "file") == known
