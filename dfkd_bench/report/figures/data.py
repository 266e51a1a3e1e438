"""What figures are drawn from: names of competitors, curves and predictions beside records, blocks of scores."""

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
from dfkd_bench.report.tables.time_budget import spread
from dfkd_bench.runs import curves as curves_file
from dfkd_bench.runs import records
from dfkd_bench.runs.settings import LATER, TERMS
from dfkd_bench.utils.text import counted

PREDICTIONS = "predictions.safetensors"
LOSS = "loss/"
SHARED = ("protocol", *TERMS)  # by tasks that one figure shows
ABOUT = ("label", "seed", "status", "bound", "device_name", "threads")  # of a run, in every row of its curve
CLOCK = ("device_name", "threads")  # what must be equal where seconds are compared
NO_CURVES = "no run has curves beside its record"
Counts = npt.NDArray[np.int64]


def labelled(rows: pd.DataFrame, among: pd.DataFrame) -> pd.DataFrame:
    """`rows` with a column `label`, and each run once (the complete record of it, where there are several).

    `among` has the rows (of a leaderboard or a long table) among which a name must tell its row: a method is named with
    its preset, threads or digests where these differ within one group of comparable rows, and always with what
    `--set` changed. The same row has the same name in every group, so that it keeps its colour.
    """
    names = names_of(among)
    called = [names[_key(row)] for row in rows[list(ROW)].itertuples(index=False, name=None)]
    found = rows.copy().assign(label=called)
    if "hash" in found and "status" in found:
        found = by_outcome(found).drop_duplicates("hash").drop(columns="_order")
        found = found.sort_values([*ROW, "seed"], ignore_index=True)
    return found


