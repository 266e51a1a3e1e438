"""The interface of a kind of figure: its file defines `KIND` with a name, a description and a function.

    KIND = FigureKind("spread", "the range over seeds of each competitor", jobs)

The function `jobs` gets a `FigureInput` and yields one `Job` per figure. Each kind of this package has its own file in
this folder; another package declares its object as an entry point of the group `dfkd_bench.figures`. This module
imports neither matplotlib nor pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import FIGURE, Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dfkd_bench.report.figures.input import FigureInput

# files of this folder, whose `KIND` has the same name; in the order in which they are drawn
BUILT_IN = ("cost", "curves", "bars", "ranks", "published", "losses", "schedules", "confusion")


@dataclass(frozen=True)
class Job:
    """One figure to draw. Its file names are the kind and `name`, which may be empty if the kind has one figure."""

    name: str
    draw: Callable[[], Figure | None]
    empty: str  # reason that is shown if `draw` returns None


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure, drawn by `dfkd-bench figures NAME`."""

    name: str  # on the command line; equal to the name of the entry point
    about: str  # one line; must be a string literal, because lists read it without importing the file
    jobs: Callable[[FigureInput], Iterable[Job]]


def kinds() -> dict[str, Entry]:
    """Every declared kind by name, those of this package first. No kind is imported."""
    return registry.with_own(FIGURE, {name: f"{__package__}.{name}:KIND" for name in BUILT_IN})
