"""Data for figures: labels of competitors, curves and predictions read beside records, blocks of scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.protocol import PROTOCOL, seconds_of, titled
from dfkd_bench.report.figures.style import clean, slug
from dfkd_bench.report.tables.leaderboard import GROUP, ROW
from dfkd_bench.report.tables.runs import by_outcome
from dfkd_bench.report.tables.time_budget import snapshot_indices
from dfkd_bench.runs import curves as curves_file
from dfkd_bench.runs import records
from dfkd_bench.runs.settings import LATER_DEFAULTS, TERMS
from dfkd_bench.utils.text import counted

PREDICTIONS = "predictions.safetensors"
LOSS = "loss/"
SHARED = ("protocol", *TERMS)  # equal in all tasks of one figure
RUN_COLUMNS = ("label", "seed", "status", "bound", "device_name", "threads")  # of the run, in every row of its curve
CLOCK = ("device_name", "threads")  # must be equal if seconds are compared
NO_CURVES = "no run has curves beside its record"
Counts = npt.NDArray[np.int64]


def labelled(rows: pd.DataFrame, among: pd.DataFrame) -> pd.DataFrame:
    """`rows` with a column `label`, and each run once (if it has several records, a complete one).

    Labels are unique among the rows `among` (a leaderboard or a long table): the method, its preset, threads or digests
    if these differ within one group of comparable rows, and always the settings changed with `--set`. A competitor has
    the same label in every group, so that it keeps its colour.
    """
    names = names_of(among)
    labels = [names[_key(row)] for row in rows[list(ROW)].itertuples(index=False, name=None)]
    result = rows.copy().assign(label=labels)
    if "hash" in result and "status" in result:
        result = by_outcome(result).drop_duplicates("hash").drop(columns="_order")
        result = result.sort_values([*ROW, "seed"], ignore_index=True)
    return result


def _key(values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(map(str, values))


def names_of(rows: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """A label for each row, by its `ROW` values; unique within a group."""
    every = rows[list(ROW)].astype(str).drop_duplicates(ignore_index=True)
    labels: dict[tuple[str, ...], str] = {}
    taken: set[tuple[str, ...]] = set()
    for _, same in every.groupby("method", sort=True):
        show = {name: _any_differ(same, name, ()) for name in ("preset", "compile")}
        show |= {
            n: _any_differ(same, n, ("preset", "overrides")) for n in ("threads", "code_sha256", "settings_sha256")
        }
        for values in same.sort_values(list(ROW)).itertuples(index=False, name=None):
            row = dict(zip(ROW, values, strict=True))
            group, name = values[: len(GROUP)], clean(" ".join(_words(row, show)))
            candidates = (name, *(f"{name} ({k})" for k in range(2, len(every) + 2)))  # two names may be equal when cut
            labels[values] = next(n for n in candidates if (*group, n) not in taken)
            taken.add((*group, labels[values]))
    return labels


def _any_differ(rows: pd.DataFrame, name: str, equal: tuple[str, ...]) -> bool:
    """True if two rows of one group with equal values of the columns `equal` differ in `name`."""
    return bool((rows.groupby([*GROUP, *equal])[name].nunique() > 1).any())


def _words(row: dict[str, str], show: dict[str, bool]) -> Iterator[str]:
    yield row["method"]
    if show["preset"]:
        yield row["preset"]
    yield from (f"{key}={value}" for key, value in json.loads(row["overrides"]).items())
    if show["compile"] and row["compile"] == "True":
        yield "compiled"
    yield from (f"{name}={row[name]}" for name, default in LATER_DEFAULTS.items() if row[name] != str(default))
    if show["threads"]:
        yield counted(int(row["threads"]), "thread")
    for kind in ("code", "settings"):
        if show[f"{kind}_sha256"]:
            yield f"{kind} {row[f'{kind}_sha256'][:8]}"


def terms_of(rows: pd.DataFrame) -> str:
    """The title of a figure: the terms that rows of one group have in common."""
    first = rows.iloc[0]
    tasks = list(dict.fromkeys(rows["task"]))
    task = f"{tasks[0]}, " if len(tasks) == 1 else ""
    return f"{task}{first['track']} track, {first['budget']} budget{protocol_suffix(first['protocol'])}"


def protocol_suffix(version: str) -> str:
    """The protocol for the title of a figure; empty for the current one."""
    return "" if version == PROTOCOL else f", {titled(version)}"


def clock_name(clock: Any) -> str:
    """The values of `CLOCK` as part of a file name."""
    device, threads = clock
    return f"{slug(str(device))[:40]}-{threads}-threads"


def bounds_of(rows: pd.DataFrame) -> dict[str, float]:
    """The mean top-1 of each bound among rows of a leaderboard, by name."""
    bounds = rows[rows["bound"] & rows["last_mean"].notna()].sort_values("label")
    return dict(zip(bounds["label"].astype(str), bounds["last_mean"].astype(float), strict=True))


def require_same(rows: pd.DataFrame, names: Iterable[str]) -> None:
    """Raises `UsageError` if the rows of one figure differ in any of the columns `names`."""
    for name in names:
        values = sorted(map(str, rows[name].unique()))
        if len(values) > 1:
            raise UsageError(f"one figure compares rows of one {name} only, got {', '.join(values)}")


def means_note(rows: pd.DataFrame) -> str:
    """Note: over how many seeds the means and intervals of these leaderboard rows are taken."""
    least, most = int(rows["n_complete"].min()), int(rows["n_complete"].max())
    over = counted(least, "seed") if least == most else f"{least} to {most} seeds"
    if most < 2:
        return "One seed each: no interval, hollow marks."
    return f"Means over {over} with 95 % intervals (Student t)" + "; hollow: one seed, no interval" * (least < 2) + "."


def missing_note(rows: pd.DataFrame) -> str:
    """Note: leaderboard rows with diverged or failed runs, which are in no mean; empty if there are none."""
    notes = []
    for row in rows.to_dict("records"):
        lost = [f"{row[f'n_{status}']} {status}" for status in ("diverged", "failed") if row[f"n_{status}"]]
        if lost:
            whole = row["n_complete"] + row["n_diverged"] + row["n_failed"]
            notes.append(f"{row['label']} {' and '.join(lost)} of {whole}")
    return f"Runs in no mean: {'; '.join(notes)}." if notes else ""


# -- files beside records ---------------------------------------------------------------------------------------------


def curves_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The curves of `labelled` runs, one row per snapshot: `RUN_COLUMNS`, seconds, snapshot, the columns of the curve.

    `snapshot` identifies the same snapshot of several seeds. `seconds` is the training time at the snapshot, NaN if the
    record does not give one for each snapshot. Runs without curves are left out. Raises `RunError` for a curve that
    cannot be read.
    """
    parts: list[pd.DataFrame] = []
    seeds: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for run in runs.to_dict("records"):
        file = Path(run["path"]).parent / curves_file.FILE
        if run["status"] == "failed" or not file.is_file():
            continue
        curve = _read_curve(file)
        clock = records.read(Path(run["path"]))["measurement"].get("snapshot_seconds") or []
        seconds = clock if len(clock) == len(curve) else [float("nan")] * len(curve)
        run_values = {name: run[name] for name in RUN_COLUMNS}
        images = curve["student_images"].astype(np.float64)
        parts.append(curve.assign(**run_values, seconds=np.asarray(seconds, dtype=np.float64), snapshot=images))
        if seconds_of(run["budget"]) is not None and run["status"] == "complete":
            seeds.setdefault(tuple(run[name] for name in ROW), []).append(parts[-1])
    for curves in seeds.values():
        _match_snapshots(curves)
    if not parts:
        return pd.DataFrame(columns=[*RUN_COLUMNS, "seconds", "snapshot", "student_images", "top1"])
    table = pd.concat(parts, ignore_index=True)
    first = [*RUN_COLUMNS, "seconds", "snapshot"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def _match_snapshots(curves: Sequence[pd.DataFrame]) -> None:
    """Gives equal numbers to snapshots of several seeds at the same share of the run, and NaN to all others."""
    shortest = min(map(len, curves))
    for curve in curves:
        numbers = np.full(len(curve), np.nan)
        numbers[snapshot_indices(len(curve), shortest)] = np.arange(shortest)
        curve["snapshot"] = numbers


def _read_curve(file: Path) -> pd.DataFrame:
    try:
        return pd.DataFrame(curves_file.read(file), dtype=np.float64)
    except RunError as error:
        raise RunError(f"{file} is not a curve of numbers: it {error}") from error


@dataclass(frozen=True)
class Confusion:
    """Answers of student and teacher on the same test images, summed over runs.

    `counts`: (classes, classes), rows by the teacher's answer, columns by the student's. `teacher_right`,
    `student_right` and `neither_right` count the images on which they differ.
    """

    counts: Counts
    teacher_right: int
    student_right: int
    neither_right: int
    runs: int

    @property
    def images(self) -> int:
        """Number of answers."""
        return int(self.counts.sum())

    @property
    def differing(self) -> int:
        """Number of answers on which student and teacher differ."""
        return self.images - int(np.trace(self.counts))


def confusion_of(runs: pd.DataFrame) -> Confusion | None:
    """The confusion of complete runs with their teacher; None if no run has predictions.

    Raises `RunError` for a file of predictions that cannot be read.
    """
    parts = []
    for path in runs.loc[runs["status"] == "complete", "path"]:
        file = Path(path).parent / PREDICTIONS
        if file.is_file():
            parts.append(_read_predictions(file))
    if not parts:
        return None
    teacher, student, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    classes = 1 + int(max(teacher.max(), student.max(), labels.max()))
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (teacher, student), 1)
    differ = teacher != student
    teacher_right, student_right = (int((differ & (answers == labels)).sum()) for answers in (teacher, student))
    neither = int(differ.sum()) - teacher_right - student_right
    return Confusion(counts, teacher_right, student_right, neither, len(parts))


