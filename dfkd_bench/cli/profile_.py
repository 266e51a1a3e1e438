"""`dfkd-bench profile`: milliseconds, images per second, arithmetic and utilisation of a method's steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.errors import UsageError

if TYPE_CHECKING:
    from dfkd_bench.protocol import Task


@click.command()
@click.option("-m", "--method", required=True, metavar="NAME", help="A method or file.py:Class.")
@click.option("-t", "--task", "task_name", metavar="TASK", help="Default: the default task.")
@click.option("--networks", metavar="TEACHER-STUDENT", help="Other networks with random weights; needs no data.")
@click.option("--shape", metavar="CxHxW", default="3x32x32", show_default=True, help="Image shape for --networks.")
@click.option("--classes", default=100, show_default=True, help="Classes for --networks.")
@click.option("--width", default=64, show_default=True, help="Generator width for --networks.")
@click.option("--batch", type=int, metavar="N", help="Batch size. Default: the pinned track's.")
@click.option("--preset", metavar="NAME", help="A method's preset.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a method's setting. Repeatable.")
@click.option("--rounds", default=10, show_default=True, help="Rounds to time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--precision", default="fp32", show_default=True, help="fp32 or bf16.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the steps.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def command(method: str, task_name: str | None, **options: Any) -> None:
    """Time each step of a method in the real loop, and count its arithmetic."""
    from rich.console import Console

    from dfkd_bench.plan import Request, make_plan
    from dfkd_bench.profiling import profile
    from dfkd_bench.protocol import DEFAULT_TASK

    if options["rounds"] < 1:
        raise UsageError("--rounds takes a whole number from 1 on")
    overrides = dict(text.partition("=")[::2] for text in options["overrides"])
    request = Request(
        (method,), (task_name or DEFAULT_TASK,), preset=options["preset"], device=options["device"],
        precision=options["precision"], compile=options["compiled"], threads=options["threads"], overrides=overrides,
    )  # fmt: skip
    planned = make_plan(request, Path("runs"))[0]
    chosen, teacher = networks(options, planned.spec.task)
    job = job_for(planned, chosen, teacher, options)
    Console().print(table(method, chosen.name, planned.spec, profile(job, options["rounds"])))


def networks(options: dict[str, Any], name: str) -> tuple[Task, str | None]:
    """The task to profile; its teacher's architecture where weights are to be random."""
    from dfkd_bench.data.catalog import DatasetFacts
    from dfkd_bench.models import architecture
    from dfkd_bench.protocol import PINNED, Task, task

    chosen = task(name)
    if options["networks"]:
        teacher, dash, student = options["networks"].partition("-")
        if not dash:
            raise UsageError(f"--networks takes TEACHER-STUDENT, got {options['networks']!r}")
        architecture(teacher), architecture(student)
        try:
            c, h, w = (int(part) for part in options["shape"].split("x"))
        except ValueError:
            raise UsageError(f"--shape takes CxHxW, such as 3x32x32, got {options['shape']!r}") from None
        facts = DatasetFacts(
            "random", options["classes"], (c, h, w), (0.5,) * c, (0.25,) * c, 0, 0, 0, False, "", (), "", "no data"
        )
        pinned = dataclasses.replace(PINNED["default"], generator_width=options["width"])
        chosen = Task(f"random/{options['networks']}", facts, teacher, student, pinned)
    if options["batch"]:
        chosen = dataclasses.replace(chosen, pinned=dataclasses.replace(chosen.pinned, batch_size=options["batch"]))
    return chosen, chosen.teacher if options["networks"] else None


def job_for(planned: Any, chosen: Task, random_teacher: str | None, options: dict[str, Any]) -> Any:
    """A job ready to be stepped through."""
    from dfkd_bench import models
    from dfkd_bench.assemble import allowed_privileges, assemble
    from dfkd_bench.registry import load
    from dfkd_bench.run import prepare_device
    from dfkd_bench.teachers.registry import freeze, load_teacher

    device = prepare_device(planned.spec)
    kind, allowed = load(planned.entry), allowed_privileges(planned.entry)
    if random_teacher and kind.privileges.real_data:
        raise UsageError(f"{planned.spec.method} needs real data, which --networks does without")
    if random_teacher:
        model = models.build(random_teacher, chosen.dataset.classes, chosen.dataset.image_shape)
        teacher = freeze(model, device)
    else:
        teacher = load_teacher(planned.teacher, device)
    job, _ = assemble(planned.spec, chosen, kind, allowed, teacher, device, keeper=None)  # type: ignore[arg-type]
    return job


def table(method: str, task_name: str, spec: Any, p: Any) -> Any:
    """The profile as a rich table."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.report.summary import short

    how = f"{spec.device}, {spec.precision}{', compiled' if spec.compile else ''}, {spec.threads} threads"
    title = f"{method} on {task_name}, batch {p.batch_size}, {how}, {p.rounds} rounds"
    t = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("step", "a round", "ms (median)", "ms (p95)", "images/s", "share of round", "FLOP", "MFU"):
        t.add_column(column, justify="left" if column == "step" else "right")

    def row(name: str, number: int, ms: tuple[float, float], flop: int) -> None:
        mfu = "-" if p.peak is None else f"{flop / (ms[0] / 1000) / p.peak:.1%}"
        images = 1000 * p.batch_size / ms[0]
        share = ms[0] * number / p.round_ms
        t.add_row(name, str(number), f"{ms[0]:.2f}", f"{ms[1]:.2f}", f"{images:.0f}", f"{share:.0%}", short(flop), mfu)

    if p.synthesis_ms:
        row("synthesis", p.synthesis_steps, p.synthesis_ms, p.synthesis_flop)
    row("student", p.student_steps, p.student_ms, p.student_flop)
    t.add_row(
        "  of which sampling, labelling",
        "",
        f"{p.labelling_ms:.2f}",
        "",
        "",
        f"{p.labelling_ms * p.student_steps / p.round_ms:.0%}",
        "",
        "",
    )
    mfu = "-" if p.utilisation is None else f"{p.utilisation:.1%}"
    t.add_row(
        "whole round", "1", f"{p.round_ms:.2f}", "", f"{p.student_images_per_second:.0f}", "100%", short(p.flop), mfu
    )
    peak = "unknown" if p.peak is None else f"{p.peak / 1e9:.0f} GFLOP/s"
    t.caption = f"peak {peak} ({p.peak_source}); FLOP are convolutions and matrix products, 2 per multiply-add"
    t.caption_justify = "left"
    return t
