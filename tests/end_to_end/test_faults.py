"""A sweep survives what is done to it: every fault of `survive_faults.py`, with real workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from survive_faults import FAULTS, survive


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_sweep_ends_as_if_undisturbed(whole: Path, tmp_path: Path, name: str) -> None:
    wrong = survive(FAULTS[name], whole, tmp_path)
    if wrong and wrong[0].startswith("skipped"):
        pytest.skip(wrong[0])
    assert wrong == []
