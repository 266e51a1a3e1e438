"""Presets and settings of one method or bound as Markdown tables, read from its source text."""

from __future__ import annotations

from collections.abc import Iterator

from dfkd_bench.plugins import registry
from dfkd_bench.plugins.cards import Card, SettingInfo
from dfkd_bench.report import markdown
from dfkd_bench.utils.text import assignments

DEFAULTS = "the defaults"


def settings_table(name: str) -> str:
    """Tables of presets, of settings for single tasks and budgets, and of all settings.

    Raises `UsageError` for an unknown method.
    """
    card = registry.card(registry.resolve(name))
    return "\n\n".join("\n".join(part) for part in _parts(card)) + "\n"


def _parts(card: Card) -> Iterator[list[str]]:
    presets = [
        [f"{preset} (default)" if preset == card.default_preset else preset, assignments(values) or DEFAULTS]
        for preset, values in card.presets.items()
    ]
    yield markdown.table(("preset", "sets"), presets, ("preset", "sets"))
    if card.task_settings:
        rows = [[preset, task, assignments(values)] for preset, task, values in card.task_settings]
        headers = ("preset", "on tasks", "sets as well")
        yield markdown.table(headers, rows, headers)
    if card.budget_settings:
        budgets = [[budget, assignments(values)] for budget, values in card.budget_settings.items()]
        yield markdown.table(("in budget", "sets as well"), budgets, ("in budget", "sets as well"))
    settings = [[s.name, str(s.default), meaning(s, card)] for s in card.settings]
    yield markdown.table(("setting", "default", "meaning"), settings, ("setting", "meaning"))


def meaning(setting: SettingInfo, card: Card) -> str:
    """The help text with unit, choices, a note if the pinned track fixes it, and the values that `tune` tries."""
    parts = [f"{setting.help} ({setting.unit})" if setting.unit else setting.help]
    if setting.choices:
        parts.append(f"one of {', '.join(map(str, setting.choices))}")
    if setting.name in card.pinned:
        parts.append("fixed on the pinned track")
    if setting.name in card.search:
        parts.append(f"tune tries {', '.join(map(str, card.search[setting.name]))}")
    return "; ".join(parts)
