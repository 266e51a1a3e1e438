"""`dfkd-bench profile`: milliseconds, images per second, arithmetic and utilisation of a method's steps."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import pairs_of
from dfkd_bench.errors import UsageError

if TYPE_CHECKING:
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
def command(method: str, task_name: str | None, **options: Any) -> None:
    """Time each step of a method in the real loop, and count its arithmetic. Reads no data."""
    from rich.console import Console

    from dfkd_bench.profiling.steps import profile
    from dfkd_bench.protocol import DEFAULT_TASK
    from dfkd_bench.training.dry_run import job_for

    console = Console()
    chosen = networks(options, task_name or DEFAULT_TASK)
    spec, entry, teacher_entry = prepare(method, chosen, options)
    if teacher_entry is None and not options["networks"]:
        console.print(
            f"no teacher registered for {chosen.name}: random weights, which take the same time",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    job = job_for(spec, entry, teacher_entry, chosen)
    console.print(table(method, chosen.name, spec, profile(job, options["rounds"])))


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
    teacher_entry = None
    if not options["networks"]:
        with suppress(UsageError):  # there is none, and random weights will do
            teacher_entry = teacher_for(chosen)
    preset = preset_of(card, options["preset"], entry.name)
    spec = make_spec(
        entry.name, card, chosen, preset=preset, overrides=overrides, track="pinned", budget="quick",
        device=pick_device(options["device"]), precision=options["precision"], compile=options["compiled"],
        threads=options["threads"], teacher=teacher_entry.sha256 if teacher_entry else "",
    )  # fmt: skip
    return spec, entry, teacher_entry


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
