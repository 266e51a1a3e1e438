"""One style for figures of curves and points: the width of a paper's column, colours that the colour-blind can tell."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfkd_bench.errors import UsageError
from dfkd_bench.files import write_atomic

# Okabe and Ito's palette without its yellow, which vanishes on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STROKES = ("-", "--", ":", "-.")  # where there are more lines than colours
COLUMN, PAGE = 3.4, 7.0  # inches
GREY = "0.45"


def width_of(panels: int) -> float:
    """Inches: a column's width for up to two panels and for four, else a page's."""
    return COLUMN if panels in (1, 2, 4) else PAGE


def new_figure(panels: int, share_y: bool, beneath: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure and the axes of its panels; `beneath`: inches that something below them needs."""
    across = 2 if panels == 4 else min(panels, 3)
    down = math.ceil(panels / across)
    height = (2.3 if panels == 1 else 1.9) * down + beneath
    figure = Figure((width_of(panels), height), dpi=200, facecolor="white", layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=share_y)
    axes = [axis for row in grid for axis in row]
    for spare in axes[panels:]:
        spare.set_axis_off()
    for axis in axes[:panels]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=6.5, length=2.5)
        axis.grid(axis="y", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes[:panels]


def line_style(number: int) -> dict[str, Any]:
    """Colour and stroke of the line of that number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STROKES[number // len(COLOURS) % len(STROKES)]}


def check_png(path: Path) -> Path:
    """`path` itself. Raises `UsageError` unless it names a PNG file in a folder that is there."""
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise UsageError(f"--figure names a PNG file in a folder that exists, got {path}")
    return path


def save(figure: Figure, path: Path) -> None:
    """The figure as its file's ending says (png, pdf, svg), whole or not at all; the same figure, the same bytes."""
    payload = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    stamps = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    figure.savefig(payload, format=kind, metadata=stamps)
    write_atomic(path, payload.getvalue())