def _key(values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(map(str, values))


def names_of(rows: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """A name for each row, by its `ROW`; within a group no two rows share one."""
    every = rows[list(ROW)].astype(str).drop_duplicates(ignore_index=True)
    named: dict[tuple[str, ...], str] = {}
    taken: set[tuple[str, ...]] = set()
    for _, same in every.groupby("method", sort=True):
        told = {name: _differs(same, name, ()) for name in ("preset", "compile")}
        told |= {n: _differs(same, n, ("preset", "overrides")) for n in ("threads", "code_sha256", "settings_sha256")}
        for values in same.sort_values(list(ROW)).itertuples(index=False, name=None):
            row = dict(zip(ROW, values, strict=True))
            group, name = values[: len(GROUP)], clean(" ".join(_words(row, told)))
            again = (name, *(f"{name} ({k})" for k in range(2, len(every) + 2)))  # names cut short, or made to collide
            named[values] = next(n for n in again if (*group, n) not in taken)
            taken.add((*group, named[values]))
    return named


def _differs(rows: pd.DataFrame, name: str, alike: tuple[str, ...]) -> bool:
    """Whether two rows of one group, alike in `alike`, differ in `name`."""
    return bool((rows.groupby([*GROUP, *alike])[name].nunique() > 1).any())


def _words(row: dict[str, str], told: dict[str, bool]) -> Iterator[str]:
    yield row["method"]
    if told["preset"]:
        yield row["preset"]
    yield from (f"{key}={value}" for key, value in json.loads(row["overrides"]).items())
    if told["compile"] and row["compile"] == "True":
        yield "compiled"
    yield from (f"{name}={row[name]}" for name, usual in LATER.items() if row[name] != str(usual))
    if told["threads"]:
        yield counted(int(row["threads"]), "thread")
    for what in ("code", "settings"):
        if told[f"{what}_sha256"]:
            yield f"{what} {row[f'{what}_sha256'][:8]}"


def terms_of(rows: pd.DataFrame) -> str:
    """What rows of one group share, as the title of a figure."""
    first = rows.iloc[0]
    tasks = list(dict.fromkeys(rows["task"]))
    task = f"{tasks[0]}, " if len(tasks) == 1 else ""
    return f"{task}{first['track']} track, {first['budget']} budget{of_protocol(first['protocol'])}"


def of_protocol(version: str) -> str:
    """What the title of a figure says of a protocol: nothing of today's."""
    return "" if version == PROTOCOL else f", {titled(version)}"


def clock_name(clock: Any) -> str:
    """The values of `CLOCK` in a file's name."""
    device, threads = clock
    return f"{slug(str(device))[:40]}-{threads}-threads"


def bounds_of(rows: pd.DataFrame) -> dict[str, float]:
    """The mean top-1 of each bound among rows of a leaderboard, by name."""
    bounds = rows[rows["bound"] & rows["last_mean"].notna()].sort_values("label")
    return dict(zip(bounds["label"].astype(str), bounds["last_mean"].astype(float), strict=True))


def one_of(rows: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `UsageError` where rows that one figure would compare differ in any of `names`."""
    for name in names:
        values = sorted(map(str, rows[name].unique()))
        if len(values) > 1:
            raise UsageError(f"one figure compares rows of one {name} only, got {', '.join(values)}")


def means_of(rows: pd.DataFrame) -> str:
    """What a mean and its interval are over, in words, for rows of a leaderboard."""
    least, most = int(rows["n_complete"].min()), int(rows["n_complete"].max())
    over = counted(least, "seed") if least == most else f"{least} to {most} seeds"
    if most < 2:
        return "One seed each: no interval, hollow marks."
    return f"Means over {over} with 95 % intervals (Student t)" + "; hollow: one seed, no interval" * (least < 2) + "."


def missing_of(rows: pd.DataFrame) -> str:
    """Which rows of a leaderboard have runs that count nowhere, in words; empty for none."""
    told = []
    for row in rows.to_dict("records"):
        lost = [f"{row[f'n_{status}']} {status}" for status in ("diverged", "failed") if row[f"n_{status}"]]
        if lost:
            whole = row["n_complete"] + row["n_diverged"] + row["n_failed"]
            told.append(f"{row['label']} {' and '.join(lost)} of {whole}")
    return f"Runs in no mean: {'; '.join(told)}." if told else ""


# -- beside records ---------------------------------------------------------------------------------------------------


def curves_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The curves of `labelled` runs, one row per snapshot: `ABOUT`, seconds, snapshot, then their columns.

    `snapshot` is the same for the same one of several seeds. `seconds` are those of training at the snapshot, NaN where
    the record does not give one for each. Runs without curves are not in it. Raises `RunError` for a curve that cannot
    be read.
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
        about = {name: run[name] for name in ABOUT}
        images = curve["student_images"].astype(np.float64)
        parts.append(curve.assign(**about, seconds=np.asarray(seconds, dtype=np.float64), snapshot=images))
        if seconds_of(run["budget"]) is not None and run["status"] == "complete":
            seeds.setdefault(tuple(run[name] for name in ROW), []).append(parts[-1])
    for own in seeds.values():
        _match(own)
    if not parts:
        return pd.DataFrame(columns=[*ABOUT, "seconds", "snapshot", "student_images", "top1"])
    found = pd.concat(parts, ignore_index=True)
    first = [*ABOUT, "seconds", "snapshot"]
    return found[[*first, *(name for name in found.columns if name not in first)]]


def _match(curves: Sequence[pd.DataFrame]) -> None:
    """Give one number to the snapshots of several seeds that stand at the same share of a run, and none to others."""
    least = min(map(len, curves))
    for curve in curves:
        numbers = np.full(len(curve), np.nan)
        numbers[spread(len(curve), least)] = np.arange(least)
        curve["snapshot"] = numbers


def _read_curve(file: Path) -> pd.DataFrame:
    try:
        return pd.DataFrame(curves_file.read(file), dtype=np.float64)
    except RunError as error:
        raise RunError(f"{file} is not a curve of numbers: it {error}") from error


@dataclass(frozen=True)
class Confusion:
    """Answers of student and teacher on the same test images, summed over runs.

    `counts`: (classes, classes), the teacher's answer by the student's. The other numbers are of the images on which
    they differ.
    """

    counts: Counts
    teacher_right: int
    student_right: int
    neither_right: int
    runs: int

    @property
    def images(self) -> int:
        """Answers counted."""
        return int(self.counts.sum())

    @property
    def differing(self) -> int:
        """Answers in which student and teacher differ."""
        return self.images - int(np.trace(self.counts))


def confusion_of(runs: pd.DataFrame) -> Confusion | None:
    """The confusion of complete runs with their teacher; None where no run has predictions.

    Raises `RunError` for a file of predictions that is not one.
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
    teacher_entry, pupil = (int((differ & (said == labels)).sum()) for said in (teacher, student))
    return Confusion(counts, teacher_entry, pupil, int(differ.sum()) - teacher_entry - pupil, len(parts))


def _read_predictions(file: Path) -> tuple[Counts, Counts, Counts]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(file)
        teacher, student, labels = (found[name].astype(np.int64) for name in ("teacher", "student", "labels"))
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
    """Scores of competitors in blocks that all of them have: a block is a task with a seed."""

    table: pd.DataFrame  # (blocks, competitors) of `last`; index (task, seed)
    left_out: tuple[str, ...]  # competitors that lack a block
    dropped: int  # blocks that not more than half of the competitors have


def blocks_of(runs: pd.DataFrame) -> Blocks:
    """Blocks of the `labelled` runs of one protocol, track, budget, device and precision; bounds do not compete.

    A block counts where more than half of the competitors have it; who lacks one of these is left out and named, and
    nothing is filled in.
    """
    fit = runs[~runs["bound"] & (runs["status"] == "complete")].dropna(subset=["last"])
    everyone = sorted(runs.loc[~runs["bound"], "label"].unique())
    wide = fit.pivot_table(index=["task", "data_sha256", "teacher_sha256", "seed"], columns="label", values="last")
    wide = wide.reindex(columns=everyone)
    common = wide.notna().sum(axis=1) > len(everyone) / 2
    kept = wide[common]
    whole = kept.columns[kept.notna().all()] if len(kept) else kept.columns[:0]
    table = kept[whole].droplevel(["data_sha256", "teacher_sha256"])
    return Blocks(table, tuple(name for name in everyone if name not in whole), int((~common).sum()))
