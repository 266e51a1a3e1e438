"""`dfkd-bench new`: create a plug-in package."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

EPILOG = """\b
Examples:
  dfkd-bench new my-method
  dfkd-bench new my-method --into ~/research
  dfkd-bench new my-metric --kind metric
"""
KINDS = ("method", "addon", "architecture", "dataset", "metric", "figure", "logger")


@click.command(epilog=EPILOG)
@click.argument("name", metavar="NAME")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="method",
    show_default=True,
    help="Kind of the plug-in.",
)
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR",
    help="The folder to create NAME/ in. Default: the current folder.",
)  # fmt: skip
def command(name: str, kind: str, into: Path) -> None:
    """Create a plug-in package: a working method (or another kind), a test and a README.

    NAME is lower-case words joined by '-'; the names of the plug-in, the module and the class are made from it.
    """
    from dfkd_bench.plugins.scaffold import WORDS, create, names_of

    folder = create(name, into, WORDS[kind], own_names(kind))
    names = names_of(name, WORDS[kind])
    file = f"{folder}/src/{names.module}/{kind}.py"
    click.echo(f"wrote {folder}, {names.a_kind} that works without changes; read {file}\n")
    click.echo(f"  pip install -e '{folder.absolute() if folder.is_absolute() else f'./{folder}'}[test]'")
    for line in names.commands:
        click.echo(f"  {line}")


def own_names(kind: str) -> Collection[str]:
    """Names of this package that a plug-in of the kind cannot have, in addition to those of entry points."""
    from dfkd_bench.data.catalog import DATASETS
    from dfkd_bench.metrics.registry import METRICS
    from dfkd_bench.models import ARCHITECTURES
    from dfkd_bench.report.figures.base import BUILT_IN as FIGURES
    from dfkd_bench.runs.loggers import BUILT_IN as LOGGERS

    known: dict[str, Collection[str]] = {
        "architecture": ARCHITECTURES, "dataset": DATASETS, "metric": [metric.key for metric in METRICS],
        "figure": FIGURES, "logger": LOGGERS,
    }  # fmt: skip
    return known.get(kind, ())
