"""The state of a plan for the eye: how many runs are where, which are running, which failed and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dfkd_bench.engines.status import RunState, counts
from dfkd_bench.utils.text import method_label

COLOURS = {
    "done": "green", "diverged": "red", "failed": "red", "running": "cyan", "interrupted": "yellow", "missing": "dim",
}  # fmt: skip
SHOWN = 12  # running and failed runs listed one by one
TERMS = ("task", "track", "budget")


def plan_view(found: Sequence[RunState]) -> RenderableType:
    """Counts by method and terms, then the runs at work, then the failures."""
    parts: list[RenderableType] = [headline(found), by_method(found)]
    if running := [run for run in found if run.state == "running"]:
        parts.append(running_table(running))
    if broken := [run for run in found if run.state in ("failed", "diverged") and run.error]:
        parts.append(failures(broken))
    return Group(*parts)


def headline(found: Sequence[RunState]) -> Text:
    """`48 runs: 31 done, 2 running, 15 missing`."""
    said = [f"[{COLOURS[s]}]{n} {s}[/]" for s, n in counts(found).items() if n]
    return Text.from_markup(f"[bold]{len(found)} runs[/]: {', '.join(said) or 'none'}")


def by_method(found: Sequence[RunState]) -> RenderableType:
    """One row per task, track, budget and method."""
    groups: dict[tuple[str, ...], list[RunState]] = {}
    for run in found:
        groups.setdefault((*(str(run.spec.get(k, "")) for k in TERMS), method_label(run.spec)), []).append(run)
    used = [state for state, n in counts(found).items() if n]
    one = len({key[:-1] for key in groups}) == 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for term in () if one else TERMS:
        table.add_column(term, overflow="fold")
    table.add_column("method", overflow="fold")
    for state in used:
        table.add_column(state, justify="right", style=COLOURS[state])
    for key, runs in sorted(groups.items()):
        counted = counts(runs)
        table.add_row(*(escape(k) for k in (key[-1:] if one else key)), *(str(counted[s] or "") for s in used))
    return Group(Text(" · ".join(next(iter(groups))[:-1])), table) if one else table


def running_table(running: Sequence[RunState]) -> Table:
    """The runs somebody is at, each with a bar."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for run in running[:SHOWN]:
        left = "" if run.seconds_left is None else duration(run.seconds_left) + " left"
        bar = ProgressBar(max(1, run.rounds), run.round, width=24)
        table.add_row(escape(name_of(run.spec)), bar, f"{run.round}/{run.rounds}", left, escape(run.host))
    if len(running) > SHOWN:
        table.add_row(f"... and {len(running) - SHOWN} more")
    return table


def failures(broken: Sequence[RunState]) -> Table:
    """The runs that failed, each with its word."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for run in broken[:SHOWN]:
        table.add_row(f"[red]{run.state}[/]", escape(name_of(run.spec)), escape(run.error))
    if len(broken) > SHOWN:
        table.add_row("", f"... and {len(broken) - SHOWN} more")
    return table


def name_of(spec: dict[str, Any]) -> str:
    """`method · task · track/budget · seed 0`."""
    task, track, budget, seed = (spec.get(k) for k in ("task", "track", "budget", "seed"))
    return f"{method_label(spec)} · {task} · {track}/{budget} · seed {seed}"


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
