"""Accuracy against cost: one point per competitor with its interval, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, ScaledTranslation

from dfkd_bench.errors import UsageError
from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.data import (
    CLOCK,
    bounds_of,
    clock_name,
    means_note,
    missing_note,
    require_same,
    terms_of,
)
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.label_placement import place_labels
from dfkd_bench.report.figures.layout import (
    TOP1,
    Window,
    cost_axis,
    finish,
    new_figure,
    percent_axis,
    reference_lines,
    window,
)
from dfkd_bench.report.figures.style import FAINT, Looks, styled
from dfkd_bench.report.tables.leaderboard import GROUP
from dfkd_bench.utils.text import counted

Values = npt.NDArray[np.float64]
MAX_DIRECT_LABELS = 10  # up to this number of points, labels beside the points are tried before a legend
SIDE_STEP = 5.0  # typographic points between markers of equal cost
AGAINST = {"seconds": "seconds, all phases", "passes": "teacher passes, images"}


def costs_of(rows: pd.DataFrame, against: str) -> pd.Series[float]:
    """The mean cost of each row of a leaderboard, NaN if unknown. Raises `UsageError` for an unknown kind of cost."""
    if against not in AGAINST:
        raise UsageError(f"accuracy is drawn against {' or '.join(AGAINST)}, not {against!r}")
    if against == "seconds":
        return rows["seconds_mean"]
    return rows["teacher_forwards_mean"] + rows["teacher_backwards_mean"]


def sideways_offsets(costs: Values) -> Values:
    """Horizontal offset of each marker, in typographic points: costs equal to 0.5 % are drawn side by side."""
    offsets = np.zeros(len(costs))
    order = np.argsort(costs, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(costs[order]) > 0.005 * costs[order][1:]) + 1)
    for part in parts:
        offsets[np.sort(part)] = (np.arange(len(part)) - (len(part) - 1) / 2) * SIDE_STEP
    return offsets


def as_float64(column: pd.Series[float]) -> Values:
    """A column as float64."""
    return np.asarray(column, dtype=np.float64)


def pareto_front(costs: Values, scores: Values) -> list[int]:
    """Indices of the Pareto-optimal points (low cost, high score), by rising cost."""
    front: list[int] = []
    for k in np.lexsort((-scores, costs)):
        last = front[-1] if front else None
        duplicate = last is not None and scores[k] == scores[last] and costs[k] == costs[last]
        if last is None or scores[k] > scores[last] or duplicate:
            front.append(int(k))
    return front


@styled
def cost(rows: pd.DataFrame, looks: Looks, against: str = "seconds") -> Figure | None:
    """Mean top-1 of the last checkpoint in %, with its 95 % interval, against `seconds` or `passes`.

    `rows`: labelled rows of one group of a leaderboard; for seconds, of one device. The Pareto front is over the means;
    bounds are drawn as lines and are not part of it. Labels stand beside their points if all fit, else in a legend.
    None if no competitor has both numbers. Raises `UsageError` for an unknown kind of cost, and for rows that are not
    comparable.
    """
    shown = rows[rows["last_mean"].notna() & costs_of(rows, against).notna() & ~rows["bound"]]
    require_same(rows, GROUP)
    if shown.empty:
        return None
    if against == "seconds":
        require_same(shown, CLOCK)
    figure = _draw(rows, shown, looks, against, direct=True) if len(shown) <= MAX_DIRECT_LABELS else None
    return figure or _draw(rows, shown, looks, against, direct=False)


def _draw(rows: pd.DataFrame, shown: pd.DataFrame, looks: Looks, against: str, direct: bool) -> Figure | None:
    """The figure; None if `direct` (labels beside the points) and not all labels fit."""
    shown = shown.sort_values("label", kind="stable")
    x, y = as_float64(costs_of(shown, against)), as_float64(shown["last_mean"])
    offsets = sideways_offsets(x)
    if direct and offsets.any():
        return None
    half = as_float64(shown["last_ci95"].fillna(0.0))
    bounds = bounds_of(rows)
    figure, (axes,) = new_figure(height=2.5)
    view = window(y, y - half, y + half, bounds.values())
    label_suffix = cost_axis(axes.xaxis, x)
    axes.set_ylim(view.low, view.high)
    percent_axis(axes.yaxis, view)
    axes.set_ylabel(TOP1)
    axes.set_xlabel(AGAINST[against] + label_suffix)
    front = pareto_front(x, y)
    edge = Line2D(
        [*x[front], axes.get_xlim()[1]], [*y[front], y[front[-1]]], drawstyle="steps-post", color=FAINT, linewidth=2.0,
        solid_joinstyle="miter", zorder=1.2, label="Pareto front of the means",
    )  # fmt: skip
    axes.add_line(edge)
    marks = _points(axes, shown, x, half, offsets, looks, view)
    lines = list(reference_lines([axes], bounds, view))
    absent = sorted(set(rows.loc[~rows["bound"], "label"]) - set(shown["label"]))
    notes = [
        f"{means_note(shown)} {clock_note(shown) if against == 'seconds' else ''}",
        "Points of equal cost stand side by side." if offsets.any() else "",
        cut_note(shown, view),
        f"Not drawn, a number is missing: {', '.join(absent)}." if absent else "",
        missing_note(rows),
    ]
    finish(figure, terms_of(rows), notes, [] if direct else marks, [edge, *lines])
    if not direct:
        return figure
    points = np.column_stack([x, y.clip(view.low, view.high)])
    ends = np.stack([y - half, y + half]).clip(view.low, view.high)
    boxes = [_pixels(axes, [(x[k], ends[0, k]), (x[k], ends[1, k])]) for k in range(len(x))]
    names = [f"{name}{_off_axis_suffix(value, view)}" for name, value in zip(shown["label"], y, strict=True)]
    return figure if place_labels(axes, points, names, boxes) else None


def _points(
    axes: Axes, shown: pd.DataFrame, x: Values, half: Values, offsets: Values, looks: Looks, view: Window
) -> list[Line2D]:  # fmt: skip
    """Draw the points with their intervals, points outside the axis at its edge. Returns the legend handles."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    handles = []
    for k, (name, value, n) in enumerate(zip(shown["label"], shown["last_mean"], shown["n_complete"], strict=True)):
        look, y = looks[name], min(max(value, view.low), view.high)
        transform = axes.transData + ScaledTranslation(offsets[k] / 72, 0, figure.dpi_scale_trans)
        if view.holds(value) and n > 1:
            ends = (value - half[k], value + half[k])
            axes.vlines(x[k], *ends, color=look.colour, linewidth=0.9, zorder=2.5, transform=transform)
        drawn: dict[str, Any] = {
            "marker": look.marker, "color": look.colour, "linestyle": "none",
            "markerfacecolor": "white" if n < 2 else look.colour, "label": f"{name}{_off_axis_suffix(value, view)}",
        }  # fmt: skip
        axes.plot([x[k]], [y], zorder=3, clip_on=view.holds(value), transform=transform, **drawn)
        handles.append(Line2D([], [], **drawn))
    return handles


