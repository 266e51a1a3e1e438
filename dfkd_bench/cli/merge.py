"""`dfkd-bench merge`: results folders of several machines into one."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import PATH


@click.command()
@click.argument("sources", nargs=-1, required=True, type=PATH, metavar="SOURCE...")
@click.option("--into", type=PATH, required=True, metavar="RESULTS", help="Where they go.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, write nothing.")
@click.pass_context
def command(ctx: click.Context, sources: tuple[Path, ...], into: Path, dry_run: bool) -> None:
    """Copy the runs of SOURCE folders that RESULTS lacks. Where one result contradicts another, nothing is written.

    The same result twice is skipped; a run that came to its end replaces one that failed.
    """
    from dfkd_bench.results.merge import merge, plan_merge

    plan = plan_merge(sources, into)
    refused = plan.of("refuse")
    for step in refused:
        click.echo(f"refused: {step.run}: {step.why} (from {step.source})", err=True)
    if refused:
        click.echo(f"{len(refused)} of {len(plan.steps)} runs refused: nothing was written", err=True)
        ctx.exit(1)
    words = {"take": "to take" if dry_run else "taken", "replace": "to replace" if dry_run else "replaced"}
    for step in plan.steps:
        click.echo(f"{words.get(step.act, 'skipped')}: {step.run}" + (f": {step.why}" if step.why else ""))
    if not dry_run:
        merge(plan)
    taken, skipped = len(plan.of("take", "replace")), len(plan.of("skip"))
    click.echo(f"{taken} runs {'to take' if dry_run else 'taken'}, {skipped} skipped: {into}")
    if taken and not dry_run:
        click.echo(f"tables are not merged: make them anew with `dfkd-bench leaderboard --results {into}`")
