"""Checks of recorded numbers: everything that follows from stored curves and predictions is computed again."""

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
from dfkd_bench.results.verify.findings import Finding, differences, mismatch, same
from dfkd_bench.runs.curves import Row, read

EXACT = 1e-9  # relative: the same sums of doubles with another version of a library
ROUNDED = 1e-6  # absolute: confidences are stored in fp32
SUMMED = 1e-5  # absolute, of a calibration error: bins are summed in fp32, an error of 2e-6 for 10,000 images
BINS = 15
CLOCK = 2.0  # seconds: dates are recorded in whole seconds


def read_curves(case: Case) -> list[Row]:
    """The rows of a run's curves. Raises `RunError` for another content."""
    rows = read(case.folder / CURVES)
    if any(row.get(k) is None for row in rows for k in ("round", "student_images", "top1")):
        raise RunError("has a row without round, student_images or top1")
    return rows


def curves_in(rows: list[Row], teacher_top1: float) -> Curves:
    """The rows of a run's curves as input of metrics."""
    accuracies, images = (np.array([row[k] for row in rows], float).tolist() for k in ("top1", "student_images"))
    return Curves(accuracies, [row.get("probe_agreement") for row in rows], images, teacher_top1)


def read_predictions(case: Case) -> dict[str, npt.NDArray[Any]]:
    """student, teacher, labels and student_confidence, each of shape (n,). Raises `RunError` for another content."""
    try:
        arrays: dict[str, npt.NDArray[Any]] = load_file(case.folder / PREDICTIONS)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"cannot be read: {error}") from error
    names = ("student", "teacher", "labels", "student_confidence")
    if set(arrays) != set(names) or len({arrays[k].shape for k in names}) != 1 or not arrays["labels"].size:
        raise RunError(f"must contain {', '.join(names)}, all of the same shape")
    return arrays


def check_curves(case: Case) -> Iterator[Finding]:
    """Accuracies and convergence must follow from the curves, and the curves' rounds from the schedule."""
    try:
        rows = read_curves(case)
    except RunError as error:
        yield case.problem(str(error), CURVES)
        return
    result, plan = case.result, case.record["manifest"]["settings"]["schedule"]
    rounds, points = [float(row["round"] or 0) for row in rows], plan["snapshots"]
    expected = points if result["status"] == "complete" else points[: len(rounds)]
    if rounds != [float(r) for r in expected]:
        yield case.problem(f"has {len(rows)} rows, the schedule has {len(points)} snapshots at other rounds", CURVES)
    curves = curves_in(rows, result["fidelity"]["teacher_top1"])
    per_round = plan["student_steps"] * plan["batch_size"]
    for round, images in zip(rounds, curves.student_images, strict=True):
        if images != round * per_round:
            what = mismatch("student_images", images, "the schedule gives", round * per_round)
            yield case.problem(f"in round {round:.0f} {what}", CURVES)
    metrics = registry.comparable(curve_metrics(curves), result, case.version)
    recorded = {k: result[k] for k in metrics if k in result}
    for name, stored, computed in differences(recorded, metrics, EXACT):
        yield case.problem(mismatch(name, stored, f"{CURVES} gives", computed))
    yield from check_seconds(case, curves.accuracies)


def check_seconds(case: Case, accuracies: Sequence[float]) -> Iterator[Finding]:
    """Measured times must be consistent: phases with their sum, times of snapshots with phases, sums with dates."""
    measurement = case.record["measurement"]
    seconds, marks = measurement["seconds"], measurement["snapshot_seconds"]
    if len(marks) != len(accuracies) or any(b < a for a, b in pairwise(marks)):
        yield case.problem(f"measurement.snapshot_seconds are not {len(accuracies)} rising times, one per snapshot")
        return
    total = sum(seconds.values())
    begun, ended = (datetime.fromisoformat(measurement[k]) for k in ("started", "ended"))
    expected = {
        "seconds_total": total,
        "gpu_hours": total / 3600.0 if case.spec.device == "cuda" else 0.0,
        "seconds_to": first_reaching(accuracies, marks, case.result["fidelity"]["teacher_top1"]),
    }
    for name, stored, computed in differences({k: measurement[k] for k in expected}, expected, EXACT):
        yield case.problem(mismatch(f"measurement.{name}", stored, "its parts give", computed))
    trained = total - seconds["evaluation"]
    if marks[-1] > trained + 1e-6:
        yield case.problem(
            mismatch("measurement.snapshot_seconds", marks[-1], "synthesis and distillation took", trained)
        )
    between = (ended - begun).total_seconds()
    if not measurement["restarts"] and total > between + CLOCK:
        yield case.problem(f"measurement.seconds_total is {total:.1f}, started and ended differ by {between:.0f}")


def check_predictions(case: Case) -> Iterator[Finding]:
    """Accuracies, agreement and calibration must follow from the stored predictions."""
    try:
        arrays = read_predictions(case)
    except RunError as error:
        yield case.problem(str(error), PREDICTIONS)
        return
    result, student, teacher, labels = case.result, arrays["student"], arrays["teacher"], arrays["labels"]
    top1, teacher_top1 = percent(student == labels), percent(teacher == labels)
    for name, stored, computed in (
        ("accuracy.last", result["accuracy"]["last"], top1),
        ("fidelity.agreement", result["fidelity"]["agreement"], percent(student == teacher)),
        ("fidelity.teacher_top1", result["fidelity"]["teacher_top1"], teacher_top1),
        ("rel_teacher", result["rel_teacher"], top1 / teacher_top1 if teacher_top1 else None),
    ):
        if not same(stored, computed, EXACT):
            yield case.problem(mismatch(name, stored, f"{PREDICTIONS} gives", computed))
    confidence = arrays["student_confidence"].astype(np.float64)
    if np.isfinite(confidence).all():
        ece, slack = calibration_error(confidence, student == labels)
        if not same(result["fidelity"]["ece"], ece, 0.0, SUMMED + slack):
            yield case.problem(mismatch("fidelity.ece", result["fidelity"]["ece"], f"{PREDICTIONS} gives", ece))


def percent(hits: npt.NDArray[np.bool_]) -> float:
    """Percentage of true values in `hits` (n,)."""
    return 100.0 * float(hits.mean())


def calibration_error(confidence: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Expected calibration error over `BINS` equal bins, and its tolerance.

    `confidence` and `hits` are (n,). Rounding may move a confidence near the border of two bins into the other bin.
    """
    borders = np.linspace(0.0, 1.0, BINS + 1)
    bins = np.clip(np.searchsorted(borders, confidence, side="right") - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=BINS)
    near = (np.abs(confidence[:, None] - borders[1:-1]) < ROUNDED).any(1)
    return float(np.abs(gaps).sum() / len(hits)), 2.0 * float(near.mean())


def check_alarms(case: Case) -> Iterator[Finding]:
    """The alarms must follow from the recorded sample quality."""
    expected = alarms(case.result["samples"], case.result["synthetic_kl"])
    if case.result["alarms"] != expected:
        yield case.problem(mismatch("alarms", case.result["alarms"], "the recorded samples give", expected))
