"""Robustness of finished runs: stored students under common corruptions, into `robustness.csv` beside the records.

Apart from the runs because it costs more than a short run does: sixty times the test set through teacher and student.
What the file holds already is not done again, so an interrupted command goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dfkd_bench import models
from dfkd_bench.data import loading
from dfkd_bench.data.home import is_present
from dfkd_bench.errors import BenchError, RunError, UsageError, did_you_mean
from dfkd_bench.metrics.corruptions import CORRUPTIONS, SEVERITIES
from dfkd_bench.metrics.robustness import corrupted_scores
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.protocol import Task, task
from dfkd_bench.teachers.registry import Teacher, load_teacher, teachers, with_normalisation_of
from dfkd_bench.utils import checkpoint
from dfkd_bench.utils.files import write_atomic

Cell = tuple[str, int]  # a corruption and its severity

FILE = "robustness.csv"
STUDENT = "student.safetensors"
KEY = ("hash", "student", "corruption", "severity")
WHOSE = ("hash", "method", "task", "seed")
COLUMNS = {
    "hash": "hash of the run's specification; runs.csv says the rest",
    "method": "the method's name",
    "task": "dataset/teacher-student",
    "seed": "the run's seed",
    "student": "digest of the student's weights, as in the record",
    "corruption": "what was done to the test images",
    "group": "noise, blur, weather or digital",
    "severity": "1 to 5",
    "top1": "test top-1 of the student, %",
    "teacher_top1": "test top-1 of the teacher on the same images, %",
    "agreement": "images with the teacher's top-1, %",
}


def read(results: Path) -> pd.DataFrame:
    """What has been measured, see `COLUMNS`; no rows where there is no file. Raises `UsageError` for another file."""
    path = results / FILE
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        found = pd.read_csv(path, dtype={"hash": str, "student": str})
    except (OSError, ValueError) as error:  # pandas' parser errors are among these
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if missing := [name for name in COLUMNS if name not in found]:
        raise UsageError(f"{path} is not a table of robustness: no column {missing[0]}")
    return found


def write(results: Path, rows: pd.DataFrame) -> Path:
    """Write the table, ordered, so that the same rows give the same bytes."""
    number = {name: k for k, name in enumerate(CORRUPTIONS)}
    ordered = rows.assign(_number=rows["corruption"].map(number)).sort_values(
        ["task", "method", "hash", "student", "_number", "severity"], kind="stable"
    )
    path = results / FILE
    write_atomic(path, ordered[list(COLUMNS)].to_csv(index=False, lineterminator="\n").encode())
    return path


def select_cells(names: Sequence[str], severities: Sequence[int]) -> list[Cell]:
    """Corruptions and severities asked for, all where none is named. Raises `UsageError` for an unknown one."""
    for name in names:
        if name not in CORRUPTIONS:
            raise UsageError(f"unknown corruption {name}{did_you_mean(name, list(CORRUPTIONS))}")
    return [(name, severity) for name in names or CORRUPTIONS for severity in severities or SEVERITIES]


@dataclass(frozen=True)
class TaskModels:
    """Runs on one task with one teacher whose students can be evaluated here."""

    task: Task
    teacher: Teacher
    runs: list[dict[str, Any]]


def measurable_tasks(runs: pd.DataFrame) -> tuple[list[TaskModels], list[str]]:
    """Where the complete runs of a long table can be evaluated, and lines on those that cannot, with the reason."""
    found: list[TaskModels] = []
    left_out: list[str] = []
    registered = {t.sha256: t for t in reversed(teachers().values())}
    complete = runs[runs["status"] == "complete"].drop_duplicates("hash")
    for (name, sha256), group in complete.groupby(["task", "teacher_sha256"], sort=True):
        rows = [dict(zip(group.columns, v, strict=True)) for v in group.itertuples(index=False, name=None)]
        here = [row for row in rows if (Path(row["path"]).parent / STUDENT).is_file()]
        if missing := len(rows) - len(here):
            left_out.append(f"{missing} of {len(rows)} runs on {name} have no {STUDENT} beside their record")
        if not here:
            continue
        if str(sha256) not in registered:
            left_out.append(f"{len(here)} runs on {name}: their teacher {str(sha256)[:8]} is not registered here")
            continue
        try:
            site = TaskModels(
                with_normalisation_of(task(str(name)), registered[str(sha256)]), registered[str(sha256)], here
            )
        except BenchError as error:  # a dataset of one's own, on another machine
            left_out.append(f"{len(here)} runs on {name}: {error}")
            continue
        if is_present(site.task.dataset):
            found.append(site)
        else:
            left_out.append(f"{len(here)} runs on {name}: {site.task.dataset.name} is not on this machine")
    return found, left_out


def measure(
    results: Path,
    where: Sequence[TaskModels],
    cells: Sequence[Cell],
    device: torch.device,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Evaluate the students of each site under every one of `cells`, and write what is new as it comes.

    Returns how many cells of students were measured now; `force` measures again what the file holds. Raises `RunError`
    for a damaged student.
    """
    known = read(results)
    held = set(zip(*(known[name] for name in KEY), strict=True))
    total, done, measured = sum(len(cells) * len(site.runs) for site in where), 0, 0
    for site in where:
        test, teacher = loading.load_test(site.task.dataset, device), load_teacher(site.teacher, device)
        students = [student_of(Path(row["path"]).parent, site.task, device) for row in site.runs]
        for corruption, severity in cells:
            wanted = [
                (row, digest, student)
                for row, (digest, student) in zip(site.runs, students, strict=True)
                if force or (row["hash"], digest, corruption, severity) not in held
            ]
            if wanted:
                about = {"corruption": corruption, "group": CORRUPTIONS[corruption].group, "severity": severity}
                scores = corrupted_scores(teacher, [student for _, _, student in wanted], test, corruption, severity)
                new = [
                    {**{name: row[name] for name in WHOSE}, "student": digest, **about, **asdict(score)}
                    for (row, digest, _), score in zip(wanted, scores, strict=True)
                ]
                known = replace_rows(known, new)
                write(results, known)
            measured, done = measured + len(wanted), done + len(site.runs)
            progress(done, total)
    return measured


def replace_rows(known: pd.DataFrame, new: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The table with new rows in the place of those of the same run, corruption and severity, whatever its student."""
    fresh = pd.DataFrame(list(new), columns=list(COLUMNS))
    whole = fresh if known.empty else pd.concat([known, fresh], ignore_index=True)
    return whole.drop_duplicates(["hash", "corruption", "severity"], keep="last", ignore_index=True)


def student_of(folder: Path, seen: Task, device: torch.device) -> tuple[str, Tapped]:
    """The digest of a run's student and the network on `device`. Raises `RunError` for a file that does not fit."""
    try:
        state = load_file(folder / STUDENT, device=str(device))
        student = place(models.build(seen.student, seen.dataset.classes, seen.dataset.image_shape), device)
        student.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise RunError(f"{folder / STUDENT} is not a {seen.student}: {str(error).splitlines()[0]}") from error
    return checkpoint.digest(state), student
