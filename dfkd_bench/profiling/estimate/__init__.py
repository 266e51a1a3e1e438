"""What a plan will cost, said before it is paid for: seconds of a run from the best source, hours on many workers."""

from __future__ import annotations

from dataclasses import dataclass

from dfkd_bench.runs.spec import RunSpec

RECORDS, MEASURED = "records", "measured"  # sources of seconds, the better first


@dataclass(frozen=True)
class Cost:
    """One run: seconds from its beginning to its record, the start of its process apart."""

    seconds: float
    source: str
    passes: float  # images forward and backward through the teacher
    images: float  # that the student is trained on, repeats counted
    found: int = 0  # records behind the number

    @property
    def images_per_second(self) -> float:
        """Student images per second of the whole run."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Line:
    """The runs of a plan that differ in their seed alone."""

    spec: RunSpec  # of one of them
    runs: int  # to do
    cost: Cost

    @property
    def hours(self) -> float:
        """Of all these runs, one after the other."""
        return self.runs * self.cost.seconds / 3600.0
