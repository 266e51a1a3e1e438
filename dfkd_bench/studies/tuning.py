"""Tuning under a declared budget, equal for all methods, that looks at no real image.

Every method gets as many runs, drawn from the candidates it declares (`Method.search`), with a seed that no reported
result uses. A finished student is scored by its agreement with the teacher on one probe of synthetic images, pooled
from all methods' untuned runs: on its own images a collapsed method would agree best. For the same reason a run whose
images do not show the classes cannot win. A method may ask for a label agreement that a winner must have
(`Method.least_label_consistency`). The test accuracies that records hold are not read here.
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
    """What all methods are tuned on alike."""

    methods: tuple[str, ...]  # names, or file.py:Class
    task: str
    preset: str | None  # None: each method's own default
    runs: int  # per method, the untuned one included
    budget: str
    seed: int
    threads: int
    device: str
    coverage: float  # share of the classes that a winner's images must show
    results: Path  # where the records lie
    out: Path  # where the table and the probe lie
    probe: Probe | None = None  # None: pooled from the untuned runs


@dataclass(frozen=True)
class Trial:
    """One run of a method's budget."""

    number: int
    settings: dict[str, Any]  # overrides; none in trial 0, which is the method as it stands
    changed: dict[str, Any]  # those of them that differ from trial 0
    planned: PlannedRun
    glob: str  # presets that the settings are for: `*` where the method has one alone

    @property
    def task_settings(self) -> str:
        """The line that makes these the method's settings on the dataset, for its `task_settings`."""
        items = ", ".join(f"{json.dumps(k)}: {_literal(v)}" for k, v in self.changed.items())
        return f'("{self.glob}", "{self.planned.spec.task.partition("/")[0]}/*", {{{items}}})'


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


# -- which trials -----------------------------------------------------------------------------------------------------


def trials(
    search: Mapping[str, Sequence[Any]], resolved: Mapping[str, Any], runs: int, seed: int, method: str
) -> list[dict[str, Any]]:
    """Overrides of at most `runs` trials: none first, then distinct combinations of the candidates in `search`.

    They are drawn by (seed, method) alone, and none repeats the `resolved` settings of the first. A larger budget
    begins with the trials of a smaller one.
    """
    found: list[dict[str, Any]] = [{}]
    names = sorted(search)
    if not names:
        return found
    stands = tuple(list(search[n]).index(resolved[n]) if resolved[n] in search[n] else -1 for n in names)
    seen = set() if -1 in stands else {stands}
    sizes = [len(search[n]) for n in names]
    wanted = min(runs, 1 + math.prod(sizes) - len(seen))
    stream = np.random.default_rng(derive(seed, f"tune/{method}"))
    while len(found) < wanted:
        pick = tuple(stream.integers(0, sizes).tolist())
        if pick not in seen:
            seen.add(pick)
            found.append({n: search[n][k] for n, k in zip(names, pick, strict=True)})
    return found


def checked_search(kind: type[Method], about: Card, method: str) -> dict[str, list[Any]]:
    """A method's candidates, typed and distinct. Raises `UsageError` for those that cannot be, or that are pinned."""
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


def plan_trials(terms: TuneOptions) -> list[Trial]:
    """Every trial of every method, in order of method and number. Raises `UsageError` for whatever cannot be."""
    found: dict[str, list[Trial]] = {}
    for word in terms.methods:
        first = _planned(terms, word, {})
        spec, kind = first.spec, load(first.method)
        if spec.method in found:
            raise UsageError(f"two of the methods are called {spec.method!r}: tune one of them at a time")
        resolved = dict(spec.settings)
        search = checked_search(kind, card(first.method), spec.method)
        glob = "*" if len(kind.presets) == 1 else spec.preset
        found[spec.method] = [
            Trial(
                number,
                settings,
                {k: v for k, v in settings.items() if v != resolved[k]},
                _planned(terms, word, settings) if number else first,
                glob,
            )
            for number, settings in enumerate(trials(search, resolved, terms.runs, terms.seed, spec.method))
        ]
    return [trial for name in sorted(found) for trial in found[name]]


