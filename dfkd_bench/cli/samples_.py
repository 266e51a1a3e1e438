"""`dfkd-bench samples`: a labelled grid of a run's synthetic images."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.errors import UsageError


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN_FOLDER_OR_RECORD")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE.png", help="Default: samples.png in the run's folder."
)
@click.option("--rows", type=click.IntRange(1, 100), default=10, show_default=True, help="Classes shown.")
@click.option("--columns", type=click.IntRange(1, 100), default=10, show_default=True, help="Images of each.")
def command(run: Path, out: Path | None, rows: int, columns: int) -> None:
    """Draw a run's last synthetic images, a row per pseudo-label.

    An image that the teacher takes for another class than its label gets a border and the teacher's class.
    """
    from dfkd_bench import records

    record = records.read(run)
    out = out or Path(record["path"]).parent / "samples.png"
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out names a PNG file, got {out.name!r}")
    if not out.parent.is_dir():
        raise UsageError(f"no folder {out.parent} to write to")

    from dfkd_bench.files import write_atomic
    from dfkd_bench.report.samples import picture

    payload, says = picture(record, rows, columns)
    write_atomic(out, payload)
    click.echo(f"{says}: {out}")
