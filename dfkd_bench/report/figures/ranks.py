"""Mean ranks: a critical-difference diagram, where what no bar joins differs, and the ranks with their intervals.

J. Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006, section 3.2.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.data import SHARED, blocks_of, terms_of
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.layout import finish, new_figure
from dfkd_bench.report.figures.style import COLUMN, FAINT, PAGE, SMALL, Looks, styled

ALPHA = 0.05
LINE = 0.15  # inches per line of the diagram
MAX_IN_COLUMN = 8  # more competitors than these take both columns


class Ranks(Protocol):
    """Mean ranks of competitors over blocks; rank 1 is the best."""

    @property
    def competitors(self) -> Sequence[str]:
        """Their names."""

    @property
    def mean(self) -> Any:
        """Mean rank of each."""

    @property
    def n_blocks(self) -> int:
        """Blocks that were ranked."""

    @property
    def friedman_p(self) -> float:
        """p-value of the hypothesis that all ranks are alike."""

    @property
    def cd(self) -> float:
        """The difference of mean ranks beyond which two differ."""

    @property
    def pairs(self) -> pd.DataFrame:
        """Nemenyi's p-value of each pair, both axes by name."""


@styled
def ranks(found: Ranks, looks: Looks, title: str = "", notes: Sequence[str] = ()) -> Figure | None:
    """The critical-difference diagram of `found`; None for fewer than three competitors with a rank, or two blocks.

    Bars join groups of competitors of which no two differ at the 5 % level by Nemenyi's test. `notes` are said beneath,
    before what the diagram itself says.
    """
    from scikit_posthocs import critical_difference_diagram

    every = pd.Series(np.asarray(found.mean, dtype=np.float64), index=[str(name) for name in found.competitors])
    mean = every.dropna()
    names = list(mean.index)
    if len(names) < 3 or found.n_blocks < 2 or not math.isfinite(found.cd):
        return None
    if absent := sorted(set(every.index) - set(names)):
        notes = [*notes, f"Without a rank: {', '.join(absent)}."]
    pairs = found.pairs.reindex(index=names, columns=names).astype("float64")
    for name in names:
        pairs.loc[name, name] = 1.0
    figure, (axes,) = new_figure(width=COLUMN if len(names) <= MAX_IN_COLUMN else PAGE, height=1.0)
    axes.grid(visible=False)
    made = critical_difference_diagram(
        mean, pairs, alpha=ALPHA, ax=axes, text_h_margin=0.02 * (len(names) - 1),
        label_fmt_left="{label}  {rank:.2f} ", label_fmt_right=" {rank:.2f}  {label}",
        label_props={"fontsize": SMALL, "parse_math": False}, elbow_props={"linewidth": 0.7, "color": FAINT},
        marker_props={"s": 16}, crossbar_props={"linewidth": 2.2, "color": "0.25", "solid_capstyle": "butt"},
    )  # fmt: skip
    for label in made["labels"]:
        label.set_color("black")
    order = mean.sort_values()  # as the diagram sorts: the left half from the best, the right half from the worst
    half = (len(order) + 1) // 2
    for name, marker in zip([*order.index[:half], *order.index[half:][::-1]], made["markers"], strict=True):
        marker.set_color(looks[name].colour)
    return _finished(figure, axes, found, made, title, notes)


def _finished(
    figure: Figure, axes: Any, found: Ranks, made: dict[str, Any], title: str, notes: Sequence[str]
) -> Figure:
    bars = made["crossbars"]
    for (bar,) in bars:  # it goes through the points of a set, in an order that is another in each process
        ends = sorted(bar.get_xdata())
        bar.set_data([ends[0], ends[-1]], bar.get_ydata()[:2])
    deep = min(line.get_ydata().min() for line in made["elbows"])
    high = 1.6
    low, best = 1, len(made["labels"])
    axes.plot([low, low + found.cd], [high - 0.4] * 2, color="black", linewidth=1.0, marker="|", markersize=4)
    axes.text(low + found.cd / 2, high, f"CD = {found.cd:.2f}", ha="center", va="bottom", fontsize=SMALL)
    ends = [x for line in made["elbows"] for x in line.get_xdata()]
    axes.set_xlim(min(low, *ends), max(best, *ends))  # else the elbow of a rank of 1.00 is cut off
    axes.spines["top"].set(visible=True, bounds=(low, best))
    axes.set_ylim(deep - 0.5, high + 1)
    axes.xaxis.set_major_locator(FixedLocator(range(low, best + 1)))
    figure.set_figheight((high + 1 - deep + 1) * LINE + 0.2)
    joined = "no two joined by a bar differ at the 5 % level (Nemenyi)" if bars else "every two differ"
    own = f"Mean rank over {found.n_blocks} blocks, 1 is best; {joined}. Friedman's test: p = {found.friedman_p:.2g}."
    if found.friedman_p >= ALPHA:
        own += " It does not refute that all rank alike."
    return finish(figure, title, [*notes, own])


def jobs(given: FigureInput) -> Iterator[Job]:
    """A figure per set of tasks that share their other terms."""
    empty = "fewer than three competitors with a complete run in every block, or fewer than two blocks"
    for key, runs in given.runs.groupby(list(SHARED), sort=True):
        yield Job(given.name_of(key, SHARED), partial(_of_runs, runs, given.looks), empty)


def _of_runs(runs: pd.DataFrame, looks: Looks) -> Figure | None:
    blocks = blocks_of(runs)
    if blocks.table.shape[0] < 2 or blocks.table.shape[1] < 3:
        return None
    from dfkd_bench.stats import ranks as statistics  # heavy, and for this figure alone

    notes = ["A block is a task with a seed."]
    notes += [f"Left out, for lack of a block: {', '.join(blocks.left_out)}."] * bool(blocks.left_out)
    notes += [f"{blocks.dropped} blocks left out, which half of the competitors lack."] * bool(blocks.dropped)
    return ranks(statistics.ranks(blocks.table), looks, terms_of(runs), [" ".join(notes)])


KIND = FigureKind("ranks", "mean ranks, a critical-difference diagram", jobs)
