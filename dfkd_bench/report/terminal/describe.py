"""Description of one method or add-on from its card: summary, privileges, presets, settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dfkd_bench.plugins.cards import Card, SettingInfo
from dfkd_bench.plugins.entry import METHOD, Entry
from dfkd_bench.protocol import BOUNDS
from dfkd_bench.report.privileges import PRIVILEGES
from dfkd_bench.report.terminal.listing import summary, table_of
from dfkd_bench.utils.text import assignments


def describe(entry: Entry, card: Card) -> Iterator[Any]:
    """The parts of the output of `dfkd-bench show`."""
    kind = "an add-on" if entry.kind != METHOD else "a bound, never ranked" if entry.name in BOUNDS else ""
    origin = " · ".join(part for part in (f"{entry.owner} {entry.version}", entry.target, kind) if part)
    yield Text.assemble((entry.name, "bold"), "  ", (origin, "dim"))
    yield Text(summary(card))
    if card.paper:
        yield Text.assemble(("paper: ", "bold"), card.paper)
    for text in (card.about, _beyond_summary(card)):
        for paragraph in paragraphs(text):
            yield ""
            yield Padding(Text(paragraph), (0, 0, 0, 2))
    yield ""
    yield uses(card)
    if entry.kind == METHOD:
        yield ""
        yield presets(card)
    if card.task_settings:
        yield ""
        rows = [[escape(p), escape(t), escape(assignments(s))] for p, t, s in card.task_settings]
        yield table_of("on some tasks", ("preset", "task", "sets as well"), rows)
    if card.budget_settings:
        yield ""
        rows = [[escape(b), escape(assignments(s))] for b, s in card.budget_settings.items()]
        yield table_of("in some budgets", ("budget", "sets as well"), rows)
    yield ""
    yield settings(card, "NAME" if entry.kind == METHOD else f"{entry.name}.NAME")


def _beyond_summary(card: Card) -> str:
    first, _, rest = card.doc.partition("\n\n")
    sentences = " ".join(first.split()).split(". ", 1)[1:]
    return "\n\n".join(part for part in (*sentences, rest) if part)


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a docstring as one line each; paragraphs with indented lines (formulas, lists) stay unchanged."""
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if not block.strip():
            continue
        yield "\n".join(lines) if any(line.startswith(" ") for line in lines) else " ".join(lines)


def uses(card: Card) -> Table:
    """The privileges with their meaning, including those that only some presets use."""
    rows = []
    for name, (mark, meaning) in PRIVILEGES.items():
        presets_with = [preset for preset in card.presets if name in card.privileges_of(preset)]
        if name in card.privileges or presets_with:
            note = "" if name in card.privileges else f" [dim](preset {escape(', '.join(presets_with))} only)[/]"
            rows.append([mark, name.replace("_", " "), escape(meaning) + note])
    rows = rows or [["-", "none", "the teacher's logits alone"]]
    return table_of("privileges", ("mark", "name", "what is used"), rows)


def presets(card: Card) -> Table:
    """Each preset with its settings."""
    rows = []
    for name, values in card.presets.items():
        mark = " [dim](default)[/]" if name == card.default_preset else ""
        rows.append([escape(name) + mark, escape(assignments(values)) or "[dim]the defaults[/]"])
    return table_of("presets", ("name", "sets"), rows)


def settings(card: Card, key: str) -> Table:
    """Every setting: default, meaning with unit and choices, and what overrides it."""
    rows = [[escape(s.name), escape(str(s.default) or "''"), _meaning(s, card)] for s in card.settings]
    return table_of(f"settings, changed with --set {escape(key)}=VALUE", ("name", "default", "meaning"), rows)


def _meaning(setting: SettingInfo, card: Card) -> str:
    unit = f" [dim]({escape(setting.unit)})[/]" if setting.unit else ""
    lines = [escape(setting.help) + unit]
    if setting.choices:
        lines.append(f"[dim]one of {escape(', '.join(map(str, setting.choices)))}[/]")
    lines += [f"[cyan]{escape(change)}[/]" for change in _changes(setting.name, card)]
    return "\n".join(lines)


def _changes(name: str, card: Card) -> Iterator[str]:
    for preset, values in card.presets.items():
        if name in values:
            yield f"preset {preset}: {values[name]}"
    for preset, task, values in card.task_settings:
        if name in values:
            yield f"preset {preset} on {task}: {values[name]}"
    for budget, values in card.budget_settings.items():
        if name in values:
            yield f"budget {budget}: {values[name]}"
    if name in card.pinned:
        yield "fixed by track pinned"
