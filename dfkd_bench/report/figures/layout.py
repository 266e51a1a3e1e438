"""What figures have in common: panels of a size, what stands above and beneath them, axes that say what they leave out.

A figure is made by `new_figure`, drawn into, and closed by `finish`, which adds the title, the legend and the notes and
makes the figure higher by what they need, so that nothing overlaps whatever is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dfkd_bench.report.figures.style import BOUND_STROKES, COLUMN, GREY, LARGE, PAGE, SMALL, clean

EDGE, LINE, GAP = 0.05, 0.135, 0.06  # inches: margin of a figure, a line of small type, between blocks
TOP1 = "test top-1 (%)"
Values = npt.NDArray[np.float64]


def width_of(panels: int) -> float:
    """Inches: a column's width for up to two panels and for four, else both columns'."""
    return COLUMN if panels in (1, 2, 4) else PAGE


def new_figure(
    panels: int = 1, across: int = 1, width: float = COLUMN, height: float = 2.3,
    share_x: bool = False, share_y: bool = False, ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure of `width` inches with its panels, each row of them `height` inches high, or by the `ratios` of rows."""
    down = math.ceil(panels / across)
    figure = Figure((width, height * down), layout=ConstrainedLayoutEngine(w_pad=EDGE, h_pad=EDGE, wspace=0.03))
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharex=share_x, sharey=share_y, height_ratios=ratios)
    axes = [axis for row in grid for axis in row]
    for spare in axes[panels:]:
        spare.remove()
    if share_x:  # the lowest panel of each column has the numbers, also where the last row is not full
        for axis in axes[max(0, panels - across) : panels]:
            axis.tick_params(labelbottom=True)
    return figure, axes[:panels]


def finish(figure: Figure, title: str = "", notes: Sequence[str] = (), *legends: Sequence[Artist]) -> Figure:
    """Title above, a block of legend for each of `legends`, notes beneath; the figure grows by them and is settled."""
    width, inner = figure.get_figwidth(), figure.get_figheight()
    head = wrapped(figure, clean(title, 200), width - 2 * EDGE, LARGE)
    foot = [line for note in notes if note for line in wrapped(figure, clean(note, 2000), width - 2 * EDGE, SMALL)]
    above = len(head) * 1.2 * LINE + EDGE * bool(head)
    made = [_legend(figure, handles, width) for handles in legends if handles]
    below = EDGE + sum(high + GAP for _, high in made) + len(foot) * LINE + GAP * bool(foot) - GAP * bool(made or foot)
    whole = inner + above + below
    figure.set_figheight(whole)
    for k, line in enumerate(head):
        draw_text(figure, EDGE / width, 1 - (EDGE + 1.2 * LINE * k) / whole, line, va="top", fontsize=LARGE)
    top = below
    for legend, high in made:
        legend.set_bbox_to_anchor((EDGE / width, top / whole), transform=figure.transFigure)
        top -= high + GAP
    for k, line in enumerate(foot):
        draw_text(figure, EDGE / width, (top - LINE * k) / whole, line, va="top", fontsize=SMALL, color=GREY)
    engine = cast(ConstrainedLayoutEngine, figure.get_layout_engine())
    engine.set(rect=(0, below / whole, 1, 1 - (above + below) / whole))
    figure.draw_without_rendering()  # settled here once, so that every format has the same layout
    figure.set_layout_engine("none")
    return figure


def _legend(figure: Figure, handles: Sequence[Artist], width: float) -> tuple[Legend, float]:
    """A legend in as many columns as fit, filled down the columns, and its height in inches."""
    labels = [clean(str(handle.get_label())) for handle in handles]
    pointed = all(isinstance(handle, Line2D) and handle.get_linestyle() == "None" for handle in handles)
    for across in range(min(len(handles), 8), 0, -1):
        if math.ceil(len(handles) / math.ceil(len(handles) / across)) < across:
            continue  # fewer columns are as low
        legend = figure.legend(
            handles, labels, ncols=across, loc="upper left", bbox_to_anchor=(0, 0), handlelength=1.0 if pointed else 2.2
        )
        for text in legend.get_texts():
            text.set(parse_math=False, color=GREY)
        box = legend.get_window_extent(renderer(figure))
        if box.width / figure.dpi <= width - 2 * EDGE or across == 1:
            break
        legend.remove()
    return legend, box.height / figure.dpi


