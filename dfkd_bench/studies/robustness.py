"""Robustness of finished runs: evaluates the stored students under common corruptions, into `robustness.csv`.

This is not part of a run because it costs more than a short run: teacher and student see the test set sixty times.
Numbers that the file already has are not computed again, so an interrupted command can be repeated.
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
    """The table of a results folder, see `COLUMNS`; empty if there is no file. Raises `UsageError` for another file."""
    path = results / FILE
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        table = pd.read_csv(path, dtype={"hash": str, "student": str})
    except (OSError, ValueError) as error:  # includes pandas' parser errors
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise UsageError(f"{path} is not a table of robustness: no column {missing[0]}")
    return table


def write(results: Path, rows: pd.DataFrame) -> Path:
    """Write the table, sorted, so that the same rows give the same bytes."""
    number = {name: k for k, name in enumerate(CORRUPTIONS)}
    ordered = rows.assign(_number=rows["corruption"].map(number)).sort_values(
        ["task", "method", "hash", "student", "_number", "severity"], kind="stable"
    )
    path = results / FILE
    write_atomic(path, ordered[list(COLUMNS)].to_csv(index=False, lineterminator="\n").encode())
    return path


def select_cells(names: Sequence[str], severities: Sequence[int]) -> list[Cell]:
    """The named corruptions at the named severities; empty: all. Raises `UsageError` for an unknown corruption."""
    for name in names:
        if name not in CORRUPTIONS:
            raise UsageError(f"unknown corruption {name}{did_you_mean(name, list(CORRUPTIONS))}")
    return [(name, severity) for name in names or CORRUPTIONS for severity in severities or SEVERITIES]


@dataclass(frozen=True)
class TaskModels:
    """The runs on one task with one teacher whose students can be evaluated on this machine."""

    task: Task
    teacher: Teacher
    runs: list[dict[str, Any]]


def measurable_tasks(runs: pd.DataFrame) -> tuple[list[TaskModels], list[str]]:
    """The complete runs of a long table that can be evaluated here, and lines about the others, with the reason."""
    groups: list[TaskModels] = []
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
            teacher = registered[str(sha256)]
            task_models = TaskModels(with_normalisation_of(task(str(name)), teacher), teacher, here)
        except BenchError as error:  # a user's dataset, on another machine
            left_out.append(f"{len(here)} runs on {name}: {error}")
            continue
        if is_present(task_models.task.dataset):
            groups.append(task_models)
        else:
            left_out.append(f"{len(here)} runs on {name}: {task_models.task.dataset.name} is not on this machine")
    return groups, left_out


def measure(
    results: Path,
    groups: Sequence[TaskModels],
    cells: Sequence[Cell],
    device: torch.device,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Evaluate the students of each group under all `cells`; new rows are written after each cell.

    Returns the number of new rows. `force` also repeats those that the file already has. Raises `RunError` for a
    damaged student.
    """
    known = read(results)
    held = set(zip(*(known[name] for name in KEY), strict=True))
    total, done, measured = sum(len(cells) * len(group.runs) for group in groups), 0, 0
    for group in groups:
        test, teacher = loading.load_test(group.task.dataset, device), load_teacher(group.teacher, device)
        students = [student_of(Path(row["path"]).parent, group.task, device) for row in group.runs]
        for corruption, severity in cells:
            missing = [
                (row, digest, student)
                for row, (digest, student) in zip(group.runs, students, strict=True)
                if force or (row["hash"], digest, corruption, severity) not in held
            ]
            if missing:
                about = {"corruption": corruption, "group": CORRUPTIONS[corruption].group, "severity": severity}
                scores = corrupted_scores(teacher, [student for _, _, student in missing], test, corruption, severity)
                new = [
                    {**{name: row[name] for name in WHOSE}, "student": digest, **about, **asdict(score)}
                    for (row, digest, _), score in zip(missing, scores, strict=True)
                ]
                known = replace_rows(known, new)
                write(results, known)
            measured, done = measured + len(missing), done + len(group.runs)
            progress(done, total)
    return measured


def replace_rows(known: pd.DataFrame, new: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The table with `new` rows, which replace rows of the same run, corruption and severity (of any student)."""
    fresh = pd.DataFrame(list(new), columns=list(COLUMNS))
    table = fresh if known.empty else pd.concat([known, fresh], ignore_index=True)
    return table.drop_duplicates(["hash", "corruption", "severity"], keep="last", ignore_index=True)


def student_of(folder: Path, task: Task, device: torch.device) -> tuple[str, Tapped]:
    """The digest of a run's student, and the network on `device`. Raises `RunError` for a file that does not fit."""
    try:
        state = load_file(folder / STUDENT, device=str(device))
        student = place(models.build(task.student, task.dataset.classes, task.dataset.image_shape), device)
        student.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise RunError(f"{folder / STUDENT} is not a {task.student}: {str(error).splitlines()[0]}") from error
    return checkpoint.digest(state), student
