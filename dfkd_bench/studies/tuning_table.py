"""The table of a tuning: one row per trial. The rule that chooses a trial uses only columns of the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from dfkd_bench.errors import UsageError
from dfkd_bench.runs import records
from dfkd_bench.runs.spec import RunSpec

FILE, PROBE = "tuning.csv", "probe.safetensors"


@dataclass(frozen=True)
class Row:
    """One row of the table; its fields are the columns."""

    task: str
    track: str
    budget: str
    seed: int
    method: str
    preset: str
    trial: int
    settings: str  # canonical JSON of the overrides
    status: str
    coverage: float | None  # share of the classes, None for a run without images
    label_consistency: float | None  # label agreement in percent, None for a run without labels
    probe_agreement: float | None  # percent, three decimals; None for a run that is not complete
    eligible: bool
    chosen: bool
    run: str  # hash of the run
    code: str  # SHA-256 of the method's code, 12 digits
    teacher_passes: int | None  # images forward and backward
    seconds: float | None
    probe: str  # SHA-256 of the probe's file, 12 digits
    protocol: str

    def text(self) -> dict[str, str]:
        """The row as texts for the CSV."""
        exact = {"coverage": ".4f", "label_consistency": ".4f", "probe_agreement": ".3f", "seconds": ".1f"}
        return {k: "" if v is None else _text(v, exact.get(k, "")) for k, v in asdict(self).items()}


def _text(value: Any, form: str) -> str:
    return str(value).lower() if isinstance(value, bool) else format(value, form)


def row_of(spec: RunSpec, trial: int, record: Mapping[str, Any], agreement: float | None, probe: str) -> Row:
    """The row of a trial's record, before `choose`. Reads no number that was measured on test images."""
    result = record["result"]
    images = result.get("samples") or {}
    counts, seconds = result.get("counts"), record["measurement"].get("seconds_total")
    return Row(
        spec.task, spec.track, spec.budget, spec.seed, spec.method, spec.preset, trial,
        records.canonical(dict(spec.overrides)), result["status"], images.get("coverage"),
        images.get("label_consistency"), None if agreement is None else round(agreement, 3), False, False, spec.hash,
        spec.code[:12], counts and counts["teacher_forwards"] + counts["teacher_backwards"], seconds, probe[:12],
        spec.protocol,
    )  # fmt: skip


def choose(rows: Sequence[Row], coverage: float, labels: Mapping[str, float]) -> list[Row]:
    """The rows with `eligible` set, and `chosen` for one row per method: the eligible one with the highest score.

    Eligible are complete runs whose images cover at least `coverage` of the classes, and whose label agreement is at
    least that of their method in `labels`, in percent. Of equal scores the first is chosen; if no row is eligible,
    trial 0.
    """

    def eligible(row: Row) -> bool:
        good_images = (row.coverage or 0) >= coverage and (row.label_consistency or 0) >= labels.get(row.method, 0)
        return row.status == "complete" and row.probe_agreement is not None and good_images

    judged = [replace(row, chosen=False, eligible=eligible(row)) for row in rows]
    winners = []
    for method in {row.method for row in judged}:
        own = sorted((row for row in judged if row.method == method), key=lambda row: row.trial)
        candidates = [row for row in own if row.eligible]
        winners.append(max(candidates, key=lambda row: row.probe_agreement or 0.0) if candidates else own[0])
    return [replace(row, chosen=row in winners) for row in judged]


def rows_kept(path: Path, common: Mapping[str, str], methods: set[str]) -> list[dict[str, str]]:
    """The rows of other methods in the table at `path`, if there is one.

    Raises `UsageError` if a row differs in a column of `common`: its score would not be comparable.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            rows = sorted(reader, key=lambda row: int(row["trial"]))
            columns = list(reader.fieldnames or ())
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UsageError(f"{path} is no table of `dfkd-bench tune`: choose another --out") from error
    if columns != [f.name for f in fields(Row)] or any("" in row for row in rows):
        raise UsageError(f"{path} has other columns than a table of `dfkd-bench tune`: choose another --out")
    for row in rows:
        for name, value in common.items():
            if row[name] != value:
                hint = f", or give its probe with --probe {path.parent / PROBE}" if name == "probe" else ""
                raise UsageError(f"{path} has rows of {name} {row[name]}, not {value}: choose another --out{hint}")
    return [row for row in rows if row["method"] not in methods]


def table_text(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows as CSV, sorted by method and trial."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["method"], int(row["trial"]))))
    return text.getvalue()