def draw_text(place: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    """Text as it stands, never read as mathematics."""
    return place.text(x, y, text, parse_math=False, **style)


def renderer(figure: Figure) -> Any:
    """What measures the figure's texts, in pixels."""
    return cast(Any, figure.canvas).get_renderer()


def wrapped(figure: Figure, text: str, width: float, size: float) -> list[str]:
    """`text` in lines of at most `width` inches; a word that is longer alone is broken."""
    measure = draw_text(figure, 0, 0, "", fontsize=size)
    measuring = renderer(figure)

    def fits(line: str) -> bool:
        measure.set_text(line)
        return bool(measure.get_window_extent(measuring).width <= width * figure.dpi)

    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
            continue
        while not fits(word):
            cut = next(k for k in range(len(word), 0, -1) if k == 1 or fits(word[:k]))
            lines.append(word[:cut])
            word = word[cut:]
        if word:
            lines.append(word)
    measure.remove()
    return lines


def panel_title(axes: Axes, text: str) -> None:
    """The name of a panel, cut to what a panel holds."""
    axes.set_title(clean(text, 40), parse_math=False)


# -- axes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """The part of an axis that is shown."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        return self.low <= value <= self.high


def window(middle: Values, low: Values, high: Values, beside: Iterable[float] = ()) -> Window:
    """The range in which these percentages can be told apart, of means with the ends of their intervals.

    It takes in the values `beside` that lie within a third of its length. Left out are a mean far below the others
    (more than three quartile distances and three points below the lower quartile), the part of an interval longer than
    twice the median one, and what lies above 100: whoever draws says so.
    """
    first, third = np.percentile(middle, (25, 75))
    near = middle >= first - 3 * max(third - first, 1.0)
    reach = 2 * float(np.median(high[near] - middle[near]))
    bottom = float(np.min(np.maximum(low, middle - max(reach, 0.1))[near]))
    top = float(np.max(np.minimum(high, middle + max(reach, 0.1))[near]))
    third_part = max(top - bottom, 0.5) / 3
    for value in sorted(beside):
        if bottom - third_part <= value <= top + third_part:
            bottom, top = min(bottom, value), max(top, value)
    pad = 0.06 * max(top - bottom, 0.5)
    return Window(bottom - pad, min(top + pad, max(100.0 + pad, float(np.max(middle)))))


def percent_axis(axis: Axis, shown: Window) -> None:
    """Ticks of percentages: none above 100, since there is no such accuracy."""
    ticks = [t for t in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(shown.low, shown.high) if t <= 100 + 1e-9]
    axis.set_major_locator(FixedLocator([t for t in ticks if shown.holds(t)]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def error_scale(axes: Axes, shown: Window) -> None:
    """Stretch a vertical axis of percentages towards 100, by the logarithm of the error.

    For students so good that on a linear axis all of them are one line. What lies above `shown` stands at its edge.
    """
    least = max(100.0 - shown.high, 1e-3)

    def stretch(value: Values) -> Values:
        return -np.log10(np.maximum(100.0 - np.asarray(value, dtype=np.float64), least))

    def back(value: Values) -> Values:
        return 100.0 - 10.0 ** -np.asarray(value, dtype=np.float64)

    axes.set_yscale("function", functions=(stretch, back))
    axes.set_ylim(shown.low, 100.0 - least)
    ticks = [0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9]
    axes.yaxis.set_major_locator(FixedLocator([t for t in ticks if shown.low <= t <= 100.0 - least]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def count_axis(axis: Axis, most: int = 5) -> None:
    """Ticks of counts such as `50k`."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def cost_axis(axis: Axis, values: Values) -> str:
    """Logarithmic where costs differ by more than a factor of four, else linear; returns what a label must add."""
    axes = axis.axes
    low, high = float(np.min(values)), float(np.max(values))
    if low > 0 and high / low > 4:
        axes.set_xscale("log")
        room = (high / low) ** 0.08
        axes.set_xlim(low / room, high * room)
        decades = math.log10(high / low)
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0), numticks=12))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        return " (log scale)"
    room = max(0.15 * (high - low), 0.05 * high)
    start = 0.0 if low < 0.5 * high or high <= 0 else low - room
    axes.set_xlim(start, high + room if high > 0 else 1.0)
    count_axis(axis)
    return " (axis does not start at 0)" * (start > 0)


def short(value: float) -> str:
    """`0`, `51.2k`, `1.3M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


TEACHER = "teacher"


def reference_lines(
    axes: Sequence[Axes], values: Mapping[str, float], shown: Window, upright: bool = False, among: Sequence[str] = ()
) -> Iterator[Line2D]:
    """Lines for bounds and the teacher, the same in all `axes`, and handles for the legend that give their numbers.

    What lies off the axis is no line, but is named in the legend with an arrow to where it lies. `among`: all names of
    the figure, so that a name has one stroke in all panels; the teacher's is solid. `upright`: the lines are vertical.
    """
    strokes = dict(zip(sorted({*among, *values} - {TEACHER}), cycle(BOUND_STROKES), strict=False))
    for name, value in values.items():
        stroke = strokes.get(name, "-")
        drawn: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": stroke}
        if shown.holds(value):
            for axis in axes:
                (axis.axvline if upright else axis.axhline)(value, zorder=1.5, **drawn)
            yield Line2D([], [], label=f"{name} {value:.2f}", **drawn)
            continue
        marker = ("<>" if upright else "v^")[value > shown.high]
        drawn = {"color": GREY, "linestyle": "none", "marker": marker, "markersize": 3.5, "fillstyle": "none"}
        yield Line2D([], [], label=f"{name} {value:.2f}, off the axis", **drawn)
