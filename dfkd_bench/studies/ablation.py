"""Ablations: settings of a method are varied one at a time. Planning of the runs, and the table of results.

Every varied setting also has the method's own value as a point, and these points share their runs. Besides settings
(`key`, or `addon.key` of an add-on), the `preset` and the add-ons (`with`) can be varied.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.registry import SettingInfo
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import make_plan
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.settings import Request
from dfkd_bench.runs.spec import coerce
from dfkd_bench.stats.groups import statistics

PRESET, WITH, NONE = "preset", "with", "none"
COLUMNS = (
    "setting", "value", "seed", "top1_last", "coverage", "label_consistency", "agreement", "own", "status", "run",
)  # fmt: skip
NUMBERS = COLUMNS[3:7]
Row = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One value of one setting, and its runs, one per seed."""

    setting: str
    value: Any
    own: bool  # True for the value without the ablation
    runs: tuple[PlannedRun, ...]


@dataclass(frozen=True)
class Summary:
    """The results of a point: test top-1 of the last checkpoint in %, with 95 % intervals by Student t."""

    setting: str
    value: str
    own: bool
    n: int  # complete runs
    lost: int  # runs that diverged or failed; not in the numbers
    mean: float
    half: float  # half-width; NaN for less than two runs
    pairs: int  # seeds that are complete here and at the own value
    difference: float  # mean over these seeds of the top-1 here minus that at the own value
    difference_half: float
    labels: float  # mean label agreement of the complete runs in %; NaN if a run has no labels


def parse_vary(words: Sequence[str]) -> dict[str, list[str]]:
    """`key=a,b` as {key: [a, b]}; values that contain commas are separated by semicolons. Raises `UsageError`."""
    vary: dict[str, list[str]] = {}
    for word in words:
        key, _, text = word.partition("=")
        values = [value.strip() for value in text.split(";" if ";" in text else ",")]
        if not key or not all(values) or key in vary:
            raise UsageError(f"--vary takes NAME=VALUE,VALUE,... once per name, got {word!r}")
        vary[key] = values
    return vary


def plan_ablation(request: Request, vary: Mapping[str, Sequence[str]], results: Path) -> list[Point]:
    """Every point, setting by setting, with ordered values. Raises `UsageError` if a run is not possible."""
    if len(request.methods) != 1 or len(request.tasks) != 1:
        raise UsageError("an ablation is of one method on one task")
    if both := set(request.overrides) & set(vary):
        raise UsageError(f"{both.pop()} is both varied and set")
    own_runs = tuple(make_plan(request, results))
    base = own_runs[0]
    known = settings_of(base)
    points = []
    for name, words in vary.items():
        if name == PRESET:
            own, values = base.spec.preset, list(words)
        elif name == WITH:
            own, values = "+".join(a.name for a in base.spec.addons) or NONE, list(words)
        elif name in known:
            info, own = known[name]
            values = [coerce(info, word, "--vary") for word in words]
        else:
            words_known = [*known, PRESET, WITH]
            raise UsageError(
                f"--vary: method {base.spec.method} has no setting {name!r}{did_you_mean(name, words_known)}"
            )
        for value in ordered([*values, own]):
            runs = own_runs if value == own else tuple(make_plan(request_with(request, name, value), results))
            points.append(Point(name, value, value == own, runs))
    return points


def settings_of(planned: PlannedRun) -> dict[str, tuple[SettingInfo, Any]]:
    """Every setting of method (`key`) and add-ons (`name.key`), with its value in this run."""
    settings = dict(planned.spec.settings)
    known = {info.name: (info, settings[info.name]) for info in registry.card(planned.method).settings}
    for entry, spec in zip(planned.addons, planned.spec.addons, strict=True):
        theirs = dict(spec.settings)
        known |= {f"{spec.name}.{i.name}": (i, theirs[i.name]) for i in registry.card(entry).settings}
    return known


