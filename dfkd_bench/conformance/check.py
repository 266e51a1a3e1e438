"""Runs a method in the training loop at a tiny size, and checks the rules."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch

from dfkd_bench.conformance.bench import MemoryStorage, StopJob, TestBench, kept_streams, kept_threads, state_digests
from dfkd_bench.conformance.card import check_addon, check_class, check_flags
from dfkd_bench.conformance.report import RULES, RUN_RULES, Broken, Report, RuleResult, one_line
from dfkd_bench.conformance.spy import Spy, View, check_sample, compare, global_streams
from dfkd_bench.errors import PrivilegeError, RunError
from dfkd_bench.method import Batch, Method
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.training.compose import method_and_addons, without_addons
from dfkd_bench.training.loop import Job, distill, is_finite
from dfkd_bench.training.storage import preview
from dfkd_bench.utils import checkpoint, guard

Run = tuple[dict[str, str], list[str]]  # digests of the parts of a finished job, and of every sampled batch
RULE_OF = {"synthesize": "synthesize", "sample": "sample", "distill_loss": "distill-loss"}  # fails if the verb raises


def check_method(
    method: str | Entry | type[Method],
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "cpu",
    batch_size: int = 16,
    addons: Sequence[Entry] = (),
) -> list[RuleResult]:
    """Check a method, given by name (`mine`, `./mine.py:Mine`), entry or class; returns all of `RULES`, in order.

    `preset`, `overrides` and `addons` (innermost first) are as in a run. It trains nine rounds of the default task at
    `batch_size`, with one thread; the global random streams are restored afterwards. A broken rule does not raise.
    Raises `UsageError` for an unknown method, preset or setting, and for add-ons around a method that allows none.
    """
    report = Report()
    kind, entry = load(method, report)
    if kind is None:
        report.stopped = "the method cannot be imported"
        return report.results()
    check_class(kind, entry, report)
    imported = [check_addon(addon, report) for addon in addons]
    if not all(imported):
        report.stopped = "an add-on cannot be imported"
        return report.results()
    with kept_threads(), kept_streams(), tempfile.TemporaryDirectory() as folder:
        try:
            bench = TestBench(kind, entry, preset, dict(overrides or {}), device, batch_size, addons)
        except (TypeError, AttributeError, RunError) as error:  # the card gives no valid settings
            report.stopped = one_line(error)
            if not report.first[1]:
                report.fail("setup", report.stopped)
            return report.results()
        watched = check_run(bench, report)
        if watched:
            check_repeats(bench, watched, Path(folder), report)
    return report.results()


def assert_conforms(method: str | Entry | type[Method], **options: Any) -> None:
    """Raise an `AssertionError` with each rule that `method` breaks: what was expected and what was seen.

    `options` are those of `check_method`.
    """
    broken = [r for r in check_method(method, **options) if not r.passed]
    if broken:
        raise AssertionError(
            "\n".join([verdict(broken), *(line for r in broken if r.reached for line in lines_of_result(r))])
        )


def verdict(broken: list[RuleResult]) -> str:
    """One line: the numbers of broken rules and of rules that were not checked."""
    unknown = [r for r in broken if not r.reached]
    more = f", {len(unknown)} more were {unknown[0].seen}" if unknown else ""
    return f"{len(broken) - len(unknown)} of {len(RULES)} conformance rules are broken{more}"


def lines_of_result(result: RuleResult) -> list[str]:
    """A broken rule as lines of text."""
    return [f"  {result.name}: {result.meaning}", f"    expected  {result.expected}", f"    seen      {result.seen}"]


def load(method: str | Entry | type[Method], report: Report) -> tuple[type[Method] | None, Entry]:
    """The class (None if the import fails) and its entry."""
    if isinstance(method, str):
        method = registry.resolve(method)
    if not isinstance(method, Entry):
        entry = Entry(method.__name__, f"{inspect.getsourcefile(method)}:{method.__qualname__}", "file", "-")
        report.reached(["import"])
        return method, entry
    with report.rule("import"):
        return registry.load(method), method
    return None, method


# -- the first run, checked in detail ---------------------------------------------------------------------------------


def check_run(bench: TestBench, report: Report) -> Run | None:
    """Three rounds in which every verb is checked, then the preview. None if the run stopped."""
    where = "setup"
    spy: Spy | None = None
    run: Run | None = None
    try:
        with bench.data():
            before = View.of(bench.teacher, bench.student())
            job = bench.job(MemoryStorage())
            report.reached(["setup"])
            compare("setup", before, bench.teacher, job.student, "eval", report)
            where = "loop"
            with report.rule("flags"):
                check_flags(job.method.flags, job.method.recipe, job.context.teacher, job.context.student, report)
            spy = Spy(job, bench.teacher, report)
            owned = registered_attributes(job)
            job.method = cast(Method, spy)
            distill(job)
            run = state_digests(job), spy.sampled
            check_order(spy, job, report)
            check_registered(job, owned, report)
            check_finite(job, report)
            check_sizes(job, spy.method, report)
            report.reached(RUN_RULES)
            with report.rule("preview"):
                check_preview(job, spy, report)
    except Broken as broken:
        report.stopped = str(broken)
        return None
    except (Exception, SystemExit) as error:
        if isinstance(error, PrivilegeError):
            where = "real-data" if guard.violations and not bench.granted else "privileges"
        elif spy and spy.verb:
            where = RULE_OF.get(spy.verb, "loop")
        verb = f"{spy.verb} raised " if spy and spy.verb else ""
        report.fail(where, f"{verb}{one_line(error)}")
        report.stopped = f"the run stopped at rule {where}"
        return None
    return run


Owned = list[tuple[object, str, object]]  # (the method or an add-on, name of an attribute, its value)


def registered_attributes(job: Job) -> tuple[set[str], Owned]:
    """The registered names, and the attributes of method and add-ons that are registered objects."""
    context = job.context
    objects = [*context.registered.values(), *context.companions.values(), *context.states.values()]
    mine = [
        (part, k, v)
        for part in method_and_addons(job.method)
        for k, v in vars(part).items()
        if any(v is o for o in objects)
    ]
    return {*context.registered, *context.companions, *context.states}, mine


def check_registered(job: Job, owned: tuple[set[str], Owned], report: Report) -> None:
    """Rule registered: nothing was registered after setup, and no registered attribute was replaced."""
    names, mine = owned
    context = job.context
    late = {*context.registered, *context.companions, *context.states} - names
    seen = f"registered after setup: {', '.join(sorted(late))}"
    report.expect("registered", not late, seen, "every register, state and companion in setup")
    for part, name, old in mine:
        same = vars(part).get(name) is old
        expected = f"{name} to stay the object that was registered"
        report.expect("registered", same, f"{name} was registered and has been replaced", expected)


def check_order(spy: Spy, job: Job, report: Report) -> None:
    """Rule verb-order: the loop called the verbs in the order that the flags give."""
    flags, plan = spy.method.flags, job.schedule
    one = ["distill_loss", "after_distill_step"]
    step = ["sample", *one * plan.student_steps] if flags.rowwise else ["sample", *one] * plan.student_steps
    synthesis = ["synthesize"] * flags.calls(warmup=False)
    phases = [*synthesis, *step] if flags.order == "synthesise_first" else [*step, *synthesis]
    calls = ["synthesize"] * flags.calls(warmup=True) * plan.warmup_rounds
    for round in range(plan.rounds):
        first, last = round % plan.rounds_per_epoch == 0, (round + 1) % plan.rounds_per_epoch == 0
        calls += [*["on_epoch_start"] * first, *phases, *["on_epoch_end"] * (last or round + 1 == plan.rounds)]
    if job.diverged:
        return  # the loop ended early
    pairs = zip_longest(spy.calls, calls, fillvalue="nothing")
    for number, (call, due) in enumerate(pairs, 1):
        expected = f"{due} as call {number}, as the flags said before the first round"
        report.expect("verb-order", call == due, f"{call} as call {number}", expected)


def check_finite(job: Job, report: Report) -> None:
    """Rule finite: the student and the curves are finite after the run."""
    expected = "finite numbers after three rounds"
    report.expect("finite", is_finite(job.student), "the student's weights or buffers are not finite", expected)
    for name, value in (pair for row in job.curves for pair in row.items()):
        report.expect("finite", math.isfinite(value), f"{name} is {value}", expected)


@torch.no_grad()
def check_sizes(job: Job, method: Method, report: Report) -> None:
    """Check `sample` with every `n` that the loop may use."""
    n = job.schedule.batch_size
    for size in {n, n * job.schedule.student_steps} if method.flags.rowwise else {n}:
        check_sample(method.sample(size), size, job, report)


def check_preview(job: Job, spy: Spy, report: Report) -> None:
    """Rule preview: it changes no state, its images depend on the stream alone, and are not training images."""
    method, n = spy.method, job.schedule.batch_size + 8
    needs_labels = bool(without_addons(method).least_label_consistency)
    seen = "least_label_consistency is set, and preview gives no labels"
    if type(without_addons(method)).preview is Method.preview:
        report.expect("preview", not needs_labels, seen, "images with labels")
        return  # preview is optional

    def show(seed: int) -> Batch:
        stream = torch.Generator(job.context.device)
        stream.manual_seed(seed)
        return preview(job, n, stream)

    before = preview_state(job)
    first, other, again = show(1), show(2), show(1)
    moved = [k for k, v in preview_state(job).items() if v != before.get(k)]
    report.expect("preview", not moved, f"preview changed {', '.join(moved)}", "nothing changed")
    images = Report()
    with suppress(Broken):
        check_sample(first, n, job, images, "preview")
    expected, wrong = images.first
    report.require("preview", not wrong, wrong, expected)
    report.expect("preview", not needs_labels or first.labels is not None, seen, "images with labels")
    same = torch.equal(first.images, again.images)
    report.expect("preview", same, "one stream gave two different sets of images", "draws from `stream` alone")
    fresh = not torch.equal(first.images, other.images)
    report.expect("preview", fresh, "two streams gave the same images", "draws from `stream`")
    replayed = spy.rows & {checkpoint.digest(row) for row in first.images.float()}
    seen = f"{len(replayed)} of {n} images were training batches' own"
    report.expect("preview", not replayed, seen, "images that the student has not been trained on")


def preview_state(job: Job) -> dict[str, Any]:
    """Digests of everything that a preview must not change."""
    parts: dict[str, Any] = state_digests(job)
    del parts["counts"]  # a preview may use forwards, but must not count images
    counts = {k: v for k, v in job.context.meter.counts.items() if k.startswith("images")}
    streams = {f"stream {k}": v for k, v in job.context.streams.states().items()}
    return {**parts, **counts, **streams, **{f"{k}'s global stream": v for k, v in global_streams().items()}}


# -- further runs, compared with the first ----------------------------------------------------------------------------


def check_repeats(bench: TestBench, watched: Run, folder: Path, report: Report) -> None:
    """Run with the same seed, with another seed, and resumed from a checkpoint; compare with the run `watched`."""

    def run(storage: MemoryStorage, seed: int = 0) -> Run:
        with bench.data():
            job = bench.job(storage, seed)
            spy = Spy(job, bench.teacher)
            job.method = cast(Method, spy)
            with suppress(StopJob):
                distill(job)
            return state_digests(job), spy.sampled

    whole: dict[str, str] = {}
    saving, loading = MemoryStorage(save=folder), MemoryStorage(start=folder)
    with report.rule("same-seed"):
        whole, images = run(saving)
        report.expect("same-seed", images == watched[1], "two runs with one seed sampled other images", "equal bits")
        differ = differing(whole, watched[0])
        report.expect("same-seed", not differ, f"two runs with one seed differ in {differ}", "equal bits")
    with report.rule("other-seed"):
        _, images = run(MemoryStorage(stop=1), seed=1)
        report.expect("other-seed", images[:1] != watched[1][:1], "two seeds sampled the same images", "other images")
    report.reached(["state-round-trip"])
    with report.rule("resume"):
        resumed, _ = run(loading)
        check_loaded(saving, loading, report)
        seen = f"it differs in {differing(whole, resumed)}"
        report.expect("resume", whole == resumed, seen, "the bits of a run never interrupted")


def check_loaded(saving: MemoryStorage, loading: MemoryStorage, report: Report) -> None:
    """Rule state-round-trip: the state after loading equals the saved one. Raises `Broken` if loading failed."""
    expected = "what was saved after the first round, bit for bit"
    failure = saving.failure or loading.failure
    report.require("state-round-trip", not failure, failure, expected)
    lost = differing(saving.held, loading.held)
    report.expect("state-round-trip", not lost, f"after loading, {lost} differ", expected)


def differing(one: dict[str, str], two: dict[str, str]) -> str:
    """The names of the parts that are not equal."""
    return ", ".join(k for k in {**one, **two} if one.get(k) != two.get(k))
