"""`dfkd-bench list`: what there is to choose from."""

from __future__ import annotations

import click

from dfkd_bench.errors import UsageError, did_you_mean

WORDS = (
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
@click.argument("what", required=False, metavar=f"[{'|'.join(WORDS)}]")
def command(what: str | None) -> None:
    """What there is to choose from, all of it unless a section is named."""
    if what is not None and what not in WORDS:
        raise UsageError(f"cannot list {what!r}{did_you_mean(what, list(WORDS))}")

    from rich.console import Console

    from dfkd_bench.report.terminal.listing import SECTIONS

    console = Console()
    for number, word in enumerate([what] if what else WORDS):
        if number:
            console.print()
        console.print(SECTIONS[word]())
