"""Tuning without real images, with the same budget for all methods.

Every method gets the same number of runs, drawn from its candidates (`Method.search`), with a seed that no reported
result uses. A student is scored by its agreement with the teacher on one probe of synthetic images, pooled from the
untuned runs of all methods: on its own images, a collapsed method would have the highest agreement. For the same reason
a run whose images cover too few classes cannot be chosen. A method may require a minimal label agreement
(`Method.least_label_consistency`). The test accuracies in the records are not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from dfkd_bench import models
from dfkd_bench.errors import BenchError, RunError, UsageError
from dfkd_bench.method import Method
from dfkd_bench.metrics.logits import agreement, logits_of
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.plugins.cards import Card
from dfkd_bench.plugins.registry import card, load
from dfkd_bench.protocol import PROTOCOL, check_budget, task
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import make_plan
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import Callback
from dfkd_bench.runs.settings import Request
from dfkd_bench.runs.spec import check_overrides
from dfkd_bench.studies.probe import Probe, pool
from dfkd_bench.studies.tuning_table import FILE, PROBE, Row, choose, row_of, rows_kept, table_text
from dfkd_bench.teachers.registry import fit_weights, freeze, load_teacher, read_weights
from dfkd_bench.training.runner import Outcome, run
from dfkd_bench.utils.device import configure_device
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.seeding import derive

TRACK = "pinned"


@dataclass(frozen=True)
class TuneOptions:
    """The options of a tuning, equal for all methods."""

    methods: tuple[str, ...]  # names, or file.py:Class
    task: str
    preset: str | None  # None: each method's own default
    runs: int  # per method, the untuned one included
    budget: str
    seed: int
    threads: int
    device: str
    coverage: float  # minimal share of the classes in the images of the chosen run
    results: Path  # folder of the records
    out: Path  # folder of the table and the probe
    probe: Probe | None = None  # None: pooled from the untuned runs


@dataclass(frozen=True)
class Trial:
    """One run of a method's tuning."""

    number: int
    settings: dict[str, Any]  # overrides; empty in trial 0, the untuned method
    changed: dict[str, Any]  # the overrides that differ from trial 0
    planned: PlannedRun
    glob: str  # the presets that the settings are for: `*` if the method has only one

    @property
    def task_settings(self) -> str:
        """A line for the method's `task_settings`, which sets these settings for the dataset."""
        items = ", ".join(f"{json.dumps(k)}: {_literal(v)}" for k, v in self.changed.items())
        return f'("{self.glob}", "{self.planned.spec.task.partition("/")[0]}/*", {{{items}}})'


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


# -- which trials -----------------------------------------------------------------------------------------------------


def trials(
    search: Mapping[str, Sequence[Any]], resolved: Mapping[str, Any], runs: int, seed: int, method: str
) -> list[dict[str, Any]]:
    """Overrides of at most `runs` trials: first {}, then distinct random combinations of the candidates in `search`.

    They depend on (seed, method) alone, and do not repeat the `resolved` settings of the first trial. A larger budget
    starts with the trials of a smaller one.
    """
    overrides: list[dict[str, Any]] = [{}]
    names = sorted(search)
    if not names:
        return overrides
    untuned = tuple(list(search[n]).index(resolved[n]) if resolved[n] in search[n] else -1 for n in names)
    seen = set() if -1 in untuned else {untuned}
    sizes = [len(search[n]) for n in names]
    number = min(runs, 1 + math.prod(sizes) - len(seen))
    stream = np.random.default_rng(derive(seed, f"tune/{method}"))
    while len(overrides) < number:
        pick = tuple(stream.integers(0, sizes).tolist())
        if pick not in seen:
            seen.add(pick)
            overrides.append({n: search[n][k] for n, k in zip(names, pick, strict=True)})
    return overrides


def checked_search(kind: type[Method], about: Card, method: str) -> dict[str, list[Any]]:
    """A method's candidates, typed and distinct. Raises `UsageError` for wrong values and for pinned settings."""
    checked: dict[str, list[Any]] = {}
    where = f"search of method {method}"
    for key, candidates in kind.search.items():
        if key in kind.pinned:
            raise UsageError(f"{where}: track {TRACK} fixes {key} for every method; take it out of the search")
        if isinstance(candidates, str) or not isinstance(candidates, Sequence) or not candidates:
            raise UsageError(f"{where}: {key} takes a list of candidates, got {candidates!r}")
        values = [check_overrides(about, {key: value}, method, where)[key] for value in candidates]
        checked[key] = [v for k, v in enumerate(values) if v not in values[:k]]
    return checked


