"""Put a method through the real loop, at a tiny size, and see which rules hold."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from dfkd_bench import checkpoint, registry
from dfkd_bench.compose import bare, parts
from dfkd_bench.conformance.card import check_addon, check_class, check_flags
from dfkd_bench.conformance.report import LATER_RULES, RULES, RUN_RULES, Report, RuleResult, one_line
from dfkd_bench.conformance.spy import Spy, View, check_sample, compare, global_streams
from dfkd_bench.conformance.stand import Enough, Notebook, Stand, essence, kept_threads, own_streams
from dfkd_bench.data import guard
from dfkd_bench.errors import PrivilegeError
from dfkd_bench.keeper import preview
from dfkd_bench.loop import Job, distill, is_finite
from dfkd_bench.method import Batch, Method
from dfkd_bench.registry import Entry

Run = tuple[dict[str, str], list[str]]  # hashes of a finished job's parts, and of every batch sampled
RULE_OF = {"synthesize": "synthesize", "sample": "sample", "distill_loss": "distill-loss"}  # whose failure a raise is


def check_method(
    method: Entry | type[Method],
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "cpu",
    batch_size: int = 16,
    addons: Sequence[Entry] = (),
) -> list[RuleResult]:
    """Check a method, given as a registry entry or as its class; every rule of `RULES`, in order.

    `preset`, `overrides` and `addons` (around the method, the first next to it) are as in a run. Takes nine rounds of
    the default task at `batch_size`. Nothing is raised for a method that breaks rules; `UsageError` for a preset or
    setting that does not exist, and for a method that takes no add-ons. One thread is used, and global random streams
    are left as they were.
    """
    report = Report()
    kind, entry = load(method, report)
    if kind is None:
        report.stopped = "the method cannot be imported"
        return report.results()
    check_class(kind, entry, report)
    found = [check_addon(addon, report) for addon in addons]
    if not all(found):
        report.stopped = "an add-on cannot be imported"
        return report.results()
    with kept_threads(), own_streams(), tempfile.TemporaryDirectory() as folder:
        try:
            stand = Stand(kind, entry, preset, dict(overrides or {}), device, batch_size, addons)
        except (TypeError, AttributeError) as error:  # a card too broken to make settings from
            report.stopped = one_line(error)
            return report.results()
        watched = check_run(stand, report)
        if watched:
            check_again(stand, watched, Path(folder), report)
    return report.results()


def assert_conforms(method: Entry | type[Method], **options: Any) -> None:
    """Raise `AssertionError` naming each rule that `method` breaks; `options` as for `check_method`."""
    broken = [r for r in check_method(method, **options) if not r.passed]
    lines = [f"  {r.name}: expected that {r.expected}; seen: {r.seen}" for r in broken]
    assert not broken, "\n".join([f"{len(broken)} of {len(RULES)} conformance rules are broken:", *lines])


def load(method: Entry | type[Method], report: Report) -> tuple[type[Method] | None, Entry]:
    """The class and where it comes from."""
    if not isinstance(method, Entry):
        entry = Entry(method.__name__, f"{inspect.getsourcefile(method)}:{method.__qualname__}", "file", "-")
        report.reached({"import": ""})
        return method, entry
    with report.rule("import"):
        return registry.load(method), method
    return None, method


# -- the run that is looked at closely --------------------------------------------------------------------------------


def check_run(stand: Stand, report: Report) -> Run | None:
    """Three rounds with every verb watched, then the preview. None where there is nothing to compare with."""
    where = "setup"
    spy: Spy | None = None
    run: Run | None = None
    try:
        with stand.data():
            before = View.of(stand.teacher, stand.student())
            job = stand.job(Notebook())
            compare("setup", before, stand.teacher, job.student, "eval", report)
            where = "loop"
            with report.rule("flags"):
                check_flags(job.method.flags, job.method.recipe, job.context.teacher, job.context.student, report)
            spy = Spy(job, stand.teacher, report)
            owned = belongings(job)
            job.method = cast(Method, spy)
            distill(job)
            run = essence(job), spy.sampled
            check_order(spy, job, report)
            check_registered(job, owned, report)
            check_finite(job, report)
            check_sizes(job, spy.method, report)
            with report.rule("preview"):
                check_preview(job, spy, report)
        report.reached(RUN_RULES)
    except (Exception, SystemExit) as error:
        if isinstance(error, PrivilegeError):
            where = "real-data" if guard.violations and not stand.granted else "privileges"
        elif spy and spy.verb:
            where = RULE_OF.get(spy.verb, "loop")
        verb = f"{spy.verb} raised " if spy and spy.verb else ""
        report.fail(where, f"{verb}{one_line(error)}")
        report.stopped = f"the run stopped (rule {where})"
        return None
    return run


Owned = list[tuple[object, str, object]]  # the method or an add-on, an attribute of it, what it holds


def belongings(job: Job) -> tuple[set[str], Owned]:
    """Names of what is registered, and the attributes of method and add-ons that are registered objects."""
    context = job.context
    objects = [*context.registered.values(), *context.companions.values(), *context.states.values()]
    mine = [(part, k, v) for part in parts(job.method) for k, v in vars(part).items() if any(v is o for o in objects)]
    return {*context.registered, *context.companions, *context.states}, mine


def check_registered(job: Job, owned: tuple[set[str], Owned], report: Report) -> None:
    """Nothing was registered late or replaced."""
    names, mine = owned
    context = job.context
    late = {*context.registered, *context.companions, *context.states} - names
    report.expect("registered", not late, f"registered after setup: {', '.join(sorted(late))}")
    for part, name, old in mine:
        report.expect("registered", vars(part).get(name) is old, f"{name} was registered and has been replaced")


def check_order(spy: Spy, job: Job, report: Report) -> None:
    """The verbs came as the flags say."""
    flags, plan = spy.method.flags, job.schedule
    one = ["distill_loss", "after_distill_step"]
    step = ["sample", *one * plan.student_steps] if flags.rowwise else ["sample", *one] * plan.student_steps
    synthesis = ["synthesize"] * flags.synthesis_steps
    phases = [*synthesis, *step] if flags.order == "synthesise_first" else [*step, *synthesis]
    wanted = synthesis * plan.warmup_rounds
    for round in range(plan.rounds):
        first, last = round % plan.rounds_per_epoch == 0, (round + 1) % plan.rounds_per_epoch == 0
        wanted += [*["on_epoch_start"] * first, *phases, *["on_epoch_end"] * (last or round + 1 == plan.rounds)]
    if not job.diverged:
        report.expect("loop", spy.calls == wanted, "verbs were called in another order than the flags say")


def check_finite(job: Job, report: Report) -> None:
    """Three rounds left numbers."""
    values = [v for row in job.curves for k, v in row.items()]
    report.expect("finite", is_finite(job.student), "the student's weights or buffers are not finite")
    report.expect("finite", not job.diverged and bool(np.isfinite(values).all()), "a loss is not finite")


@torch.no_grad()
def check_sizes(job: Job, method: Method, report: Report) -> None:
    """`sample` with every n that the loop may ask for."""
    n = job.schedule.batch_size
    for size in {n, n * job.schedule.student_steps} if method.flags.rowwise else {n}:
        check_sample(method.sample(size), size, job, report)


def check_preview(job: Job, spy: Spy, report: Report) -> None:
    """Images for the eye leave no trace, obey their stream, and are new."""
    method, n = spy.method, job.schedule.batch_size + 8
    if type(bare(method)).preview is Method.preview:
        return  # a method may have no images to show

    def show(seed: int) -> Batch:
        stream = torch.Generator(job.context.device)
        stream.manual_seed(seed)
        return preview(job, n, stream)

    before = traces(job)
    first, other, again = show(1), show(2), show(1)
    moved = [k for k, v in traces(job).items() if v != before.get(k)]
    report.expect("preview", not moved, f"preview changed {', '.join(moved)}")
    images = Report()
    check_sample(first, n, job, images, "preview")
    report.expect("preview", not images.first, images.first)
    same = torch.equal(first.images, again.images)
    report.expect("preview", same, "one stream gave two different sets of images")
    report.expect("preview", not torch.equal(first.images, other.images), "two streams gave the same images")
    replayed = spy.rows & {checkpoint.digest(row) for row in first.images.float()}
    report.expect("preview", not replayed, f"{len(replayed)} of {n} images were training batches' own")


def traces(job: Job) -> dict[str, Any]:
    """Everything that a preview could change, hashed."""
    parts: dict[str, Any] = essence(job)
    del parts["counts"]  # looking at images may cost forwards; but it synthesises none for the student
    counts = {k: v for k, v in job.context.meter.counts.items() if k.startswith("images")}
    streams = {f"stream {k}": v for k, v in job.context.streams.states().items()}
    return {**parts, **counts, **streams, "the global random streams": global_streams()}


# -- the runs that are compared ---------------------------------------------------------------------------------------


def check_again(stand: Stand, watched: Run, folder: Path, report: Report) -> None:
    """The same seed again, another seed, and a run resumed half-way."""

    def run(keeper: Notebook, seed: int = 0) -> Run:
        with stand.data():
            job = stand.job(keeper, seed)
            spy = Spy(job, stand.teacher)
            job.method = cast(Method, spy)
            with suppress(Enough):
                distill(job)
            return essence(job), spy.sampled

    whole: dict[str, str] = {}
    with report.rule("repeatable"):
        whole, images = run(Notebook(save=folder))
        report.expect("repeatable", images == watched[1], "two runs with one seed sampled other images")
        same = whole == watched[0]
        report.expect("repeatable", same, f"two runs with one seed differ in {differing(whole, watched[0])}")
    with report.rule("seed"):
        _, images = run(Notebook(stop=1), seed=1)
        report.expect("seed", images[:1] != watched[1][:1], "two seeds sampled the same images")
    with report.rule("resume"):
        resumed, _ = run(Notebook(start=folder))
        report.expect("resume", whole == resumed, f"the resumed run differs in {differing(whole, resumed)}")
    report.reached(LATER_RULES)


def differing(one: dict[str, str], two: dict[str, str]) -> str:
    """Names of the parts that are not equal."""
    return ", ".join(k for k in {**one, **two} if one.get(k) != two.get(k))
