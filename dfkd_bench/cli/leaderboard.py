"""`dfkd-bench leaderboard`: records to tables on the terminal, a CSV, and the tables of a document."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import OF_PROTOCOL
from dfkd_bench.errors import UsageError


@click.command()
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where records lie."
)
@click.option(
    "--csv", type=click.Path(path_type=Path), metavar="FILE", help="Default: leaderboard.csv in the results folder."
)
@click.option("-t", "--task", "tasks", multiple=True, metavar="TASK", help="Show this task only. Repeatable.")
@click.option("--track", metavar="TRACK", help="Show this track only: pinned or recipe.")
@click.option("--budget", metavar="BUDGET", help="Show this budget only: smoke, quick, standard, full or seconds:N.")
@OF_PROTOCOL
@click.option(
    "--write-docs", "docs", type=click.Path(path_type=Path), is_flag=False, flag_value=Path("BENCHMARKS.md"),
    multiple=True, metavar="[FILE]",
    help="Fill all tables between the markers of a document, or of a folder's. Repeatable. Default: BENCHMARKS.md.",
)  # fmt: skip
@click.option(
    "--all", "everything", type=click.Path(path_type=Path), is_flag=False, flag_value=Path(), metavar="[DIR]",
    help="Write every rendering: CSVs, Markdown, LaTeX, the page. Default: into the results folder, with SHA256SUMS.",
)  # fmt: skip
def command(
    results: Path, csv: Path | None, tasks: tuple[str, ...], track: str | None, budget: str | None, version: str | None,
    docs: tuple[Path, ...], everything: Path | None,
) -> None:  # fmt: skip
    """Means over seeds with intervals, one table per task, track, budget, device and protocol.

    The CSV holds every row and column in full precision, whatever is shown.
    """
    from dfkd_bench.protocol import check_filters

    tasks, budget = check_filters(tasks, track, budget)

    from rich.console import Console

    from dfkd_bench.report.docs import check_document, documents, tables_of, write_docs
    from dfkd_bench.report.tables.leaderboard import FILE, leaderboard, write_csv
    from dfkd_bench.report.tables.runs import load_results
    from dfkd_bench.report.terminal import leaderboard as view

    pages = documents(docs)
    for page in pages:
        check_document(page)
    runs = load_results(results)
    if runs.empty:
        raise UsageError(f"no records below {results}: run something first, or name a folder with --results")
    board = leaderboard(runs)
    chosen = board
    for column, wanted in (("task", tasks), ("track", (track,)), ("budget", (budget,)), ("protocol", (version,))):
        if any(wanted):
            chosen = chosen[chosen[column].isin(wanted)]
    if chosen.empty:
        raise UsageError(f"none of the {len(runs)} records below {results} is of that task, track, budget and protocol")
    console = Console()
    view.show(console, chosen)
    target = csv or results / FILE
    write_csv(board, target)
    write_docs(pages, tables_of(board, chosen))
    written = write_all(results, everything) if everything is not None else []
    repeated = int(board["n_repeated"].sum())
    says = f"{len(runs)} records, {len(board)} rows" + (
        f", {repeated} records of runs already counted" if repeated else ""
    )
    files = ", ".join(str(path) for path in dict.fromkeys([target, *pages, *written]))
    console.print(f"{says}; in full: {files}", markup=False, highlight=False)


def write_all(results: Path, folder: Path) -> list[Path]:
    """Every rendering into `folder`, or beside the records, sealed by their sums, where it is the current one."""
    from dfkd_bench.report.bundle import write
    from dfkd_bench.results.verify.sums import write_sums

    if folder != Path():
        return write(results, folder)
    return [*(p for p in write(results, results) if p.suffix != ".png"), write_sums(results)]
