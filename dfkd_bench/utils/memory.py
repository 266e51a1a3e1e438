"""Let the C library keep freed memory during a run, and return it to the system afterwards.

By default glibc returns large freed blocks to the system after each step. The next step then gets them page by page,
each cleared and mapped again, which takes up to a fifth of a synthesis step on CPU. This changes no result.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed memory; returns True if it was set.

    It is not set with another C library than glibc, or if the user configured it (`MALLOC_...`, `GLIBC_TUNABLES`).
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


def return_freed_memory() -> None:
    """Return freed memory to the system, if the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
