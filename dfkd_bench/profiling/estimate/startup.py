"""Time of a process before its first run, measured in a new process: `python -m ...startup DATASET`.

That process prints one line of JSON: the times (seconds since the epoch) at which torch and then everything that a run
needs was imported, and for each dataset the seconds of loading its test images a second time.
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
    """Seconds of the start of a process."""

    driver: float  # until a plan can be made
    worker: float  # until the first run starts, with everything imported
    loading: dict[str, float]  # by dataset: loading the test images, in every run


def time_startup(datasets: Sequence[str]) -> StartupTimes:
    """Measure in a new process. Raises `RunError` if it fails."""
    begun = time.time()
    command = [sys.executable, "-m", __name__, *datasets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"a process that loads what a run needs failed: {done.stderr.strip().splitlines()[-1]}")
    report = json.loads(done.stdout)
    return StartupTimes(report["torch"] - begun, report["ready"] - begun, report["loading"])


def main(datasets: Sequence[str]) -> None:
    """Import and load what a run needs, and print the times."""
    import torch

    report: dict[str, object] = {"torch": time.time()}
    import dfkd_bench.training.runner  # noqa: F401
    from dfkd_bench.data.loading import load_test
    from dfkd_bench.metrics.recorded.fidelity import fidelity

    fidelity(torch.randn(8, 2), torch.randn(8, 2), torch.arange(8) % 2)  # the first call imports more
    loading = {}
    for name in datasets:
        load_test(name)  # the first call also reads and verifies the training images
        begun = time.perf_counter()
        load_test(name)
        loading[name] = time.perf_counter() - begun
    print(json.dumps({**report, "ready": time.time(), "loading": loading}))


if __name__ == "__main__":
    main(sys.argv[1:])
