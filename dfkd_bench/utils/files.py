"""Files that are whole or absent."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dfkd_bench.errors import DiskError
from dfkd_bench.utils.fail_points import fail_point

CHECKPOINT = "checkpoint.pt"  # of a run that has not come to its end


def write_atomic(path: Path, payload: bytes, fault: str = "") -> None:
    """Write `payload` to `path` so that a reader sees the old file or the new one, never a part.

    `fault` names the fail point between the write and the rename. Raises `DiskError` when the disk refuses.
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
