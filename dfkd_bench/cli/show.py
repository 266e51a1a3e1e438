"""`dfkd-bench show`: all about one method or add-on."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", metavar="NAME|FILE.py:CLASS")
def command(name: str) -> None:
    """What a method or an add-on is, what it uses, its presets and settings."""
    from rich.console import Console

    from dfkd_bench.plugins import registry
    from dfkd_bench.report.terminal.describe import describe

    entry = registry.resolve_any(name)
    card = registry.card(entry)
    console = Console()
    for piece in describe(entry, card):
        console.print(piece, highlight=False)
