"""Worker processes on this machine, reused from run to run and replaced after a failure.

Pebble provides the pool, including the replacement of dead workers and the shutdown.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError, Future, as_completed
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dfkd_bench.engines.base import EngineKind, EngineOptions, Report, Work
from dfkd_bench.engines.worker import MEMORY_EXCEEDED, OUT_OF_MEMORY, carry_out, missing_here, quiet_worker

KIND = EngineKind("local", "worker processes on this machine", __name__, workers="here", overhead=0.066)
FAILED = 70  # exit status of a worker after a failed run
_slot: FileLock | None = None  # held until this worker process ends


def make(options: EngineOptions) -> Local:
    """The engine for `options`."""
    gpus = visible_gpus()
    return Local(options.jobs or len(gpus) or os.cpu_count() or 1, gpus)


class Local:
    """`jobs` worker processes; with GPUs, each worker sees one of them."""

    def __init__(self, jobs: int, gpus: Sequence[str] = ()) -> None:
        self.jobs, self.gpus = jobs, list(gpus)
        self._pool: Any = None
        self._slots = ""  # folder of the locks that number the workers

    def describe(self) -> str:
        """`2 worker processes on this machine`."""
        return f"{self.jobs} worker process{'es' * (self.jobs > 1)} on this machine"

    def refuse(self, works: Sequence[Work]) -> list[str]:
        """Workers have the environment of this process, so what is missing here is missing there."""
        return missing_here(works)

    def execute(self, works: Sequence[Work]) -> Generator[tuple[Work, Report], None, None]:
        """See `base.Engine`."""
        pool = self._started()
        running = {pool.schedule(carry_out_or_exit, args=[work]): work for work in works}
        try:
            for future in as_completed(list(running)):
                yield running.pop(future), report_of(future)
        finally:
            if running:
                self.close(stop=True)

    def _started(self) -> Any:
        if self._pool is None:
            from pebble import ProcessPool

            self._slots = tempfile.mkdtemp(prefix="dfkd-bench-")
            context = multiprocessing.get_context("spawn")  # torch and CUDA do not work after a fork
            start = [self._slots, self.jobs, self.gpus]
            self._pool = ProcessPool(self.jobs, initializer=start_worker, initargs=start, context=context)
        return self._pool

    def close(self, stop: bool = False) -> None:
        """End the workers when they are idle; with `stop`, at once."""
        if self._pool is not None:
            self._pool.stop() if stop else self._pool.close()
            self._pool.join()
            self._pool = None
            shutil.rmtree(self._slots, ignore_errors=True)


def report_of(future: Future[Report]) -> Report:
    """The report of a finished task, also if its worker died."""
    from pebble import ProcessExpired

    try:
        return future.result()
    except ProcessExpired as error:
        if error.exitcode == FAILED:
            return Report("failed")  # the failed record has the reason
        if error.exitcode == OUT_OF_MEMORY:
            return Report("ended", 0.0, MEMORY_EXCEEDED)
        by = f"killed by {signal.Signals(-error.exitcode).name}" if error.exitcode < 0 else f"exit {error.exitcode}"
        return Report("lost", 0.0, f"its worker died ({by})")
    except CancelledError:
        return Report("lost", 0.0, "it was not started")


def visible_gpus() -> list[str]:
    """The ids of the GPUs that this process may use, for `CUDA_VISIBLE_DEVICES`. Does not initialise CUDA."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [g.strip() for g in visible.split(",") if g.strip()]
    return [str(k) for k in range(torch.cuda.device_count())]


def start_worker(slots: str, jobs: int, gpus: Sequence[str]) -> None:
    """Take the first free slot, which decides the GPU. The system releases its lock when this process ends."""
    global _slot
    for number in range(jobs):
        lock = FileLock(Path(slots) / f"{number}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        _slot = lock
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        break
    quiet_worker()


def carry_out_or_exit(work: Work) -> Report:
    """`carry_out`; after a failed run this process exits, and the pool starts a new one."""
    report = carry_out(work)
    if report.outcome == "failed" and (work.folder / "record.json").exists():
        os._exit(FAILED)
    return report
