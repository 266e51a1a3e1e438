"""`dfkd-bench samples`: a labelled grid of a run's synthetic images, or one row of every method's."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import OF_ONE_PROTOCOL, PATH
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
    "--rows", type=click.IntRange(1, 100), help="Classes shown, default 10; in a gallery, rows of a method, default 1."
)
@click.option(
    "--columns", type=click.IntRange(1, 100), default=10, show_default=True,
    help="Images of each class; in a gallery, classes shown.",
)  # fmt: skip
@click.option("-t", "--task", metavar="TASK", help="Of a gallery. Default: the default task.")
@click.option("--track", metavar="TRACK", help="Of a gallery: pinned (default) or recipe.")
@click.option("--budget", metavar="BUDGET", help="Of a gallery. Default: the longest found.")
@OF_ONE_PROTOCOL
@click.option("-s", "--seed", type=click.IntRange(0), metavar="N", help="Of a gallery. Default: 0.")
def command(
    run: Path | None, gallery: Path | None, out: Path | None, rows: int | None, columns: int, task: str | None,
    track: str | None, budget: str | None, version: str | None, seed: int | None,
) -> None:  # fmt: skip
    """Draw a run's last synthetic images, a row per pseudo-label; or, as a gallery, a row of every method's.

    An image that the teacher takes for another class than its label gets a border and the teacher's class. In a
    gallery a column holds what the teacher takes for one class, and is empty where it sees none.
    """
    if (run is None) == (gallery is None):
        raise UsageError("name a run's folder or record, or a results folder with --gallery RESULTS (one of the two)")
    if gallery is not None:
        payload, says, out = draw_gallery(gallery, out, rows or 1, columns, (task, track, budget, seed, version))
    else:
        assert run is not None
        words = {"task": task, "track": track, "budget": budget, "protocol": version, "seed": seed}
        given = [name for name, value in words.items() if value is not None]
        if given:
            raise UsageError(f"--{given[0]} is for --gallery: a run has its own")
        payload, says, out = draw_run(run, out, rows or 10, columns)

    from dfkd_bench.utils.files import write_atomic

    write_atomic(out, payload)
    click.echo(f"{says}: {out}")


def draw_run(run: Path, out: Path | None, rows: int, columns: int) -> tuple[bytes, str, Path]:
    """The picture of one run, what it shows, and where it goes."""
    from dfkd_bench.runs import records

    record = records.read(run)
    out = check_out(out or Path(record["path"]).parent / "samples.png")

    from dfkd_bench.report.images.samples import picture

    return *picture(record, rows, columns), out


def draw_gallery(
    results: Path, out: Path | None, rows: int, columns: int,
    terms: tuple[str | None, str | None, str | None, int | None, str | None],
) -> tuple[bytes, str, Path]:  # fmt: skip
    """The picture of all methods below `results`, what it shows, and where it goes."""
    from dfkd_bench import protocol
    from dfkd_bench.runs import records

    name, track, budget, seed, version = terms
    protocol.check_word("track", track or "pinned", protocol.TRACKS)
    if budget:
        budget = protocol.check_budget(budget)
    chosen = protocol.task(name or protocol.DEFAULT_TASK)
    found = records.read_all(results)
    out = check_out(out or results / "gallery.png")

    from dfkd_bench.report.images.gallery import pick, picture

    picked = pick(found, chosen.name, track or "pinned", budget, seed or 0, version)
    methods = {record["spec"]["method"] for record in picked}
    says = f"{counted(len(methods), 'method')}, budget {picked[0]['spec']['budget']}"
    return picture(picked, columns, rows), says, out


def check_out(out: Path) -> Path:
    """`out` itself. Raises `UsageError` unless it names a PNG file in a folder that is there."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out names a PNG file, got {out.name!r}")
    if not out.parent.is_dir():
        raise UsageError(f"no folder {out.parent} to write to")
    return out
