"""`dfkd-bench profile`: milliseconds, images per second, arithmetic and utilisation of a method's steps."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import pairs_of
from dfkd_bench.errors import UsageError
from dfkd_bench.utils.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_bench.plugins.entry import Entry
    from dfkd_bench.protocol import Task
    from dfkd_bench.runs.spec import RunSpec
    from dfkd_bench.teachers.registry import Teacher


@click.command()
@click.option("-m", "--method", required=True, metavar="NAME", help="A method or file.py:Class.")
@click.option("-t", "--task", "task_name", metavar="TASK", help="Default: the default task.")
@click.option("--networks", metavar="TEACHER-STUDENT", help="Other networks with random weights; needs no data.")
@click.option("--shape", metavar="CxHxW", default="3x32x32", show_default=True, help="Image shape for --networks.")
@click.option("--classes", default=100, show_default=True, help="Classes for --networks.")
@click.option("--width", default=64, show_default=True, help="Generator width for --networks.")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Batch size. Default: the pinned track's.")
@click.option("--preset", metavar="NAME", help="A method's preset.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a method's setting. Repeatable.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Rounds to time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--precision", default="fp32", show_default=True, help="fp32 or bf16.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the steps.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads.")
@click.option(
    "--levers", is_flag=False, flag_value="bf16", metavar="[WORDS]",
    help="Time each lever of speed off and on, in turn: those of fp32, and bf16 on top. With WORDS, these on top "
    "instead: bf16, compile (minutes on a CPU) or bf16,compile; fp32 for none.",
)  # fmt: skip
@click.option("--floor", is_flag=True, help="Time the steps against their convolutions and matrix products alone.")
@click.option("--kernels", is_flag=True, help="On a GPU: kernels of a step, the time between them, the host's waits.")
def command(method: str, task_name: str | None, **options: Any) -> None:
    """Time each step of a method in the real loop, and count its arithmetic. Reads no data."""
    from rich.console import Console

    from dfkd_bench.profiling.steps import profile
    from dfkd_bench.protocol import DEFAULT_TASK
    from dfkd_bench.training.dry_run import job_for

    optional = lever_words(options)
    tables = [f"--{name}" for name in ("floor", "kernels") if options[name]] + ["--levers"] * (optional is not None)
    if len(tables) > 1:
        raise UsageError(f"{' and '.join(tables)} are tables of their own: ask for one at a time")
    console = Console()
    chosen = networks(options, task_name or DEFAULT_TASK)
    spec, entry, mentor = prepare(method, chosen, options)
    if mentor is None and not options["networks"]:
        console.print(
            f"no teacher registered for {chosen.name}: random weights, which take the same time",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if options["floor"]:
        floor(method, chosen, spec, job_for(spec, entry, mentor, chosen), options["rounds"], console)
        return
    if options["kernels"]:
        kernels(method, chosen, spec, job_for(spec, entry, mentor, chosen), options["rounds"], console)
        return
    if optional is None:
        job = job_for(spec, entry, mentor, chosen)
        console.print(table(method, chosen.name, spec, profile(job, options["rounds"])))
        return

    import torch

    from dfkd_bench.profiling.speedups import Levers, measure
    from dfkd_bench.profiling.speedups_table import levers_table
    from dfkd_bench.utils.timing import clock_for

    def build(levers: Levers) -> Any:
        precision = "bf16" if levers.bf16 else "fp32"
        return job_for(dataclasses.replace(spec, precision=precision, compile=levers.compiled), entry, mentor, chosen)

    with console.status("building networks") as status:
        rows = measure(build, optional, options["rounds"], lambda k: status.update(progress(k, options["rounds"])))
    title = heading(method, chosen, spec, options["rounds"])
    console.print(levers_table(title, rows, clock_for(torch.device(spec.device))[1]))


def floor(method: str, chosen: Task, spec: RunSpec, job: Any, rounds: int, console: Console) -> None:
    """The table of --floor. Raises `UsageError` for compiled steps, whose operations nobody can tell apart."""
    from dfkd_bench.profiling.roofline import floors
    from dfkd_bench.profiling.roofline_table import floor_table
    from dfkd_bench.utils.timing import clock_for

    if spec.compile:
        raise UsageError("--floor times eager steps: leave out --compile")
    with console.status("recording operations") as status:
        rows = floors(job, rounds, watch=lambda k: status.update(progress(k, rounds)))
    clock = clock_for(job.context.device)[1]
    title = f"{heading(method, chosen, spec, rounds)}, {spec.precision}"
    console.print(floor_table(title, rows, chosen.pinned.batch_size, clock))


def kernels(method: str, chosen: Task, spec: RunSpec, job: Any, rounds: int, console: Console) -> None:
    """The tables of --kernels. Raises `UsageError` on a CPU."""
    from dfkd_bench.profiling.gpu_trace import kernels as traced
    from dfkd_bench.profiling.gpu_trace_table import kernels_table

    with console.status("warming up") as status:
        rows = traced(job, rounds, watch=lambda k: status.update(progress(k, rounds)))
    title = f"{heading(method, chosen, spec, rounds)}, {spec.precision}{', compiled' * spec.compile}"
    console.print(kernels_table(title, rows))


def heading(method: str, chosen: Task, spec: RunSpec, rounds: int) -> str:
    """What was timed, and how."""
    counts = [counted(spec.threads, "thread"), counted(rounds, "round")]
    return ", ".join([f"{method} on {chosen.name}", f"batch {chosen.pinned.batch_size}", spec.device, *counts])


def lever_words(options: dict[str, Any]) -> tuple[str, ...] | None:
    """The optional levers asked for with --levers, None without it. Raises `UsageError` for an unknown word."""
    from dfkd_bench.profiling.speedups import OPTIONAL
    from dfkd_bench.protocol import check_word

    if options["levers"] is None:
        return None
    if options["compiled"] or options["precision"] != "fp32":
        raise UsageError("--levers sets precision and compile by itself: name them as in --levers bf16,compile")
    words = tuple(check_word("lever", word.strip(), ("fp32", *OPTIONAL)) for word in options["levers"].split(","))
    return tuple(word for word in words if word != "fp32")


def progress(k: int, rounds: int) -> str:
    """What a round is called while it runs."""
    return "warming up" if k < 0 else f"round {k + 1} of {rounds}"


def prepare(method: str, chosen: Task, options: dict[str, Any]) -> tuple[RunSpec, Entry, Teacher | None]:
    """A specification that is good enough to be timed, no data looked at; its method, and a teacher if there is one."""
    from dfkd_bench.plugins import registry
    from dfkd_bench.runs.plan import pick_device, preset_of
    from dfkd_bench.runs.settings import SETTINGS
    from dfkd_bench.runs.spec import check_overrides, make_spec
    from dfkd_bench.teachers.registry import teacher_for

    SETTINGS["precision"].check(options["precision"])
    entry = registry.resolve(method)
    card = registry.card(entry)
    overrides = check_overrides(card, pairs_of(options["overrides"]), entry.name)
    mentor = None
    if not options["networks"]:
        with suppress(UsageError):  # there is none, and random weights will do
            mentor = teacher_for(chosen)
    preset = preset_of(card, options["preset"], entry.name)
    spec = make_spec(
        entry.name, card, chosen, preset=preset, overrides=overrides, track="pinned", budget="quick",
        device=pick_device(options["device"]), precision=options["precision"], compile=options["compiled"],
        threads=options["threads"], teacher=mentor.sha256 if mentor else "",
    )  # fmt: skip
    return spec, entry, mentor


def networks(options: dict[str, Any], name: str) -> Task:
    """The task to profile, real or made of --networks."""
    from dfkd_bench.data.base import Dataset
    from dfkd_bench.data.terms import USUAL
    from dfkd_bench.models import architecture
    from dfkd_bench.protocol import Task, task

    if options["networks"]:
        teacher, dash, student = options["networks"].partition("-")
        if not dash:
            raise UsageError(f"--networks takes TEACHER-STUDENT, got {options['networks']!r}")
        architecture(teacher), architecture(student)
        try:
            c, h, w = (int(part) for part in options["shape"].split("x"))
        except ValueError:
            raise UsageError(f"--shape takes CxHxW, such as 3x32x32, got {options['shape']!r}") from None
        facts = Dataset(
            name="random", classes=options["classes"], image_shape=(c, h, w), mean=(0.5,) * c, std=(0.25,) * c
        )
        pinned = dataclasses.replace(USUAL, generator_width=options["width"])
        chosen = Task(f"random/{options['networks']}", facts, teacher, student, pinned)
    else:
        chosen = task(name)
    if options["batch"]:
        chosen = dataclasses.replace(chosen, pinned=dataclasses.replace(chosen.pinned, batch_size=options["batch"]))
    return chosen


def table(method: str, task_name: str, spec: Any, p: Any) -> Any:
    """The profile as a rich table."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.report.terminal.runs import short

    how = f"{spec.device}, {spec.precision}{', compiled' if spec.compile else ''}, {spec.threads} threads"
    title = f"{method} on {task_name}, batch {p.batch_size}, {how}, {p.rounds} rounds"
    t = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("step", "n", "ms", "p95", "images/s", "share", "FLOP", "MFU"):
        t.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)

    def row(name: str, number: int, ms: tuple[float, float], flop: int) -> None:
        mfu = "-" if p.peak is None else f"{flop / (ms[0] / 1000) / p.peak:.1%}"
        images = 1000 * p.batch_size / ms[0]
        share = ms[0] * number / p.round_ms
        t.add_row(name, str(number), f"{ms[0]:.2f}", f"{ms[1]:.2f}", f"{images:.0f}", f"{share:.0%}", short(flop), mfu)

    if p.synthesis_ms:
        row("synthesis", p.synthesis_steps, p.synthesis_ms, p.synthesis_flop)
    row("student", p.student_steps, p.student_ms, p.student_flop)
    labelling = p.labelling_ms * p.student_steps / p.round_ms
    t.add_row("  its images, labels", "", f"{p.labelling_ms:.2f}", "", "", f"{labelling:.0%}", "", "")
    mfu = "-" if p.utilisation is None else f"{p.utilisation:.1%}"
    t.add_row(
        "whole round", "1", f"{p.round_ms:.2f}", "", f"{p.student_images_per_second:.0f}", "100%", short(p.flop), mfu
    )
    peak = "unknown" if p.peak is None else f"{p.peak / 1e9:.0f} GFLOP/s"
    t.caption = (
        f"n: steps of a round; ms: median, and 95th percentile; share: of a round; peak {peak} ({p.peak_source}); "
        "FLOP: convolutions and matrix products, 2 per multiply-add"
    )
    t.caption_justify = "left"
    return t
