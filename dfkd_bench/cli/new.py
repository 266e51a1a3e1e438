"""`dfkd-bench new`: create a plug-in package for a new method."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  dfkd-bench new my-method
  dfkd-bench new my-method --into ~/research
"""


@click.command(epilog=EPILOG)
@click.argument("name", metavar="NAME")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR",
    help="The folder to create NAME/ in. Default: the current folder.",
)  # fmt: skip
def command(name: str, into: Path) -> None:
    """Create a plug-in package for a new method: a working method in one file, a test and a README.

    NAME is lower-case words joined by '-'; the names of the method, the module and the class are made from it.
    """
    from dfkd_bench.plugins.scaffold import create, names_of

    folder = create(name, into)
    module = names_of(name).module
    click.echo(f"wrote {folder}: a working method, all of it in {folder}/src/{module}/method.py\n")
    click.echo(f"  pip install -e '{folder.absolute() if folder.is_absolute() else f'./{folder}'}[test]'")
    click.echo(f"  dfkd-bench check {name}")
    click.echo(f"  dfkd-bench run --method {name} --budget smoke")
