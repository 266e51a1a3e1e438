"""Placement of labels beside points without overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from dfkd_bench.report.figures.layout import renderer
from dfkd_bench.report.figures.style import SMALL

DISTANCES = (5.0, 9.0)  # typographic points between a data point and its label
SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
ALIGN_X, ALIGN_Y = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
Points = npt.NDArray[np.float64]


def place_labels(axes: Axes, points: Points, texts: Sequence[str], taken: Sequence[Bbox]) -> list[Annotation] | None:
    """Draw a label beside each of the points (n, 2), in data coordinates; if not all fit, draw none and return None.

    A label covers no point, no other label, no box of `taken` (in pixels) and not the edge of the axes. The layout of
    the figure must be final (`finish`).
    """
    figure = axes.figure
    assert figure is not None
    root = figure.get_figure(root=True)
    assert root is not None
    scale, measuring = root.dpi / 72, renderer(root)
    pixels = axes.transData.transform(points)
    occupied = [Bbox.from_bounds(x - 3 * scale, y - 3 * scale, 6 * scale, 6 * scale) for x, y in pixels] + list(taken)
    inside = axes.get_window_extent()
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    order = np.argsort(np.sort(distances, axis=1)[:, : min(4, len(points))].sum(axis=1), kind="stable")
    placed: dict[int, Annotation] = {}
    for k in order:
        for distance in DISTANCES:
            for side in SIDES:
                note = _note(axes, points[k], texts[k], side, distance)
                box = note.get_window_extent(measuring).padded(0.5 * scale)
                inside_axes = inside.containsx(box.x0) and inside.containsx(box.x1)
                inside_axes = inside_axes and inside.containsy(box.y0) and inside.containsy(box.y1)
                if inside_axes and not any(_overlap(box, other) for other in occupied):
                    occupied.append(box)
                    placed[int(k)] = note
                    break
                note.remove()
            if k in placed:
                break
        if k not in placed:
            for note in placed.values():
                note.remove()
            return None
    return [placed[k] for k in range(len(points))]


def _note(axes: Axes, point: Points, text: str, side: tuple[int, int], distance: float) -> Annotation:
    length = distance / np.hypot(*side)
    return axes.annotate(
        text, (float(point[0]), float(point[1])), xytext=(side[0] * length, side[1] * length),
        textcoords="offset points", ha=ALIGN_X[side[0]], va=ALIGN_Y[side[1]], fontsize=SMALL, parse_math=False,
    )  # fmt: skip


def _overlap(a: Bbox, b: Bbox) -> bool:
    return bool(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)
