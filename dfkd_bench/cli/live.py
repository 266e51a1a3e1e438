"""Following a run: a live line on a terminal, plain lines elsewhere, curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dfkd_bench.errors import UsageError

if TYPE_CHECKING:
    from dfkd_bench.runs.progress import Moment, Watcher


def check_tensorboard() -> None:
    """Raise `UsageError` unless TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the extra: pip install 'dfkd-bench[tensorboard]'")


def losses_of(moment: Moment, most: int = 6) -> str:
    """The losses of a snapshot's row in short, synthetic agreement first."""
    row = moment.row or {}
    parts = []
    if "synthetic_agreement" in row:
        parts.append(f"agreement {row['synthetic_agreement']:.0f} %")
    parts += [f"{k.removeprefix('loss/')} {v:.3g}" for k, v in row.items() if k.startswith("loss/")][:most]
    return "  ".join(parts)


def rate_of(moment: Moment) -> float:
    """Student images per second since this process took the run up."""
    rounds = max(1, moment.round - max(0, moment.restarted_at))
    per_round = moment.student_images / max(1, moment.round)
    return rounds * per_round / max(1e-9, moment.seconds)


@contextmanager
def follow(console: Console, head: str, place: str, tensorboard: Path | None, folder: str) -> Iterator[Watcher]:
    """A watcher for one run, on a live line if `console` is a terminal, in plain lines otherwise."""
    if console.is_terminal and not console.quiet:
        with live(console, head, place) as show, curves(tensorboard, folder) as write:
            yield both(show, write)
    else:
        console.print(f"[{place}] {head}", markup=False, highlight=False)
        with curves(tensorboard, folder) as write:
            yield both(lambda moment: plain(console, moment), write)


def both(first: Watcher, second: Watcher) -> Watcher:
    """Two watchers as one."""

    def watch(moment: Moment) -> None:
        first(moment)
        second(moment)

    return watch


@contextmanager
def live(console: Console, head: str, place: str) -> Iterator[Watcher]:
    """A progress bar with phase, round, losses, speed and time left, and the losses of each snapshot below."""
    bar = Progress(
        TextColumn("[bold]{task.fields[phase]:<10}"), BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"), TextColumn("{task.fields[rate]:>6.0f} images/s"),
        TimeRemainingColumn(), TextColumn("[dim]{task.fields[losses]}"),
        console=console, transient=True,
    )  # fmt: skip
    console.print(f"[dim]{place}[/] [bold]{escape(head)}[/]", highlight=False)
    with bar:
        line = bar.add_task("", total=1, phase="starting", rate=0.0, losses="")

        def show(moment: Moment) -> None:
            losses: dict[str, Any] = {}
            if moment.row and moment.phase == "training":
                losses = {"losses": losses_of(moment, 4)}
            if moment.phase == "evaluation" and moment.row:
                losses = {"losses": f"test top-1 {moment.row['top1']:.2f} %"}
            total, done = (moment.rounds, max(0, moment.round))
            bar.update(line, total=total, completed=done, phase=moment.phase, rate=rate_of(moment), **losses)

        yield show


def plain(console: Console, moment: Moment) -> None:
    """One line per snapshot, and one per evaluation of the last."""
    if moment.row is None:
        return
    if moment.phase == "evaluation":
        if moment.round == moment.rounds:
            console.print(f"  evaluation: test top-1 {moment.row['top1']:.2f} %", markup=False, highlight=False)
        return
    left = moment.seconds / max(1, moment.round - max(0, moment.restarted_at)) * (moment.rounds - moment.round)
    console.print(
        f"  round {moment.round}/{moment.rounds}  {rate_of(moment):.0f} images/s  {left:.0f} s left  "
        f"{losses_of(moment)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


@contextmanager
def curves(root: Path | None, folder: str) -> Iterator[Watcher]:
    """Write every snapshot's row as TensorBoard scalars below `root`, against student images."""
    if root is None:
        yield lambda moment: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(root / folder))

    def write(moment: Moment) -> None:
        for name, value in (moment.row or {}).items():
            if name not in ("round", "student_images"):
                writer.add_scalar(name, value, moment.student_images)

    try:
        yield write
    finally:
        writer.close()


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A line of `what` done so far that moves on a terminal, and is gone at the end; nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)
