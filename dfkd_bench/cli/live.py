"""Progress of a run: a live line on a terminal, otherwise plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from dfkd_bench.runs.loggers import Log
    from dfkd_bench.runs.progress import Callback, ProgressEvent


def losses_of(event: ProgressEvent, most: int = 6) -> str:
    """Synthetic agreement and the first `most` losses of a snapshot's row, as text."""
    row = event.row or {}
    parts = []
    if "synthetic_agreement" in row:
        parts.append(f"agreement {row['synthetic_agreement']:.0f} %")
    parts += [f"{k.removeprefix('loss/')} {v:.3g}" for k, v in row.items() if k.startswith("loss/")][:most]
    return "  ".join(parts)


def rate_of(event: ProgressEvent) -> float:
    """Student images per second since this process started or resumed the run."""
    rounds = max(1, event.round - max(0, event.restarted_at))
    per_round = event.student_images / max(1, event.round)
    return rounds * per_round / max(1e-9, event.seconds)


def logs_of(options: dict[str, Any]) -> tuple[Log, ...]:
    """The loggers of `--log` and `--tensorboard`, checked."""
    from dfkd_bench.runs.loggers import parse_logs

    words = [*options["logs"], *([f"tensorboard={options['tensorboard']}"] if options["tensorboard"] else [])]
    return parse_logs(words, options["results"])


@contextmanager
def follow(console: Console, head: str, place: str) -> Iterator[Callback]:
    """A callback for one run: a live line if `console` is a terminal, otherwise plain lines."""
    if console.is_terminal and not console.quiet:
        with live(console, head, place) as show:
            yield show
    else:
        console.print(f"[{place}] {head}", markup=False, highlight=False)
        yield lambda event: plain(console, event)


@contextmanager
def live(console: Console, head: str, place: str) -> Iterator[Callback]:
    """A callback that updates a progress bar with phase, round, speed, time left and the last losses."""
    bar = Progress(
        TextColumn("[bold]{task.fields[phase]:<10}"), BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"), TextColumn("{task.fields[rate]:>6.0f} images/s"),
        TimeRemainingColumn(), TextColumn("[dim]{task.fields[losses]}"),
        console=console, transient=True,
    )  # fmt: skip
    console.print(f"[dim]{place}[/] [bold]{escape(head)}[/]", highlight=False)
    with bar:
        line = bar.add_task("", total=1, phase="starting", rate=0.0, losses="")

        def show(event: ProgressEvent) -> None:
            losses: dict[str, Any] = {}
            if event.row and event.phase == "training":
                losses = {"losses": losses_of(event, 4)}
            if event.phase == "evaluation" and event.row:
                losses = {"losses": f"test top-1 {event.row['top1']:.2f} %"}
            total, done = (event.rounds, max(0, event.round))
            bar.update(line, total=total, completed=done, phase=event.phase, rate=rate_of(event), **losses)

        yield show


def plain(console: Console, event: ProgressEvent) -> None:
    """Print one line per snapshot, and one for the evaluation of the last snapshot."""
    if event.row is None:
        return
    if event.phase == "evaluation":
        if event.round == event.rounds:
            console.print(f"  evaluation: test top-1 {event.row['top1']:.2f} %", markup=False, highlight=False)
        return
    left = event.seconds / max(1, event.round - max(0, event.restarted_at)) * (event.rounds - event.round)
    console.print(
        f"  round {event.round}/{event.rounds}  {rate_of(event):.0f} images/s  {left:.0f} s left  "
        f"{losses_of(event)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` with a temporary progress bar on a terminal; it prints nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)
