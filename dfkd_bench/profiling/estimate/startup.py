"""What a process does before its first run, timed in one of its own: `python -m ...startup DATASET`.

Prints one line of JSON: the times (seconds since the epoch) at which torch and then all that a run needs was loaded,
and for each dataset the seconds of loading its test images once more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_bench.errors import RunError


@dataclass(frozen=True)
class StartupTimes:
    """Seconds."""

    driver: float  # until a plan can be made
    worker: float  # until the first run begins, with everything loaded that any run needs
    loading: dict[str, float]  # of a dataset's test images, in every run


def time_startup(datasets: Sequence[str]) -> StartupTimes:
    """Start such a process and wait for it. Raises `RunError` where it fails."""
    begun = time.time()
    command = [sys.executable, "-m", __name__, *datasets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"a process that loads what a run needs failed: {done.stderr.strip().splitlines()[-1]}")
    told = json.loads(done.stdout)
    return StartupTimes(told["torch"] - begun, told["ready"] - begun, told["loading"])


def main(datasets: Sequence[str]) -> None:
    """Load what a run loads, and tell."""
    import torch

    told: dict[str, object] = {"torch": time.time()}
    import dfkd_bench.training.runner  # noqa: F401
    from dfkd_bench.data.loading import load_test
    from dfkd_bench.metrics.recorded.fidelity import fidelity

    fidelity(torch.randn(8, 2), torch.randn(8, 2), torch.arange(8) % 2)  # it imports more at its first call
    loading = {}
    for name in datasets:
        load_test(name)  # the first call reads the training images too, to verify them
        begun = time.perf_counter()
        load_test(name)
        loading[name] = time.perf_counter() - begun
    print(json.dumps({**told, "ready": time.time(), "loading": loading}))


if __name__ == "__main__":
    main(sys.argv[1:])
