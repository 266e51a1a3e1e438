"""Copy runs of several results folders into one. A result is never replaced by a different one.

All runs are checked first; if one run is refused, nothing is written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.metrics.registry import differing
from dfkd_bench.results.verify import integrity
from dfkd_bench.results.verify.case import NEEDED
from dfkd_bench.runs import records
from dfkd_bench.utils import checkpoint
from dfkd_bench.utils.hashing import file_sha256
from dfkd_bench.utils.locks import LOCK, folder_lock, is_locked

Act = Literal["take", "replace", "skip", "refuse"]
NOT_COPIED = (LOCK, checkpoint.NAME, records.PACE, "snapshots")


@dataclass(frozen=True)
class Step:
    """What is done with one run of one source."""

    act: Act
    run: str  # protocol/task/method/track-budget-seed-hash
    source: Path  # the run's folder
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """All steps of a merge."""

    into: Path
    steps: tuple[Step, ...]

    def of(self, *acts: Act) -> list[Step]:
        """The steps with one of these acts."""
        return [s for s in self.steps if s.act in acts]


def plan_merge(sources: Sequence[Path], into: Path) -> Plan:
    """Check every run of every source. Raises `UsageError` if a source is no results folder, or is the target."""
    for source in sources:
        if not source.is_dir():
            raise UsageError(f"no results folder at {source}")
        if source.resolve() == into.resolve():
            raise UsageError(f"{source} is the folder to merge into: name only other folders as sources")
    if into.exists() and not into.is_dir():
        raise UsageError(f"--into {into} is a file, not a folder")
    steps: list[Step] = []
    taken: dict[str, tuple[dict[str, Any], Path]] = {}  # runs of earlier sources
    for source in sources:
        seen = False
        for path in records.find(source):
            seen = True
            steps.append(step_for(path.parent, source, into, taken))
        unfinished = sorted({p.parent for p in source.rglob(checkpoint.NAME)})
        steps += [
            Step("skip", name_of(folder), folder, "is not finished; its checkpoint is not copied")
            for folder in unfinished
            if not (folder / records.FILE).exists()
        ]
        if not (seen or unfinished):
            raise UsageError(f"no records below {source}: name a results folder")
    return Plan(into, tuple(steps))


def step_for(folder: Path, source: Path, into: Path, taken: dict[str, tuple[dict[str, Any], Path]]) -> Step:
    """The step for the run in `folder`; a run that is copied is added to `taken`."""
    run = name_of(folder)
    case, findings = integrity(folder, source)
    problems = [f for f in findings if f.severity == "problem"]
    if case is None or problems:
        return Step("refuse", run, folder, f"is damaged: {problems[0]}")
    if case.ended and not all((folder / name).is_file() for name in NEEDED):
        return Step("refuse", run, folder, "has no curves or predictions")
    if is_locked(folder):
        return Step("refuse", run, folder, f"another process is executing it in {source}")
    if is_locked(into / run):
        return Step("refuse", run, folder, f"another process is executing it in {into}")
    record = case.record
    existing, where = taken.get(run, (None, into))
    if existing is None:
        if (into / run / checkpoint.NAME).is_file() and not (into / run / records.FILE).is_file():
            if not case.ended:
                return Step("skip", run, folder, f"failed; the one in {into} is not finished")
            taken[run] = (record, source)
            return Step("replace", run, folder, f"is finished; the one in {into} is not")
        try:
            existing = records.read(into / run) if (into / run / records.FILE).is_file() else None
        except BenchError as error:
            return Step("refuse", run, folder, f"the one in {into} cannot be read: {error}")
    step = compare_records(run, folder, record, existing, where)
    if step.act in ("take", "replace"):
        taken[run] = (record, source)
    return step


def compare_records(
    run: str, folder: Path, record: dict[str, Any], existing: dict[str, Any] | None, where: Path
) -> Step:
    """The step for a source's record, given the existing record of the same run."""
    if existing is None:
        return Step("take", run, folder)
    if has_ended(record) and not has_ended(existing):
        return Step("replace", run, folder, f"is finished; the one in {where} failed")
    if not has_ended(record):
        return Step("skip", run, folder, f"failed; {'finished' if has_ended(existing) else 'failed'} in {where}")
    parts = differing(record["result"], existing["result"])
    if not parts:
        return Step("skip", run, folder, f"the same result is in {where}")
    return Step("refuse", run, folder, f"its result in {where} is different (in {', '.join(parts)})")


def has_ended(record: dict[str, Any]) -> bool:
    """True if the run is complete or diverged."""
    return record["result"]["status"] in ("complete", "diverged")


def name_of(folder: Path) -> str:
    """The last four parts of a run's folder; `integrity` compares them with the specification."""
    return "/".join(folder.resolve().parts[-4:])


def merge(plan: Plan) -> None:
    """Carry out a plan. Raises `RunError` if a run is refused (nothing is written) or a file cannot be written."""
    refused = plan.of("refuse")
    if refused:
        raise RunError(f"{len(refused)} runs were refused, nothing was written")
    for step in plan.of("take", "replace"):
        try:
            copy_run(step, plan.into)
        except OSError as error:
            raise RunError(
                f"cannot write {plan.into / step.run}: {error.strerror}; the same command resumes"
            ) from error


def copy_run(step: Step, into: Path) -> None:
    """Copy one run next to its target folder, check the copy, and rename it to the target."""
    target = into / step.run
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (target.with_name(f".{target.name}.{os.getpid()}.{word}") for word in ("tmp", "old"))
    try:
        shutil.copytree(step.source, fresh, ignore=shutil.ignore_patterns(*NOT_COPIED, ".*.tmp"))
        check_copy(step.source, fresh)
        with folder_lock(target) if target.exists() else nullcontext():
            if target.exists():
                os.rename(target, old)
            os.rename(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_copy(source: Path, copy: Path) -> None:
    """Raise `RunError` unless the copied record equals the source's and the files match its digests."""
    record = records.read(copy)
    if (copy / records.FILE).read_bytes() != (source / records.FILE).read_bytes():
        raise RunError(f"the copy of {source} differs from it: nothing was taken; try again")
    digests = {**record["result"].get("files", {}), **record.get("artifacts", {})}
    for name, digest in digests.items():
        if (copy / name).is_file() and file_sha256(copy / name) != digest:
            raise RunError(f"the copy of {source / name} has a wrong digest: nothing was taken; try again")
