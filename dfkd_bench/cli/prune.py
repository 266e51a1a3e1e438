"""`dfkd-bench prune`: be rid of what interrupted runs left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import results_of
from dfkd_bench.utils.text import counted

if TYPE_CHECKING:
    from dfkd_bench.results.prune import Leftover

SHOWN = 12  # of each kind, one by one


@click.command()
@results_of()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would go, remove nothing.")
def command(results: Path, yes: bool, dry_run: bool) -> None:
    """Remove leftovers of interrupted runs below a results folder, after asking.

    What goes: checkpoints and snapshots of finished runs, folders of interrupted runs that nobody is at (they begin
    anew when they are asked for again), half-written files and, asked apart, plans whose runs are all done. Records
    stay, failed runs keep their checkpoints, and a run that somebody is at is not touched.
    """
    from rich.console import Console

    from dfkd_bench.results.prune import leftovers, remove

    console = Console()
    found = leftovers(results)
    if not found:
        console.print(f"nothing to remove below {results}", markup=False, highlight=False)
        return
    console.print(table(found, results))
    if dry_run:
        return
    plans = [item for item in found if item.kind == "plan"]
    rest = [item for item in found if item.kind != "plan"]
    gone: list[Leftover] = []
    kept = 0
    for what, items in ((f"{amount(rest)} of leftovers", rest), (counted(len(plans), "plan"), plans)):
        if items and (yes or click.confirm(f"Remove {what}?")):
            done = [item for item in items if remove(item)]
            gone += done
            kept += len(items) - len(done)
    busy = f"; {kept} left alone, as somebody is at them now" if kept else ""
    console.print(f"removed {counted(len(gone), 'leftover')}, {amount(gone)}{busy}", markup=False, highlight=False)


def table(found: Sequence[Leftover], results: Path) -> Any:
    """What there is, by kind, with sizes."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.results.prune import KINDS

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("what")
    made.add_column("where", overflow="fold")
    made.add_column("size", justify="right", no_wrap=True)
    for kind, meaning in KINDS.items():
        items = [item for item in found if item.kind == kind]
        for k, item in enumerate(items[:SHOWN]):
            where = escape(str(item.path.relative_to(results)))
            made.add_row(meaning if k == 0 else "", where, amount([item]))
        if len(items) > SHOWN:
            made.add_row("", f"... and {len(items) - SHOWN} more", amount(items[SHOWN:]))
    made.caption, made.caption_justify = f"{counted(len(found), 'leftover')}, {amount(found)}", "left"
    return made


def amount(items: Sequence[Leftover]) -> str:
    """`3.1 MB` of all of these."""
    size = float(sum(item.size for item in items))
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
