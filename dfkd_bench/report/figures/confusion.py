"""Confusion of student and teacher: counts of the student's answers by the teacher's, and which of both is right."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from dfkd_bench.report.figures.base import FigureKind, Job
from dfkd_bench.report.figures.data import Confusion, confusion_of, terms_of
from dfkd_bench.report.figures.input import FigureInput
from dfkd_bench.report.figures.layout import draw_text, finish, new_figure
from dfkd_bench.report.figures.style import COLOURS, FAINT, GREY, SMALL, styled
from dfkd_bench.utils.text import counted

MAX_WRITTEN_CLASSES = 12  # counts are written into the cells up to this number of classes
DIFFER = LinearSegmentedColormap.from_list("differ", ["#ffffff", "#f6c08a", "#D55E00", "#7a3400"])
SAME = "0.86"
RIGHT = (("teacher right", COLOURS[0]), ("student right", COLOURS[5]), ("neither right", FAINT))


@styled
def confusion(result: Confusion, title: str = "") -> Figure:
    """Counts of the student's answers by the teacher's; only cells off the diagonal are coloured.

    A bar below shows which of both is right where they differ. Up to 12 classes the counts are written into the cells.
    """
    classes = len(result.counts)
    figure, (panel, strip) = new_figure(2, height=1.75, ratios=(1, 0.09))
    off = result.counts.astype(np.float64)
    np.fill_diagonal(off, 0.0)
    most = max(float(off.max()), 1.0)
    panel.grid(visible=False)
    image = panel.imshow(np.ma.masked_equal(off, 0), cmap=DIFFER, vmin=0, vmax=most, interpolation="nearest")
    step = 0.5 + np.arange(classes)
    panel.bar(np.arange(classes), 1.0, 1.0, bottom=step - 1.0, color=SAME, linewidth=0, zorder=0.5)
    if classes <= MAX_WRITTEN_CLASSES:
        _write_counts(panel, result, most)
    panel.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(
            FixedLocator(range(classes)) if classes <= MAX_WRITTEN_CLASSES else MaxNLocator(6, integer=True)
        )
    panel.set_xlabel("student's answer (class)")
    panel.set_ylabel("teacher's answer (class)")
    for side in ("top", "right"):
        panel.spines[side].set_visible(True)
    bar = figure.colorbar(image, ax=panel, shrink=0.85, aspect=28, pad=0.02)
    bar.set_label("images where they differ")
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.outline.set_linewidth(0.4)
    _draw_strip(strip, result)
    share = 100.0 * result.differing / result.images
    answers = f"{result.images} test answers of {counted(result.runs, 'run')}"
    notes = [f"{answers}; they differ in {result.differing} ({share:.2f} %)."]
    return finish(figure, title, notes, _handles(result))


def _write_counts(panel: Axes, result: Confusion, most: float) -> None:
    for row, counts in enumerate(result.counts):
        for column, count in enumerate(counts):
            if count:
                dark = row != column and count > 0.55 * most
                draw_text(
                    panel, column, row, str(count), ha="center", va="center", fontsize=SMALL,
                    color="white" if dark else GREY if row == column else "black",
                )  # fmt: skip


def _draw_strip(panel: Axes, result: Confusion) -> None:
    """One bar, split by which of both is right on the images where they differ."""
    numbers = (result.teacher_right, result.student_right, result.neither_right)
    start = 0
    for (_, colour), number in zip(RIGHT, numbers, strict=True):
        panel.barh([0], [number], left=[start], height=0.8, color=colour, linewidth=0)
        start += number
    panel.set(xlim=(0, max(start, 1)), ylim=(-0.5, 0.5))
    panel.set_axis_off()


def _handles(result: Confusion) -> list[Line2D]:
    numbers = (result.teacher_right, result.student_right, result.neither_right)
    return [
        Line2D([], [], color=colour, marker="s", linestyle="none", label=f"{who} {number}")
        for (who, colour), number in zip(RIGHT, numbers, strict=True)
    ]


def jobs(given: FigureInput) -> Iterator[Job]:
    """One figure per competitor."""
    empty = "no complete run has predictions beside its record"
    for name, _, label, runs in given.competitors():
        yield Job(name, partial(_of_runs, runs, f"{label}: {terms_of(runs)}"), empty)


def _of_runs(runs: pd.DataFrame, title: str) -> Figure | None:
    result = confusion_of(runs)
    return confusion(result, title) if result else None


KIND = FigureKind("confusion", "the student's answers by the teacher's", jobs)
