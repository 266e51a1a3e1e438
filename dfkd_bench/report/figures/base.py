"""What a kind of figure declares in its file, as `KIND`: its name, what it shows, and which figures it makes.

    KIND = FigureKind("spread", "the range over seeds of each competitor", jobs)

`jobs` gets a `FigureInput` and yields a `Job` for each figure. A package of its own declares its object as an entry
point of the group `dfkd_bench.figures`. This module imports neither matplotlib nor pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dfkd_bench.report.figures.input import FigureInput


@dataclass(frozen=True)
class Job:
    """One figure to be drawn. Its files are called after the kind and `name`, which is empty for the only one."""

    name: str
    draw: Callable[[], Figure | None]
    empty: str  # why, where `draw` gives None


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure, drawn by `dfkd-bench figures NAME`."""

    name: str  # as on the command line; that of the entry point
    about: str  # what it shows, in a line; written as a literal, since lists read it without importing the file
    jobs: Callable[[FigureInput], Iterable[Job]]
