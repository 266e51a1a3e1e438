"""`dfkd-bench teacher`: list, train, verify and import teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfkd_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

DEVICE = click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
THREADS = click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads; their number changes bits."
)


@click.group(name="teacher")
def command() -> None:
    """List, train, verify and import teachers."""


@command.command("list")
def list_() -> None:
    """Every registered teacher: those that ship and your own."""
    from rich.console import Console

    from dfkd_bench.report.listing import teacher_list

    Console().print(teacher_list())


@command.command()
@click.argument("target", metavar="DATASET/MODEL")
@click.option("-s", "--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--name", metavar="NAME", help="Default: DATASET-MODEL-sSEED.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Write the weights here too."
)
@DEVICE
@THREADS
def train(target: str, seed: int, name: str | None, out: Path | None, device: str, threads: int) -> None:
    """Train a teacher by the benchmark's recipe.

    It is registered under its name, unless that is taken: then it is compared with the registered one, bit for bit.
    """
    from dfkd_bench.data.catalog import dataset
    from dfkd_bench.models import architecture
    from dfkd_bench.teachers.registry import teachers

    data, slash, arch = target.partition("/")
    if not (data and slash and arch):
        raise UsageError(f"name dataset and model as DATASET/MODEL, such as digits16/cnn32; got {target!r}")
    dataset(data), architecture(arch)
    name = name or f"{data}-{arch}-s{seed}"
    if out is not None and (out.suffix != ".safetensors" or not out.parent.is_dir()):
        raise UsageError(f"--out names a .safetensors file in a folder that exists, got {str(out)!r}")

    from rich.console import Console

    from dfkd_bench.device import settle
    from dfkd_bench.files import write_atomic
    from dfkd_bench.plan import pick_device
    from dfkd_bench.teachers.bring import add_trained, check_name
    from dfkd_bench.teachers.registry import payload_of
    from dfkd_bench.teachers.train import measure_top1, recipe_of, train_teacher

    check_name(name)
    taken = teachers().get(name)
    console = Console()
    place, recipe = settle(pick_device(device), threads), recipe_of(data)
    with progress(console, f"teacher {name}") as report:
        model = train_teacher(data, arch, seed, place, recipe, report)
    top1 = measure_top1(model, data, place)
    payload, sha256 = payload_of(model.state_dict())
    console.print(f"top-1 on the test split: {top1:.2f} %", markup=False, highlight=False)
    console.print(f"SHA-256: {sha256}", markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        write_atomic(out, payload)
        console.print(f"written: {out}", markup=False, highlight=False, soft_wrap=True)
    if taken is None:
        stored = add_trained(name, arch, data, seed, model, top1, recipe)
        console.print(f"registered as {name}: {stored.path}", markup=False, highlight=False, soft_wrap=True)
        return
    same = "equals it bit for bit" if taken.sha256 == sha256 else f"differs from it (SHA-256 {taken.sha256[:12]})"
    keep = "" if out else "; --name or --out keeps this one"
    console.print(f"{name} is registered already: this one {same}{keep}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[int, int, float], None]]:
    """A report for `train_teacher`: a bar on a terminal, a line per quarter of the epochs elsewhere."""
    if not console.is_terminal:

        def lines(epoch: int, epochs: int, loss: float) -> None:
            if epoch % max(1, epochs // 4) == 0 or epoch == epochs:
                console.print(f"{what}: epoch {epoch}/{epochs}, loss {loss:.4f}", markup=False, highlight=False)

        yield lines
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("epochs, loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        line = bar.add_task(what, total=1, loss=float("nan"))
        yield lambda epoch, epochs, loss: bar.update(line, completed=epoch, total=epochs, loss=loss)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@DEVICE
@THREADS
def verify(names: tuple[str, ...], device: str, threads: int) -> None:
    """Check bytes and accuracy of the named teachers, or of all."""
    from dfkd_bench.teachers.registry import teacher, teachers

    chosen = [teacher(name) for name in names] or list(teachers().values())

    from rich.console import Console
    from rich.markup import escape

    from dfkd_bench.device import settle
    from dfkd_bench.plan import pick_device
    from dfkd_bench.report.listing import table_of
    from dfkd_bench.teachers.verify import verify as examine

    place = settle(pick_device(device), threads)
    verdicts = [examine(one, place) for one in chosen]
    rows = [
        [
            escape(v.teacher.name),
            f"{v.teacher.top1:.2f}",
            "-" if v.measured is None else f"{v.measured:.2f}",
            v.teacher.sha256[:12],
            "[red]no[/]" if v.problem else "[green]yes[/]",
        ]
        for v in verdicts
    ]
    columns = ("teacher", ">registered %", ">measured %", "SHA-256", "as registered")
    Console().print(table_of("", columns, rows))
    problems = [v.problem for v in verdicts if v.problem]
    for problem in problems[:-1]:
        click.echo(f"error: {problem}", err=True)
    if problems:
        raise RunError(problems[-1])


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", "data", required=True, metavar="NAME", help="What it was trained on.")
@click.option("--arch", required=True, metavar="MODEL", help="Its architecture.")
@click.option("--name", required=True, metavar="NAME", help="What to call it here.")
@click.option("--origin", default="", metavar="TEXT", help="Where it comes from.")
@DEVICE
@THREADS
def import_(file: Path, data: str, arch: str, name: str, origin: str, device: str, threads: int) -> None:
    """Register a teacher from a file of weights.

    FILE is safetensors or a plain torch state dict; code inside it is never run.
    """
    from dfkd_bench.device import settle
    from dfkd_bench.plan import pick_device
    from dfkd_bench.teachers.bring import add_file

    stored = add_file(file, data, arch, name, origin, settle(pick_device(device), threads))
    click.echo(f"registered {stored.name}: top-1 {stored.top1:.2f} % on {data}, SHA-256 {stored.sha256}")
