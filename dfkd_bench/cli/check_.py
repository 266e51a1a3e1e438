"""`dfkd-bench check`: the conformance rules of one method, several or all, and which of them hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from dfkd_bench.conformance import RuleResult
    from dfkd_bench.registry import Entry

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
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting (ADDON.KEY of an add-on).",
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
    """Check methods, files (mine.py:Class) or `all` against every rule of the contract. Takes seconds, no real data."""
    from rich.console import Console

    from dfkd_bench.conformance import check_method
    from dfkd_bench.plan import pick_device, resolve_addons

    console, device = Console(), pick_device(device)
    around = resolve_addons(addons)
    settings = parse_settings(overrides)
    failed = checked = 0
    for entry in chosen(names, composed=bool(around)):
        if entry.rivals:
            click.echo(f"error: {clash(entry)}", err=True)
            checked, failed = checked + 1, failed + 1
            continue
        for name in presets_of(entry, preset):
            results = check_method(entry, preset=name, overrides=settings, device=device, addons=around)
            broken = [r for r in results if not r.passed]
            if broken or not quiet:
                console.print(table(entry, name, broken if quiet else results, around))
            checked, failed = checked + 1, failed + bool(broken)
    if failed:
        raise RunError(f"{failed} of {checked} checks failed")


def chosen(names: tuple[str, ...], composed: bool = False) -> list[Entry]:
    """The entries that are named; with `all` also clashing ones, of those with add-ons all that take them.

    Raises `UsageError` for unknown ones.
    """
    from dfkd_bench.protocol import GRANTED
    from dfkd_bench.registry import entries, resolve

    plain = GRANTED["real_data"] if composed else ()
    everything = [entry for name, entry in entries().items() if name not in plain]
    found = [e for name in names for e in (everything if name == "all" else [resolve(name)])]
    return list({entry.name: entry for entry in found}.values())


def clash(entry: Entry) -> str:
    """What is wrong with a name that several packages claim."""
    from dfkd_bench.registry import resolve

    try:
        resolve(entry.name)
    except UsageError as error:
        return str(error)
    return ""


def presets_of(entry: Entry, preset: str | None) -> list[str | None]:
    """The presets to check; None stands for the method's own choice."""
    if preset != "all":
        return [preset]
    from dfkd_bench.registry import card

    try:
        return list(card(entry).presets)
    except RunError:  # the check itself will say what is wrong
        return [None]


def parse_settings(overrides: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE words as a dict."""
    settings = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes KEY=VALUE, got {text!r}")
        settings[key.strip()] = value
    return settings


def table(entry: Entry, preset: str | None, results: list[RuleResult], addons: Sequence[Entry] = ()) -> Table:
    """Rules as a table; what was seen stands beside those that failed."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dfkd_bench.conformance import RULES

    around = f" with {'+'.join(addon.name for addon in addons)}" if addons else ""
    title = f"{entry.name}{around}{f', preset {preset}' if preset else ''} ({entry.owner} {entry.version})"
    broken = sum(not r.passed for r in results)
    verdict = f"{broken} of {len(RULES)} rules do not hold" if broken else f"all {len(RULES)} rules hold"
    found = Table(title=escape(f"{title}: {verdict}"), title_justify="left", box=box.SIMPLE_HEAD)
    found.add_column("rule", no_wrap=True)
    found.add_column("", no_wrap=True)
    found.add_column("expected")
    if broken:
        found.add_column("seen")
    for r in results:
        unknown = r.seen.startswith("not reached")
        mark = "[green]ok[/]" if r.passed else "[yellow]unknown[/]" if unknown else "[red]failed[/]"
        seen = [] if not broken else ["" if r.passed else escape(r.seen)]
        found.add_row(r.name, mark, escape(r.expected), *seen)
    return found
