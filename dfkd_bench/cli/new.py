"""`dfkd-bench new`: a plugin package for a method of one's own."""

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
    help="The folder to write NAME/ into. Default: this one.",
)  # fmt: skip
def command(name: str, into: Path) -> None:
    """Write a plugin package for a new method: one file that runs as it stands, a test, a README.

    NAME is lower-case words with '-' between; it becomes the method's name, the module's and the class's.
    """
    from dfkd_bench.plugins.scaffold import create, names_of

    folder = create(name, into)
    module = names_of(name).module
    click.echo(f"wrote {folder}, a method that runs as it stands; all of it: {folder}/src/{module}/method.py\n")
    click.echo(f"  pip install -e '{folder.absolute() if folder.is_absolute() else f'./{folder}'}[test]'")
    click.echo(f"  dfkd-bench check {name}")
    click.echo(f"  dfkd-bench run --method {name} --budget smoke")
