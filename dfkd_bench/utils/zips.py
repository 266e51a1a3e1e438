"""Write zip archives whose bytes depend only on their files, and read archives safely."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.utils.files import write_atomic

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store
UNIX = 3


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files` by name, without compression: weights hardly shrink, and compressors differ by version."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = UNIX
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def pack(path: Path, files: Mapping[str, bytes]) -> None:
    """Write `packed(files)` to `path` atomically. Raises `DiskError` if that fails."""
    write_atomic(path, packed(files))


def unpacked(path: Path) -> dict[str, bytes]:
    """The files of a zip by name.

    Raises `UsageError` if it is not a zip, `RunError` for a damaged file and for a file name that leaves the folder.
    """
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is neither a folder nor a zip archive")
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name, parts = entry.filename, PurePosixPath(entry.filename).parts
                if entry.is_dir():
                    continue
                if name in files or name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
                    raise RunError(f"{path}: contains a file {name!r}, which is invalid in an export")
                try:
                    files[name] = archive.read(entry)
                except zipfile.BadZipFile as error:
                    raise RunError(f"{path}: {name} is damaged: {error}") from error
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise RunError(f"{path}: the archive is damaged: {error}") from error
    return files


def write_files(files: Mapping[str, bytes], root: Path) -> None:
    """Write `files` (name -> content) into the folder `root`."""
    for name, payload in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(payload)