def _read_predictions(file: Path) -> tuple[Counts, Counts, Counts]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(file)
        teacher, student, labels = (tensors[name].astype(np.int64) for name in ("teacher", "student", "labels"))
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{file} does not hold the predictions of a run: {error}") from error
    if not (teacher.shape == student.shape == labels.shape and teacher.ndim == 1 and len(teacher)):
        raise RunError(f"{file} does not hold the predictions of a run: shapes {teacher.shape}, {student.shape}")
    if min(teacher.min(), student.min(), labels.min()) < 0:
        raise RunError(f"{file} does not hold the predictions of a run: a class is negative")
    return teacher, student, labels


# -- blocks of scores -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """Scores of competitors in blocks (a task with a seed) that all of them have."""

    table: pd.DataFrame  # (blocks, competitors) of `last`; index (task, seed)
    left_out: tuple[str, ...]  # competitors without a score in some block
    dropped: int  # blocks in which at most half of the competitors have a score


def blocks_of(runs: pd.DataFrame) -> Blocks:
    """Blocks of the `labelled` runs of one protocol, track, budget, device and precision, without bounds.

    A block is used if more than half of the competitors have it. A competitor without one of these blocks is left out
    and listed in `left_out`; no value is imputed.
    """
    complete = runs[~runs["bound"] & (runs["status"] == "complete")].dropna(subset=["last"])
    competitors = sorted(runs.loc[~runs["bound"], "label"].unique())
    wide = complete.pivot_table(index=["task", "data_sha256", "teacher_sha256", "seed"], columns="label", values="last")
    wide = wide.reindex(columns=competitors)
    common = wide.notna().sum(axis=1) > len(competitors) / 2
    kept = wide[common]
    columns = kept.columns[kept.notna().all()] if len(kept) else kept.columns[:0]
    table = kept[columns].droplevel(["data_sha256", "teacher_sha256"])
    return Blocks(table, tuple(name for name in competitors if name not in columns), int((~common).sum()))
