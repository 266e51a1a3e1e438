"""Several machines' results folders into one: whole runs are taken, and nothing is ever overwritten by another result.

First everything is looked at; where one run is refused, nothing is written at all.
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
LEFT_BEHIND = (LOCK, checkpoint.NAME, records.PACE, "snapshots")


@dataclass(frozen=True)
class Step:
    """What becomes of one run of one source."""

    act: Act
    run: str  # protocol/task/method/track-budget-seed-hash
    source: Path  # the run's folder
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What a merge will do."""

    into: Path
    steps: tuple[Step, ...]

    def of(self, *acts: Act) -> list[Step]:
        """The steps of some kinds."""
        return [s for s in self.steps if s.act in acts]


def plan_merge(sources: Sequence[Path], into: Path) -> Plan:
    """Look at every run of every source. Raises `UsageError` for a folder that is none, or is the target itself."""
    for source in sources:
        if not source.is_dir():
            raise UsageError(f"no results folder at {source}")
        if source.resolve() == into.resolve():
            raise UsageError(f"{source} is the folder to merge into: name other folders as sources")
    if into.exists() and not into.is_dir():
        raise UsageError(f"--into {into} is a file, not a folder")
    steps: list[Step] = []
    chosen: dict[str, tuple[dict[str, Any], Path]] = {}  # taken from an earlier source
    for source in sources:
        seen = False
        for path in records.find(source):
            seen = True
            steps.append(step_for(path.parent, source, into, chosen))
        unfinished = sorted({p.parent for p in source.rglob(checkpoint.NAME)})
        steps += [
            Step("skip", name_of(folder), folder, "has not come to its end; its checkpoint stays where it is")
            for folder in unfinished
            if not (folder / records.FILE).exists()
        ]
        if not (seen or unfinished):
            raise UsageError(f"no records below {source}: name a results folder")
    return Plan(into, tuple(steps))


def step_for(folder: Path, source: Path, into: Path, chosen: dict[str, tuple[dict[str, Any], Path]]) -> Step:
    """What becomes of the run in `folder`; one that is taken is noted in `chosen`."""
    run = name_of(folder)
    case, findings = integrity(folder, source)
    wrong = [f for f in findings if f.severity == "problem"]
    if case is None or wrong:
        return Step("refuse", run, folder, f"is damaged: {wrong[0]}")
    if case.ended and not all((folder / name).is_file() for name in NEEDED):
        return Step("refuse", run, folder, "lacks its curves or predictions")
    if is_locked(folder):
        return Step("refuse", run, folder, f"another process is at it in {source}")
    if is_locked(into / run):
        return Step("refuse", run, folder, f"another process is at it in {into}")
    mine = case.record
    theirs, where = chosen.get(run, (None, into))
    if theirs is None:
        if (into / run / checkpoint.NAME).is_file() and not (into / run / records.FILE).is_file():
            if not case.ended:
                return Step("skip", run, folder, f"failed; it is under way in {into}")
            chosen[run] = (mine, source)
            return Step("replace", run, folder, f"came to its end; the one in {into} has not")
        try:
            theirs = records.read(into / run) if (into / run / records.FILE).is_file() else None
        except BenchError as error:
            return Step("refuse", run, folder, f"the one in {into} cannot be read: {error}")
    step = compare_records(run, folder, mine, theirs, where)
    if step.act in ("take", "replace"):
        chosen[run] = (mine, source)
    return step


def compare_records(run: str, folder: Path, mine: dict[str, Any], theirs: dict[str, Any] | None, where: Path) -> Step:
    """A source's record against the one that is there already."""
    if theirs is None:
        return Step("take", run, folder)
    if ended(mine) and not ended(theirs):
        return Step("replace", run, folder, f"came to its end; the one in {where} failed")
    if not ended(mine):
        return Step("skip", run, folder, f"failed; {'finished' if ended(theirs) else 'failed'} in {where}")
    parts = differing(mine["result"], theirs["result"])
    if not parts:
        return Step("skip", run, folder, f"the same result is in {where}")
    return Step("refuse", run, folder, f"its result in {where} is another one (in {', '.join(parts)})")


def ended(record: dict[str, Any]) -> bool:
    """Whether a record is of a run that came to its end."""
    return record["result"]["status"] in ("complete", "diverged")


def name_of(folder: Path) -> str:
    """A run by the last four parts of its folder, which `integrity` has compared with its specification."""
    return "/".join(folder.resolve().parts[-4:])


def merge(plan: Plan) -> None:
    """Carry out a plan. Raises `RunError` where a run of it is refused (nothing is written), or the disk refuses."""
    refused = plan.of("refuse")
    if refused:
        raise RunError(f"{len(refused)} runs were refused, nothing was written")
    for step in plan.of("take", "replace"):
        try:
            copy_run(step, plan.into)
        except OSError as error:
            raise RunError(
                f"cannot write {plan.into / step.run}: {error.strerror}; the same command goes on"
            ) from error


def copy_run(step: Step, into: Path) -> None:
    """Copy one run beside its place, check the copy, and put it there in one act."""
    target = into / step.run
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (target.with_name(f".{target.name}.{os.getpid()}.{word}") for word in ("tmp", "old"))
    try:
        shutil.copytree(step.source, fresh, ignore=shutil.ignore_patterns(*LEFT_BEHIND, ".*.tmp"))
        check_copy(step.source, fresh)
        with folder_lock(target) if target.exists() else nullcontext():
            if target.exists():
                os.rename(target, old)
            os.rename(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_copy(source: Path, copy: Path) -> None:
    """Raise `RunError` unless the copy's record is the source's, and its files are those of the record."""
    record = records.read(copy)
    if (copy / records.FILE).read_bytes() != (source / records.FILE).read_bytes():
        raise RunError(f"the copy of {source} is not what was copied: nothing was taken; try again")
    named = {**record["result"].get("files", {}), **record.get("artifacts", {})}
    for name, digest in named.items():
        if (copy / name).is_file() and file_sha256(copy / name) != digest:
            raise RunError(f"the copy of {source / name} is not what its record says: nothing was taken; try again")
