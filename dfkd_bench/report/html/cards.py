"""Privilege cards: what each method uses besides the teacher's logits."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dfkd_bench.errors import RunError
from dfkd_bench.plugins import registry
from dfkd_bench.report.privileges import NONE, PRIVILEGES
from dfkd_bench.report.terminal.listing import summary

LOGITS = ("-", "logits alone", "only the teacher's logits")
UNKNOWN = ("?", "not known", "not in the records, and the method is not installed")


@dataclass(frozen=True)
class Use:
    """The privileges that some presets of a method use: mark, name and meaning of each."""

    presets: tuple[str, ...]  # empty if all presets in the records use the same privileges
    privileges: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Card:
    """The card of one method. Summary and paper are empty if the method is not installed."""

    method: str
    bound: bool
    owner: str
    summary: str
    paper: str
    uses: tuple[Use, ...]


def cards(board: pd.DataFrame) -> list[Card]:
    """A card for each method of the leaderboard, sorted by name, bounds last. No method is imported."""
    installed = registry.entries()
    result = []
    columns = ["bound", "method", "preset", "privileges", "owner", "version"]
    table = board[columns].astype(object).where(board[columns].notna(), None)
    for (bound, method), part in table.groupby(["bound", "method"], sort=True):
        by_use: dict[str | None, set[str]] = {}
        for preset, text in zip(part["preset"], part["privileges"], strict=True):
            by_use.setdefault(text, set()).add(preset)
        same_uses = len(by_use) == 1
        uses = [Use(() if same_uses else tuple(sorted(p)), described_privileges(text)) for text, p in by_use.items()]
        owners = sorted({f"{o} {v or ''}".strip() for o, v in zip(part["owner"], part["version"], strict=True) if o})
        entry = installed.get(str(method))  # used only if its owner is that of the records
        about = _about(entry) if entry and (entry.owner in set(part["owner"]) or not owners) else ("", "")
        result.append(Card(str(method), bool(bound), ", ".join(owners), *about, tuple(sorted(uses, key=_presets))))
    return result


def _presets(use: Use) -> tuple[str, ...]:
    return use.presets


def described_privileges(text: str | None) -> tuple[tuple[str, str, str], ...]:
    """Mark, name and meaning of each privilege in the text of the leaderboard's column `privileges`."""
    if text is None:
        return (UNKNOWN,)
    if text == NONE:
        return (LOGITS,)
    return tuple((*_known(name),) for name in text.split(","))


def _known(name: str) -> tuple[str, str, str]:
    mark, meaning = PRIVILEGES.get(name, ("?", "a privilege that this version does not know"))
    return mark, name.replace("_", " "), meaning


def _about(entry: registry.Entry) -> tuple[str, str]:
    """Summary and paper from the source text of an installed method."""
    try:
        card = registry.static_card(entry) if not entry.rivals else None
    except RunError:
        card = None
    return (summary(card), card.paper) if card else ("", "")
