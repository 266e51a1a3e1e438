"""`dfkd-bench figures`: records to figures for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from dfkd_bench.cli.options import OF_PROTOCOL, PATH, RESULTS, Terms, of_terms
from dfkd_bench.errors import UsageError, did_you_mean


class WithKinds(click.Command):
    """A command whose help lists the kinds of figures, with what their files say of them."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The kinds, at the end."""
        from dfkd_bench.plugins.registry import describe
        from dfkd_bench.report.figures.base import kinds

        with formatter.section("Kinds"):
            formatter.write_dl([(name, "".join(describe(entry))) for name, entry in kinds().items()])


@click.command(cls=WithKinds)
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@RESULTS
@click.option("-o", "--out", type=PATH, metavar="DIR", help="Default: figures in the results folder.")
@of_terms(OF_PROTOCOL)
@click.option("-m", "--method", "methods", multiple=True, metavar="NAME", help="This method only. Repeatable.")
@click.option(
    "--columns", metavar="NAME,NAME", default="", help="Columns of curves.csv that schedules show, such as loss/alpha."
)
@click.option("--format", "formats", default="pdf,png", show_default=True, help="Of pdf, svg and png, commas between.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Figures of a kind at most. Default: 40.")
def command(
    terms: Terms, kinds: tuple[str, ...], results: Path, out: Path | None, methods: tuple[str, ...], columns: str,
    formats: str, limit: int | None,
) -> None:  # fmt: skip
    """Draw all figures that the records allow, or those of each KIND, and say which cannot be drawn and why.

    Sized for a paper's columns.
    """
    from dfkd_bench.report.figures.draw import MAX_FIGURES, Selection, Skipped, drawings
    from dfkd_bench.report.tables.leaderboard import leaderboard
    from dfkd_bench.report.tables.runs import load_results

    runs = load_results(results)
    for name in methods:
        known = sorted(runs["method"].unique())
        if name not in known:
            raise UsageError(f"no record of method {name!r} below {results}{did_you_mean(name, known)}")
    asked = (words(terms.track), words(terms.budget), methods, words(columns), words(terms.protocol))
    choice = Selection(terms.tasks, *asked)
    if choice.of(runs).empty:
        what = "task, track, budget, protocol and method"
        raise UsageError(f"none of the {len(runs)} records below {results} is of that {what}")
    folder, files = out or results / "figures", 0
    drawn = drawings(runs, leaderboard(runs), folder, kinds, choice, words(formats), limit or MAX_FIGURES)
    for each in drawn:
        if isinstance(each, Skipped):
            click.echo(f"not drawn: {each.name}: {each.reason}", err=True)
        else:
            files += 1
            click.echo(each)
    if not files:
        raise UsageError("no figure could be drawn from these records, for the reasons above")


def words(text: str | None) -> tuple[str, ...]:
    """What commas part, without blanks."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
