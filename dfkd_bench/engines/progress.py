"""The state of a plan for the terminal: number of runs per state, the running ones, the failed ones with reasons."""

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


def plan_view(runs: Sequence[RunState]) -> RenderableType:
    """Counts by method and terms, then the running and the failed runs."""
    parts: list[RenderableType] = [headline(runs), by_method(runs)]
    if running := [run for run in runs if run.state == "running"]:
        parts.append(running_table(running))
    if failed := [run for run in runs if run.state in ("failed", "diverged") and run.error]:
        parts.append(failures(failed))
    return Group(*parts)


def headline(runs: Sequence[RunState]) -> Text:
    """`48 runs: 31 done, 2 running, 15 missing`."""
    words = [f"[{COLOURS[s]}]{n} {s}[/]" for s, n in counts(runs).items() if n]
    return Text.from_markup(f"[bold]{len(runs)} runs[/]: {', '.join(words) or 'none'}")


def by_method(runs: Sequence[RunState]) -> RenderableType:
    """One row per task, track, budget and method."""
    groups: dict[tuple[str, ...], list[RunState]] = {}
    for run in runs:
        groups.setdefault((*(str(run.spec.get(k, "")) for k in TERMS), method_label(run.spec)), []).append(run)
    used = [state for state, n in counts(runs).items() if n]
    same_terms = len({key[:-1] for key in groups}) == 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for term in () if same_terms else TERMS:
        table.add_column(term, overflow="fold")
    table.add_column("method", overflow="fold")
    for state in used:
        table.add_column(state, justify="right", style=COLOURS[state])
    for key, group in sorted(groups.items()):
        counted = counts(group)
        table.add_row(*(escape(k) for k in (key[-1:] if same_terms else key)), *(str(counted[s] or "") for s in used))
    return Group(Text(" · ".join(next(iter(groups))[:-1])), table) if same_terms else table


def running_table(running: Sequence[RunState]) -> Table:
    """The running runs, each with a progress bar."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for run in running[:SHOWN]:
        left = "" if run.seconds_left is None else duration(run.seconds_left) + " left"
        bar = ProgressBar(max(1, run.rounds), run.round, width=24)
        table.add_row(escape(name_of(run.spec)), bar, f"{run.round}/{run.rounds}", left, escape(run.host))
    if len(running) > SHOWN:
        table.add_row(f"... and {len(running) - SHOWN} more")
    return table


def failures(failed: Sequence[RunState]) -> Table:
    """The failed runs, each with its error."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for run in failed[:SHOWN]:
        table.add_row(f"[red]{run.state}[/]", escape(name_of(run.spec)), escape(run.error))
    if len(failed) > SHOWN:
        table.add_row("", f"... and {len(failed) - SHOWN} more")
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
