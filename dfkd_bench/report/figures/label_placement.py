"""Names beside points, without overlap: each beside its own point, or none at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from dfkd_bench.report.figures.layout import renderer
from dfkd_bench.report.figures.style import SMALL

DISTANCES = (5.0, 9.0)  # points between a point and its name
SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
ALIGN_X, ALIGN_Y = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
Points = npt.NDArray[np.float64]


def place_labels(axes: Axes, points: Points, texts: Sequence[str], taken: Sequence[Bbox]) -> list[Annotation] | None:
    """A name beside each of the points (n, 2), in data coordinates; None, and nothing drawn, where not all find room.

    A name may cover no point, no other name, none of the boxes `taken` (in pixels) and not the edge of the axes. The
    layout of the figure must be settled.
    """
    figure = axes.figure
    assert figure is not None
    root = figure.get_figure(root=True)
    assert root is not None
    scale, measuring = root.dpi / 72, renderer(root)
    pixels = axes.transData.transform(points)
    busy = [Bbox.from_bounds(x - 3 * scale, y - 3 * scale, 6 * scale, 6 * scale) for x, y in pixels] + list(taken)
    inside = axes.get_window_extent()
    crowd = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    order = np.argsort(np.sort(crowd, axis=1)[:, : min(4, len(points))].sum(axis=1), kind="stable")
    found: dict[int, Annotation] = {}
    for k in order:
        for far in DISTANCES:
            for side in SIDES:
                note = _note(axes, points[k], texts[k], side, far)
                box = note.get_window_extent(measuring).padded(0.5 * scale)
                held = inside.containsx(box.x0) and inside.containsx(box.x1)
                held = held and inside.containsy(box.y0) and inside.containsy(box.y1)
                if held and not any(_overlap(box, other) for other in busy):
                    busy.append(box)
                    found[int(k)] = note
                    break
                note.remove()
            if k in found:
                break
        if k not in found:
            for note in found.values():
                note.remove()
            return None
    return [found[k] for k in range(len(points))]


def _note(axes: Axes, point: Points, text: str, side: tuple[int, int], far: float) -> Annotation:
    length = far / np.hypot(*side)
    return axes.annotate(
        text, (float(point[0]), float(point[1])), xytext=(side[0] * length, side[1] * length),
        textcoords="offset points", ha=ALIGN_X[side[0]], va=ALIGN_Y[side[1]], fontsize=SMALL, parse_math=False,
    )  # fmt: skip


def _overlap(a: Bbox, b: Bbox) -> bool:
    return bool(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)
