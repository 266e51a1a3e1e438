"""What a kind of figure declares in its file, as `KIND`: its name, what it shows, and which figures it makes.

    KIND = FigureKind("spread", "the range over seeds of each competitor", jobs)

`jobs` gets a `FigureInput` and yields a `Job` for each figure. Kinds of this package have a file each here; another
package declares its object as an entry point of the group `dfkd_bench.figures`. Neither matplotlib nor pandas is
imported here.
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

# names of files here, whose `KIND` has the same name; in the order in which they are drawn
OWN = ("cost", "curves", "bars", "ranks", "published", "losses", "schedules", "confusion")


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


def kinds() -> dict[str, Entry]:
    """Every declared kind by name, those of this package first. No kind is imported."""
    return registry.with_own(FIGURE, {name: f"{__package__}.{name}:KIND" for name in OWN})