def _off_axis_suffix(value: float, view: Window) -> str:
    return "" if view.holds(value) else f" ({value:.1f}, off the axis)"


def clock_note(rows: pd.DataFrame) -> str:
    """Note: the device and number of threads on which the seconds of these rows were measured."""
    threads = int(rows["threads"].iloc[0])
    return f"Seconds on {rows['device_name'].iloc[0]}, {counted(threads, 'thread')}."


def cut_note(shown: pd.DataFrame, view: Window) -> str:
    """Note: the rows whose interval goes beyond the axis; the part above 100 % is not counted."""
    low, high = shown["last_mean"] - shown["last_ci95"], shown["last_mean"] + shown["last_ci95"]
    inside = shown["last_mean"].between(view.low, view.high)
    names = shown.loc[inside & ((low < view.low) | (high.clip(upper=100.0) > view.high)), "label"]
    return f"Intervals that run off the axis: {', '.join(sorted(names))}." if len(names) else ""


def _pixels(axes: Axes, ends: list[tuple[float, float]]) -> Bbox:
    (x0, y0), (x1, y1) = axes.transData.transform(ends)
    return Bbox.from_extents(x0 - 1, y0, x1 + 1, y1)


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure against seconds per device, and one against teacher passes."""
    empty = "no competitor has both a mean accuracy and that cost; seconds are empty over several devices"
    for key, rows in given.rows_of.items():
        name = given.name_of(key)
        for more, part in split_by_clock(rows):
            yield Job(name + more, partial(cost, part, given.looks, "seconds"), empty)
        yield Job(f"{name}-passes", partial(cost, rows, given.looks, "passes"), empty)


def split_by_clock(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Splits the rows by device and threads: (suffix of the file name, those rows with all bounds)."""
    ranked, bounds = rows[~rows["bound"]], rows[rows["bound"]]
    parts = ranked.groupby(list(CLOCK), dropna=False, sort=True)
    for clock, part in parts:
        yield f"-{clock_name(clock)}" * (len(parts) > 1), pd.concat([part, bounds])


KIND = FigureKind("cost", "accuracy against cost, with the Pareto front", jobs)
