"""Atomic writing of files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dfkd_bench.errors import DiskError
from dfkd_bench.utils.fail_points import fail_point

CHECKPOINT = "checkpoint.pt"  # of an unfinished run


def write_atomic(path: Path, payload: bytes, fault: str = "") -> None:
    """Write `payload` to `path` so that a reader sees either the old file or the complete new one.

    `fault` is the fail point between write and rename. Raises `DiskError` if writing fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if fault:
            fail_point(fault)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskError(
            f"cannot write {path}: {error.strerror}; free some space or choose another --results"
        ) from error
