"""`dfkd-bench status`: the state of the plans of a results folder, read from its files."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dfkd_bench.cli.options import results_of


@click.command()
@results_of()
@click.option("--watch", is_flag=True, help="Repeat until nothing is running or missing; Ctrl-C stops it.")
@click.option("--every", type=float, default=2.0, show_default=True, metavar="SECONDS", help="Time between updates.")
def command(results: Path, watch: bool, every: float) -> None:
    """Show which runs of the plans in a results folder are done, running, failed, interrupted or missing.

    Reads only files, so it works on any machine that can read them. The exit status is 1 if a run failed.
    """
    from rich.console import Console
    from rich.live import Live

    from dfkd_bench.engines.progress import plan_view
    from dfkd_bench.engines.status import counts, states

    console = Console()
    runs = states(results)

    def unfinished() -> bool:
        return any(counts(runs)[state] for state in ("running", "interrupted", "missing"))

    if watch and console.is_terminal:
        with Live(plan_view(runs), console=console, auto_refresh=False) as live:
            while unfinished():
                time.sleep(every)
                runs = states(results)
                live.update(plan_view(runs), refresh=True)
    else:
        console.print(plan_view(runs))
        while watch and unfinished():
            time.sleep(every)
            runs = states(results)
            console.print(plan_view(runs))
    if counts(runs)["failed"]:
        click.get_current_context().exit(1)
