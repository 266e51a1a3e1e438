"""`dfkd-bench check`: run the conformance rules on methods and print the result of each rule."""

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
@click.option("--preset", metavar="NAME", help="A preset, or `all` of them. Default: the method's default.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting (ADDON.KEY of an add-on)."
)
@click.option("--with", "addons", multiple=True, metavar="ADDON", help="Check with this add-on. Repeatable.")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="cpu, cuda, or auto.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the broken rules.")
def command(
    names: tuple[str, ...],
    preset: str | None,
    overrides: tuple[str, ...],
    addons: tuple[str, ...],
    device: str,
    quiet: bool,
) -> None:
    """Check methods, files (mine.py:Class) or `all` against every rule of the contract. Takes seconds, no real data.

    Each rule is printed with its meaning; for a broken rule also what was expected and what was seen.
    """
    from rich.console import Console

    from dfkd_bench.conformance import check_method
    from dfkd_bench.runs.plan import pick_device, resolve_addons

    console, device = Console(), pick_device(device)
    addon_entries = resolve_addons(addons)
    settings = pairs_of(overrides)
    failed = checked = 0
    for entry in entries_of(names, composed=bool(addon_entries)):
        if entry.rivals:
            click.echo(f"error: {clash(entry)}", err=True)
            checked, failed = checked + 1, failed + 1
            continue
        for name in presets_of(entry, preset):
            results = check_method(entry, preset=name, overrides=settings, device=device, addons=addon_entries)
            broken = [r for r in results if not r.passed and r.reached]
            if broken or not quiet:
                console.print(table(entry, name, broken if quiet else results, addon_entries))
            checked, failed = checked + 1, failed + bool(broken)
    if failed:
        raise RunError(f"{failed} of {checked} checks failed")


def entries_of(names: tuple[str, ...], composed: bool = False) -> list[Entry]:
    """The entries of these names. `all` includes ambiguous names; if `composed`, not those that accept no add-on.

    Raises `UsageError` for an unknown name.
    """
    from dfkd_bench.plugins.registry import entries, resolve
    from dfkd_bench.protocol import GRANTED

    without_addons = GRANTED["real_data"] if composed else ()
    everything = [entry for name, entry in entries().items() if name not in without_addons]
    selected = [e for name in names for e in (everything if name == "all" else [resolve(name)])]
    return list({entry.name: entry for entry in selected}.values())


def clash(entry: Entry) -> str:
    """The error message for a name that several packages declare."""
    from dfkd_bench.plugins.registry import resolve

    try:
        resolve(entry.name)
    except UsageError as error:
        return str(error)
    return ""


def presets_of(entry: Entry, preset: str | None) -> list[str | None]:
    """The presets to check; None is the method's default preset."""
    if preset != "all":
        return [preset]
    from dfkd_bench.plugins.registry import card

    try:
        return list(card(entry).presets)
    except RunError:  # the check itself reports the error
        return [None]


def table(entry: Entry, preset: str | None, results: list[RuleResult], addons: Sequence[Entry] = ()) -> Table:
    """One row per rule: pass or fail, name, meaning; for a failure also what was expected and what was seen."""
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.conformance import RULES

    with_addons = f" with {'+'.join(addon.name for addon in addons)}" if addons else ""
    title = f"{entry.name}{with_addons}{f', preset {preset}' if preset else ''} ({entry.owner} {entry.version})"
    broken, unknown = sum(r.reached and not r.passed for r in results), sum(not r.reached for r in results)
    verdict = f"{broken} of {len(RULES)} rules do not hold" if broken else f"all {len(RULES)} rules hold"
    rules = Table(
        title=escape(f"{title}: {verdict}{f', {unknown} were not reached' * bool(unknown)}"),
        title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    rules.add_column(no_wrap=True)
    rules.add_column(no_wrap=True)
    rules.add_column()
    for r in results:
        if not r.reached:
            rules.add_row("[yellow]-[/]", r.name, f"[dim]{escape(r.seen)}[/]")
            continue
        rules.add_row("[green]pass[/]" if r.passed else "[bold red]FAIL[/]", r.name, escape(r.meaning))
        if not r.passed:
            rules.add_row("", "[red]  expected[/]", escape(r.expected))
            rules.add_row("", "[red]  seen[/]", escape(r.seen))
    return rules
