"""Synthetic images of every method in one picture: one row per method, one column per class predicted by the teacher.

`pick` selects the records, `gallery_lines` runs the teacher, `draw` draws. If the teacher predicts a class for no
image, its cell is empty, so that classes that a method misses are visible.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import BOUNDS, Task, latest, length_key, task, titled
from dfkd_bench.report.images import grid

CELL = 0.5  # inches per image
MAX_NAME = 24  # characters of a name in the margin
EMPTY = 0.93  # brightness of a cell without an image
LEFT, RIGHT, ABOVE, BELOW, BETWEEN = 1.35, 1.3, 1.0, 0.14, 0.1  # inches; BETWEEN: methods
GREY: dict[str, Any] = {"color": "0.4", "parse_math": False}


@dataclass(frozen=True)
class Line:
    """One method: the text in the margins, and its rows of images; None if the teacher predicts no such class."""

    name: str
    preset: str
    bound: bool
    coverage: float | None  # share of classes, 0 to 1
    label_agreement: float | None  # percent of images; None without labels
    rows: tuple[tuple[grid.Images | None, ...], ...]


def pick(
    all_records: Iterable[dict[str, Any]], of_task: str, track: str, budget: str | None, seed: int,
    protocol: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The record to show of each method: the newest with default preset and unchanged settings; bounds come last.

    Defaults: the latest `protocol` and the longest `budget` of the records. For a method that is not installed, one
    record per preset. Raises `UsageError` if no record is left.
    """
    terms = {"task": of_task, "track": track, "seed": seed} | ({"budget": budget} if budget else {})
    terms |= {"protocol": protocol} if protocol else {}
    matching = [
        r for r in all_records
        if all(r["spec"][k] == v for k, v in terms.items()) and not r["spec"]["overrides"]
        and not r["spec"].get("addons")
        and "samples.safetensors" in r["result"].get("files", {})
    ]  # fmt: skip
    newest_protocol = latest(r["spec"]["protocol"] for r in matching)
    matching = [r for r in matching if r["spec"]["protocol"] == newest_protocol]
    longest = max((r["spec"]["budget"] for r in matching), key=length_key, default=None)
    defaults = _defaults({r["spec"]["method"] for r in matching})
    newest: dict[tuple[bool, str, str], dict[str, Any]] = {}
    for record in sorted(matching, key=lambda r: str(r["measurement"].get("ended"))):
        spec = record["spec"]
        if spec["budget"] == longest and spec["preset"] == defaults.get(spec["method"], spec["preset"]):
            newest[spec["method"] in BOUNDS, spec["method"], spec["preset"]] = record
    if not newest:
        asked = ", ".join(f"{k} {v}" for k, v in terms.items())
        raise UsageError(f"no record with images and the default preset has {asked}")
    return [newest[key] for key in sorted(newest)]


def _defaults(methods: Iterable[str]) -> dict[str, str]:
    """Default presets of the methods that are installed and readable."""
    installed, presets = registry.entries(), {}
    for name in methods:
        entry = installed.get(name)
        try:
            card = registry.card(entry) if entry and not entry.rivals else None
        except RunError:
            card = None
        if card:
            presets[name] = card.default_preset
    return presets


def choose(
    images: grid.Images, predicted: grid.Labels, classes: int, rows: int
) -> tuple[tuple[grid.Images | None, ...], ...]:
    """The first `rows` images (channels, height, width) of each of the first `classes`; None if there are fewer."""
    by_class = [images[predicted == k][:rows] for k in range(classes)]
    return tuple(tuple(part[r] if r < len(part) else None for part in by_class) for r in range(rows))


