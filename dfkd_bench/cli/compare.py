"""`dfkd-bench compare`: two methods against each other, and whether the difference can be told from chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfkd_bench.cli.options import OF_ONE_PROTOCOL
from dfkd_bench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

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
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where records lie."
)
@click.option("-t", "--task", "tasks", multiple=True, metavar="TASK", help="On this task only. Repeatable.")
@click.option("--track", metavar="TRACK", help="On this track only: pinned or recipe.")
@click.option("--budget", metavar="BUDGET", help="With this budget only: smoke, quick, standard, full or seconds:N.")
@OF_ONE_PROTOCOL
@click.option("--preset-a", metavar="NAME", help="The preset of A, as in A:NAME.")
@click.option("--preset-b", metavar="NAME", help="The preset of B, as in B:NAME.")
def command(
    a: str, b: str, results: Path, tasks: tuple[str, ...], track: str | None, budget: str | None,
    version: str | None, preset_a: str | None, preset_b: str | None,
) -> None:  # fmt: skip
    """Compare A with B wherever both have records under the same terms, seed by seed.

    A and B are methods, method:preset, method:key=value (a changed setting), or record files and folders.
    """
    from dfkd_bench.protocol import check_filters, latest

    tasks, budget = check_filters(tasks, track, budget)

    from rich.console import Console

    from dfkd_bench.report.tables.compare import chosen, compare, is_path, label
    from dfkd_bench.report.tables.runs import load_results, long_table
    from dfkd_bench.report.terminal.compare import show

    names = [f"{word}:{preset}" if preset else word for word, preset in ((a, preset_a), (b, preset_b))]
    needed = results.is_dir() or not all(map(is_path, names))
    runs = load_results(results) if needed else long_table([])
    sides = [only(chosen(name, runs, results), name, tasks, track, budget, version) for name in names]
    if shared := latest(set(sides[0]["protocol"]) & set(sides[1]["protocol"])):  # one table is of one protocol
        sides = [side[side["protocol"] == shared] for side in sides]
    labels = [label(side.iloc[0]) if is_path(name) else name for name, side in zip(names, sides, strict=True)]
    show(Console(), compare(*sides), *(labels if labels[0] != labels[1] else names))


def only(
    runs: pd.DataFrame, name: str, tasks: tuple[str, ...], track: str | None, budget: str | None, version: str | None
) -> pd.DataFrame:
    """The runs of that task, track, budget and protocol. Raises `UsageError` where none is."""
    kept = runs
    for column, wanted in (("task", tasks), ("track", (track,)), ("budget", (budget,)), ("protocol", (version,))):
        if any(wanted):
            kept = kept[kept[column].isin(wanted)]
    if kept.empty:
        raise UsageError(f"none of the {len(runs)} records of {name} is of that task, track, budget and protocol")
    return kept
