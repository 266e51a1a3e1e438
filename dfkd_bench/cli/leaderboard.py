"""`dfkd-bench leaderboard`: records to tables on the terminal, a CSV, and the tables of a document."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import OF_PROTOCOL, PATH, RESULTS, Terms, of_terms


@click.command()
@RESULTS
@click.option("--csv", type=PATH, metavar="FILE", help="Default: leaderboard.csv in the results folder.")
@of_terms(OF_PROTOCOL)
@click.option(
    "--write-docs", "docs", type=PATH, is_flag=False, flag_value=Path("BENCHMARKS.md"),
    multiple=True, metavar="[FILE]",
    help="Fill all tables between the markers of a document, or of a folder's. Repeatable. Default: BENCHMARKS.md.",
)  # fmt: skip
@click.option(
    "--all", "everything", type=PATH, is_flag=False, flag_value=Path(), metavar="[DIR]",
    help="Write every rendering: CSVs, Markdown, LaTeX, the page. Default: into the results folder, with SHA256SUMS.",
)  # fmt: skip
def command(
    terms: Terms, results: Path, csv: Path | None, docs: tuple[Path, ...], everything: Path | None
) -> None:  # fmt: skip
    """Means over seeds with intervals, one table per task, track, budget, device and protocol.

    The CSV holds every row and column in full precision, whatever is shown.
    """
    from rich.console import Console

    from dfkd_bench.report.docs import check_document, documents, tables_of, write_docs
    from dfkd_bench.report.tables.leaderboard import FILE, leaderboard, write_csv
    from dfkd_bench.report.tables.runs import some_results
    from dfkd_bench.report.terminal import leaderboard as view

    pages = documents(docs)
    for page in pages:
        check_document(page)
    runs = some_results(results)
    board = leaderboard(runs)
    terms.of(runs, f"below {results}")  # raises where there is none
    chosen = terms.of(board, f"below {results}")
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
