"""`dfkd-bench teacher`: list, train, verify and import teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from dfkd_bench.cli.options import DATA_DIR, PATH
from dfkd_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])
DEVICE = click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
THREADS = click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads; results depend on the number."
)


@click.group(name="teacher")
def command() -> None:
    """List, train, verify and import teachers."""


@command.command("list")
def list_() -> None:
    """List every registered teacher: those of the package and your own."""
    from rich.console import Console
    from rich.markup import escape

    from dfkd_bench.report.terminal.listing import table_of
    from dfkd_bench.teachers.table import COLUMNS, rows

    Console().print(table_of("teachers", COLUMNS, [[escape(cell) for cell in row] for row in rows()]))


def training_options(function: F) -> F:
    """Options of the commands that train."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(1),
            metavar="N",
            help="CPU threads; results depend on the number. Default: the recipe's.",
        ),
        DEVICE,
        DATA_DIR,
        click.option("-o", "--out", type=PATH, metavar="FILE.safetensors", help="Also write the weights to this file."),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16"]),
            default="fp32",
            show_default=True,
            help="bf16: autocast.",
        ),
        click.option("--weight-decay", type=click.FloatRange(0), help="Default: the recipe's."),
        click.option("--lr", type=click.FloatRange(0, min_open=True), help="Default: the recipe's."),
        click.option("--batch", type=click.IntRange(1), metavar="N", help="Default: the recipe's."),
        click.option("--epochs", type=click.IntRange(1), metavar="N", help="Default: the recipe's."),
        click.option("-s", "--seed", type=click.IntRange(0), default=0, show_default=True),
        click.argument("target", metavar="DATASET/MODEL"),
    ):
        function = option(function)
    return function


@command.command()
@training_options
@click.option("--name", metavar="NAME", help="Default: DATASET-MODEL-sSEED.")
def train(**options: Any) -> None:
    """Train a teacher with the benchmark's recipe and register it.

    If the name is registered already, the new teacher is compared with the registered one, bit for bit, instead.
    After an interruption, the same command resumes.
    """
    train_and_register(rate=0.0, **options)


@command.command()
@training_options
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the training labels that are replaced by another class.",
)
@click.option("--name", metavar="NAME", help="Default: DATASET-MODEL-sSEED-noisePERCENT.")
def noise(**options: Any) -> None:
    """Train a teacher on partly wrong labels, with the same recipe.

    The seed determines which labels are replaced and by what. Such a teacher is used only if it is selected by name.
    """
    train_and_register(**options)


