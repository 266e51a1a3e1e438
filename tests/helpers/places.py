"""Temporary working folders and homes for tests, so that they read and write nothing of the user.

This module must be imported first, because imports read the home folder too. Processes started by tests inherit the
environment.
"""

from __future__ import annotations

import os
import shutil
import site
import tempfile
from itertools import count
from pathlib import Path

PLACES = Path(tempfile.mkdtemp(prefix="dfkd-bench-tests-"))  # of this process: each xdist worker has its own
NUMBERS = count()


def new() -> tuple[Path, Path]:
    """A working folder and a home folder, both new and empty."""
    place = PLACES / str(next(NUMBERS))
    here, home = place / "here", place / "home"
    here.mkdir(parents=True)
    home.mkdir()
    return here, home


def remove() -> None:
    """Remove all folders of this process."""
    shutil.rmtree(PLACES, ignore_errors=True)


os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())  # so that packages in the user's home are still found
for name in list(os.environ):
    if name == "RAY_ADDRESS" or (name.startswith(("XDG_", "DFKD_BENCH_")) and name != "DFKD_BENCH_SHARED"):
        del os.environ[name]
SHARED_HERE, SHARED_HOME = new()  # for the collection of tests, and for fixtures shared by many tests
os.environ["HOME"] = str(SHARED_HOME)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit it
    os.environ["MPLCONFIGDIR"] = str(PLACES / "matplotlib")  # shared, as building the font list takes seconds
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at torch's import; active waiting took a tenth of the time
