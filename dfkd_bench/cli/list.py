"""`dfkd-bench list`: list methods, tasks, datasets and other plug-ins."""

from __future__ import annotations

import click

from dfkd_bench.errors import UsageError, did_you_mean

NAMES = (
    "methods",
    "addons",
    "tasks",
    "suites",
    "datasets",
    "models",
    "presets",
    "teachers",
    "metrics",
    "figures",
    "loggers",
    "engines",
)


@click.command()
@click.argument("what", required=False, metavar=f"[{'|'.join(NAMES)}]")
def command(what: str | None) -> None:
    """List everything that can be selected, or one section."""
    if what is not None and what not in NAMES:
        raise UsageError(f"cannot list {what!r}{did_you_mean(what, list(NAMES))}")

    from rich.console import Console

    from dfkd_bench.report.terminal.listing import SECTIONS

    console = Console()
    for number, word in enumerate([what] if what else NAMES):
        if number:
            console.print()
        console.print(SECTIONS[word]())
