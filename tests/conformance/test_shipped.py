"""Every method that dfkd-bench ships keeps every rule, with each of its presets."""

from __future__ import annotations

import pytest

from dfkd_bench.conformance import assert_conforms
from dfkd_bench.registry import card, entries

SHIPPED = [
    pytest.param(entry, preset, id=f"{entry.name}-{preset}")
    for entry in entries().values()
    if entry.owner == "dfkd-bench"
    for preset in card(entry).presets
]


def test_there_are_shipped_methods() -> None:
    assert len(SHIPPED) >= 4


@pytest.mark.parametrize(("entry", "preset"), SHIPPED)
def test_a_shipped_method_conforms(entry, preset) -> None:
    assert_conforms(entry, preset=preset, batch_size=8)
