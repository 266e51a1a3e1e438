"""The loss terms of one competitor: one panel per term, one thin line per seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.data import LOSS, NO_CURVES, terms_of
from dfkd_bench.report.figures.input import FigureInput, Key
from dfkd_bench.report.figures.layout import count_axis, finish, new_figure, panel_title
from dfkd_bench.report.figures.style import COLUMN, PAGE, Look, styled

LOG_FROM_RATIO = 50.0  # a positive term gets a logarithmic axis if largest / smallest exceeds this


def loss_terms(points: pd.DataFrame) -> list[str]:
    """The columns of loss terms with a finite number in these curves, in their order."""
    return [name for name in points.columns if name.startswith(LOSS) and np.isfinite(points[name]).any()]


@styled
def losses(points: pd.DataFrame, look: Look, title: str = "") -> Figure | None:
    """Loss terms against student images. `points`: the curves of one competitor, from `curves_of`.

    A diverged run ends in a cross. None if no term has a finite number.
    """
    names = loss_terms(points)
    if not names:
        return None
    across = min(len(names), 4 if len(names) > 6 else 3)
    wide = COLUMN if across < 3 else PAGE
    figure, axes = new_figure(len(names), across, wide, 1.45 if across > 1 else 2.0, share_x=True)
    for panel, name in zip(axes, names, strict=True):
        for (_, status), run in points.groupby(["seed", "status"], sort=True):
            line = run.sort_values("student_images")
            value = line[name].where(np.isfinite(line[name]))
            panel.plot(line["student_images"], value, color=look.colour, linewidth=0.7, alpha=0.85)
            if status == "diverged" and value.notna().any():
                end = int(np.flatnonzero(value.notna())[-1])
                panel.plot(line["student_images"].iloc[[end]], value.iloc[[end]], "x", color=look.colour, markersize=4)
        panel_title(panel, name.removeprefix(LOSS) + " (log)" * _set_scale(panel, points[name]))
        panel.set_xlim(left=0)
        count_axis(panel.xaxis, 3)
    for panel in axes[-across:]:
        panel.set_xlabel("student images")
    runs = points[["seed", "status"]].drop_duplicates()
    lost = int((runs["status"] == "diverged").sum())
    notes = [f"A line per seed ({len(runs)})" + f"; a cross ends one that diverged ({lost})" * bool(lost) + "."]
    return finish(figure, title, notes)


def _set_scale(panel: Axes, values: pd.Series[float]) -> bool:
    """Set the scale of the vertical axis; returns True if it is logarithmic."""
    finite = values[np.isfinite(values)]
    logarithmic = bool(finite.min() > 0 and finite.max() / finite.min() > LOG_FROM_RATIO)
    if logarithmic:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(numticks=5))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return logarithmic


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure per competitor."""
    for name, key, label, runs in given.competitors():
        yield Job(name, partial(_of_competitor, given, key, label, f"{label}: {terms_of(runs)}"), NO_CURVES)


def _of_competitor(given: FigureInput, key: Key, label: str, title: str) -> Figure | None:
    points = given.curves_of(key)
    return losses(points[points["label"] == label], given.looks[label], title)


KIND = FigureKind("losses", "loss terms of each competitor", jobs)
