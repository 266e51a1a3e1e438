"""`dfkd-bench leaderboard`: tables from records, on the terminal, as CSV and in documents."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import PATH, PROTOCOL, RESULTS, Terms, of_terms


@click.command()
@RESULTS
@click.option("--csv", type=PATH, metavar="FILE", help="Default: leaderboard.csv in the results folder.")
@of_terms(PROTOCOL)
@click.option(
    "--write-docs", "docs", type=PATH, is_flag=False, flag_value=Path("BENCHMARKS.md"),
    multiple=True, metavar="[FILE]",
    help="Fill the marked tables of a document, or of all in a folder. Repeatable. Default: BENCHMARKS.md.",
)  # fmt: skip
@click.option(
    "--all", "everything", type=PATH, is_flag=False, flag_value=Path(), metavar="[DIR]",
    help="Write all outputs: CSVs, Markdown, LaTeX, the page. Default: into the results folder, with SHA256SUMS.",
)  # fmt: skip
def command(
    terms: Terms, results: Path, csv: Path | None, docs: tuple[Path, ...], everything: Path | None
) -> None:  # fmt: skip
    """Print means over seeds with intervals, one table per task, track, budget, device and protocol.

    The CSV has all rows and columns in full precision, whichever rows are printed.
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
    terms.of(runs, f"below {results}")  # raises an error with the number of records if none is selected
    shown = terms.of(board, f"below {results}")
    console = Console()
    view.show(console, shown)
    target = csv or results / FILE
    write_csv(board, target)
    write_docs(pages, tables_of(board, shown))
    written = write_all(results, everything) if everything is not None else []
    repeated = int(board["n_repeated"].sum())
    summary = f"{len(runs)} records, {len(board)} rows" + (
        f", {repeated} records of runs already counted" if repeated else ""
    )
    files = ", ".join(str(path) for path in dict.fromkeys([target, *pages, *written]))
    console.print(f"{summary}; in full: {files}", markup=False, highlight=False)


def write_all(results: Path, folder: Path) -> list[Path]:
    """Write all outputs into `folder`, or next to the records with SHA256SUMS if `folder` is the current folder."""
    from dfkd_bench.report.bundle import write
    from dfkd_bench.results.verify.sums import write_sums

    if folder != Path():
        return write(results, folder)
    return [*(p for p in write(results, results) if p.suffix != ".png"), write_sums(results)]
