"""Checks of `robustness.csv`: its rows must belong to records, and every number is measured again.

If a student's file is missing, its teacher's numbers are still compared. Numbers may differ by the images with a near
tie of two classes: mostly none if a student's predictions on the test images equal the stored ones bit for bit, and
more otherwise, because a corrupted pixel may be rounded to another of its 256 values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from dfkd_bench.data import loading
from dfkd_bench.errors import UsageError
from dfkd_bench.metrics.corruptions import CORRUPTIONS, SEVERITIES
from dfkd_bench.metrics.logits import agreement, top1
from dfkd_bench.metrics.robustness import corrupted_logits
from dfkd_bench.results.verify.case import STUDENT, Case
from dfkd_bench.results.verify.findings import Finding, mismatch, problem, same
from dfkd_bench.results.verify.students import StudentVerifier
from dfkd_bench.studies.robustness import FILE, read, student_of

EXACT = 1e-9
TIE = 1e-3  # near tie of logits: another number of threads changes them by less
EDGE = 0.05  # near tie of logits if corrupted pixels may be rounded differently


def check(results: Path, cases: Sequence[Case], verifier: StudentVerifier | None) -> Iterator[Finding]:
    """Check the table of a results folder; without a verifier no network is loaded."""
    try:
        table = read(results)
    except UsageError as error:
        yield problem(FILE, str(error).replace(str(results / FILE), "it"))
        return
    wrong = list(check_table(table))
    yield from wrong
    known = {case.record["hash"]: case for case in cases if case.ended}
    valid: list[Case] = []
    for name, rows in table.groupby("hash", sort=True):
        case = known.get(str(name))
        if case is None:
            yield problem(FILE, f"has rows of run {name}, and there is no record of it")
            continue
        recorded = case.result["digests"]["student"]
        if others := sorted({*rows["student"]} - {recorded}):
            yield problem(
                FILE, f"rows of run {name} are of student {others[0][:12]}, the record's is {str(recorded)[:12]}"
            )
        else:
            valid.append(case)
    if verifier is not None and not wrong:
        yield from check_measurements(table, valid, verifier)


def check_table(table: pd.DataFrame) -> Iterator[Finding]:
    """Every cell must occur once, with a known corruption and valid percentages."""
    twice = table[table.duplicated(["hash", "corruption", "severity"])]
    for _, row in twice.head(1).iterrows():
        cell = f"{row['corruption']} {row['severity']} of run {row['hash']}"
        yield problem(FILE, f"has {len(twice)} cells a second time, first {cell}")
    unknown = table[~table["corruption"].isin(list(CORRUPTIONS)) | ~table["severity"].isin(SEVERITIES)]
    for _, row in unknown.head(1).iterrows():
        yield problem(
            FILE, f"has {len(unknown)} rows of unknown corruptions, first {row['corruption']} {row['severity']}"
        )
    for name in ("top1", "teacher_top1", "agreement"):
        if not (pd.api.types.is_numeric_dtype(table[name]) and table[name].between(0.0, 100.0).all()):
            yield problem(FILE, f"{name} has values that are not percentages")


def check_measurements(table: pd.DataFrame, cases: Sequence[Case], verifier: StudentVerifier) -> Iterator[Finding]:
    """Measure the numbers of these runs again, with their teachers and the students whose files are here."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.spec.task, case.spec.teacher), []).append(case)
    for group in groups.values():
        loaded = verifier.load_task(group[0])
        if loaded is None:
            continue
        test = loading.load_test(loaded.task.dataset, loaded.device)
        with_student = [case.record["hash"] for case in group if (case.folder / STUDENT).is_file()]
        available = [case for case in group if case.record["hash"] in with_student]
        students = [student_of(case.folder, loaded.task, loaded.device)[1] for case in available]
        table_rows = table[table["hash"].isin([case.record["hash"] for case in group])]
        for _, rows in table_rows.groupby(["corruption", "severity"], sort=False):
            corruption, severity = str(rows["corruption"].iloc[0]), int(rows["severity"].iloc[0])
            t, each = corrupted_logits(loaded.teacher, students, test, corruption, severity)
            logits = dict(zip(with_student, each, strict=True))
            for row in rows.to_dict("records"):
                gap = TIE if row["hash"] in verifier.reproduced else EDGE
                for name, (value, slack) in scores(t, logits.get(row["hash"]), test.labels, gap).items():
                    if not same(float(row[name]), value, EXACT, slack):
                        cell = f"{corruption} {severity} of run {row['hash']}"
                        yield problem(FILE, mismatch(f"{cell}: {name}", float(row[name]), "measured again", value))


def scores(t: Tensor, s: Tensor | None, labels: Tensor, gap: float) -> dict[str, tuple[float, float]]:
    """Each number of a row and its tolerance, from logits (n, classes) of teacher `t` and student `s`."""
    values = {"teacher_top1": (top1(t, labels), near_ties(t, gap))}
    if s is not None:
        values["top1"] = top1(s, labels), near_ties(s, gap)
        values["agreement"] = agreement(s, t), near_ties(s, gap) + near_ties(t, gap)
    return values


def near_ties(logits: Tensor, gap: float) -> float:
    """Percentage of rows of logits (n, classes) whose two largest differ by less than `gap`."""
    top = torch.topk(logits, 2, 1).values
    return 100.0 * float((top[:, 0] - top[:, 1] < gap).double().mean())
