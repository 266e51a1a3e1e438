"""`dfkd-bench compare`: two methods against each other, and whether the difference can be told from chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfkd_bench.cli.options import OF_ONE_PROTOCOL, RESULTS, Terms, of_terms

if TYPE_CHECKING:
    pass

EPILOG = """\b
Examples:
  dfkd-bench compare NAME OTHER --results runs
  dfkd-bench compare NAME:official NAME:textbook
  dfkd-bench compare NAME NAME:alpha=3 --budget quick
  dfkd-bench compare runs/.../record.json other/.../record.json
"""


@click.command(epilog=EPILOG)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@RESULTS
@of_terms(OF_ONE_PROTOCOL)
@click.option("--preset-a", metavar="NAME", help="The preset of A, as in A:NAME.")
@click.option("--preset-b", metavar="NAME", help="The preset of B, as in B:NAME.")
def command(terms: Terms, a: str, b: str, results: Path, preset_a: str | None, preset_b: str | None) -> None:
    """Compare A with B wherever both have records under the same terms, seed by seed.

    A and B are methods, method:preset, method:key=value (a changed setting), or record files and folders.
    """
    from rich.console import Console

    from dfkd_bench.protocol import latest
    from dfkd_bench.report.tables.compare import compare, is_path, label, select_runs
    from dfkd_bench.report.tables.runs import load_results, long_table
    from dfkd_bench.report.terminal.compare import show

    names = [f"{word}:{preset}" if preset else word for word, preset in ((a, preset_a), (b, preset_b))]
    needed = results.is_dir() or not all(map(is_path, names))
    runs = load_results(results) if needed else long_table([])
    sides = [terms.of(select_runs(name, runs, results), f"of {name}") for name in names]
    if shared := latest(set(sides[0]["protocol"]) & set(sides[1]["protocol"])):  # one table is of one protocol
        sides = [side[side["protocol"] == shared] for side in sides]
    labels = [label(side.iloc[0]) if is_path(name) else name for name, side in zip(names, sides, strict=True)]
    show(Console(), compare(*sides), *(labels if labels[0] != labels[1] else names))
