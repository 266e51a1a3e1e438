"""All renderings of a results folder: whole, the same every time, and checked by verify."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factory import make_record, write_record
from safetensors.numpy import save_file

from dfkd_bench.errors import UsageError
from dfkd_bench.report import bundle
from dfkd_bench.results.verify import verify, write_sums


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    for method, last in (("alpha", 90.0), ("a_b%&", 91.0), ("<script>alert(1)</script>", 92.0)):
        for seed in range(2):
            path = write_record(root, make_record(method=method, seed=seed, last=last + seed))
            images = np.random.default_rng(seed).normal(size=(40, 1, 16, 16)).astype(np.float32)
            save_file(
                {"images": images, "labels": np.arange(40, dtype=np.int32) % 10}, path.parent / "samples.safetensors"
            )
    return root


def test_everything_is_written_and_is_what_render_gives(results: Path, tmp_path: Path) -> None:
    written = bundle.write(results, results)
    assert {p.name for p in written} == {*bundle.RENDERINGS, "samples.png"}
    for name, content in bundle.render(results).items():
        assert (results / name).read_bytes() == content, name
    elsewhere = tmp_path / "moved"
    shutil.copytree(results, elsewhere)
    assert bundle.expected_renderings(elsewhere) == bundle.expected_renderings(results) == bundle.render(results)
    assert str(tmp_path).encode() not in b"".join(bundle.render(results).values())


def test_the_page_is_the_same_where_the_images_themselves_are_not_kept(results: Path) -> None:
    bundle.write(results, results)
    page = (results / "index.html").read_bytes()
    sheets = sorted(results.rglob("samples.png"))
    assert len(sheets) == 3
    for path in results.rglob("samples.safetensors"):
        path.unlink()
    assert bundle.render(results, ["index.html"])["index.html"] == page
    assert b"seed 0, a row per label, 0 to 9" in page
    sheets[0].unlink()
    assert bundle.render(results, ["index.html"])["index.html"] != page


def test_every_row_and_run_is_in_the_tables(results: Path) -> None:
    bundle.write(results, results)
    tables = {name: pd.read_csv(results / name) for name in ("leaderboard.csv", "runs.csv", "pairs.csv")}
    assert [len(table) for table in tables.values()] == [3, 6, 3]
    assert (results / tables["runs.csv"]["path"][0]).is_file()
    assert r"a\_b\%\&" in (results / "leaderboard.tex").read_text()
    assert "a\\_b%&" in (results / "leaderboard.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize("name", [*bundle.RENDERINGS])
def test_verify_names_a_changed_byte_of_any_rendering(results: Path, name: str) -> None:
    bundle.write(results, results)
    write_sums(results)
    path = results / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    says = [finding for finding in verify(results, quick=True).problems if finding.file == name]
    assert any("SHA-256" in finding.what for finding in says)


def test_without_records_there_is_nothing_to_render(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no records below"):
        bundle.render(tmp_path)
