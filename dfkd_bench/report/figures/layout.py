"""Layout of all figures: panels, title, legends, notes, axes.

`new_figure` creates a figure; after drawing, `finish` adds title, legends and notes and increases the height of the
figure by what they need, so that no text overlaps.
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

EDGE, LINE, GAP = 0.05, 0.135, 0.06  # inches: margin of a figure, height of a text line, gap between blocks
TOP1 = "test top-1 (%)"
Values = npt.NDArray[np.float64]


def width_of(panels: int) -> float:
    """Width in inches: one column for one, two or four panels, else both columns."""
    return COLUMN if panels in (1, 2, 4) else PAGE


def new_figure(
    panels: int = 1, across: int = 1, width: float = COLUMN, height: float = 2.3,
    share_x: bool = False, share_y: bool = False, ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure and its panels, `across` panels per row. `width` of the figure and `height` of a row are in inches.

    `ratios`: relative heights of the rows.
    """
    down = math.ceil(panels / across)
    figure = Figure((width, height * down), layout=ConstrainedLayoutEngine(w_pad=EDGE, h_pad=EDGE, wspace=0.03))
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharex=share_x, sharey=share_y, height_ratios=ratios)
    axes = [axis for row in grid for axis in row]
    for spare in axes[panels:]:
        spare.remove()
    if share_x:  # tick labels at the lowest panel of each column, also if the last row is not full
        for axis in axes[max(0, panels - across) : panels]:
            axis.tick_params(labelbottom=True)
    return figure, axes[:panels]


def finish(figure: Figure, title: str = "", notes: Sequence[str] = (), *legends: Sequence[Artist]) -> Figure:
    """Add the title above, one legend for each of `legends` and the notes below, and fix the layout."""
    width, inner = figure.get_figwidth(), figure.get_figheight()
    head = wrapped(figure, clean(title, 200), width - 2 * EDGE, LARGE)
    foot = [line for note in notes if note for line in wrapped(figure, clean(note, 2000), width - 2 * EDGE, SMALL)]
    above = len(head) * 1.2 * LINE + EDGE * bool(head)
    placed = [_legend(figure, handles, width) for handles in legends if handles]
    blocks = sum(high + GAP for _, high in placed)
    below = EDGE + blocks + len(foot) * LINE + GAP * bool(foot) - GAP * bool(placed or foot)
    whole = inner + above + below
    figure.set_figheight(whole)
    for k, line in enumerate(head):
        draw_text(figure, EDGE / width, 1 - (EDGE + 1.2 * LINE * k) / whole, line, va="top", fontsize=LARGE)
    top = below
    for legend, high in placed:
        legend.set_bbox_to_anchor((EDGE / width, top / whole), transform=figure.transFigure)
        top -= high + GAP
    for k, line in enumerate(foot):
        draw_text(figure, EDGE / width, (top - LINE * k) / whole, line, va="top", fontsize=SMALL, color=GREY)
    engine = cast(ConstrainedLayoutEngine, figure.get_layout_engine())
    engine.set(rect=(0, below / whole, 1, 1 - (above + below) / whole))
    figure.draw_without_rendering()  # compute the layout once, so that every format has the same
    figure.set_layout_engine("none")
    return figure


def _legend(figure: Figure, handles: Sequence[Artist], width: float) -> tuple[Legend, float]:
    """A legend in as many columns as fit, filled column by column, and its height in inches."""
    labels = [clean(str(handle.get_label())) for handle in handles]
    dots = all(isinstance(handle, Line2D) and handle.get_linestyle() == "None" for handle in handles)
    for across in range(min(len(handles), 8), 0, -1):
        if math.ceil(len(handles) / math.ceil(len(handles) / across)) < across:
            continue  # fewer columns need no more lines
        legend = figure.legend(
            handles, labels, ncols=across, loc="upper left", bbox_to_anchor=(0, 0), handlelength=1.0 if dots else 2.2
        )
        for text in legend.get_texts():
            text.set(parse_math=False, color=GREY)
        box = legend.get_window_extent(renderer(figure))
        if box.width / figure.dpi <= width - 2 * EDGE or across == 1:
            break
        legend.remove()
    return legend, box.height / figure.dpi


def draw_text(place: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    """Add text literally, without math mode."""
    return place.text(x, y, text, parse_math=False, **style)


def renderer(figure: Figure) -> Any:
    """The renderer that measures text of the figure, in pixels."""
    return cast(Any, figure.canvas).get_renderer()


def wrapped(figure: Figure, text: str, width: float, size: float) -> list[str]:
    """`text` in lines of at most `width` inches; a longer word is broken."""
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
    """Set the title of a panel, cut to 40 characters."""
    axes.set_title(clean(text, 40), parse_math=False)


# -- axes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """The part of an axis that is shown."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """True if the value is in the range."""
        return self.low <= value <= self.high


def window(middle: Values, low: Values, high: Values, references: Iterable[float] = ()) -> Window:
    """The range of an axis on which means (`middle`, in %) with interval ends `low` and `high` can be distinguished.

    It includes `references` that are within a third of its length. It leaves out means far below the others
    (more than three interquartile ranges and three points below the lower quartile), the part of an interval beyond
    twice the median length, and values above 100. The caller must add a note about what is outside.
    """
    first, third = np.percentile(middle, (25, 75))
    near = middle >= first - 3 * max(third - first, 1.0)
    reach = 2 * float(np.median(high[near] - middle[near]))
    bottom = float(np.min(np.maximum(low, middle - max(reach, 0.1))[near]))
    top = float(np.max(np.minimum(high, middle + max(reach, 0.1))[near]))
    margin = max(top - bottom, 0.5) / 3
    for value in sorted(references):
        if bottom - margin <= value <= top + margin:
            bottom, top = min(bottom, value), max(top, value)
    pad = 0.06 * max(top - bottom, 0.5)
    return Window(bottom - pad, min(top + pad, max(100.0 + pad, float(np.max(middle)))))


def percent_axis(axis: Axis, shown: Window) -> None:
    """Set ticks of percentages, none above 100."""
    ticks = [t for t in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(shown.low, shown.high) if t <= 100 + 1e-9]
    axis.set_major_locator(FixedLocator([t for t in ticks if shown.holds(t)]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def error_scale(axes: Axes, shown: Window) -> None:
    """Scale a vertical axis of percentages by the logarithm of the error, 100 - value.

    Used if the curves are so close to 100 that they coincide on a linear axis. Values above `shown` are drawn at its
    edge.
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
    """Set ticks of counts such as `50k`."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def cost_axis(axis: Axis, values: Values) -> str:
    """Set a logarithmic axis if costs differ by more than a factor of four, else linear; returns a label suffix."""
    axes = axis.axes
    low, high = float(np.min(values)), float(np.max(values))
    if low > 0 and high / low > 4:
        axes.set_xscale("log")
        margin = (high / low) ** 0.08
        axes.set_xlim(low / margin, high * margin)
        decades = math.log10(high / low)
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0), numticks=12))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        return " (log scale)"
    margin = max(0.15 * (high - low), 0.05 * high)
    start = 0.0 if low < 0.5 * high or high <= 0 else low - margin
    axes.set_xlim(start, high + margin if high > 0 else 1.0)
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
    """Draw a line for each bound and the teacher in all `axes`; yields legend handles with their numbers.

    A value outside the axis has no line; its legend entry has an arrow in its direction. `among`: all names of the
    figure, so that a name has the same line style in all panels; the teacher's is solid. `upright`: vertical lines.
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
