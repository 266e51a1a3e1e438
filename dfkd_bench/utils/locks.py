"""Lock a folder so that only one process works in it, on all machines that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dfkd_bench.errors import BusyError, RunError

LOCK = ".lock"


@contextmanager
def folder_lock(
    folder: Path, *, busy: str = "", where: str = "", remedy: str = "choose another --results", keep: bool = True
) -> Iterator[None]:
    """Create `folder` if missing and hold its lock. Without `keep`, the lock file is deleted at the end.

    Does not wait: raises `BusyError` with the text `busy` if another process holds the lock, `RunError` with `where`
    and `remedy` if writing fails.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BusyError(busy or f"another process is working on this run ({folder}): wait for it") from None
    except OSError as error:
        raise RunError(f"cannot write {where or f'below {folder}'}: {error.strerror}; {remedy}") from error
    try:
        yield
    finally:
        if not keep:
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of `folder`; False if it cannot be locked (read-only disk)."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
