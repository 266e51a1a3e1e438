"""Synthetic images of every method in one picture: a row per method, a column per class as the teacher sees it.

`pick` chooses the records, `look` asks the teacher, `draw` paints. A class that the teacher never sees leaves its cell
empty, so that what a method misses shows at a glance.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import BOUNDS, Task, budget_order, latest, task, titled
from dfkd_bench.report.images import grid

CELL = 0.5  # inches per image
LONGEST = 24  # letters of a name in the margin
EMPTY = 0.93  # brightness of a cell without an image
LEFT, RIGHT, ABOVE, BELOW, BETWEEN = 1.35, 1.3, 1.0, 0.14, 0.1  # inches; BETWEEN: methods
GREY: dict[str, Any] = {"color": "0.4", "parse_math": False}


@dataclass(frozen=True)
class Line:
    """One method: what stands in the margins, and its rows of images, None where the teacher sees no such class."""

    name: str
    preset: str
    bound: bool
    coverage: float | None  # share of classes
    label_agreement: float | None  # percent of images; None without labels
    rows: tuple[tuple[grid.Images | None, ...], ...]


def pick(
    found: Iterable[dict[str, Any]], of_task: str, track: str, budget: str | None, seed: int,
    protocol: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The record to show of each method: default preset, settings untouched, the newest; bounds come last.

    Without `protocol` the latest, and without `budget` the longest, that the records hold. A method that is not
    installed shows every preset it has. Raises `UsageError` where nothing is left.
    """
    terms = {"task": of_task, "track": track, "seed": seed} | ({"budget": budget} if budget else {})
    terms |= {"protocol": protocol} if protocol else {}
    fitting = [
        r for r in found
        if all(r["spec"][k] == v for k, v in terms.items()) and not r["spec"]["overrides"]
        and not r["spec"].get("addons")
        and "samples.safetensors" in r["result"].get("files", {})
    ]  # fmt: skip
    of = latest(r["spec"]["protocol"] for r in fitting)
    fitting = [r for r in fitting if r["spec"]["protocol"] == of]
    longest = max((r["spec"]["budget"] for r in fitting), key=budget_order, default=None)
    defaults = _defaults({r["spec"]["method"] for r in fitting})
    newest: dict[tuple[bool, str, str], dict[str, Any]] = {}
    for record in sorted(fitting, key=lambda r: str(r["measurement"].get("ended"))):
        spec = record["spec"]
        if spec["budget"] == longest and spec["preset"] == defaults.get(spec["method"], spec["preset"]):
            newest[spec["method"] in BOUNDS, spec["method"], spec["preset"]] = record
    if not newest:
        asked = ", ".join(f"{k} {v}" for k, v in terms.items())
        raise UsageError(f"no record with images at the default preset has {asked}")
    return [newest[key] for key in sorted(newest)]


def _defaults(methods: Iterable[str]) -> dict[str, str]:
    """Default presets of the methods that are installed and can be read."""
    known, found = registry.entries(), {}
    for name in methods:
        entry = known.get(name)
        try:
            card = registry.card(entry) if entry and not entry.rivals else None
        except RunError:
            card = None
        if card:
            found[name] = card.default_preset
    return found


def choose(
    images: grid.Images, said: grid.Labels, classes: int, rows: int
) -> tuple[tuple[grid.Images | None, ...], ...]:
    """The first `rows` images (channels, height, width) of each of the first `classes`, None where there are fewer."""
    by_class = [images[said == k][:rows] for k in range(classes)]
    return tuple(tuple(part[r] if r < len(part) else None for part in by_class) for r in range(rows))


