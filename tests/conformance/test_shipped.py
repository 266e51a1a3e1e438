"""Every method that dfkd-bench ships keeps every rule, with each of its presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small import SMALL

from dfkd_bench.conformance import assert_conforms
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.plugins.registry import card, entries
from dfkd_bench.protocol import DEFAULT_TASK, task

SHIPPED = [
    pytest.param(
        entry,
        preset,
        id=f"{entry.name}-{preset}",
        marks=() if preset == card(entry).default_preset else pytest.mark.long,
    )
    for entry in entries().values()
    if entry.owner == "dfkd-bench"
    for preset in card(entry).presets
]
LONG = [case for case in SHIPPED if case.values[0].name in SMALL]


def files(entry: Entry, preset: str, folder: Path) -> dict[str, str]:
    """A file of class vectors for a preset that declares outside knowledge, by each setting that names a file."""
    described = card(entry)
    if "external_model" not in described.privileges_of(preset):
        return {}
    path = folder / "vectors.safetensors"
    save_file({"vectors": torch.randn(task(DEFAULT_TASK).dataset.classes, 8)}, path)
    return {s.name: str(path) for s in described.settings if s.unit == "file"}


def test_there_are_shipped_methods() -> None:
    assert len({case.id for case in SHIPPED}) == len(SHIPPED) >= 31
    assert set(SMALL) <= {case.values[0].name for case in SHIPPED}


@pytest.mark.parametrize(("entry", "preset"), SHIPPED)
def test_a_shipped_method_conforms(entry: Entry, preset: str, tmp_path: Path) -> None:
    """With inner loops cut short: no rule depends on their length, and something is still drawn anew half-way."""
    overrides: dict[str, Any] = {**SMALL.get(entry.name, {}), **files(entry, preset, tmp_path)}
    assert_conforms(entry, preset=preset, overrides=overrides, batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "preset"), LONG)
def test_a_shipped_method_conforms_as_it_runs(entry: Entry, preset: str, tmp_path: Path) -> None:
    assert_conforms(entry, preset=preset, overrides=files(entry, preset, tmp_path), batch_size=8)
