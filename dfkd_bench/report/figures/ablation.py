"""The figure of an ablation: one panel per setting, one dot per seed, means with 95 % intervals, bounds as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfkd_bench.report.figures.layout import (
    TOP1,
    Window,
    finish,
    new_figure,
    percent_axis,
    reference_lines,
    width_of,
    window,
)
from dfkd_bench.report.figures.style import COLOURS, GRID, clean, styled
from dfkd_bench.studies.ablation import Row, Summary, summaries
from dfkd_bench.utils.text import counted

OWN, OTHER = COLOURS[1], COLOURS[0]
TILT_FROM = 7  # characters of a value from which on the tick labels are tilted


@styled
def ablation(rows: Sequence[Row], title: str, bounds: Mapping[str, Sequence[float]] | None = None) -> Figure:
    """Test top-1 of the last checkpoint in % at each value of each setting.

    `bounds`: name -> test top-1 of its runs under the same terms, in %. A bound outside the axis is named in the
    legend; an interval that goes beyond the axis ends in an arrow.
    """
    results = summaries(rows)
    names = list(dict.fromkeys(s.setting for s in results))
    across = 2 if len(names) == 4 else min(len(names), 3)
    longest = max(len(clean(s.value, 24)) for s in results)
    tilt = 0.05 * max(0, longest - TILT_FROM)  # inches that tilted tick labels need
    height = (2.1 if len(names) == 1 else 1.8) + tilt
    figure, axes = new_figure(len(names), across, width_of(len(names)), height, share_y=True)
    bound_means = {clean(name): mean(values) for name, values in (bounds or {}).items() if values}
    shown = axis_window(results, rows, list(bound_means.values()))
    for axis, name in zip(axes, names, strict=True):
        draw_panel(axis, [s for s in results if s.setting == name], [r for r in rows if r["setting"] == name], shown)
        percent_axis(axis.yaxis, shown)
    for axis in axes[::across]:
        axis.set_ylabel(TOP1)
    seeds = len({row["seed"] for row in rows})
    notes = [
        f"Dots: {counted(seeds, 'seed')}; squares: means; bars: 95 % intervals (arrows: beyond the axis); "
        "shaded: the method's own value."
    ]
    return finish(figure, title, notes, list(reference_lines(axes, bound_means, shown)))


def axis_window(results: Sequence[Summary], rows: Sequence[Row], references: Sequence[float]) -> Window:
    """The range of the axis: means, their intervals as `window` cuts them, runs, and near values of `references`."""
    measured = [s for s in results if s.n]
    if not measured:
        return Window(0.0, 100.0)
    middle = np.array([s.mean for s in measured])
    half = np.nan_to_num(np.array([s.half for s in measured]))
    shown = window(middle, middle - half, middle + half, references)
    dots = [row["top1_last"] for row in rows if row["top1_last"] is not None]
    # a run far below the others is left out, or the differences between all others would not be visible
    near = [dot for dot in dots if shown.low - 2 * (shown.high - shown.low) <= dot]
    return Window(min([shown.low, *(dot - 0.1 for dot in near)]), max([shown.high, *(dot + 0.1 for dot in near)]))


def draw_panel(axis: Axes, results: Sequence[Summary], rows: Sequence[Row], shown: Window) -> None:
    """One setting: its values in order, at equal distances."""
    values = [clean(s.value, 24) for s in results]
    axis.grid(visible=False, axis="x")
    for place, s in enumerate(results):
        colour = OWN if s.own else OTHER
        dots = [r["top1_last"] for r in rows if r["value"] == s.value and r["top1_last"] is not None]
        axis.plot([place + 0.14] * len(dots), dots, "o", color=colour, alpha=0.45, markersize=2.8, markeredgewidth=0)
        if s.own:
            axis.axvspan(place - 0.34, place + 0.34, color=GRID, zorder=0, linewidth=0)
        if s.n:
            half = 0.0 if math.isnan(s.half) else s.half
            low, high = s.mean - half, min(s.mean + half, 100.0)
            axis.plot([place] * 2, [low, high], color=colour, linewidth=1.0, zorder=3)
            axis.plot([place], [s.mean], "s", color=colour, markersize=3.8, zorder=4)
            for end, mark, edge in ((low, "v", shown.low), (high, "^", shown.high)):
                if not shown.holds(end):  # the interval goes beyond the axis
                    axis.plot([place], [edge], mark, color=colour, markersize=3.5, clip_on=False, zorder=5)
    if all(is_number(s.value) for s in results):
        axis.plot(range(len(results)), [s.mean for s in results], color="0.6", linewidth=0.9, zorder=2)
    tilted = max(map(len, values)) >= TILT_FROM
    axis.set_xticks(range(len(values)), values)
    for label in axis.get_xticklabels():
        label.set(rotation=30 if tilted else 0, ha="right" if tilted else "center", parse_math=False)
        label.set_rotation_mode("anchor")
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_ylim(shown.low, shown.high)
    axis.set_xlabel(clean(results[0].setting, 40), parse_math=False)


def is_number(text: str) -> bool:
    """True if the text is a finite number; only then a line connects the means."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
