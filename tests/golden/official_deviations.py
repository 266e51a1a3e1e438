"""The only two ways past `test_official.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """What of an entry differs on purpose, and where docs/methods/NAME.md says why."""

    document: str  # name of the method, whose page numbers its deviations
    number: int
    parts: tuple[str, ...]  # as `official.differences` names them


DEVIATIONS: dict[str, Deviation] = {
    "schedule/lr/RoryShao/CPSC-DFKD/E=100": Deviation("cpsc", 8, ("value[10]",)),
    "schedule/lr/RoryShao/CPSC-DFKD/E=600": Deviation("cpsc", 8, ("value[10]",)),
}

# entry -> what it is of that no function, preset or recipe here computes
NOT_COMPUTED: dict[str, str] = {}
