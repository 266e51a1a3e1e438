"""The job of a run: what is executed on the node, and again after a requeue."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time

from submitit.helpers import DelayedSubmission

from dfkd_bench.engines.base import Report, Work
from dfkd_bench.engines.worker import carry_out, missing_here, resumed

PATIENCE = 2.0  # seconds between two tries at a busy run: its process from before the requeue may still be running
TRIES = 30


class Run:
    """Executes one run; submitit calls `checkpoint` before Slurm ends the job."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self) -> Report:
        """Execute the run in a second thread.

        submitit ends a job by `SystemExit` in the main thread: this way no method can catch it, and the process ends at
        once.
        """
        reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        threading.Thread(target=lambda: reports.put(carry_out_when_free(self.work)), daemon=True).start()
        try:
            return reports.get()
        except SystemExit as exit:  # the job is in the queue again: nothing must be written any more
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit.code & 0xFF if isinstance(exit.code, int) else 1)

    def checkpoint(self) -> DelayedSubmission:
        """The same run again; it is resumed from the checkpoint in its folder."""
        return DelayedSubmission(Run(resumed(self.work)))


def carry_out_when_free(work: Work) -> Report:
    """`carry_out`, after a check of the node; waits up to `TRIES * PATIENCE` seconds for a busy run."""
    try:
        if lacks := missing_here([work]):
            return Report("failed", 0.0, "; ".join(lacks))
        for _ in range(TRIES):
            report = carry_out(work)
            if report.outcome != "busy":
                break
            time.sleep(PATIENCE)
        return report
    except BaseException as error:  # without a report, the main thread would wait for ever
        return Report("failed", 0.0, f"{type(error).__name__}: {error}")
