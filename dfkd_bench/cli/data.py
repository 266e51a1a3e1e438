"""`dfkd-bench data`: list, fetch and verify datasets."""

from __future__ import annotations

import click

from dfkd_bench.cli.options import DATA_DIR, DATA_DIR_CREATED
from dfkd_bench.errors import RunError


@click.group(name="data")
def command() -> None:
    """List, fetch and verify datasets."""


@command.command("list")
@DATA_DIR
def list_() -> None:
    """List every dataset and whether it is on this machine."""
    from rich.console import Console

    from dfkd_bench.report.terminal.listing import datasets

    Console().print(datasets())


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@DATA_DIR_CREATED
def fetch(names: tuple[str, ...]) -> None:
    """Download datasets and verify their checksums. No other command downloads anything."""
    from dfkd_bench.data import fetch as fetching

    for name in names:
        fetching.check_fetchable(name)  # all names first, so that a wrong one is reported before the first download
    for name in names:
        fetching.fetch(name, click.echo)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@DATA_DIR
def verify(names: tuple[str, ...]) -> None:
    """Read all files of the named datasets, or of all on this machine, and compare them with the catalog."""
    from dfkd_bench.data import catalog
    from dfkd_bench.data.find import dataset
    from dfkd_bench.data.home import is_present

    selected = [dataset(name) for name in names] or [
        row.found for row in catalog.TABLE.rows() if row.found and is_present(row.found)
    ]

    from dfkd_bench.data.verify import verify as examine

    problems = []
    for facts in selected:
        verdict = examine(facts)
        if verdict.problem:
            problems.append(verdict.problem)
            continue
        match = "as in the catalog" if facts.sha256 else "readable; the catalog has no digest for it"
        click.echo(f"{facts.name}: {facts.train_size} + {facts.test_size} images, {match}")
        click.echo(f"  SHA-256 {verdict.fingerprint}")
    for problem in problems[:-1]:
        click.echo(f"error: {problem}", err=True)
    if problems:
        raise RunError(problems[-1])
