"""`dfkd-bench status`: how far the plans of a results folder are, from its files alone."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dfkd_bench.cli.options import results_of


@click.command()
@results_of()
@click.option("--watch", is_flag=True, help="Keep looking until nothing is running or missing; Ctrl-C ends it.")
@click.option("--every", type=float, default=2.0, show_default=True, metavar="SECONDS", help="Pause between two looks.")
def command(results: Path, watch: bool, every: float) -> None:
    """What of the plans in a results folder is done, running, failed, interrupted or missing.

    Reads files alone, so it may be asked from any machine that sees them. Exit status 1 where a run failed.
    """
    from rich.console import Console
    from rich.live import Live

    from dfkd_bench.engines.progress import plan_view
    from dfkd_bench.engines.status import counts, states

    console = Console()
    found = states(results)

    def going_on() -> bool:
        return any(counts(found)[state] for state in ("running", "interrupted", "missing"))

    if watch and console.is_terminal:
        with Live(plan_view(found), console=console, auto_refresh=False) as live:
            while going_on():
                time.sleep(every)
                found = states(results)
                live.update(plan_view(found), refresh=True)
    else:
        console.print(plan_view(found))
        while watch and going_on():
            time.sleep(every)
            found = states(results)
            console.print(plan_view(found))
    if counts(found)["failed"]:
        click.get_current_context().exit(1)
