"""The gallery: which records are shown, what stands in which column, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import dfkd
from factory import make_record, write_record
from matplotlib.image import imread
from safetensors.torch import save_file

from dfkd_bench.errors import UsageError
from dfkd_bench.report.images import gallery, grid
from dfkd_bench.report.images.gallery import Line, choose, draw, pick

TASK = "digits16/cnn32-cnn16"
IMAGES = {"files": {"samples.safetensors": "0" * 64}}


@pytest.fixture(autouse=True)
def own_teachers(tmp_path: Path, monkeypatch: Any) -> None:
    """No test sees or touches the user's own teachers."""
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "home"))


def record(ended: str = "2026-01-01", **spec: Any) -> dict[str, Any]:
    return make_record(result=IMAGES, measurement={"ended": ended}, **spec)


def names(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(r["spec"]["method"], r["spec"]["preset"], r["spec"]["budget"]) for r in found]


def test_default_presets_of_one_seed_and_the_longest_budget_bounds_last(monkeypatch: Any) -> None:
    monkeypatch.setattr(gallery, "_defaults", lambda methods: {"beta": "textbook"})
    found = [
        record(method="noise"), record(method="beta"), record(method="beta", preset="textbook"),
        record(method="alpha"), record(method="alpha", preset="other"), record(method="alpha", budget="smoke"),
        record(method="gamma", seed=1), record(method="delta", overrides={"a": 1}),
        record(method="eps", track="recipe"), make_record(method="zeta"), record(method="omega"),
        make_record(method="eta", status="failed"),
    ]  # fmt: skip
    shown = names(pick(found, TASK, "pinned", None, 0))
    assert shown == [
        ("alpha", "official", "quick"), ("alpha", "other", "quick"), ("beta", "textbook", "quick"),
        ("omega", "official", "quick"), ("noise", "official", "quick"),
    ]  # fmt: skip
    assert names(pick(found, TASK, "pinned", "smoke", 0)) == [("alpha", "official", "smoke")]
    with pytest.raises(UsageError, match=r"no record with images and the default preset has .*seed 7"):
        pick(found, TASK, "pinned", None, 7)


def test_the_newest_record_of_a_method_is_shown() -> None:
    found = [record("2026-01-03", code="6b" * 32), record("2026-01-02"), record("2026-01-01", code="7c" * 32)]
    (shown,) = pick(found, TASK, "pinned", None, 0)
    assert shown["spec"]["code"] == "6b" * 32


def test_installed_methods_have_their_own_default_preset() -> None:
    assert gallery._defaults(["noise", "nobody"]) == {"noise": "normal"}


def test_a_column_holds_the_first_images_that_the_teacher_takes_for_its_class() -> None:
    images = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
    rows = choose(images, np.array([2, 0, 2, 2, 0]), classes=4, rows=2)
    values = [[None if image is None else float(image.ravel()[0]) for image in row] for row in rows]
    assert values == [[1.0, None, 0.0, None], [4.0, None, 2.0, None]]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_shows_empty_cells_and_colours(tmp_path: Path, channels: int) -> None:
    image = np.zeros((channels, 8, 8), np.float32)
    image[0] = 1.0  # red where there are three channels, white else
    lines = [
        Line("a_$b", "p", False, 0.5, None, ((image, None),)),
        Line("noise", "p", True, None, 9.0, ((None, None),)),
    ]
    path = tmp_path / "x.png"
    path.write_bytes(draw(lines, "task", 10))
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    assert (pixels == [255, 0, 0]).all(-1).any() == (channels == 3)
    empty = (pixels == round(gallery.EMPTY * 255)).all(-1).sum() / (gallery.CELL * 160) ** 2
    assert 2.7 < empty < 3.0  # three of four cells


def test_the_command_draws_all_methods(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    for number, method in enumerate(("alpha", "noise")):
        folder = write_record(tmp_path / "runs", record(method=method, preset="normal")).parent
        images = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(number))
        save_file({"images": images}, folder / "samples.safetensors")
    status, out, err = dfkd(monkeypatch, capsys, "samples", "--gallery", tmp_path / "runs", "--columns", 5)
    assert (status, err) == (0, "")
    assert out == f"2 methods, budget quick: {tmp_path / 'runs' / 'gallery.png'}\n"
    assert (tmp_path / "runs" / "gallery.png").read_bytes().startswith(b"\x89PNG")
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((), "name a run's folder or record, or a results folder"),
        ((folder, "--gallery", tmp_path), "one of the two"),
        ((folder, "--seed", 1), "--seed is for --gallery"),
        (("--gallery", tmp_path / "none"), "no results folder"),
        (("--gallery", tmp_path, "--budget", "quik"), "unknown budget 'quik'"),
        (("--gallery", tmp_path, "--task", "x"), "unknown task 'x'"),
        (("--gallery", tmp_path, "--seed", 5), "no record with images"),
        (("--gallery", tmp_path, "--out", "x.jpg"), "--out names a PNG file"),
    ]
    for words, says in cases:
        status, _, err = dfkd(monkeypatch, capsys, "samples", *words)
        assert (status, err.count("\n")) == (2, 1), err
        assert says in err


def test_a_teacher_that_is_not_registered_is_named(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    folder = write_record(tmp_path, record(teacher="ab" * 32)).parent
    save_file({"images": torch.zeros(4, 1, 16, 16)}, folder / "samples.safetensors")
    status, _, err = dfkd(monkeypatch, capsys, "samples", "--gallery", tmp_path)
    assert (status, err.count("\n")) == (1, 1)
    assert "is not registered on this machine" in err


def test_a_canvas_keeps_images_apart() -> None:
    image = np.zeros((1, 2, 2), np.float32)
    found = grid.canvas([[image, None]], empty=0.5)
    assert found.shape == (2, 4 + grid.GAP, 3)
    assert found[0, :, 0].tolist() == [0.0, 0.0, *[1.0] * grid.GAP, 0.5, 0.5]
