"""Places for tests to work in: nothing of the user's, and not the folder that pytest was started in.

Imported before anything else, since imports look into the home too. Processes that tests start inherit all of it.
"""

from __future__ import annotations

import os
import shutil
import site
import tempfile
from itertools import count
from pathlib import Path

PLACES = Path(tempfile.mkdtemp(prefix="dfkd-bench-tests-"))  # of this process: each worker has its own
NUMBERS = count()


def new() -> tuple[Path, Path]:
    """A folder to work in and a home, both new and empty."""
    place = PLACES / str(next(NUMBERS))
    here, home = place / "here", place / "home"
    here.mkdir(parents=True)
    home.mkdir()
    return here, home


def remove() -> None:
    """All places of this process."""
    shutil.rmtree(PLACES, ignore_errors=True)


os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())  # below the home: packages there are still found
for name in list(os.environ):
    if name == "RAY_ADDRESS" or (name.startswith(("XDG_", "DFKD_BENCH_")) and name != "DFKD_BENCH_SHARED"):
        del os.environ[name]
SHARED_HERE, SHARED_HOME = new()  # while tests are collected, and for what is made once for many tests
os.environ["HOME"] = str(SHARED_HOME)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have it from the process that started them
    os.environ["MPLCONFIGDIR"] = str(PLACES / "matplotlib")  # the list of fonts takes seconds to make
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: spinning took a tenth of all time
