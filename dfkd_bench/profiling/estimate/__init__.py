"""Estimates of the cost of a plan: seconds of each run, from records or measured, and hours on several workers."""

from __future__ import annotations

from dataclasses import dataclass

from dfkd_bench.runs.spec import RunSpec

RECORDS, MEASURED = "records", "measured"  # sources of seconds; records are preferred


@dataclass(frozen=True)
class Cost:
    """Cost of one run: seconds from its start to its record, without the start of the process."""

    seconds: float
    source: str
    passes: float  # images forward and backward through the teacher
    images: float  # student images, repeats counted
    found: int = 0  # number of records used

    @property
    def images_per_second(self) -> float:
        """Student images per second of the whole run."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Line:
    """The runs of a plan that differ only in their seed."""

    spec: RunSpec  # of one of these runs
    runs: int  # number of runs to do
    cost: Cost  # of one run

    @property
    def hours(self) -> float:
        """Hours of all these runs, one after the other."""
        return self.runs * self.cost.seconds / 3600.0
