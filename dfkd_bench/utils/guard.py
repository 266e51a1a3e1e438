"""Block real data: while a method without the privilege `real_data` runs, no dataset can be loaded or its files opened.

This catches mistakes (for example a helper that opens the training set), not malicious code. A violation raises
`PrivilegeError` and is stored, so that it is reported even if a method catches the exception.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from dfkd_bench.errors import PrivilegeError

DECODED = ".decoded"  # name of the folder with decoded image files

_closed = 0
_hook_installed = False
_files: dict[str, tuple[str, ...]] = {}  # dataset -> glob patterns of its files
_watched: dict[str, str] = {}  # folder, with a separator at its end -> dataset
violations: list[str] = []


def watch_files(name: str, patterns: Iterable[str]) -> None:
    """Add glob patterns for the files of dataset `name`."""
    if _files.get(name) != (files := tuple(patterns)):
        _files[name] = files
        _known_files.cache_clear()


def watch(name: str, folders: Iterable[str | os.PathLike[str]]) -> None:
    """Add user folders that contain the images of dataset `name`."""
    for folder in folders:
        for path in (os.path.abspath(folder), os.path.realpath(folder)):
            _watched[os.path.join(path, "")] = name


@cache
def _known_files() -> re.Pattern[str]:
    """One pattern for the files of all datasets, with a group d0, d1, ... per dataset. Matched at every `open`."""
    kinds = [*_files.values(), (f"*/{DECODED}/*.npy",)]
    groups = ("|".join(fnmatch.translate(pattern) for pattern in kind) or "(?!)" for kind in kinds)
    return re.compile("|".join(f"(?P<d{number}>{group})" for number, group in enumerate(groups)))


def _dataset_of(path: str) -> str:
    """The dataset that a file belongs to, empty for none."""
    path = os.path.abspath(path)
    if match := _known_files().match(path):
        number = int(str(match.lastgroup)[1:])
        if number == len(_files):  # a decoded array, in a folder DATASET-STAMP
            return os.path.basename(os.path.dirname(path)).rpartition("-")[0]
        return list(_files)[number]
    if _watched:
        for form in (path, os.path.realpath(path)):
            if form.startswith(tuple(_watched)):
                return next(name for folder, name in _watched.items() if form.startswith(folder))
    return ""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _closed or event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.fsdecode(arguments[0])
    if name := _dataset_of(path):
        refuse(f"opened {os.path.basename(path)}, a file of dataset {name}")


def refuse(what: str) -> None:
    """Store and raise a violation."""
    violations.append(what)
    raise PrivilegeError(f"a method without the privilege real_data {what}")


def check_allowed() -> None:
    """Raise `PrivilegeError` while data is blocked; called before a dataset is loaded."""
    if _closed:
        refuse("tried to load a dataset")


@contextmanager
def data_blocked() -> Iterator[None]:
    """Block real data within; raises `PrivilegeError` at the end if a violation happened."""
    global _closed, _hook_installed
    if not _hook_installed:
        sys.addaudithook(_audit)  # cannot be removed: installed once per process, inactive unless data is blocked
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
    """Raise `PrivilegeError` after a violation; called before a checkpoint is saved, in case a method caught it."""
    if _closed:
        report()


def report() -> None:
    """Raise the first violation."""
    if violations:
        raise PrivilegeError(f"a method without the privilege real_data {violations[0]}")
