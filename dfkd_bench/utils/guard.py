"""The door's lock: while a method without the privilege lives, no dataset may be loaded and no dataset file opened.

It keeps honest methods honest and catches accidents (a helper that opens the training set); it promises no safety
against malice. A violation is raised where it happens and remembered, so that swallowing the exception hides nothing.
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

DECODED = ".decoded"  # folder of arrays decoded from image files, wherever it lies

_closed = 0
_hook_installed = False
_files: dict[str, tuple[str, ...]] = {}  # dataset -> glob patterns of its files
_watched: dict[str, str] = {}  # folder, with a separator at its end -> what lies in it
violations: list[str] = []


def watch_files(name: str, patterns: Iterable[str]) -> None:
    """Watch the files of dataset `name`, glob patterns, from now on."""
    if _files.get(name) != (files := tuple(patterns)):
        _files[name] = files
        _known_files.cache_clear()


def watch(name: str, folders: Iterable[str | os.PathLike[str]]) -> None:
    """Watch whatever lies below `folders`, from now on: images of dataset `name`, in folders of the user's own."""
    for folder in folders:
        for path in (os.path.abspath(folder), os.path.realpath(folder)):
            _watched[os.path.join(path, "")] = name


@cache
def _known_files() -> re.Pattern[str]:
    """One pattern for the files of all datasets; its groups d0, d1, ... stand for them. Matched at every `open`."""
    kinds = [*_files.values(), (f"*/{DECODED}/*.npy",)]
    groups = ("|".join(fnmatch.translate(pattern) for pattern in kind) or "(?!)" for kind in kinds)
    return re.compile("|".join(f"(?P<d{number}>{group})" for number, group in enumerate(groups)))


def _dataset_of(path: str) -> str:
    """The dataset that a file belongs to, empty for none."""
    path = os.path.abspath(path)
    if found := _known_files().match(path):
        number = int(str(found.lastgroup)[1:])
        if number == len(_files):  # an array: its folder is called after the dataset and a stamp
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
    """Remember and raise a violation."""
    violations.append(what)
    raise PrivilegeError(f"a method without the privilege real_data {what}")


def check_allowed() -> None:
    """Called by the door before it loads anything."""
    if _closed:
        refuse("tried to load a dataset")


@contextmanager
def data_blocked() -> Iterator[None]:
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