def request_with(request: Request, name: str, value: Any) -> Request:
    """The request with another value of setting `name`; overrides of removed add-ons are dropped."""
    if name == PRESET:
        return replace(request, preset=value)
    if name == WITH:
        addons = () if value == NONE else tuple(word.strip() for word in value.split("+"))
        kept = {k: v for k, v in request.overrides.items() if "." not in k or k.rpartition(".")[0] in addons}
        return replace(request, addons=addons, overrides=kept)
    return replace(request, overrides={**request.overrides, name: value})


def ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers sorted, other values in the given order."""
    once = list({json.dumps(value): value for value in values}.values())
    return sorted(once) if all(type(value) in (int, float) for value in once) else once


def runs_of(points: Sequence[Point]) -> list[PlannedRun]:
    """Every run of an ablation once, in order."""
    return list({planned.spec.hash: planned for point in points for planned in point.runs}.values())


# -- results ----------------------------------------------------------------------------------------------------------


def rows_of(points: Sequence[Point], results: Path) -> list[Row]:
    """The rows of the CSV, from the records. A run that failed or has no record is a row without numbers."""
    by_hash = {planned.spec.hash: result_of(results / planned.spec.folder) for planned in runs_of(points)}
    return [
        row_of(point, planned.spec.seed, planned.spec.hash, by_hash[planned.spec.hash])
        for point in points
        for planned in point.runs
    ]


def result_of(folder: Path) -> dict[str, Any]:
    """The `result` of a run's record; status failed if it cannot be read."""
    try:
        result: dict[str, Any] = records.read(folder)["result"]
    except (UsageError, RunError):
        return {"status": "failed"}
    return result


def row_of(point: Point, seed: int, run_hash: str, result: dict[str, Any]) -> Row:
    """One row of the CSV; missing numbers are None."""
    quality = result.get("samples") or {}
    return {
        "setting": point.setting, "value": value_text(point.value), "seed": seed,
        "top1_last": result.get("accuracy", {}).get("last"), "coverage": quality.get("coverage"),
        "label_consistency": quality.get("label_consistency"),
        "agreement": result.get("fidelity", {}).get("agreement"), "own": point.own, "status": result["status"],
        "run": run_hash,
    }  # fmt: skip


def value_text(value: Any) -> str:
    """A value as text for figure and CSV."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV; numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """The inverse of `csv_text`. Raises `UsageError` for another file."""
    try:
        with path.open(newline="") as file:
            rows: list[Row] = list(csv.DictReader(file))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise UsageError(f"{path} is not the CSV of an ablation")
        for row in rows:
            row |= {name: float(row[name]) if row[name] else None for name in NUMBERS}
            row |= {"seed": int(row["seed"]), "own": row["own"] == "True"}
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    return rows


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """One summary per value of each setting, in the order of the rows."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    labels: dict[tuple[str, str], list[float]] = {}
    about: dict[tuple[str, str], tuple[bool, int]] = {}
    for row in rows:
        key = row["setting"], row["value"]
        complete = row["status"] == "complete" and row["top1_last"] is not None
        scores.setdefault(key, {}).update({row["seed"]: row["top1_last"]} if complete else {})
        agree = row["label_consistency"]
        labels.setdefault(key, []).extend([math.nan if agree is None else agree] * complete)
        about[key] = row["own"], about.get(key, (False, 0))[1] + (not complete)
    own = {setting: by_seed for (setting, value), by_seed in scores.items() if about[setting, value][0]}
    found = []
    for (setting, value), by_seed in scores.items():
        base = own.get(setting, {})
        mean, half = interval(list(by_seed.values()))
        differences = [score - base[seed] for seed, score in by_seed.items() if seed in base]
        difference, difference_half = interval(differences)
        is_own, lost = about[setting, value]
        found.append(
            Summary(
                setting, value, is_own, len(by_seed), lost, mean, half, len(differences), difference, difference_half,
                interval(labels[setting, value])[0],
            )
        )  # fmt: skip
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student t; NaN if there are too few values."""
    if not values:
        return math.nan, math.nan
    mean, _, half = statistics(np.array(values, dtype=np.float64)[:, None], np.zeros(len(values), dtype=np.int64), 1)
    return float(mean[0, 0]), float(half[0, 0])
