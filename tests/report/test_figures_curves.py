"""Learning curves, loss terms and schedules: lines and bands against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn import drawn, overlaps, words_of
from factory import make_record, write_record
from matplotlib.figure import Figure

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.report.figures.curves import curves, over_seeds
from dfkd_bench.report.figures.data import curves_of, labelled
from dfkd_bench.report.figures.losses import losses
from dfkd_bench.report.figures.schedules import scheduled_settings, schedules
from dfkd_bench.report.figures.style import looks
from dfkd_bench.report.tables.runs import load_results

T1 = 12.706204736432095


def points(**runs: Any) -> pd.DataFrame:
    """Curves of runs: name -> list of (seed, status, top-1 at each snapshot), seconds ten a snapshot and seed + 1."""
    parts = []
    for name, lines in runs.items():
        for seed, status, values in lines:
            steps = np.arange(1, len(values) + 1)
            parts.append(
                pd.DataFrame({
                    "label": name, "seed": seed, "status": status, "bound": False, "device_name": "Some CPU",
                    "threads": 2, "seconds": 10.0 * steps * (seed + 1), "student_images": 1000.0 * steps,
                    "snapshot": 1000.0 * steps,
                    "top1": values, "loss/a": np.asarray(values) / 10, "loss/w": 1.0 / steps,
                })
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def named(figure: Figure | None, panel: int = 0) -> dict[str, list[tuple[float, float]]]:
    """Data of the labelled lines of a panel."""
    assert figure is not None
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
        for line in figure.axes[panel].get_lines()
        if not str(line.get_label()).startswith("_")
    }


def test_mean_and_band_over_seeds_by_hand() -> None:
    part = points(a=[(0, "complete", [50.0, 80.0]), (1, "complete", [60.0, 84.0]), (2, "diverged", [1.0])])
    found = over_seeds(part, "top1")
    assert found.to_numpy().tolist() == [[1000, 55, 50, 60, 2], [2000, 82, 80, 84, 2]]
    half = T1 * math.sqrt(50) / math.sqrt(2)
    found = over_seeds(part, "top1", "seconds", "t")
    assert found["x"].tolist() == [15.0, 30.0]  # means of 10 and 20, of 20 and 40
    assert found["low"][0] == pytest.approx(55 - half)
    assert found["high"][0] == pytest.approx(55 + half)
    short = points(a=[(0, "complete", [50.0, 80.0]), (1, "complete", [60.0])])
    assert over_seeds(short, "top1")["x"].tolist() == [1000]  # no mean over part of the seeds
    with pytest.raises(UsageError, match="against student_images or seconds, with a band range or t"):
        over_seeds(part, "top1", "rounds")


def test_lines_bands_and_runs_that_diverged() -> None:
    found = points(
        a=[(0, "complete", [50.0, 80.0]), (1, "complete", [60.0, 84.0]), (2, "diverged", [30.0, 20.0])],
        b=[(0, "complete", [40.0, 70.0])],
    )
    figure = drawn(curves(found, looks("ab"), {"real-kd": 83.0, "noise": 5.0}, title="t"))
    assert named(figure) == {"a": [(1000, 55), (2000, 82)], "b": [(1000, 40), (2000, 70)]}
    axes = figure.axes[0]
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1, band.x0, band.x1) == (50, 84, 1000, 2000)
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([2000], [20])
    said = words_of(figure)
    assert "Line: mean over 1 to 2 seeds; band: from the lowest to the highest seed." in said
    assert "runs that diverged (a 1)" in said
    assert "real-kd 83.00" in said
    assert "noise 5.00, off the axis" in said
    assert overlaps(figure) == []
    figure = curves(found, looks("ab"), {}, "seconds", "t")
    assert named(figure)["a"] == [(15, 55), (30, 82)]
    said = words_of(figure)  # type: ignore[arg-type]
    assert "the 95 % interval of the mean (Student t)" in said
    assert "Seconds on Some CPU, 2 threads." in said


def test_many_competitors_get_a_panel_each_before_the_others_in_grey() -> None:
    found = points(**{f"m{k:02d}": [(s, "complete", [20.0 + k, 90.0 + k / 2]) for s in (0, 1)] for k in range(13)})
    figure = drawn(curves(found, looks(found["label"]), {"noise": 10.0}, title="t"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"m{k:02d}" for k in range(13)]
    assert named(figure, 3) == {"m03": [(1000, 23), (2000, 91.5)]}
    assert len(figure.axes[3].get_lines()) == 13  # the others, the own; the bound lies off the axis
    assert overlaps(figure) == []
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_near_100_the_axis_is_stretched_and_says_so() -> None:
    found = points(a=[(0, "complete", [50.0, 90.0, 99.0, 99.9])])
    figure = drawn(curves(found, looks("a"), {}, title="t"))
    axes = figure.axes[0]
    assert axes.get_yscale() == "function"
    at = axes.transData.transform([(0, 0), (0, 90), (0, 99), (0, 99.9)])[:, 1]
    assert np.diff(at) == pytest.approx([at[1] - at[0]] * 3)  # each tenth of the error is as far
    assert "stretched by the logarithm of the error" in words_of(figure)
    assert " ".join(t.get_text() for t in axes.get_yticklabels()) == "50 80 90 95 98 99 99.5 99.8 99.9"


def test_one_seed_has_no_band_and_nothing_has_no_figure() -> None:
    found = points(a=[(0, "complete", [50.0, 80.0])])
    figure = drawn(curves(found, looks("a"), band="t"))
    band = figure.axes[0].collections[0].get_paths()[0]
    assert set(np.round(band.vertices[:, 1], 9)) == {50.0, 80.0}
    assert curves(found[:0], looks("a")) is None
    assert curves(found.assign(bound=True), looks("a")) is None


def test_seconds_of_two_machines_share_no_axis() -> None:
    found = points(a=[(0, "complete", [50.0, 80.0])], b=[(0, "complete", [50.0, 80.0])])
    found.loc[found["label"] == "b", "device_name"] = "Other"
    with pytest.raises(UsageError, match="rows of one device_name only"):
        curves(found, looks("ab"), {}, "seconds")
    assert curves(found, looks("ab")) is not None


# -- from files -------------------------------------------------------------------------------------------------------


def write(root: Path, text: str, **more: Any) -> Path:
    folder = write_record(root, make_record(**more)).parent
    (folder / "curves.csv").write_text(text)
    return folder


def test_curves_are_read_beside_records_with_their_seconds(tmp_path: Path) -> None:
    text = "round,student_images,top1\n1,100,50\n2,200,60\n"
    write(tmp_path, text, seed=0)
    write(tmp_path, text + "3,300,70\n", seed=1)  # seconds of two snapshots alone
    write_record(tmp_path, make_record(seed=2))
    write_record(tmp_path, make_record(seed=3, status="failed"))
    runs = load_results(tmp_path)
    found = curves_of(labelled(runs, runs))
    assert found[found["seed"] == 0]["seconds"].tolist() == [5.8, 11.6]
    assert found[found["seed"] == 1]["seconds"].isna().all()
    assert found.groupby("seed").size().to_dict() == {0: 2, 1: 3}
    write(tmp_path, "student_images,top1\n1,oops\n", seed=4)
    runs = load_results(tmp_path)
    with pytest.raises(RunError, match=r"curves.csv is not a curve of numbers"):
        curves_of(labelled(runs, runs))


# -- losses and schedules ---------------------------------------------------------------------------------------------


def test_a_panel_per_loss_term_and_a_line_per_seed() -> None:
    found = points(a=[(0, "complete", [50.0, 80.0]), (1, "diverged", [60.0, float("inf")])])
    found["loss/big"] = [1000.0, 1.0, 500.0, 1.0]
    figure = drawn(losses(found, looks("a")["a"], "t"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "w", "big (log)"]
    first = [[float(v) for v in line.get_ydata()] for line in figure.axes[0].get_lines()]
    assert first[0] == [5.0, 8.0]
    assert first[1][0] == 6.0
    assert math.isnan(first[1][1])
    assert first[2] == [6.0]  # the cross, where the last finite number was
    assert figure.axes[2].get_yscale() == "log"
    assert "A line per seed (2); a cross ends one that diverged (1)." in words_of(figure)
    assert overlaps(figure) == []
    assert losses(found[["label", "seed", "status", "student_images", "top1"]], looks("a")["a"]) is None


def test_schedules_are_told_from_losses() -> None:
    found = points(a=[(0, "complete", [50.0, 80.0]), (1, "complete", [60.0, 84.0])])
    found["loss/constant"] = 1.0
    assert scheduled_settings(found) == ["loss/w"]
    assert scheduled_settings(found[found["seed"] == 0]) == []  # one seed tells nothing


def test_chosen_columns_over_the_run() -> None:
    found = points(a=[(0, "complete", [50.0, 80.0]), (1, "complete", [60.0, 84.0])], b=[(0, "complete", [10.0, 20.0])])
    found.loc[found["label"] == "b", "loss/w"] = float("nan")
    figure = drawn(schedules(found, ["loss/a", "loss/w", "loss/none"], looks("ab"), "t"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "w"]
    assert named(figure) == {"a": [(1000, 5.5), (2000, 8.2)], "b": [(1000, 1.0), (2000, 2.0)]}
    assert named(figure, 1) == {"a": [(1000, 1.0), (2000, 0.5)]}
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b"]
    assert overlaps(figure) == []
    assert schedules(found, ["loss/none"], looks("ab")) is None
