"""The lock of a folder in which one process at a time may work, on any machine that shares it."""

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
    """Make `folder` if need be and hold its lock, whose file stays there unless told not to `keep` it.

    Waits for nobody: raises `BusyError` where another process holds it, saying `busy`; `RunError` where the disk
    refuses, saying what cannot be written (`where`) and the `remedy`.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BusyError(busy or f"another process is at this run ({folder}): wait for it") from None
    except OSError as error:
        raise RunError(f"cannot write {where or f'below {folder}'}: {error.strerror}; {remedy}") from error
    try:
        yield
    finally:
        if not keep:
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of `folder`; one that cannot be locked, on a read-only disk, is free."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
