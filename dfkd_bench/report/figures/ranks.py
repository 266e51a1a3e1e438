"""Mean ranks as a critical-difference diagram: two competitors that no bar joins differ significantly.

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
MAX_IN_COLUMN = 8  # with more competitors the figure is as wide as both columns


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
        """p-value of Friedman's test; the null hypothesis is that all mean ranks are equal."""

    @property
    def cd(self) -> float:
        """Critical difference: mean ranks that are further apart differ significantly."""

    @property
    def pairs(self) -> pd.DataFrame:
        """p-value of Nemenyi's test of each pair; rows and columns by name."""


@styled
def ranks(result: Ranks, looks: Looks, title: str = "", notes: Sequence[str] = ()) -> Figure | None:
    """The critical-difference diagram of `result`; None for fewer than three ranked competitors or two blocks.

    Bars join groups of competitors of which no two differ at the 5 % level by Nemenyi's test. `notes` are printed below
    the diagram, before its own note.
    """
    from scikit_posthocs import critical_difference_diagram

    all_means = pd.Series(np.asarray(result.mean, dtype=np.float64), index=[str(name) for name in result.competitors])
    mean = all_means.dropna()
    names = list(mean.index)
    if len(names) < 3 or result.n_blocks < 2 or not math.isfinite(result.cd):
        return None
    if unranked := sorted(set(all_means.index) - set(names)):
        notes = [*notes, f"Without a rank: {', '.join(unranked)}."]
    pairs = result.pairs.reindex(index=names, columns=names).astype("float64")
    for name in names:
        pairs.loc[name, name] = 1.0
    figure, (axes,) = new_figure(width=COLUMN if len(names) <= MAX_IN_COLUMN else PAGE, height=1.0)
    axes.grid(visible=False)
    artists = critical_difference_diagram(
        mean, pairs, alpha=ALPHA, ax=axes, text_h_margin=0.02 * (len(names) - 1),
        label_fmt_left="{label}  {rank:.2f} ", label_fmt_right=" {rank:.2f}  {label}",
        label_props={"fontsize": SMALL, "parse_math": False}, elbow_props={"linewidth": 0.7, "color": FAINT},
        marker_props={"s": 16}, crossbar_props={"linewidth": 2.2, "color": "0.25", "solid_capstyle": "butt"},
    )  # fmt: skip
    for label in artists["labels"]:
        label.set_color("black")
    order = mean.sort_values()  # the order of the diagram: left half from the best on, right half from the worst on
    half = (len(order) + 1) // 2
    for name, marker in zip([*order.index[:half], *order.index[half:][::-1]], artists["markers"], strict=True):
        marker.set_color(looks[name].colour)
    return _finished(figure, axes, result, artists, title, notes)


def _finished(
    figure: Figure, axes: Any, result: Ranks, artists: dict[str, Any], title: str, notes: Sequence[str]
) -> Figure:
    bars = artists["crossbars"]
    for (bar,) in bars:  # its points come from a set, so their order differs between processes
        ends = sorted(bar.get_xdata())
        bar.set_data([ends[0], ends[-1]], bar.get_ydata()[:2])
    lowest = min(line.get_ydata().min() for line in artists["elbows"])
    top = 1.6
    low, best = 1, len(artists["labels"])
    axes.plot([low, low + result.cd], [top - 0.4] * 2, color="black", linewidth=1.0, marker="|", markersize=4)
    axes.text(low + result.cd / 2, top, f"CD = {result.cd:.2f}", ha="center", va="bottom", fontsize=SMALL)
    ends = [x for line in artists["elbows"] for x in line.get_xdata()]
    axes.set_xlim(min(low, *ends), max(best, *ends))  # otherwise the elbow of a rank of 1.00 is cut off
    axes.spines["top"].set(visible=True, bounds=(low, best))
    axes.set_ylim(lowest - 0.5, top + 1)
    axes.xaxis.set_major_locator(FixedLocator(range(low, best + 1)))
    figure.set_figheight((top + 1 - lowest + 1) * LINE + 0.2)
    joined = "no two joined by a bar differ at the 5 % level (Nemenyi)" if bars else "every two differ"
    text = (
        f"Mean rank over {result.n_blocks} blocks, 1 is best; {joined}. Friedman's test: p = {result.friedman_p:.2g}."
    )
    if result.friedman_p >= ALPHA:
        text += " It does not refute that all rank alike."
    return finish(figure, title, [*notes, text])


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure per set of tasks with otherwise equal terms."""
    empty = "fewer than three competitors with a complete run in every block, or fewer than two blocks"
    for key, runs in given.runs.groupby(list(SHARED), sort=True):
        yield Job(given.name_of(key, SHARED), partial(_of_runs, runs, given.looks), empty)


def _of_runs(runs: pd.DataFrame, looks: Looks) -> Figure | None:
    blocks = blocks_of(runs)
    if blocks.table.shape[0] < 2 or blocks.table.shape[1] < 3:
        return None
    from dfkd_bench.stats import ranks as statistics  # a slow import that only this figure needs

    notes = ["A block is a task with a seed."]
    notes += [f"Left out, for lack of a block: {', '.join(blocks.left_out)}."] * bool(blocks.left_out)
    notes += [f"{blocks.dropped} blocks left out, which half of the competitors lack."] * bool(blocks.dropped)
    return ranks(statistics.ranks(blocks.table), looks, terms_of(runs), [" ".join(notes)])


KIND = FigureKind("ranks", "mean ranks, a critical-difference diagram", jobs)
