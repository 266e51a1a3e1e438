"""Seconds of runs as records of the same terms, on the same device, tell them."""

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


def recorded(spec: RunSpec, results: Path, device: str) -> Cost | None:
    """Medians over the complete runs below `results` that differ from `spec` in what changes no time.

    That is seed, teacher, data and code. `device` is the name in their records. None without such a run.
    """
    found = [record for record in alike(spec, results) if record["manifest"]["device"] == device]
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


def alike(spec: RunSpec, results: Path) -> Iterator[dict[str, Any]]:
    """Complete runs of the same method in the same settings. A record that cannot be read is passed over."""
    folder = (results / spec.folder).parent
    for path in sorted(folder.rglob(records.FILE)) if folder.is_dir() else ():
        try:
            record = records.read(path)
            other = RunSpec.from_json(record["spec"])
        except RunError:
            continue
        same = all(getattr(other, name) == getattr(spec, name) for name in SAME)
        around = [[(addon.name, addon.settings) for addon in s.addons] for s in (other, spec)]
        if same and around[0] == around[1] and record["result"]["status"] == "complete":
            yield record


def whole_seconds(record: dict[str, Any]) -> float:
    """From beginning to record, which is more than the seconds of its phases: snapshots and checkpoints are in none.

    Of a run that was interrupted only the phases are known.
    """
    measured = record["measurement"]
    phases = float(measured["seconds_total"])
    if measured["restarts"]:
        return phases
    began, ended = (datetime.fromisoformat(measured[key]) for key in ("started", "ended"))
    return max(phases, (ended - began).total_seconds())