def plan_trials(options: TuneOptions) -> list[Trial]:
    """Every trial of every method, sorted by method and number. Raises `UsageError` if a run is not possible."""
    by_method: dict[str, list[Trial]] = {}
    for word in options.methods:
        first = _planned(options, word, {})
        spec, kind = first.spec, load(first.method)
        if spec.method in by_method:
            raise UsageError(f"two of the methods are called {spec.method!r}: tune one of them at a time")
        resolved = dict(spec.settings)
        search = checked_search(kind, card(first.method), spec.method)
        glob = "*" if len(kind.presets) == 1 else spec.preset
        by_method[spec.method] = [
            Trial(
                number,
                settings,
                {k: v for k, v in settings.items() if v != resolved[k]},
                _planned(options, word, settings) if number else first,
                glob,
            )
            for number, settings in enumerate(trials(search, resolved, options.runs, options.seed, spec.method))
        ]
    return [trial for name in sorted(by_method) for trial in by_method[name]]


def _planned(options: TuneOptions, word: str, overrides: dict[str, Any]) -> PlannedRun:
    request = Request(
        (word,), (options.task,), (options.seed,), preset=options.preset, track=TRACK, budget=options.budget,
        device=options.device, threads=options.threads, overrides=overrides,
    )  # fmt: skip
    (planned,) = make_plan(request, options.results)
    return planned


# -- running and scoring the trials -----------------------------------------------------------------------------------


def tune(
    options: TuneOptions,
    plan: Sequence[Trial],
    callback_of: Callable[[Trial], AbstractContextManager[Callback]] = lambda trial: nullcontext(lambda event: None),
    on_outcome: Callable[[Trial, Outcome], None] = lambda trial, outcome: None,
) -> tuple[list[Row], Probe]:
    """Run the missing trials, score and choose, write table and probe; returns the rows of `plan` and the probe.

    `callback_of(trial)` gives the callback of a trial's run. A trial that fails or diverges is a row too. Raises
    `UsageError` if the folder has a table of other terms, `RunError` if running, writing or pooling fails.
    """
    path, names = options.out / FILE, {trial.planned.spec.method for trial in plan}
    common = {"task": options.task, "track": TRACK, "budget": check_budget(options.budget)}
    common |= {"seed": str(options.seed), "protocol": PROTOCOL}
    if options.probe:
        common["probe"] = options.probe.sha256[:12]
    rows_kept(path, common, names)  # raise before hours of runs
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write below {options.out}: {error.strerror}; choose another --out") from error

    outcomes: dict[str, Outcome] = {}

    def execute(trial: Trial) -> None:
        with callback_of(trial) as callback:
            outcomes[trial.planned.spec.hash] = run_trial(trial, options.results, callback)
        on_outcome(trial, outcomes[trial.planned.spec.hash])

    for trial in plan:
        if trial.number == 0:
            execute(trial)
    untuned = [outcomes[trial.planned.spec.hash].record for trial in plan if trial.number == 0]
    probe = options.probe or pool(untuned, task(options.task))
    common["probe"] = probe.sha256[:12]
    rows_kept(path, common, names)
    write_atomic(options.out / PROBE, probe.payload)
    for trial in plan:
        if trial.number:
            execute(trial)

    rows = []
    for trial in plan:
        outcome = outcomes[trial.planned.spec.hash]
        complete = outcome.record["result"]["status"] == "complete"
        agreement = agreement_of(trial, outcome.folder, probe, options.threads) if complete else None
        rows.append(row_of(trial.planned.spec, trial.number, outcome.record, agreement, probe.sha256))
    least = {t.planned.spec.method: card(t.planned.method).least_label_consistency for t in plan}
    rows = choose(rows, options.coverage, least)
    with FileLock(options.out / f".{FILE}.lock"):  # several processes may tune methods on one probe
        kept = rows_kept(path, common, names)
        write_atomic(path, table_text([*kept, *(row.text() for row in rows)]).encode())
    return rows, probe


def run_trial(trial: Trial, results: Path, callback: Callback) -> Outcome:
    """Run a trial, unless it is finished. A failed run is an outcome; raises if there is no new record (full disk)."""
    item = trial.planned
    folder = results / item.spec.folder
    file = folder / records.FILE
    before = file.stat().st_mtime_ns if file.exists() else None
    try:
        return run(item, RunOptions(results, callback=callback))
    except UsageError:
        raise
    except BenchError:
        if not file.exists() or file.stat().st_mtime_ns == before:
            raise
    return Outcome(records.read(folder), folder, skipped=False)


def agreement_of(trial: Trial, folder: Path, probe: Probe, threads: int) -> float:
    """`score` of the student in a trial's `folder`; always on CPU, so that it does not depend on the device."""
    cpu = configure_device("cpu", threads)
    of_trial = task(trial.planned.spec.task)
    student = models.build(of_trial.student, of_trial.dataset.classes, of_trial.dataset.image_shape)
    fit_weights(student, read_weights(folder / "student.safetensors"), f"the student in {folder}")
    return score(load_teacher(trial.planned.teacher, cpu), freeze(student, cpu), probe.images)


def score(teacher: Tapped, student: Tapped, images: torch.Tensor) -> float:
    """Percent of `images` (n, channels, height, width) with the same top-1 class of student and teacher."""
    return agreement(logits_of(student, images), logits_of(teacher, images))
