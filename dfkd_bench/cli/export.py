"""`dfkd-bench export`: one run as one archive."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import PATH


@click.command()
@click.argument("run", type=PATH, metavar="RUN_FOLDER_OR_RECORD")
@click.option("-o", "--out", type=PATH, metavar="FILE.zip", help="Default: a name from the run, here.")
@click.option("-m", "--method", metavar="FILE.py:CLASS", help="Where the source of a method in a file is.")
def command(run: Path, out: Path | None, method: str | None) -> None:
    """Pack a run: record, configuration, student, generator, samples, source and environment, with their sums.

    `dfkd-bench verify FILE.zip` checks it anywhere. The same run gives the same archive, byte for byte.
    """
    from dfkd_bench.results.archive import export

    done = export(run, out, method)
    for what in done.lacks:
        click.echo(f"without: {what}")
    click.echo(f"{done.files} files: {done.path}")