def gallery_lines(selected: Sequence[dict[str, Any]], columns: int, rows: int) -> list[Line]:
    """Lines for records of one task. Raises `RunError` if images are missing or the teacher is not registered."""
    from dfkd_bench.report.images.samples import read_samples, teacher_answers
    from dfkd_bench.runs.task_plugins import dataset_of

    lines = []
    for record in selected:
        dataset, quality = dataset_of(record), record["result"]["samples"] or {}
        images, _ = read_samples(record)
        predicted = teacher_answers(record, images)
        if predicted is None:
            raise RunError(f"the teacher of {record['path']} is not registered on this machine: import it first")
        shown = choose(grid.visible(images.numpy(), dataset), predicted, min(columns, dataset.classes), rows)
        spec = record["spec"]
        coverage, agreement = quality.get("coverage"), quality.get("label_consistency")
        lines.append(Line(spec["method"], spec["preset"], spec["method"] in BOUNDS, coverage, agreement, shown))
    return lines


def picture(selected: Sequence[dict[str, Any]], columns: int, rows: int) -> bytes:
    """The gallery of `pick`ed records as PNG bytes."""
    spec = selected[0]["spec"]
    selected_task: Task = task(spec["task"])
    about = f"{spec['task']} · {spec['track']}/{spec['budget']} · seed {spec['seed']} · {titled(spec['protocol'])}"
    return draw(gallery_lines(selected, columns, rows), about, selected_task.dataset.classes)


def draw(lines: Sequence[Line], about: str, classes: int) -> bytes:
    """The gallery as PNG bytes; `about` is the subtitle."""
    from matplotlib.figure import Figure

    rows, columns = len(lines[0].rows), len(lines[0].rows[0])
    across, high = columns * CELL, rows * CELL
    part = f"the first {columns} of {classes} classes; " if columns < classes else ""
    image = "image" if rows == 1 else f"{rows} images"
    note = f"{part}each column holds the first {image} for which the teacher predicts that class, or nothing"
    w, h = max(LEFT + across + RIGHT, 0.065 * len(note)), ABOVE + len(lines) * (high + BETWEEN) - BETWEEN + BELOW
    figure = Figure((w, h), dpi=160, facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / w, 1 - y / h, text, **{"va": "center", "fontsize": 8, **GREY, **style})

    write(0.12, 0.2, "Synthetic images of the methods", fontsize=11, weight="bold", color="black")
    write(0.12, 0.43, about, fontsize=8.5)
    write(0.12, 0.63, note)
    write(LEFT - 0.12, ABOVE - 0.12, "teacher predicts", ha="right", fontsize=7.5)
    for k in range(columns):
        write(LEFT + (k + 0.5) * CELL, ABOVE - 0.12, str(k), ha="center", fontsize=9.5, color="black")
    places = (LEFT + across + 0.38, LEFT + across + 0.95)
    for x, word in zip(places, ("classes\nseen", "label\nagreement"), strict=True):
        write(x, ABOVE - 0.17, word, ha="center", fontsize=7.5, linespacing=1.0)
    for number, line in enumerate(lines):
        top = ABOVE + number * (high + BETWEEN)
        axes = figure.add_axes((LEFT / w, 1 - (top + high) / h, across / w, high / h))
        axes.set_axis_off()
        axes.imshow(grid.canvas(line.rows, EMPTY), interpolation="nearest", aspect="auto")
        middle, second = top + high / 2, "bound" if line.bound else line.preset
        name = line.name if len(line.name) <= MAX_NAME else line.name[: MAX_NAME - 1] + "…"
        write(LEFT - 0.12, middle - 0.08, name, ha="right", fontsize=_fitting(name), color="black")
        write(LEFT - 0.12, middle + 0.1, second, ha="right", fontsize=7.5)
        coverage = "–" if line.coverage is None else f"{line.coverage:.0%}"
        agreement = "–" if line.label_agreement is None else f"{line.label_agreement:.0f}%"
        missing = line.coverage is not None and line.coverage < 1
        write(places[0], middle, coverage, ha="center", **({"color": grid.MISMATCH} if missing else {}))
        write(places[1], middle, agreement, ha="center")
    payload = io.BytesIO()
    figure.savefig(payload, format="png")
    return payload.getvalue()


def _fitting(name: str) -> float:
    """The font size, in points, at which `name` fits into the margin."""
    return min(10.0, 10.0 * 14 / len(name))
