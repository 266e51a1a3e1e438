"""`dfkd-bench samples`: a labelled grid of a run's synthetic images, or a gallery with one row per method."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import ONE_PROTOCOL, PATH
from dfkd_bench.errors import UsageError
from dfkd_bench.utils.text import counted


@click.command()
@click.argument("run", type=PATH, metavar="[RUN_FOLDER_OR_RECORD]", required=False)
@click.option("--gallery", type=PATH, metavar="RESULTS", help="All methods whose records lie here instead.")
@click.option(
    "-o", "--out", type=PATH, metavar="FILE.png",
    help="Default: samples.png in the run's folder, gallery.png in RESULTS.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(1, 100), help="Classes, default 10; in a gallery, rows per method, default 1."
)
@click.option(
    "--columns", type=click.IntRange(1, 100), default=10, show_default=True,
    help="Images per class; in a gallery, classes.",
)  # fmt: skip
@click.option("-t", "--task", metavar="TASK", help="Task of a gallery. Default: the default task.")
@click.option("--track", metavar="TRACK", help="Track of a gallery: pinned (default) or recipe.")
@click.option("--budget", metavar="BUDGET", help="Budget of a gallery. Default: the longest found.")
@ONE_PROTOCOL
@click.option("-s", "--seed", type=click.IntRange(0), metavar="N", help="Seed of a gallery. Default: 0.")
def command(
    run: Path | None, gallery: Path | None, out: Path | None, rows: int | None, columns: int, task: str | None,
    track: str | None, budget: str | None, version: str | None, seed: int | None,
) -> None:  # fmt: skip
    """Draw a run's last synthetic images, one row per pseudo-label; or a gallery, one row per method.

    An image gets a border and the teacher's class if the teacher predicts another class than its label. In a gallery,
    a column has images that the teacher assigns to one class; it is empty if there are none.
    """
    if (run is None) == (gallery is None):
        raise UsageError("name a run's folder or record, or a results folder with --gallery RESULTS (one of the two)")
    if gallery is not None:
        payload, summary, out = draw_gallery(gallery, out, rows or 1, columns, (task, track, budget, seed, version))
    else:
        assert run is not None
        filters = {"task": task, "track": track, "budget": budget, "protocol": version, "seed": seed}
        given = [name for name, value in filters.items() if value is not None]
        if given:
            raise UsageError(f"--{given[0]} is for --gallery only")
        payload, summary, out = draw_run(run, out, rows or 10, columns)

    from dfkd_bench.utils.files import write_atomic

    write_atomic(out, payload)
    click.echo(f"{summary}: {out}")


def draw_run(run: Path, out: Path | None, rows: int, columns: int) -> tuple[bytes, str, Path]:
    """PNG bytes of one run's images, a summary, and the output file."""
    from dfkd_bench.runs import records

    record = records.read(run)
    out = check_out(out or Path(record["path"]).parent / "samples.png")

    from dfkd_bench.report.images.samples import picture

    return *picture(record, rows, columns), out


def draw_gallery(
    results: Path, out: Path | None, rows: int, columns: int,
    filters: tuple[str | None, str | None, str | None, int | None, str | None],
) -> tuple[bytes, str, Path]:  # fmt: skip
    """PNG bytes of all methods below `results`, a summary, and the output file."""
    from dfkd_bench import protocol
    from dfkd_bench.runs import records

    name, track, budget, seed, version = filters
    protocol.check_word("track", track or "pinned", protocol.TRACKS)
    if budget:
        budget = protocol.check_budget(budget)
    selected_task = protocol.task(name or protocol.DEFAULT_TASK)
    stored = records.read_all(results)
    out = check_out(out or results / "gallery.png")

    from dfkd_bench.report.images.gallery import pick, picture

    picked = pick(stored, selected_task.name, track or "pinned", budget, seed or 0, version)
    methods = {record["spec"]["method"] for record in picked}
    summary = f"{counted(len(methods), 'method')}, budget {picked[0]['spec']['budget']}"
    return picture(picked, columns, rows), summary, out


def check_out(out: Path) -> Path:
    """Return `out`. Raises `UsageError` unless it names a PNG file in an existing folder."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out must name a PNG file, got {out.name!r}")
    if not out.parent.is_dir():
        raise UsageError(f"no folder {out.parent} to write to")
    return out
