"""`dfkd-bench prune`: remove leftover files of interrupted runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import results_of
from dfkd_bench.utils.text import counted

if TYPE_CHECKING:
    from dfkd_bench.results.prune import Leftover

SHOWN = 12  # items listed per kind


@click.command()
@results_of()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, remove nothing.")
def command(results: Path, yes: bool, dry_run: bool) -> None:
    """Remove leftovers of interrupted runs below a results folder, after confirmation.

    Removed are: checkpoints and snapshots of finished runs, folders of interrupted runs that no process is executing
    (such a run starts again from round 0), half-written files and, confirmed separately, plans whose runs are all
    done. Records and checkpoints of failed runs are kept. Runs that a process is executing are not touched.
    """
    from rich.console import Console

    from dfkd_bench.results.prune import leftovers, remove

    console = Console()
    items = leftovers(results)
    if not items:
        console.print(f"nothing to remove below {results}", markup=False, highlight=False)
        return
    console.print(table(items, results))
    if dry_run:
        return
    plans = [item for item in items if item.kind == "plan"]
    rest = [item for item in items if item.kind != "plan"]
    removed: list[Leftover] = []
    kept = 0
    for what, group in ((f"{total_size(rest)} of leftovers", rest), (counted(len(plans), "plan"), plans)):
        if group and (yes or click.confirm(f"Remove {what}?")):
            done = [item for item in group if remove(item)]
            removed += done
            kept += len(group) - len(done)
    busy = f"; {kept} kept, in use by another process" if kept else ""
    console.print(
        f"removed {counted(len(removed), 'leftover')}, {total_size(removed)}{busy}", markup=False, highlight=False
    )


def table(leftovers: Sequence[Leftover], results: Path) -> Any:
    """The leftovers by kind, with sizes."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.results.prune import KINDS

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column("what")
    rows.add_column("where", overflow="fold")
    rows.add_column("size", justify="right", no_wrap=True)
    for kind, meaning in KINDS.items():
        items = [item for item in leftovers if item.kind == kind]
        for k, item in enumerate(items[:SHOWN]):
            where = escape(str(item.path.relative_to(results)))
            rows.add_row(meaning if k == 0 else "", where, total_size([item]))
        if len(items) > SHOWN:
            rows.add_row("", f"... and {len(items) - SHOWN} more", total_size(items[SHOWN:]))
    rows.caption, rows.caption_justify = f"{counted(len(leftovers), 'leftover')}, {total_size(leftovers)}", "left"
    return rows


def total_size(items: Sequence[Leftover]) -> str:
    """The size of all items together, such as `3.1 MB`."""
    size = float(sum(item.size for item in items))
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
