"""`robustness.csv` against records and students: whose rows they are, and every number measured again.

Where a student is not here, its teacher's numbers are still compared. As many images may be seen otherwise as stand at
the border of two classes: mostly none where a student's predictions on the test images come out bit for bit as stored,
and somewhat more elsewhere, where a corrupted pixel may round to the next of its 256 values.
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
from dfkd_bench.results.verify.findings import Finding, off, problem, same
from dfkd_bench.results.verify.students import StudentVerifier
from dfkd_bench.studies.robustness import FILE, read, student_of

EXACT = 1e-9
TIE = 1e-3  # logits: another number of threads moves them by less
EDGE = 0.05  # a pixel that rounds to the next value does


def check(results: Path, cases: Sequence[Case], judge: StudentVerifier | None) -> Iterator[Finding]:
    """What is wrong with the table of a results folder; without a judge no network is loaded."""
    try:
        table = read(results)
    except UsageError as error:
        yield problem(FILE, str(error).replace(str(results / FILE), "it"))
        return
    wrong = list(of_table(table))
    yield from wrong
    known = {case.record["hash"]: case for case in cases if case.ended}
    sound: list[Case] = []
    for name, rows in table.groupby("hash", sort=True):
        case = known.get(str(name))
        if case is None:
            yield problem(FILE, f"has rows of run {name}, of which there is no record")
            continue
        kept = case.result["digests"]["student"]
        if others := sorted({*rows["student"]} - {kept}):
            yield problem(FILE, f"rows of run {name} are of student {others[0][:12]}, the record's is {str(kept)[:12]}")
        else:
            sound.append(case)
    if judge is not None and not wrong:
        yield from measured_again(table, sound, judge)


def of_table(table: pd.DataFrame) -> Iterator[Finding]:
    """No cell stands there twice, and every corruption and number is one."""
    twice = table[table.duplicated(["hash", "corruption", "severity"])]
    for _, row in twice.head(1).iterrows():
        cell = f"{row['corruption']} {row['severity']} of run {row['hash']}"
        yield problem(FILE, f"holds {len(twice)} numbers a second time, first {cell}")
    odd = table[~table["corruption"].isin(list(CORRUPTIONS)) | ~table["severity"].isin(SEVERITIES)]
    for _, row in odd.head(1).iterrows():
        yield problem(FILE, f"has {len(odd)} rows of no corruption, first {row['corruption']} {row['severity']}")
    for name in ("top1", "teacher_top1", "agreement"):
        if not (pd.api.types.is_numeric_dtype(table[name]) and table[name].between(0.0, 100.0).all()):
            yield problem(FILE, f"{name} is not a percentage everywhere")


def measured_again(table: pd.DataFrame, cases: Sequence[Case], judge: StudentVerifier) -> Iterator[Finding]:
    """Every number of these runs, as teachers and (where they are here) students give it now."""
    together: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        together.setdefault((case.spec.task, case.spec.teacher), []).append(case)
    for group in together.values():
        stand = judge.stand(group[0])
        if stand is None:
            continue
        test = loading.load_test(stand.task.dataset, stand.device)
        here = [case.record["hash"] for case in group if (case.folder / STUDENT).is_file()]
        students = [
            student_of(case.folder, stand.task, stand.device)[1] for case in group if case.record["hash"] in here
        ]
        own = table[table["hash"].isin([case.record["hash"] for case in group])]
        for _, rows in own.groupby(["corruption", "severity"], sort=False):
            corruption, severity = str(rows["corruption"].iloc[0]), int(rows["severity"].iloc[0])
            t, each = corrupted_logits(stand.teacher, students, test, corruption, severity)
            logits = dict(zip(here, each, strict=True))
            for row in rows.to_dict("records"):
                gap = TIE if row["hash"] in judge.alike else EDGE
                for name, (value, slack) in scores(t, logits.get(row["hash"]), test.labels, gap).items():
                    if not same(float(row[name]), value, EXACT, slack):
                        cell = f"{corruption} {severity} of run {row['hash']}"
                        yield problem(FILE, off(f"{cell}: {name}", float(row[name]), "measured again", value))


def scores(t: Tensor, s: Tensor | None, labels: Tensor, gap: float) -> dict[str, tuple[float, float]]:
    """Each number of a row from logits (n, classes) of the teacher and of the student, and what it may differ by."""
    found = {"teacher_top1": (top1(t, labels), edges(t, gap))}
    if s is not None:
        found["top1"] = top1(s, labels), edges(s, gap)
        found["agreement"] = agreement(s, t), edges(s, gap) + edges(t, gap)
    return found


def edges(logits: Tensor, gap: float) -> float:
    """Percent of rows whose two largest logits are within `gap`, so that the other class may be seen elsewhere."""
    top = torch.topk(logits, 2, 1).values
    return 100.0 * float((top[:, 0] - top[:, 1] < gap).double().mean())
