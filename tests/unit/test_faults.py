"""A sweep survives what is done to it: every fault of `survive_faults.py`, with real workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from survive_faults import FAULTS, survive, undisturbed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    undisturbed(root / "whole")
    return root


@pytest.mark.parametrize("name", FAULTS)
def test_a_sweep_ends_as_if_undisturbed(whole: Path, name: str) -> None:
    wrong = survive(FAULTS[name], whole / "whole", whole)
    if wrong and wrong[0].startswith("skipped"):
        pytest.skip(wrong[0])
    assert wrong == []
