"""Synthetic images of a leaderboard row as a small PNG; labelled images are sorted, one row of the grid per label."""

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
from dfkd_bench.report.html.groups import Line, path_beside_record
from dfkd_bench.report.images import grid
from dfkd_bench.runs import records
from dfkd_bench.runs.task_plugins import dataset_of
from dfkd_bench.utils.files import write_atomic

FILE = "samples.safetensors"
SHEET = "samples.png"  # a picture of the images; small enough to commit, unlike the images themselves
DESCRIPTION_KEY = "Description"  # keyword of the PNG's text
MAX_BYTES = 25_000  # of one picture
MAX_SIDE = 32  # pixels of the longer side of one image
ROWS = 10
COLUMNS = 10  # reduced until the picture has at most `MAX_BYTES`


@dataclass(frozen=True)
class Picture:
    """A grid of images as a PNG, its size in pixels, and its description."""

    payload: bytes
    width: int
    height: int
    caption: str

    @property
    def uri(self) -> str:
        """The PNG as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.payload).decode()


def picture(line: Line, results: Path, max_bytes: int = MAX_BYTES) -> Picture | None:
    """The images of the row's first complete run that has some; None if there are none or the task is not known.

    If `samples.png` exists beside a record, it is used unchanged, so that the page is the same without the images.
    """
    for run in line.runs:
        sheet = Path(path_beside_record(run, results, SHEET))
        if run["status"] == "complete" and sheet.is_file():
            return _read_sheet(sheet)
    for run in line.runs:
        file = Path(path_beside_record(run, results, FILE))
        if run["status"] == "complete" and file.is_file():
            content = _read(file, _dataset_of(results / run["place"]))
            return None if content is None else _draw(*content, f"seed {run['seed']}", max_bytes)
    return None


def has_images(line: Line, results: Path) -> bool:
    """True if some complete run of the row has images."""
    complete = [run for run in line.runs if run["status"] == "complete"]
    return any(os.path.isfile(path_beside_record(run, results, name)) for run in complete for name in (SHEET, FILE))


def save_sheet(line: Line, results: Path) -> Path | None:
    """Write the row's picture as `samples.png` beside its record; None if it exists or there are no images."""
    complete = [run for run in line.runs if run["status"] == "complete"]
    if any(os.path.isfile(path_beside_record(run, results, SHEET)) for run in complete):
        return None
    drawn = picture(line, results)
    if drawn is None:
        return None
    first = next(run for run in complete if os.path.isfile(path_beside_record(run, results, FILE)))
    path = Path(path_beside_record(first, results, SHEET))
    write_atomic(path, drawn.payload)
    return path


def _read_sheet(sheet: Path) -> Picture | None:
    from PIL import Image, UnidentifiedImageError

    try:
        payload = sheet.read_bytes()
        with Image.open(io.BytesIO(payload)) as image:
            return Picture(payload, *image.size, str(image.info.get(DESCRIPTION_KEY, "")))
    except (OSError, UnidentifiedImageError):
        return None


def _dataset_of(record_file: Path) -> Dataset | None:
    """The dataset of a record, see `dataset_of`; None if it is not known."""
    try:
        return dataset_of(records.read(record_file))
    except (UsageError, RunError, KeyError):
        return None


def _read(file: Path, dataset: Dataset | None) -> tuple[grid.Images, npt.NDArray[Any] | None] | None:
    """Images (n, channels, height, width) in [0, 1] and labels (n,) or None; None if the file does not fit the task."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if dataset is None:
        return None
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError):
        return None
    images, labels = tensors.get("images"), tensors.get("labels")
    if images is None or images.ndim != 4 or tuple(images.shape[1:]) != dataset.image_shape or not len(images):
        return None
    return grid.visible(images.astype(np.float32), dataset), labels


def _draw(images: grid.Images, labels: npt.NDArray[Any] | None, seed: str, max_bytes: int) -> Picture:
    columns = COLUMNS
    while True:
        rows = grid.choose(images, labels, None, ROWS, columns)
        text = "no labels" if labels is None else f"a row per label, {rows[0].name} to {rows[-1].name}"
        payload, size = _png([[_small(image) for image in row.images] for row in rows], f"{seed}, {text}")
        if len(payload) <= max_bytes or columns == 1:
            break
        columns = min(columns - 1, max(1, columns * max_bytes // len(payload)))
    return Picture(payload, *size, f"{seed}, {text}")


def _small(image: grid.Images) -> grid.Images:
    """The image averaged over k x k blocks, so that the longer side is at most `MAX_SIDE` pixels."""
    k = -(-max(image.shape[-2:]) // MAX_SIDE)
    channels, height, width = image.shape
    h, w = height // k * k, width // k * k
    blocks = image[:, :h, :w].reshape(channels, h // k, k, w // k, k)
    small: grid.Images = blocks.mean((2, 4))
    return small


def _png(rows: list[list[grid.Images]], description: str) -> tuple[bytes, tuple[int, int]]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(DESCRIPTION_KEY, description)

    grey = rows[0][0].shape[0] == 1
    canvas = (grid.canvas(rows) * 255).round().astype(np.uint8)
    picture = Image.fromarray(canvas[..., 0]) if grey else Image.fromarray(canvas).quantize(256)
    payload = io.BytesIO()
    picture.save(payload, format="PNG", optimize=True, pnginfo=info)
    return payload.getvalue(), picture.size
