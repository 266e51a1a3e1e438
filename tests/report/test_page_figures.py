"""Curves and images of the leaderboard's page: numbers worked out by hand, pixels put there by the test."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import write_run
from PIL import Image
from safetensors.numpy import save_file

from dfkd_bench.report.html import curves, images
from dfkd_bench.report.html.build import page
from dfkd_bench.report.html.groups import Group, groups
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results


def group_of(root: Path) -> Group:
    """The only group of a folder."""
    runs = load_results(root)
    (found,) = groups(runs, leaderboard(runs), root)
    return found


def html_of(root: Path) -> str:
    """The page of a folder."""
    runs = load_results(root)
    return page(runs, leaderboard(runs), root)


# -- curves -----------------------------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_and_range_over_seeds_where_all_have_a_value(tmp_path: Path) -> None:
    write_run(tmp_path, {1: 10.0, 2: 40.0, 3: 60.0, 4: 77.0}, seed=0)
    write_run(tmp_path, {1: 20.0, 2: 50.0, 3: 90.0}, seed=1)
    write_run(tmp_path, {1: 0.0, 2: 0.0}, seed=2, status="diverged")
    points = curves.read(group_of(tmp_path).lines[0], tmp_path)
    assert points == curves.Points([64.0, 128.0, 192.0], [15.0, 45.0, 75.0], [10.0, 40.0, 60.0], [20.0, 50.0, 90.0], 2)


@pytest.mark.parametrize(
    "broken", [None, "", "round,top1\n1,2\n", "student_images,top1\n1,x\n", "student_images,top1\n1,nan\n2,3\n", "\0"]
)
def test_a_row_with_a_run_whose_curve_cannot_be_read_has_none_and_is_named(tmp_path: Path, broken: str | None) -> None:
    write_run(tmp_path, {1: 10.0, 2: 40.0}, seed=0)
    folder = write_run(tmp_path, {1: 10.0, 2: 40.0}, seed=1)
    write_run(tmp_path, {1: 10.0, 2: 40.0}, method="beta", preset="p")
    assert curves.read(group_of(tmp_path).lines[0], tmp_path) is not None
    (folder / "curves.csv").unlink()
    if broken is not None:
        (folder / "curves.csv").write_text(broken)
    text = html_of(tmp_path)
    assert "No curve: alpha (official)." in text
    assert text.count("<polyline") == 2  # beta's, and its key


def drawn(root: Path) -> curves.Chart:
    """The chart of the only group of a folder."""
    group = group_of(root)
    found = curves.chart(group, [curves.read(line, root) for line in group.lines])
    assert found
    return found


def test_a_linear_scale_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path, {5: 25.0, 10: 55.0})
    chart = drawn(tmp_path)
    # from 20 to 60 % over 330 - 12 - 44 = 274 units, from 12 on; x from 64 to 580 over 640 images
    assert chart.lines[0].path == f"322,{12 + 274 * 35 / 40:.1f} 580,{12 + 274 * 5 / 40:.1f}"
    assert chart.y_ticks == [(286.0, "20 %"), (217.5, "30 %"), (149.0, "40 %"), (80.5, "50 %"), (12.0, "60 %")]
    assert [name for _, name in chart.x_ticks] == ["0", "160", "320", "480", "640"]
    assert (chart.log_error, chart.several, chart.lines[0].band) == (False, False, "")
    assert chart.rows == [("alpha (official)", ["", "", "25.00", "25.00", "25.00", "55.00"])]


def test_near_100_percent_the_scale_is_that_of_the_error(tmp_path: Path) -> None:
    write_run(tmp_path, {5: 20.0, 10: 99.0}, seed=0)
    write_run(tmp_path, {5: 20.0, 10: 99.6}, seed=1)
    chart = drawn(tmp_path)
    place = 12 + 274 * math.log(0.7 / 0.4) / math.log(80 / 0.4)  # mean error 0.7, least 0.4, most 80
    assert chart.lines[0].path == f"322,286.0 580,{place:.1f}"
    assert chart.lines[0].band == f"322,286.0 580,12.0 580,{12 + 274 * math.log(1 / 0.4) / math.log(200):.1f} 322,286.0"
    assert [name for _, name in chart.y_ticks] == ["99.5 %", "99 %", "98 %", "95 %", "90 %", "80 %", "50 %"]
    assert chart.log_error
    assert "logarithm" in html_of(tmp_path)


def test_a_student_without_error_is_drawn_on_the_edge(tmp_path: Path) -> None:
    write_run(tmp_path, {5: 100.0, 10: 100.0})
    assert {y for _, y in (point.split(",") for point in drawn(tmp_path).lines[0].path.split())} == {"12.0"}


# -- images -----------------------------------------------------------------------------------------------------------


def pixels(shown: images.Picture) -> Any:
    """The picture as an array."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))))


