"""The door's lock: while a method without the privilege lives, no dataset may be loaded and no dataset file opened.

It keeps honest methods honest and catches accidents (a helper that opens the training set); it promises no safety
against malice. A violation is raised where it happens and remembered, so that swallowing the exception hides nothing.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.errors import PrivilegeError

_closed = 0
_hook_installed = False
violations: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _closed or event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.fsdecode(arguments[0])
    for facts in DATASETS.values():
        if any(fnmatch.fnmatch(path, pattern) for pattern in facts.files):
            refuse(f"opened {os.path.basename(path)}, a file of dataset {facts.name}")


def refuse(what: str) -> None:
    """Remember and raise a violation."""
    violations.append(what)
    raise PrivilegeError(f"a method without the privilege real_data {what}")


def check_open() -> None:
    """Called by the door before it loads anything."""
    if _closed:
        refuse("tried to load a dataset")


@contextmanager
def shut() -> Iterator[None]:
    """Keep the door shut within; raises `PrivilegeError` at the end if it was tried meanwhile."""
    global _closed, _hook_installed
    if not _hook_installed:
        sys.addaudithook(_audit)  # can never be removed, hence once per process and idle while the door is open
        _hook_installed = True
    if not _closed:
        violations.clear()
    _closed += 1
    try:
        yield
    finally:
        _closed -= 1
    report()


def check_clean() -> None:
    """Raise `PrivilegeError` if the door was tried while shut: no checkpoint may outlive a swallowed violation."""
    if _closed:
        report()


def report() -> None:
    """Raise the first violation."""
    if violations:
        raise PrivilegeError(f"a method without the privilege real_data {violations[0]}")
