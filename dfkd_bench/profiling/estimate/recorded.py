"""Cost of a run from records of the same run with other seeds, on the same device."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from dfkd_bench.errors import RunError
from dfkd_bench.profiling.estimate import RECORDS, Cost
from dfkd_bench.runs import records
from dfkd_bench.runs.settings import TERMS, VARIANTS
from dfkd_bench.runs.spec import RunSpec

SAME = ("protocol", "task", "method", "settings", *TERMS, *(name for name in VARIANTS if name != "overrides"))


def cost_from_records(spec: RunSpec, results: Path, device: str) -> Cost | None:
    """Medians over complete runs below `results` that differ from `spec` only in seed, teacher, data or code.

    `device`: the device name in their records. None if there is no such run.
    """
    found = [record for record in matching_records(spec, results) if record["manifest"]["device"] == device]
    if not found:
        return None
    counts = [record["result"]["counts"] for record in found]
    return Cost(
        median(map(whole_seconds, found)),
        RECORDS,
        median(c["teacher_forwards"] + c["teacher_backwards"] for c in counts),
        median(c["student_images"] for c in counts),
        len(found),
    )


def matching_records(spec: RunSpec, results: Path) -> Iterator[dict[str, Any]]:
    """Complete runs of the same method with the same settings. Unreadable records are skipped."""
    folder = (results / spec.folder).parent
    for path in sorted(folder.rglob(records.FILE)) if folder.is_dir() else ():
        try:
            record = records.read(path)
            other = RunSpec.from_json(record["spec"])
        except RunError:
            continue
        same = all(getattr(other, name) == getattr(spec, name) for name in SAME)
        addons = [[(addon.name, addon.settings) for addon in s.addons] for s in (other, spec)]
        if same and addons[0] == addons[1] and record["result"]["status"] == "complete":
            yield record


def whole_seconds(record: dict[str, Any]) -> float:
    """Seconds from start to record. This includes snapshots and checkpoints, which belong to no phase.

    For an interrupted run only the sum of the phases is known.
    """
    measured = record["measurement"]
    phases = float(measured["seconds_total"])
    if measured["restarts"]:
        return phases
    began, ended = (datetime.fromisoformat(measured[key]) for key in ("started", "ended"))
    return max(phases, (ended - began).total_seconds())
