"""A run as a job: what happens on the node, and what is put back into the queue."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time

from submitit.helpers import DelayedSubmission

from dfkd_bench.engines.base import Report, Work
from dfkd_bench.engines.worker import carry_out, missing_here, resumed

PATIENCE = 2.0  # seconds between two tries at a run whose process from before the requeue may still be about
TRIES = 30


class Run:
    """Carries out one run; submitit calls `checkpoint` when Slurm is about to take the node away."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self) -> Report:
        """The run, in a thread of its own: submitit leaves from the main one, wherever a method may be.

        So the process ends at once, and no method gets to see the exception by which submitit ends it.
        """
        said: queue.SimpleQueue[Report] = queue.SimpleQueue()
        threading.Thread(target=lambda: said.put(carry_out_when_free(self.work)), daemon=True).start()
        try:
            return said.get()
        except SystemExit as leaving:  # the job is back in the queue: nothing is to be written any more
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code & 0xFF if isinstance(leaving.code, int) else 1)

    def checkpoint(self) -> DelayedSubmission:
        """The same run once more: it finds the checkpoint that it wrote in its folder."""
        return DelayedSubmission(Run(resumed(self.work)))


def carry_out_when_free(work: Work) -> Report:
    """`carry_out`, on a node that has what it takes; waits a while for a run that somebody is still at."""
    try:
        if lacks := missing_here([work]):
            return Report("failed", 0.0, "; ".join(lacks))
        for _ in range(TRIES):
            report = carry_out(work)
            if report.outcome != "busy":
                break
            time.sleep(PATIENCE)
        return report
    except BaseException as error:  # the main thread waits for a report, whatever it says
        return Report("failed", 0.0, f"{type(error).__name__}: {error}")
