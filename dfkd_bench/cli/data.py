"""`dfkd-bench data`: list, fetch and verify datasets."""

from __future__ import annotations

import click

from dfkd_bench.cli.options import DATA_DIR, DATA_DIR_MADE
from dfkd_bench.errors import RunError


@click.group(name="data")
def command() -> None:
    """List, fetch and verify datasets."""


@command.command("list")
@DATA_DIR
def list_() -> None:
    """Every dataset, and whether it is on this machine."""
    from rich.console import Console

    from dfkd_bench.report.terminal.listing import datasets

    Console().print(datasets())


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@DATA_DIR_MADE
def fetch(names: tuple[str, ...]) -> None:
    """Download datasets, their checksums verified. No other command downloads anything."""
    from dfkd_bench.data.fetch import check_fetchable
    from dfkd_bench.data.fetch import fetch as bring

    for name in names:
        check_fetchable(name)  # a misspelt last name is no reason to have waited for the first
    for name in names:
        bring(name, click.echo)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@DATA_DIR
def verify(names: tuple[str, ...]) -> None:
    """Read the named datasets whole, or all that are here, and compare them with the catalog."""
    from dfkd_bench.data import catalog
    from dfkd_bench.data.find import dataset
    from dfkd_bench.data.home import is_present

    chosen = [dataset(name) for name in names] or [
        row.found for row in catalog.TABLE.rows() if row.found and is_present(row.found)
    ]

    from dfkd_bench.data.verify import verify as examine

    problems = []
    for facts in chosen:
        verdict = examine(facts)
        if verdict.problem:
            problems.append(verdict.problem)
            continue
        known = "as in the catalog" if facts.sha256 else "whole; the catalog knows no fingerprint of it"
        click.echo(f"{facts.name}: {facts.train_size} + {facts.test_size} images, {known}")
        click.echo(f"  SHA-256 {verdict.fingerprint}")
    for problem in problems[:-1]:
        click.echo(f"error: {problem}", err=True)
    if problems:
        raise RunError(problems[-1])