def _planned(terms: TuneOptions, word: str, overrides: dict[str, Any]) -> PlannedRun:
    request = Request(
        (word,), (terms.task,), (terms.seed,), preset=terms.preset, track=TRACK, budget=terms.budget,
        device=terms.device, threads=terms.threads, overrides=overrides,
    )  # fmt: skip
    (planned,) = make_plan(request, terms.results)
    return planned


# -- all of it --------------------------------------------------------------------------------------------------------


def tune(
    terms: TuneOptions,
    plan: Sequence[Trial],
    watching: Callable[[Trial], AbstractContextManager[Callback]] = lambda trial: nullcontext(lambda event: None),
    told: Callable[[Trial, Outcome], None] = lambda trial, outcome: None,
) -> tuple[list[Row], Probe]:
    """Run what is missing of `plan`, score, choose, and write table and probe; the rows of this plan and the probe.

    A trial that fails or diverges is a row like the others. Raises `UsageError` where the folder holds a table of
    other terms, `RunError` where nothing can be run, written or pooled.
    """
    path, names = terms.out / FILE, {trial.planned.spec.method for trial in plan}
    common = {"task": terms.task, "track": TRACK, "budget": check_budget(terms.budget)}
    common |= {"seed": str(terms.seed), "protocol": PROTOCOL}
    if terms.probe:
        common["probe"] = terms.probe.sha256[:12]
    rows_kept(path, common, names)  # whatever is refused is refused before hours of runs
    try:
        terms.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write below {terms.out}: {error.strerror}; choose another --out") from error

    outcomes: dict[str, Outcome] = {}

    def follow(trial: Trial) -> None:
        with watching(trial) as callback:
            outcomes[trial.planned.spec.hash] = run_trial(trial, terms.results, callback)
        told(trial, outcomes[trial.planned.spec.hash])

    for trial in plan:
        if trial.number == 0:
            follow(trial)
    untuned = [outcomes[trial.planned.spec.hash].record for trial in plan if trial.number == 0]
    probe = terms.probe or pool(untuned, task(terms.task))
    common["probe"] = probe.sha256[:12]
    rows_kept(path, common, names)
    write_atomic(terms.out / PROBE, probe.payload)
    for trial in plan:
        if trial.number:
            follow(trial)

    rows = []
    for trial in plan:
        outcome = outcomes[trial.planned.spec.hash]
        complete = outcome.record["result"]["status"] == "complete"
        agreement = agreement_of(trial, outcome.folder, probe, terms.threads) if complete else None
        rows.append(row_of(trial.planned.spec, trial.number, outcome.record, agreement, probe.sha256))
    least = {t.planned.spec.method: card(t.planned.method).least_label_consistency for t in plan}
    rows = choose(rows, terms.coverage, least)
    with FileLock(terms.out / f".{FILE}.lock"):  # methods may be tuned side by side on one probe
        kept = rows_kept(path, common, names)
        write_atomic(path, table_text([*kept, *(row.text() for row in rows)]).encode())
    return rows, probe


def run_trial(trial: Trial, results: Path, callback: Callback) -> Outcome:
    """Run a trial, or find it done. A failed run is an outcome; raises where there was none, such as on a full disk."""
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
    """Score of the student that a trial left in `folder`, on CPU wherever it was trained, so that all see the same."""
    cpu = configure_device("cpu", threads)
    chosen = task(trial.planned.spec.task)
    student = models.build(chosen.student, chosen.dataset.classes, chosen.dataset.image_shape)
    fit_weights(student, read_weights(folder / "student.safetensors"), f"the student in {folder}")
    return score(load_teacher(trial.planned.teacher, cpu), freeze(student, cpu), probe.images)


def score(teacher: Tapped, student: Tapped, images: torch.Tensor) -> float:
    """Percent of `images` (n, channels, height, width) to which the student answers as the teacher does."""
    return agreement(logits_of(student, images), logits_of(teacher, images))
