"""Synthetic images of a row as a small PNG: one row of images per class where they are labelled."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dfkd_bench.data.base import Dataset
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.report.html.groups import Line, beside
from dfkd_bench.report.images import grid
from dfkd_bench.runs import records
from dfkd_bench.runs.task_plugins import dataset_of
from dfkd_bench.utils.files import write_atomic

FILE = "samples.safetensors"
SHEET = "samples.png"  # a picture of them that is kept where the images themselves are too large to keep
SAID = "Description"  # keyword of the PNG's text
MOST = 25_000  # bytes of one picture
LARGEST = 32  # pixels of one image's side
ROWS = 10
COLUMNS = 10  # and fewer until the picture is small enough


@dataclass(frozen=True)
class Picture:
    """A grid of images as a PNG, its size in pixels, and what it shows."""

    payload: bytes
    width: int
    height: int
    said: str

    @property
    def uri(self) -> str:
        """As a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.payload).decode()


def picture(line: Line, results: Path, most: int = MOST) -> Picture | None:
    """The images of the row's first complete run that has some; None where there are none, or not of a known task.

    A sheet that lies beside a record is shown as it is: so a page comes out the same where the images are not kept.
    """
    for run in line.runs:
        sheet = Path(beside(run, results, SHEET))
        if run["status"] == "complete" and sheet.is_file():
            return _kept(sheet)
    for run in line.runs:
        file = Path(beside(run, results, FILE))
        if run["status"] == "complete" and file.is_file():
            found = _read(file, _facts(results / run["place"]))
            return None if found is None else _draw(*found, f"seed {run['seed']}", most)
    return None


def has_images(line: Line, results: Path) -> bool:
    """Whether some complete run of the row left images."""
    complete = [run for run in line.runs if run["status"] == "complete"]
    return any(os.path.isfile(beside(run, results, name)) for run in complete for name in (SHEET, FILE))


def keep(line: Line, results: Path) -> Path | None:
    """Write the row's picture as a sheet beside the record it shows; None where there is one, or nothing to show."""
    complete = [run for run in line.runs if run["status"] == "complete"]
    if any(os.path.isfile(beside(run, results, SHEET)) for run in complete):
        return None
    drawn = picture(line, results)
    if drawn is None:
        return None
    first = next(run for run in complete if os.path.isfile(beside(run, results, FILE)))
    path = Path(beside(first, results, SHEET))
    write_atomic(path, drawn.payload)
    return path


def _kept(sheet: Path) -> Picture | None:
    from PIL import Image, UnidentifiedImageError

    try:
        payload = sheet.read_bytes()
        with Image.open(io.BytesIO(payload)) as image:
            return Picture(payload, *image.size, str(image.info.get(SAID, "")))
    except (OSError, UnidentifiedImageError):
        return None


def _facts(record_file: Path) -> Dataset | None:
    """The dataset of a record's task, with the normalisation of the record's teacher; None where it is not known."""
    try:
        return dataset_of(records.read(record_file))
    except (UsageError, RunError, KeyError):
        return None


def _read(file: Path, facts: Dataset | None) -> tuple[grid.Images, npt.NDArray[Any] | None] | None:
    """Images in [0, 1] and their labels, if they have any; None where the file holds something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if facts is None:
        return None
    try:
        found = load_file(file)
    except (OSError, SafetensorError):
        return None
    images, labels = found.get("images"), found.get("labels")
    if images is None or images.ndim != 4 or tuple(images.shape[1:]) != facts.image_shape or not len(images):
        return None
    return grid.visible(images.astype(np.float32), facts), labels


def _draw(images: grid.Images, labels: npt.NDArray[Any] | None, seed: str, most: int) -> Picture:
    columns = COLUMNS
    while True:
        rows = grid.choose(images, labels, None, ROWS, columns)
        what = "no labels" if labels is None else f"a row per label, {rows[0].name} to {rows[-1].name}"
        payload, size = _png([[_small(image) for image in row.images] for row in rows], f"{seed}, {what}")
        if len(payload) <= most or columns == 1:
            break
        columns = min(columns - 1, max(1, columns * most // len(payload)))
    return Picture(payload, *size, f"{seed}, {what}")


def _small(image: grid.Images) -> grid.Images:
    """Every k-th pixel's block averaged, so that the longer side is at most `LARGEST` pixels."""
    k = -(-max(image.shape[-2:]) // LARGEST)
    channels, height, width = image.shape
    h, w = height // k * k, width // k * k
    blocks = image[:, :h, :w].reshape(channels, h // k, k, w // k, k)
    small: grid.Images = blocks.mean((2, 4))
    return small


def _png(rows: list[list[grid.Images]], said: str) -> tuple[bytes, tuple[int, int]]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    words.add_text(SAID, said)

    grey = rows[0][0].shape[0] == 1
    canvas = (grid.canvas(rows) * 255).round().astype(np.uint8)
    made = Image.fromarray(canvas[..., 0]) if grey else Image.fromarray(canvas).quantize(256)
    payload = io.BytesIO()
    made.save(payload, format="PNG", optimize=True, pnginfo=words)
    return payload.getvalue(), made.size
