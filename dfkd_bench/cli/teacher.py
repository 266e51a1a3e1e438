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
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads; their number changes bits."
)


@click.group(name="teacher")
def command() -> None:
    """List, train, verify and import teachers."""


@command.command("list")
def list_() -> None:
    """Every registered teacher: those that ship and your own."""
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
            help="CPU threads; they change bits. Default: the recipe's.",
        ),
        DEVICE,
        DATA_DIR,
        click.option("-o", "--out", type=PATH, metavar="FILE.safetensors", help="Write the weights here too."),
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
def train(**words: Any) -> None:
    """Train a teacher by the benchmark's recipe.

    It is registered under its name, unless that is taken: then it is compared with the registered one, bit for bit.
    After an interruption the same command goes on where it stood.
    """
    teach_and_register(rate=0.0, **words)


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
def noise(**words: Any) -> None:
    """Train a teacher on partly wrong labels, by the same recipe.

    Which labels, and what becomes of them, is fixed by the seed. Such a teacher is used only where it is named.
    """
    teach_and_register(**words)


def teach_and_register(
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
    """What `train` and `noise` share. Raises `UsageError` before anything is trained."""
    from dfkd_bench.data.find import dataset
    from dfkd_bench.models import architecture
    from dfkd_bench.teachers.registry import teachers

    data, slash, arch = target.rpartition("/")  # a folder may have slashes of its own
    if not (data and slash and arch):
        raise UsageError(f"name dataset and model as DATASET/MODEL, such as digits16/cnn32; got {target!r}")
    dataset(data), architecture(arch)
    if out is not None and (out.suffix != ".safetensors" or not out.parent.is_dir()):
        raise UsageError(f"--out names a .safetensors file in a folder that exists, got {str(out)!r}")

    from rich.console import Console

    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.teachers import add
    from dfkd_bench.teachers.train import Training, recipe_of
    from dfkd_bench.utils.device import configure_device
    from dfkd_bench.utils.files import write_atomic

    recipe = recipe_of(data, arch).changed(epochs, batch, lr, weight_decay)
    training = Training(data, arch, seed, recipe, rate, precision)
    name = add.check_name(name or add.default_name(training))
    taken = teachers().get(name)
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    place = configure_device(pick_device(device), threads or recipe.threads)
    with progress(console, f"teacher {name}") as report:
        taught = add.train_new(training, name, place, report)
    say(f"top-1 on the test split: {taught.top1:.2f} %")
    say(f"SHA-256: {taught.sha256}")
    if out is not None:
        write_atomic(out, taught.payload)
        say(f"written: {out}")
    if taken is None:
        stored = add.add_trained(name, training, taught, place)
        say(f"registered as {name}: {stored.path}")
    else:
        same = taken.sha256 == taught.sha256
        found = "equals it bit for bit" if same else f"differs from it (SHA-256 {taken.sha256[:12]})"
        keep = "" if out or same else "; --name or --out keeps this one"
        say(f"{name} is registered already: this one {found}{keep}")
    add.drop_checkpoint(name)


@contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[int, int, float], None]]:
    """A report for `train_teacher`: a bar on a terminal, a line per quarter of the epochs elsewhere."""
    if not console.is_terminal:
        heard = 0

        def lines(epoch: int, epochs: int, loss: float) -> None:
            nonlocal heard
            resumed = "goes on from " if not heard and epoch > 1 else ""
            line = f"{what}: {resumed}epoch {epoch}/{epochs}, loss {loss:.4f}"
            if epoch * 4 // epochs > heard * 4 // epochs or resumed:
                console.print(line, markup=False, highlight=False)
            heard = epoch

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
    """Check bytes and accuracy of the named teachers, or of all.

    Of all, those whose dataset is not on this machine are checked by their bytes alone.
    """
    from dfkd_bench.teachers.registry import teacher, teachers

    chosen = [teacher(name) for name in names] or list(teachers().values())

    from rich.console import Console
    from rich.markup import escape

    from dfkd_bench.report.terminal.listing import table_of
    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.teachers.verify import verify as examine
    from dfkd_bench.utils.device import configure_device

    place = configure_device(pick_device(device), threads)
    verdicts = [examine(one, place, bytes_suffice=not names) for one in chosen]
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
@click.option("--dataset", "data", required=True, metavar="NAME", help="What it was trained on.")
@click.option("--arch", required=True, metavar="MODEL", help="Its architecture.")
@click.option("--name", required=True, metavar="NAME", help="What to call it here.")
@click.option("--mean", metavar="A,B,C", help="Its normalisation, of brightness 0..1. Default: the dataset's.")
@click.option("--std", metavar="A,B,C", help="Its normalisation, of brightness 0..1. Default: the dataset's.")
@click.option(
    "--shortcut", default="auto", show_default=True, metavar="A|B|auto", help="Padded or projected; auto: by the file."
)
@click.option("--origin", default="", metavar="TEXT", help="Where it comes from.")
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

    FILE is safetensors or a torch checkpoint; code inside it is never run. Names of weights may be those of the common
    public models: they are matched by rule, and what is not certain is refused.
    """
    from dfkd_bench.runs.plan import pick_device
    from dfkd_bench.teachers.add import TeacherFile, add_file
    from dfkd_bench.utils.device import configure_device

    offer = TeacherFile(file, data, arch, name, numbers("--mean", mean), numbers("--std", std), shortcut, origin)
    brought = add_file(offer, configure_device(pick_device(device), threads))
    stored = brought.teacher
    if brought.warning:
        click.echo(f"warning: {brought.warning}", err=True)
    click.echo(
        f"registered {stored.name}: top-1 {stored.top1:.2f} % on {data}, weights matched {brought.matched}, "
        f"SHA-256 {stored.sha256}"
    )


def numbers(option: str, text: str | None) -> tuple[float, ...]:
    """`0.4,0.5` as numbers, nothing as none. Raises `UsageError` for anything else."""
    try:
        return tuple(float(word) for word in text.split(",")) if text is not None else ()
    except ValueError:
        raise UsageError(
            f"{option} takes numbers with commas between them, such as 0.485,0.456,0.406; got {text!r}"
        ) from None
