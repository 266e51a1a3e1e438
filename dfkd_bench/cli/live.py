"""Following a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from dfkd_bench.runs.loggers import Log
    from dfkd_bench.runs.progress import Moment, Watcher


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


def logs_of(options: dict[str, Any]) -> tuple[Log, ...]:
    """The loggers that `--log` and `--tensorboard` ask for, checked."""
    from dfkd_bench.runs.loggers import asked

    words = [*options["logs"], *([f"tensorboard={options['tensorboard']}"] if options["tensorboard"] else [])]
    return asked(words, options["results"])


@contextmanager
def follow(console: Console, head: str, place: str) -> Iterator[Watcher]:
    """A watcher for one run, on a live line if `console` is a terminal, in plain lines otherwise."""
    if console.is_terminal and not console.quiet:
        with live(console, head, place) as show:
            yield show
    else:
        console.print(f"[{place}] {head}", markup=False, highlight=False)
        yield lambda moment: plain(console, moment)


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
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A line of `what` done so far that moves on a terminal, and is gone at the end; nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)
