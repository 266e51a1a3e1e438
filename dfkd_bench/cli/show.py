"""`dfkd-bench show`: describe one method or add-on."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", metavar="NAME|FILE.py:CLASS")
def command(name: str) -> None:
    """Describe a method or an add-on: paper, privileges, presets and settings."""
    from rich.console import Console

    from dfkd_bench.plugins import registry
    from dfkd_bench.report.terminal.describe import describe

    entry = registry.resolve_any(name)
    card = registry.card(entry)
    console = Console()
    for piece in describe(entry, card):
        console.print(piece, highlight=False)