def train_and_register(
    target: str,
    seed: int,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    weight_decay: float | None,
    precision: Literal["fp32", "bf16"],
    rate: float,
    name: str | None,
    out: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Common part of `train` and `noise`. Raises `UsageError` before training starts."""
    from dfkd_bench.data.find import dataset
    from dfkd_bench.models import architecture
    from dfkd_bench.teachers.registry import teachers

    data, slash, arch = target.rpartition("/")  # a dataset that is a folder may contain slashes
    if not (data and slash and arch):
        raise UsageError(f"name dataset and model as DATASET/MODEL, such as digits16/cnn32; got {target!r}")
    dataset(data), architecture(arch)
    if out is not None and (out.suffix != ".safetensors" or not out.parent.is_dir()):
        raise UsageError(f"--out must name a .safetensors file in an existing folder, got {str(out)!r}")

    from rich.console import Console

    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.teachers import add
    from dfkd_bench.teachers.train import Training, recipe_of
    from dfkd_bench.utils.device import configure_device
    from dfkd_bench.utils.files import write_atomic

    recipe = recipe_of(data, arch).changed(epochs, batch, lr, weight_decay)
    training = Training(data, arch, seed, recipe, rate, precision)
    name = add.check_name(name or add.default_name(training))
    registered = teachers().get(name)
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    torch_device = configure_device(pick_device(device), threads or recipe.threads)
    with progress(console, f"teacher {name}") as on_epoch:
        trained = add.train_new(training, name, torch_device, on_epoch)
    say(f"top-1 on the test split: {trained.top1:.2f} %")
    say(f"SHA-256: {trained.sha256}")
    if out is not None:
        write_atomic(out, trained.payload)
        say(f"written: {out}")
    if registered is None:
        stored = add.add_trained(name, training, trained, torch_device)
        say(f"registered as {name}: {stored.path}")
    else:
        same = registered.sha256 == trained.sha256
        result = "equals it bit for bit" if same else f"differs from it (SHA-256 {registered.sha256[:12]})"
        hint = "" if out or same else "; --name or --out keeps this one"
        say(f"{name} is registered already: this one {result}{hint}")
    add.drop_checkpoint(name)


@contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[int, int, float], None]]:
    """A callback for `train_teacher`: a bar on a terminal, otherwise a line per quarter of the epochs."""
    if not console.is_terminal:
        last = 0

        def lines(epoch: int, epochs: int, loss: float) -> None:
            nonlocal last
            resumed = "resumed at " if not last and epoch > 1 else ""
            line = f"{what}: {resumed}epoch {epoch}/{epochs}, loss {loss:.4f}"
            if epoch * 4 // epochs > last * 4 // epochs or resumed:
                console.print(line, markup=False, highlight=False)
            last = epoch

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
@DATA_DIR
@DEVICE
@THREADS
def verify(names: tuple[str, ...], device: str, threads: int) -> None:
    """Check the digest and the accuracy of the named teachers, or of all.

    Without names, teachers whose dataset is not on this machine are checked by their digest only.
    """
    from dfkd_bench.teachers.registry import teacher, teachers

    selected = [teacher(name) for name in names] or list(teachers().values())

    from rich.console import Console
    from rich.markup import escape

    from dfkd_bench.report.terminal.listing import table_of
    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.teachers.verify import verify as examine
    from dfkd_bench.utils.device import configure_device

    torch_device = configure_device(pick_device(device), threads)
    verdicts = [examine(one, torch_device, bytes_suffice=not names) for one in selected]
    rows = [
        [
            escape(v.teacher.name),
            f"{v.teacher.top1:.2f}",
            "-" if v.measured is None else f"{v.measured:.2f}",
            v.teacher.sha256[:12],
            "[red]no[/]" if v.problem else "[yellow]bytes only[/]" if v.measured is None else "[green]yes[/]",
        ]
        for v in verdicts
    ]
    columns = ("teacher", ">registered %", ">measured %", "SHA-256", "as registered")
    note = "bytes only: the dataset is not on this machine" if any("bytes" in row[-1] for row in rows) else ""
    Console().print(table_of("", columns, rows, note))
    problems = [v.problem for v in verdicts if v.problem]
    for problem in problems[:-1]:
        click.echo(f"error: {problem}", err=True)
    if problems:
        raise RunError(problems[-1])


@command.command("import")
@click.argument("file", type=PATH)
@click.option("--dataset", "data", required=True, metavar="NAME", help="Dataset it was trained on.")
@click.option("--arch", required=True, metavar="MODEL", help="Its architecture.")
@click.option("--name", required=True, metavar="NAME", help="Name to register it under.")
@click.option("--mean", metavar="A,B,C", help="Mean per channel of its inputs in [0, 1]. Default: the dataset's.")
@click.option("--std", metavar="A,B,C", help="Standard deviation per channel. Default: the dataset's.")
@click.option(
    "--shortcut", default="auto", show_default=True, metavar="A|B|auto",
    help="Shortcuts: A padded, B projected, auto: as in the file.",
)  # fmt: skip
@click.option("--origin", default="", metavar="TEXT", help="Source of the file, stored with the teacher.")
@DATA_DIR
@DEVICE
@THREADS
def import_(
    file: Path,
    data: str,
    arch: str,
    name: str,
    mean: str | None,
    std: str | None,
    shortcut: str,
    origin: str,
    device: str,
    threads: int,
) -> None:
    """Register a teacher from a file of weights.

    FILE is safetensors or a torch checkpoint; code inside it is never run. Weight names of common public models are
    matched by fixed rules; an ambiguous match is an error.
    """
    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.teachers.add import TeacherFile, add_file
    from dfkd_bench.utils.device import configure_device

    teacher_file = TeacherFile(file, data, arch, name, numbers("--mean", mean), numbers("--std", std), shortcut, origin)
    added = add_file(teacher_file, configure_device(pick_device(device), threads))
    stored = added.teacher
    if added.warning:
        click.echo(f"warning: {added.warning}", err=True)
    click.echo(
        f"registered {stored.name}: top-1 {stored.top1:.2f} % on {data}, weights matched {added.matched}, "
        f"SHA-256 {stored.sha256}"
    )


def numbers(option: str, text: str | None) -> tuple[float, ...]:
    """The numbers of `0.4,0.5`; empty for None. Raises `UsageError` for another form."""
    try:
        return tuple(float(word) for word in text.split(",")) if text is not None else ()
    except ValueError:
        raise UsageError(
            f"{option} takes numbers with commas between them, such as 0.485,0.456,0.406; got {text!r}"
        ) from None
