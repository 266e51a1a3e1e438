"""Memory of the C library: kept from step to step while a run trains, given back when it is over.

A step frees what it allocated. By default glibc then returns large blocks to the system, which hands them out again
page by page, each cleared and mapped anew: up to a fifth of a synthesis step on CPU. Nothing here changes a result.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; whether that could be said.

    Not where the C library is another one, and not where the user has settled it (`MALLOC_...`, `GLIBC_TUNABLES`).
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


def return_freed_memory() -> None:
    """Return to the system what is free; nothing where the C library cannot."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
