"""Synthetic images of a run as a picture: one row per class; images that the teacher classifies otherwise are marked.

`choose` selects and sorts the images, `draw` draws them; no network is run here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dfkd_bench.data.base import Dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
GAP = 2  # pixels between images
CELL = 0.55  # inches per image
MISMATCH = "#e4572e"


@dataclass(frozen=True)
class Row:
    """One row of the grid: its name in the margin, its images and their captions."""

    name: str
    images: Images  # (n, channels, height, width) in [0, 1]
    captions: tuple[str, ...]  # the teacher's class where it differs from the label, else empty


def visible(images: Images, facts: Dataset) -> Images:
    """Normalised images (n, channels, height, width) converted to [0, 1]; NaN becomes 0."""
    mean, std = (np.asarray(v, dtype=np.float32).reshape(1, -1, 1, 1) for v in (facts.mean, facts.std))
    shown: Images = np.nan_to_num(images * std + mean, nan=0.0).clip(0.0, 1.0)
    return shown


def choose(images: Images, labels: Labels | None, predicted: Labels | None, rows: int, columns: int) -> list[Row]:
    """At most `rows` rows of at most `columns` images: by label, else by the teacher's class, else in their order."""
    keys = labels if labels is not None else predicted
    if keys is None:
        parts = [np.arange(k, min(k + columns, len(images))) for k in range(0, len(images), columns)]
        return [Row("", images[part], ("",) * len(part)) for part in parts[:rows]]
    grid_rows = []
    for value in np.unique(keys)[:rows]:
        part = np.flatnonzero(keys == value)[:columns]
        wrong = [labels is not None and predicted is not None and predicted[k] != value for k in part]
        texts = (str(predicted[k]) if w and predicted is not None else "" for k, w in zip(part, wrong, strict=True))
        grid_rows.append(Row(str(value), images[part], tuple(texts)))
    return grid_rows


def draw(rows: Sequence[Row], title: str, subtitle: str, margin: str, note: str) -> bytes:
    """The grid as PNG bytes. `margin` says what the row names are; `note` is printed below."""
    from matplotlib.figure import Figure

    if margin and len(rows) < 3:  # not high enough for vertical text
        margin, note = "", f"rows: {margin}" + (f"; {note}" if note else "")
    columns = max(len(row.images) for row in rows)
    across, down = columns * CELL, len(rows) * CELL
    above, below, left, right = 0.72, 0.34 if note else 0.12, 0.62 if rows[0].name else 0.12, 0.12
    w = max(across, 0.1 * len(title), 0.07 * len(subtitle), 0.07 * len(note)) + left + right
    h = down + above + below
    figure = Figure((w, h), dpi=160, facecolor="white")
    axes = figure.add_axes((left / w, below / h, across / w, down / h))
    axes.set_axis_off()
    axes.imshow(canvas([list(row.images) for row in rows]), interpolation="nearest", aspect="auto")
    height, width = rows[0].images.shape[-2:]
    for r, row in enumerate(rows):
        top = r * (height + GAP) - 0.5
        axes.text(-0.35 * width, top + height / 2, row.name, ha="right", va="center", fontsize=11)
        for c, caption in enumerate(row.captions):
            if caption:
                _mark(axes, c * (width + GAP) - 0.5, top, width, height, caption)
    grey: dict[str, Any] = {"color": "0.35", "fontsize": 8.5, "parse_math": False}
    figure.text(0.12 / w, 1 - 0.16 / h, title, ha="left", va="top", fontsize=11, weight="bold", parse_math=False)
    figure.text(0.12 / w, 1 - 0.40 / h, subtitle, ha="left", va="top", **grey)
    figure.text(0.14 / w, (below + down / 2) / h, margin, rotation=90, ha="center", va="center", **grey)
    figure.text(left / w, 0.13 / h, note, ha="left", va="center", **grey)
    payload = io.BytesIO()
    figure.savefig(payload, format="png")
    return payload.getvalue()


def canvas(rows: Sequence[Sequence[Images | None]], empty: float = 1.0) -> Images:
    """Images (channels, height, width) in one picture (height, width, 3) with white gaps; None has value `empty`."""
    shape = next((image.shape for row in rows for image in row if image is not None), (1, 16, 16))
    (height, width), columns = shape[-2:], max(map(len, rows))
    picture = np.ones((len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), dtype=np.float32)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            y, x = r * (height + GAP), c * (width + GAP)
            picture[y : y + height, x : x + width] = empty if image is None else image.transpose(1, 2, 0)
    return picture


def _mark(axes: Axes, x: float, y: float, width: int, height: int, caption: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=MISMATCH, linewidth=1.6))
    box: dict[str, Any] = {"facecolor": MISMATCH, "edgecolor": "none", "pad": 0.8}
    corner = (x + width - 0.02 * width, y + height - 0.02 * height)
    axes.text(*corner, caption, ha="right", va="bottom", color="white", fontsize=6.5, bbox=box)