def look(found: Sequence[dict[str, Any]], columns: int, rows: int) -> list[Line]:
    """Lines for records of one task. Raises `RunError` where images are missing, or the teacher is not known here."""
    from dfkd_bench.report.images.samples import read_samples, said_by_teacher
    from dfkd_bench.runs.task_plugins import dataset_of

    lines = []
    for record in found:
        facts, quality = dataset_of(record), record["result"]["samples"] or {}
        images, _ = read_samples(record)
        said = said_by_teacher(record, images)
        if said is None:
            raise RunError(f"the teacher of {record['path']} is not registered here: import it first")
        shown = choose(grid.visible(images.numpy(), facts), said, min(columns, facts.classes), rows)
        spec = record["spec"]
        seen, kept = quality.get("coverage"), quality.get("label_consistency")
        lines.append(Line(spec["method"], spec["preset"], spec["method"] in BOUNDS, seen, kept, shown))
    return lines


def picture(found: Sequence[dict[str, Any]], columns: int, rows: int) -> bytes:
    """The gallery of `pick`ed records as PNG bytes."""
    spec = found[0]["spec"]
    chosen: Task = task(spec["task"])
    about = f"{spec['task']} · {spec['track']}/{spec['budget']} · seed {spec['seed']} · {titled(spec['protocol'])}"
    return draw(look(found, columns, rows), about, chosen.dataset.classes)


def draw(lines: Sequence[Line], about: str, classes: int) -> bytes:
    """The gallery as PNG bytes; `about` says where the images come from."""
    from matplotlib.figure import Figure

    rows, columns = len(lines[0].rows), len(lines[0].rows[0])
    across, high = columns * CELL, rows * CELL
    part = f"the first {columns} of {classes} classes; " if columns < classes else ""
    image = "image" if rows == 1 else f"{rows} images"
    note = f"{part}each column holds the first {image} that the teacher takes for that class, or nothing"
    w, h = max(LEFT + across + RIGHT, 0.065 * len(note)), ABOVE + len(lines) * (high + BETWEEN) - BETWEEN + BELOW
    figure = Figure((w, h), dpi=160, facecolor="white")

    def say(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / w, 1 - y / h, text, **{"va": "center", "fontsize": 8, **GREY, **style})

    say(0.12, 0.2, "What the methods show their student", fontsize=11, weight="bold", color="black")
    say(0.12, 0.43, about, fontsize=8.5)
    say(0.12, 0.63, note)
    say(LEFT - 0.12, ABOVE - 0.12, "the teacher sees", ha="right", fontsize=7.5)
    for k in range(columns):
        say(LEFT + (k + 0.5) * CELL, ABOVE - 0.12, str(k), ha="center", fontsize=9.5, color="black")
    places = (LEFT + across + 0.38, LEFT + across + 0.95)
    for x, word in zip(places, ("classes\nseen", "label\nagreement"), strict=True):
        say(x, ABOVE - 0.17, word, ha="center", fontsize=7.5, linespacing=1.0)
    for number, line in enumerate(lines):
        top = ABOVE + number * (high + BETWEEN)
        axes = figure.add_axes((LEFT / w, 1 - (top + high) / h, across / w, high / h))
        axes.set_axis_off()
        axes.imshow(grid.canvas(line.rows, EMPTY), interpolation="nearest", aspect="auto")
        middle, second = top + high / 2, "bound" if line.bound else line.preset
        name = line.name if len(line.name) <= LONGEST else line.name[: LONGEST - 1] + "…"
        say(LEFT - 0.12, middle - 0.08, name, ha="right", fontsize=_fitting(name), color="black")
        say(LEFT - 0.12, middle + 0.1, second, ha="right", fontsize=7.5)
        seen = "–" if line.coverage is None else f"{line.coverage:.0%}"
        kept = "–" if line.label_agreement is None else f"{line.label_agreement:.0f}%"
        missing = line.coverage is not None and line.coverage < 1
        say(places[0], middle, seen, ha="center", **({"color": grid.MISMATCH} if missing else {}))
        say(places[1], middle, kept, ha="center")
    payload = io.BytesIO()
    figure.savefig(payload, format="png")
    return payload.getvalue()


def _fitting(name: str) -> float:
    """A size of type, in points, in which `name` fits the margin."""
    return min(10.0, 10.0 * 14 / len(name))
