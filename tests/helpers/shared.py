"""Real datasets and public checkpoints in a folder beside the checkout; tests that need them are skipped without."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("DFKD_BENCH_SHARED", ROOT.parent / "shared"))
DATA = SHARED / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "unpack.py").is_file(),
    reason="needs the packed datasets of ../shared/data (or DFKD_BENCH_SHARED), which are not here",
)


@cache
def unpacked(home: Path, *names: str) -> Path:
    """A data folder in torchvision's layout with datasets `names` (cifar10, mnist, fashion), made once in `home`."""
    missing = [name for name in names if not (home / name).is_dir()]
    if missing:
        subprocess.run([sys.executable, DATA / "unpack.py", home, *missing], check=True, capture_output=True)
    return home
