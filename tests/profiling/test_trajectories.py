"""Trajectories: curves of records as lines, runs that differ in their seed alone sharing one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import trajectories
from factory import make_record, write_record

from dfkd_bench.errors import UsageError


def curves(root: Path, seed: int, values: list[float], **spec: Any) -> None:
    folder = write_record(root, make_record(seed=seed, **spec)).parent
    lines = [f"{(k + 1) * 1000.0},{v}" for k, v in enumerate(values)]
    (folder / "curves.csv").write_text("\n".join(["student_images,loss/x", *lines, ""]))


def test_trajectories_share_a_line_over_seeds(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "runs"
    curves(root, 0, [1.0, 2.0])
    curves(root, 1, [3.0, 4.0])
    curves(root, 0, [5.0, 6.0], preset="textbook", overrides={"a": 1})
    curves(root, 0, [7.0, 8.0], method="beta", code="6b" * 32)
    words = ["--records", str(root), "--columns", "loss/x", "--csv", str(tmp_path / "t.csv")]
    assert trajectories.main([*words, "--figure", str(tmp_path / "t.png")]) == 0
    found = pd.read_csv(tmp_path / "t.csv")
    assert set(found["run"]) == {"alpha official", "alpha textbook a=1", "beta"}
    assert found[found["run"] == "alpha official"].groupby("student_images")["value"].mean().tolist() == [2.0, 3.0]
    assert (tmp_path / "t.png").stat().st_size > 1000
    with pytest.raises(UsageError, match="no curve has a column 'loss/y'; did you mean 'loss/x'"):
        trajectories.collect(root, ["loss/y"], [], None)
    with pytest.raises(UsageError, match="no records with curves"):
        trajectories.collect(root, ["loss/x"], ["gamma"], None)
    assert trajectories.main([*words, "--figure", "x.pdf"]) == 2
    assert capsys.readouterr().err.startswith("error: --figure must name a PNG file")
