"""Where datasets lie on this machine. Looks for names of files alone: opens none, imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import UsageError

VARIABLE = "DFKD_BENCH_DATA"


def user_folder() -> Path:
    """What this user keeps beside the package: DFKD_BENCH_HOME, or a folder of the per-user cache."""
    root = os.environ.get("DFKD_BENCH_HOME")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dfkd-bench"


def data_home() -> Path:
    """Folder of the datasets: DFKD_BENCH_DATA (the option --data-dir), or one in the per-user cache."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else user_folder() / "data"


def find_folder(facts: Dataset) -> Path | None:
    """The folder that holds all that a dataset needs, as torchvision wants it; None where there is none.

    It is one of the data home's by the name of the dataset (of the one that it is made of), or the data home itself.
    """
    home = data_home()
    for root in (home / (facts.made_of or facts.name), *(home / alias for alias in facts.aliases), home):
        if all((root / path).exists() for path in facts.needs):
            return root
    return None


def is_present(facts: Dataset) -> bool:
    """Whether a dataset lies here (or in the package); says nothing of what is in its files."""
    if facts.home:
        return Path(facts.home).is_dir()
    return not facts.needs or find_folder(facts) is not None


def require_folder(facts: Dataset) -> Path:
    """The folder of a dataset that is read from files. Raises `UsageError` where it is missing."""
    if facts.home:
        root = Path(facts.home)
        if root.is_dir():
            return root
        raise UsageError(f"dataset {facts.name}: there is no such folder")
    root_or_none = find_folder(facts)
    if root_or_none is None:
        place = f"place {facts.needs[0]} in {data_home() / facts.name}"
        get = f"get it with `dfkd-bench data fetch {facts.name}`" if facts.download or facts.made_of else place
        raise UsageError(
            f"dataset {facts.name} is not in {data_home()}: {get}, or name "
            f"the folder where it lies with --data-dir (or {VARIABLE})"
        )
    return root_or_none
