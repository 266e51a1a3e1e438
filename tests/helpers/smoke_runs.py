"""Short runs on CPU: planned, started, stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import ProgressEvent
from dfkd_bench.training.runner import Outcome, run

TESTS = Path(__file__).parents[1]
GOOD_FILE = TESTS / "conformance" / "good.py"
GOOD = f"{GOOD_FILE}:Good"


def edited_good(path: Path, *changes: tuple[str, str]) -> str:
    """The good method at `path` with each first text replaced by the second; the word that names it."""
    text = GOOD_FILE.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)
    return f"{path}:Good"


def plan(
    results: Path, *methods: str, seeds: tuple[int, ...] = (0,), budget: str = "smoke", threads: int = 1, **more: Any
) -> list[PlannedRun]:
    """Smoke runs of `methods`, or other fields of a request."""
    request = Request(methods, seeds=seeds, budget=budget, threads=threads, device="cpu", **more)
    return make_plan(request, results)


def plan_one(results: Path, method: str = GOOD, seed: int = 0, **more: Any) -> PlannedRun:
    """One smoke run."""
    (planned,) = plan(results, method, seeds=(seed,), **more)
    return planned


def start(planned: PlannedRun, results: Path, **options: Any) -> Outcome:
    """The run, in this process."""
    return run(planned, RunOptions(results, **options))


def stop_at(round: int, phase: str = "training") -> Callable[[ProgressEvent], None]:
    """A callback that presses Ctrl-C in a round."""

    def stop(event: ProgressEvent) -> None:
        if (event.phase, event.round) == (phase, round):
            raise KeyboardInterrupt

    return stop
