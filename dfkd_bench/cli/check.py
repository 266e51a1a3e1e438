"""`dfkd-bench check`: the conformance rules of one method, several or all, and which of them hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dfkd_bench.cli.options import pairs_of
from dfkd_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from dfkd_bench.conformance import RuleResult
    from dfkd_bench.plugins.entry import Entry

EPILOG = """\b
Examples:
  dfkd-bench check NAME
  dfkd-bench check ./mine.py:Mine --set width=8
  dfkd-bench check all --preset all
  dfkd-bench check NAME --with ADDON
"""


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--preset", metavar="NAME", help="A preset, or `all` of them. Default: the method's own.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting (ADDON.KEY of an add-on)."
)
@click.option("--with", "addons", multiple=True, metavar="ADDON", help="Check it with an add-on around it. Repeatable.")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="cpu, cuda, or auto.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the rules that are broken.")
def command(
    names: tuple[str, ...],
    preset: str | None,
    overrides: tuple[str, ...],
    addons: tuple[str, ...],
    device: str,
    quiet: bool,
) -> None:
    """Check methods, files (mine.py:Class) or `all` against every rule of the contract. Takes seconds, no real data.

    Every rule is printed by name with its meaning; below one that is broken stands what was expected and what was seen.
    """
    from rich.console import Console

    from dfkd_bench.conformance import check_method
    from dfkd_bench.runs.plan import pick_device, resolve_addons

    console, device = Console(), pick_device(device)
    around = resolve_addons(addons)
    settings = pairs_of(overrides)
    failed = checked = 0
    for entry in chosen(names, composed=bool(around)):
        if entry.rivals:
            click.echo(f"error: {clash(entry)}", err=True)
            checked, failed = checked + 1, failed + 1
            continue
        for name in presets_of(entry, preset):
            results = check_method(entry, preset=name, overrides=settings, device=device, addons=around)
            broken = [r for r in results if not r.passed and r.reached]
            if broken or not quiet:
                console.print(table(entry, name, broken if quiet else results, around))
            checked, failed = checked + 1, failed + bool(broken)
    if failed:
        raise RunError(f"{failed} of {checked} checks failed")


def chosen(names: tuple[str, ...], composed: bool = False) -> list[Entry]:
    """The entries that are named; with `all` also clashing ones, of those with add-ons all that take them.

    Raises `UsageError` for unknown ones.
    """
    from dfkd_bench.plugins.registry import entries, resolve
    from dfkd_bench.protocol import GRANTED

    plain = GRANTED["real_data"] if composed else ()
    everything = [entry for name, entry in entries().items() if name not in plain]
    found = [e for name in names for e in (everything if name == "all" else [resolve(name)])]
    return list({entry.name: entry for entry in found}.values())


def clash(entry: Entry) -> str:
    """What is wrong with a name that several packages claim."""
    from dfkd_bench.plugins.registry import resolve

    try:
        resolve(entry.name)
    except UsageError as error:
        return str(error)
    return ""


def presets_of(entry: Entry, preset: str | None) -> list[str | None]:
    """The presets to check; None stands for the method's own choice."""
    if preset != "all":
        return [preset]
    from dfkd_bench.plugins.registry import card

    try:
        return list(card(entry).presets)
    except RunError:  # the check itself will say what is wrong
        return [None]


def table(entry: Entry, preset: str | None, results: list[RuleResult], addons: Sequence[Entry] = ()) -> Table:
    """One row per rule: pass or fail, its name, its meaning; below a failure what was expected and what was seen."""
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.conformance import RULES

    around = f" with {'+'.join(addon.name for addon in addons)}" if addons else ""
    title = f"{entry.name}{around}{f', preset {preset}' if preset else ''} ({entry.owner} {entry.version})"
    broken, unknown = sum(r.reached and not r.passed for r in results), sum(not r.reached for r in results)
    verdict = f"{broken} of {len(RULES)} rules do not hold" if broken else f"all {len(RULES)} rules hold"
    found = Table(
        title=escape(f"{title}: {verdict}{f', {unknown} were not reached' * bool(unknown)}"),
        title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    found.add_column(no_wrap=True)
    found.add_column(no_wrap=True)
    found.add_column()
    for r in results:
        if not r.reached:
            found.add_row("[yellow]-[/]", r.name, f"[dim]{escape(r.seen)}[/]")
            continue
        found.add_row("[green]pass[/]" if r.passed else "[bold red]FAIL[/]", r.name, escape(r.meaning))
        if not r.passed:
            found.add_row("", "[red]  expected[/]", escape(r.expected))
            found.add_row("", "[red]  seen[/]", escape(r.seen))
    return found
