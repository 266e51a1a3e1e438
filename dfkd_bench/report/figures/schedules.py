"""Values that a method schedules over its run (weights, windows, rates): columns of the curves, one panel each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dfkd_bench.errors import UsageError, did_you_mean
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.curves import AGAINST, BANDS, over_seeds
from dfkd_bench.report.figures.data import LOSS, RUN_COLUMNS, terms_of
from dfkd_bench.report.figures.input import FigureInput, Key
from dfkd_bench.report.figures.layout import count_axis, finish, new_figure, panel_title, width_of
from dfkd_bench.report.figures.losses import loss_terms
from dfkd_bench.report.figures.style import Looks, styled


def scheduled_settings(points: pd.DataFrame) -> list[str]:
    """Columns of loss terms that are probably schedules: equal for all seeds of a competitor, and not constant.

    A competitor with one seed is not used, because with one seed a loss cannot be distinguished from a schedule.
    """
    columns = []
    for name in loss_terms(points):
        for _, part in points.dropna(subset=[name]).groupby("label"):
            at = part.groupby("snapshot")[name]
            same = (at.max() - at.min()) <= 1e-6 * at.max().abs().clip(lower=1e-9)
            if part["seed"].nunique() > 1 and same.all() and np.ptp(at.mean().to_numpy()) > 1e-9:
                columns.append(name)
                break
    return columns


@styled
def schedules(points: pd.DataFrame, columns: Sequence[str], looks: Looks, title: str = "") -> Figure | None:
    """The named columns of `points` (from `curves_of`) against student images: one line per competitor, its mean.

    The band goes from the lowest to the highest seed. None if no complete run has a number in any of the columns.
    """
    lines = {
        name: {str(label): over_seeds(part, name) for label, part in points.dropna(subset=[name]).groupby("label")}
        for name in columns if name in points
    }  # fmt: skip
    lines = {name: {k: v for k, v in of.items() if len(v)} for name, of in lines.items()}
    shown = [name for name, of in lines.items() if of]
    if not shown:
        return None
    across = 2 if len(shown) == 4 else min(len(shown), 3)
    height = 2.1 if across == 1 else 1.7
    figure, axes = new_figure(len(shown), across, width_of(len(shown)), height, share_x=True)
    handles = {}
    for panel, name in zip(axes, shown, strict=True):
        for k, (label, line) in enumerate(lines[name].items()):
            look, every = looks[label], max(2, len(line) // 4)  # shifted markers, so that equal lines stay visible
            panel.fill_between(line["x"], line["low"], line["high"], color=look.colour, alpha=0.22, linewidth=0)
            (handles[label],) = panel.plot(
                line["x"], line["mean"], color=look.colour, linestyle=look.stroke, label=label,
                marker=look.marker, markersize=3.5, markevery=(k % every, every),
            )  # fmt: skip
        panel_title(panel, name.removeprefix(LOSS))
        panel.set_xlim(left=0)
        count_axis(panel.xaxis, 4)
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    for panel in axes[-across:]:
        panel.set_xlabel(AGAINST["student_images"])
    notes = [f"Line: mean over seeds; band: {BANDS['range']}."]
    return finish(figure, title, notes, [handles[label] for label in sorted(handles)])


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure per group: the columns named on the command line, else those that `scheduled_settings` finds."""
    empty = "no column that is equal for all seeds and changes over the run; name some with --columns"
    for key, rows in given.rows_of.items():
        yield Job(given.name_of(key), partial(_of_group, given, key, terms_of(rows)), empty)


def _of_group(given: FigureInput, key: Key, title: str) -> Figure | None:
    points = given.curves_of(key)
    points = points[~points["bound"].astype(bool)]
    for name in given.columns:
        if name not in points:
            no_loss = {*RUN_COLUMNS, "snapshot", "round", "student_images"}
            known = [str(column) for column in points if column not in no_loss]
            raise UsageError(f"no curve has a column {name!r}{did_you_mean(name, known)}")
    return schedules(points, given.columns or scheduled_settings(points), given.looks, title)


KIND = FigureKind("schedules", "weights, windows and rates over a run", jobs)
