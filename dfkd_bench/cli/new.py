"""`dfkd-bench new`: a plug-in package of one's own."""

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
    help="What the package brings.",
)
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR",
    help="The folder to write NAME/ into. Default: this one.",
)  # fmt: skip
def command(name: str, kind: str, into: Path) -> None:
    """Write a plug-in package: a method, or another kind, that runs as it stands, a test, a README.

    NAME is lower-case words with '-' between; it becomes the name of the plug-in, the module and the class.
    """
    from dfkd_bench.plugins.scaffold import WORDS, create, names_of

    folder = create(name, into, WORDS[kind], own_names(kind))
    names = names_of(name, WORDS[kind])
    file = f"{folder}/src/{names.module}/{kind}.py"
    click.echo(f"wrote {folder}, {names.a_kind} that runs as it stands; read {file}\n")
    click.echo(f"  pip install -e '{folder.absolute() if folder.is_absolute() else f'./{folder}'}[test]'")
    for line in names.commands:
        click.echo(f"  {line}")


def own_names(kind: str) -> Collection[str]:
    """The names of this package that another's plug-in of the kind may not have, beside those of entry points."""
    from dfkd_bench.data.catalog import DATASETS
    from dfkd_bench.metrics.registry import METRICS
    from dfkd_bench.models import ARCHITECTURES
    from dfkd_bench.report.figures.base import BUILT_IN as FIGURES
    from dfkd_bench.runs.loggers import OWN as LOGGERS

    known: dict[str, Collection[str]] = {
        "architecture": ARCHITECTURES, "dataset": DATASETS, "metric": [metric.key for metric in METRICS],
        "figure": FIGURES, "logger": LOGGERS,
    }  # fmt: skip
    return known.get(kind, ())
