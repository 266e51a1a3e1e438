"""Find the folders of datasets on this machine, by file names only: opens no dataset file and imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import UsageError

VARIABLE = "DFKD_BENCH_DATA"


def user_folder() -> Path:
    """The user's folder for data and teachers: DFKD_BENCH_HOME, or a folder in the per-user cache."""
    root = os.environ.get("DFKD_BENCH_HOME")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dfkd-bench"


def data_home() -> Path:
    """Folder of the datasets: DFKD_BENCH_DATA (set by --data-dir), or a folder in the per-user cache."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else user_folder() / "data"


def find_folder(facts: Dataset) -> Path | None:
    """The folder with all files that a dataset needs, in torchvision's layout; None if there is none.

    Candidates are the data home's folders named after the dataset (or after `made_of`, or an alias) and the data home.
    """
    home = data_home()
    for root in (home / (facts.made_of or facts.name), *(home / alias for alias in facts.aliases), home):
        if all((root / path).exists() for path in facts.needs):
            return root
    return None


def is_present(facts: Dataset) -> bool:
    """Whether the files of a dataset exist on this machine or in the package; their content is not checked."""
    if facts.home:
        return Path(facts.home).is_dir()
    return not facts.needs or find_folder(facts) is not None


def require_folder(facts: Dataset) -> Path:
    """The folder of a dataset that is read from files. Raises `UsageError` if it is missing."""
    if facts.home:
        root = Path(facts.home)
        if root.is_dir():
            return root
        raise UsageError(f"dataset {facts.name}: there is no such folder")
    root_or_none = find_folder(facts)
    if root_or_none is None:
        put = f"put {facts.needs[0]} into {data_home() / facts.name}"
        get = f"get it with `dfkd-bench data fetch {facts.name}`" if facts.download or facts.made_of else put
        raise UsageError(
            f"dataset {facts.name} is not in {data_home()}: {get}, or give its folder with --data-dir (or {VARIABLE})"
        )
    return root_or_none
