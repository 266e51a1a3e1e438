"""A data home for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data home of each test's own, and nothing of the user's."""
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("DFKD_BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