def picture_of(root: Path, most: int = images.MAX_BYTES) -> images.Picture:
    """The picture of the only row of a folder."""
    found = images.picture(group_of(root).lines[0], root, most)
    assert found
    return found


def test_labelled_images_stand_in_a_row_per_label(tmp_path: Path) -> None:
    write_run(tmp_path, labels=[7, 3, 7, 3, 3, 9, 9, 9, 9, 9])
    shown = picture_of(tmp_path)
    grey = pixels(shown)
    assert grey.shape == (shown.height, shown.width) == (3 * 18 - 2, 5 * 18 - 2)
    rows = [[round(float(grey[y * 18 + 8, x * 18 + 8]) / 25.5) for x in range(5)] for y in range(3)]
    assert rows == [[1, 3, 4, 10, 10], [0, 2, 10, 10, 10], [5, 6, 7, 8, 9]]  # brightness times ten; 10 is paper
    assert shown.caption == "seed 0, a row per label, 3 to 9"
    text = html_of(tmp_path)
    assert f'alt="Synthetic images of alpha (official), {shown.caption}"' in text
    assert shown.uri in text


def test_images_without_labels_stand_as_they_come(tmp_path: Path) -> None:
    write_run(tmp_path, labels=[])
    shown = picture_of(tmp_path)
    assert (shown.height, shown.width) == (16, 178)
    assert [round(v / 25.5) for v in pixels(shown)[8, 8::18]] == list(range(10))
    assert shown.caption == "seed 0, no labels"


def test_the_first_seed_that_has_images_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path, labels=[0] * 10, seed=0, status="diverged")
    write_run(tmp_path, seed=1)
    write_run(tmp_path, labels=[0] * 10, seed=2)
    assert picture_of(tmp_path).caption.startswith("seed 2,")


def test_pictures_stay_small(tmp_path: Path) -> None:
    folder = write_run(tmp_path, task="cifar10/resnet34-resnet18")
    noise = np.random.default_rng(0).normal(size=(512, 3, 32, 32)).astype(np.float32)
    save_file({"images": noise, "labels": np.arange(512, dtype=np.int32) % 10}, folder / "samples.safetensors")
    shown = picture_of(tmp_path)
    assert len(base64.b64decode(shown.uri.partition(",")[2])) <= images.MAX_BYTES
    assert shown.caption == "seed 0, a row per label, 0 to 9"  # fewer of each, but every class
    assert shown.width < shown.height


def test_large_images_are_averaged_down() -> None:
    big = np.zeros((3, 66, 64), dtype=np.float32)
    big[:, ::3] = 1.0
    small = images._small(big)
    assert small.shape == (3, 22, 21)
    assert small == pytest.approx(np.full(small.shape, 1 / 3))


@pytest.mark.parametrize("broken", ["missing", "not a file of tensors", "wrong shape", "unknown task"])
def test_images_that_cannot_be_shown_are_said_to_be_missing(tmp_path: Path, broken: str) -> None:
    folder = write_run(
        tmp_path,
        {1: 1.0, 2: 2.0},
        labels=[1] * 10,
        task="nothing/a-b" if broken == "unknown task" else "digits16/cnn32-cnn16",
    )
    file = folder / "samples.safetensors"
    if broken == "missing":
        file.unlink()
    elif broken == "not a file of tensors":
        file.write_bytes(b"nonsense")
    elif broken == "wrong shape":
        save_file({"images": np.zeros((4, 3, 8, 8), dtype=np.float32)}, file)
    text = html_of(tmp_path)
    assert "No images" in text
    assert "<img" not in text


def test_pictures_share_the_room_of_the_page(tmp_path: Path, monkeypatch: Any) -> None:
    from dfkd_bench.report.html import build

    for method in ("a", "b"):
        write_run(tmp_path, {1: 1.0, 2: 2.0}, labels=[1] * 10, method=method)
    assert html_of(tmp_path).count("<img") == 2
    monkeypatch.setattr(build, "MAX_IMAGE_BYTES", 2 * build.MIN_PICTURE_BYTES - 1)
    monkeypatch.setattr(build, "MAX_POINTS", 11)  # two curves of two points, three numbers each, are 12
    text = html_of(tmp_path)
    assert "<img" not in text
    assert "The images are left out" in text
    assert "The curves are left out" in text
    assert "<polyline" not in text
