"""The recorded numbers against the stored curves and predictions: all that follows from them is worked out anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dfkd_bench.errors import RunError
from dfkd_bench.metrics import registry
from dfkd_bench.metrics.base import Curves
from dfkd_bench.metrics.evaluate import curve_metrics
from dfkd_bench.metrics.recorded.convergence import first_reaching
from dfkd_bench.metrics.recorded.samples import alarms
from dfkd_bench.results.verify.case import CURVES, PREDICTIONS, Case
from dfkd_bench.results.verify.findings import Finding, differences, off, same
from dfkd_bench.runs.curves import Row, read

EXACT = 1e-9  # relative: the same sums of the same doubles, by another version of a library
ROUNDED = 1e-6  # absolute: a mean of confidences that were rounded to fp32
SUMMED = 1e-5  # of a calibration error: its bins are added up in fp32, 2e-6 off for 10,000 images
BINS = 15
CLOCK = 2.0  # seconds: dates are written in whole seconds


def read_curves(case: Case) -> list[Row]:
    """The rows of a run's curves. Raises `RunError` where they are none."""
    rows = read(case.folder / CURVES)
    if any(row.get(k) is None for row in rows for k in ("round", "student_images", "top1")):
        raise RunError("has a row without round, student_images or top1")
    return rows


def curves_in(rows: list[Row], teacher_top1: float) -> Curves:
    """What metrics see of the rows of a run's curves."""
    accuracies, images = (np.array([row[k] for row in rows], float).tolist() for k in ("top1", "student_images"))
    return Curves(accuracies, [row.get("probe_agreement") for row in rows], images, teacher_top1)


def read_predictions(case: Case) -> dict[str, npt.NDArray[Any]]:
    """Student, teacher, labels and student_confidence, each (n,). Raises `RunError` where they are not that."""
    try:
        found: dict[str, npt.NDArray[Any]] = load_file(case.folder / PREDICTIONS)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"cannot be read: {error}") from error
    names = ("student", "teacher", "labels", "student_confidence")
    if set(found) != set(names) or len({found[k].shape for k in names}) != 1 or not found["labels"].size:
        raise RunError(f"does not hold {', '.join(names)}, as many of each")
    return found


def curves(case: Case) -> Iterator[Finding]:
    """Accuracies and convergence follow from the curves, and the curves' rows from the schedule."""
    try:
        rows = read_curves(case)
    except RunError as error:
        yield case.problem(str(error), CURVES)
        return
    result, plan = case.result, case.record["manifest"]["settings"]["schedule"]
    rounds, points = [float(row["round"] or 0) for row in rows], plan["snapshots"]
    wanted = points if result["status"] == "complete" else points[: len(rounds)]
    if rounds != [float(r) for r in wanted]:
        yield case.problem(f"has {len(rows)} rows, the schedule has {len(points)} snapshots at other rounds", CURVES)
    seen = curves_in(rows, result["fidelity"]["teacher_top1"])
    per_round = plan["student_steps"] * plan["batch_size"]
    for round, shown in zip(rounds, seen.student_images, strict=True):
        if shown != round * per_round:
            what = off("student_images", shown, "the schedule gives", round * per_round)
            yield case.problem(f"in round {round:.0f} {what}", CURVES)
    meant = registry.comparable(curve_metrics(seen), result, case.version)
    recorded = {k: result[k] for k in meant if k in result}
    for name, said, found in differences(recorded, meant, EXACT):
        yield case.problem(off(name, said, f"{CURVES} gives", found))
    yield from check_seconds(case, seen.accuracies)


def check_seconds(case: Case, accuracies: Sequence[float]) -> Iterator[Finding]:
    """What the clock said agrees with itself: parts with their sum, marks with the phases, sums with the dates."""
    said = case.record["measurement"]
    seconds, marks = said["seconds"], said["snapshot_seconds"]
    if len(marks) != len(accuracies) or any(b < a for a, b in pairwise(marks)):
        yield case.problem(f"measurement.snapshot_seconds are not {len(accuracies)} rising seconds, one per snapshot")
        return
    total = sum(seconds.values())
    begun, ended = (datetime.fromisoformat(said[k]) for k in ("started", "ended"))
    meant = {
        "seconds_total": total,
        "gpu_hours": total / 3600.0 if case.spec.device == "cuda" else 0.0,
        "seconds_to": first_reaching(accuracies, marks, case.result["fidelity"]["teacher_top1"]),
    }
    for name, recorded, found in differences({k: said[k] for k in meant}, meant, EXACT):
        yield case.problem(off(f"measurement.{name}", recorded, "its parts give", found))
    trained = total - seconds["evaluation"]
    if marks[-1] > trained + 1e-6:
        yield case.problem(
            off("measurement.snapshot_seconds", marks[-1], "in synthesis and distillation were", trained)
        )
    between = (ended - begun).total_seconds()
    if not said["restarts"] and total > between + CLOCK:
        yield case.problem(f"measurement.seconds_total is {total:.1f}, from started to ended are {between:.0f}")


def predictions(case: Case) -> Iterator[Finding]:
    """Accuracies, agreement and calibration follow from the stored predictions."""
    try:
        found = read_predictions(case)
    except RunError as error:
        yield case.problem(str(error), PREDICTIONS)
        return
    said, student, teacher, labels = case.result, found["student"], found["teacher"], found["labels"]
    top1, teacher_top1 = percent(student == labels), percent(teacher == labels)
    for name, recorded, meant in (
        ("accuracy.last", said["accuracy"]["last"], top1),
        ("fidelity.agreement", said["fidelity"]["agreement"], percent(student == teacher)),
        ("fidelity.teacher_top1", said["fidelity"]["teacher_top1"], teacher_top1),
        ("rel_teacher", said["rel_teacher"], top1 / teacher_top1 if teacher_top1 else None),
    ):
        if not same(recorded, meant, EXACT):
            yield case.problem(off(name, recorded, f"{PREDICTIONS} gives", meant))
    confidence = found["student_confidence"].astype(np.float64)
    if np.isfinite(confidence).all():
        ece, slack = calibration_error(confidence, student == labels)
        if not same(said["fidelity"]["ece"], ece, 0.0, SUMMED + slack):
            yield case.problem(off("fidelity.ece", said["fidelity"]["ece"], f"{PREDICTIONS} gives", ece))


def percent(hits: npt.NDArray[np.bool_]) -> float:
    """Percent of `hits` (n,) that are true."""
    return 100.0 * float(hits.mean())


def calibration_error(confidence: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Expected calibration error over equal bins, and how far rounding may move it.

    `confidence` and `hits` are (n,). A confidence on the border of two bins may have been in the other one.
    """
    borders = np.linspace(0.0, 1.0, BINS + 1)
    bins = np.clip(np.searchsorted(borders, confidence, side="right") - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=BINS)
    near = (np.abs(confidence[:, None] - borders[1:-1]) < ROUNDED).any(1)
    return float(np.abs(gaps).sum() / len(hits)), 2.0 * float(near.mean())


def check_alarms(case: Case) -> Iterator[Finding]:
    """The alarms are those that the recorded quality of the samples raises."""
    meant = alarms(case.result["samples"], case.result["synthetic_kl"])
    if case.result["alarms"] != meant:
        yield case.problem(off("alarms", case.result["alarms"], "the recorded samples give", meant))
