"""Synthetic results with curves and predictions, and checks of the texts in figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from factory import RESULT, make_record, write_record
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from safetensors.numpy import save_file

from dfkd_bench.report.figures.data import labelled
from dfkd_bench.report.figures.layout import renderer
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import long_table

TASKS = ("digits16/cnn32-cnn16", "cifar10/resnet34-resnet18", "cifar100/wrn40_2-wrn16_1")
SNAPSHOTS, IMAGES = 10, 200


def write_run(root: Path, spec: dict[str, Any], final: float, hard: float = 1.0, **more: Any) -> Path:
    """Write a run whose top-1 rises to `final`, with `hard` times the cost of the factory's run; returns its folder.

    Random numbers depend on the seed and the method's name alone.
    """
    rng = np.random.default_rng([spec.get("seed", 0), *spec["method"].encode()])
    result = {"counts": {k: round(v * hard) if k.startswith("teacher") else v for k, v in RESULT["counts"].items()}}
    clock = [round(6.0 * hard * (k + 1), 3) for k in range(SNAPSHOTS)]
    measured = {"seconds_total": 60.0 * hard, "snapshot_seconds": clock}
    record = make_record(last=final, result=result, measurement=measured, **{**spec, **more})
    folder = write_record(root, record).parent
    if record["result"]["status"] == "failed":
        return folder
    part = np.arange(1, SNAPSHOTS + 1) / SNAPSHOTS
    top1 = final * (1 - np.exp(-6 * part / hard**0.3)) / (1 - np.exp(-6 / hard**0.3))
    curve = pd.DataFrame({
        "round": part * 80, "student_images": part * 51200,
        "loss/L_G": 40 * np.exp(-3 * part) + rng.normal(0, 0.5, SNAPSHOTS),
        "loss/alpha": 1 - part, "loss/student": np.exp(-4 * part) * rng.uniform(0.8, 1.2, SNAPSHOTS),
        "synthetic_agreement": top1, "top1": top1 - rng.uniform(0, 4, SNAPSHOTS) * (1 - part),
    })  # fmt: skip
    curve.to_csv(folder / "curves.csv", index=False)
    labels = rng.integers(0, 10, IMAGES)
    teacher = np.where(rng.random(IMAGES) < 0.03, rng.integers(0, 10, IMAGES), labels)
    student = np.where(rng.random(IMAGES) < 0.06, rng.integers(0, 10, IMAGES), teacher)
    predictions = {"labels": labels, "teacher": teacher, "student": student}
    save_file({k: v.astype(np.int32) for k, v in predictions.items()}, folder / "predictions.safetensors")
    return folder


def write_results(root: Path, methods: int = 13, seeds: int = 5, tasks: Sequence[str] = TASKS) -> Path:
    """Write runs of `methods` methods and the three bounds on `tasks`; one method collapses on the second task."""
    for number, task in enumerate(tasks):
        ceiling = (99.4, 94.0, 70.0)[number % 3]
        for k in range(methods):
            for seed in range(seeds):
                rng = np.random.default_rng([number, k, seed])
                final = ceiling - k * (0.05, 0.9, 2.0)[number % 3] - float(rng.gamma(2.0, 0.15 * (1 + number)))
                if number == 1 and k == 5:
                    final = 20.0 + seed
                status = {(2, 3, 1): "diverged", (2, 4, 0): "failed"}.get((number, k, seed), "complete")
                spec = {"task": task, "method": f"method-{k:02d}", "seed": seed, "data": f"{number:02d}" * 32}
                write_run(root, spec, final, 1.25**k, status=status)
        for bound, final in (("noise", 10.0 + number), ("real-kd", ceiling + 0.2), ("scratch", ceiling - 0.4)):
            for seed in range(min(seeds, 3)):
                spec = {"task": task, "method": bound, "seed": seed, "data": f"{number:02d}" * 32}
                write_run(root, spec, final + seed / 20)
    return root


def board_of(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The labelled leaderboard of records."""
    board = leaderboard(long_table(found))
    return labelled(board, board)


def drawn(figure: Figure | None) -> Figure:
    """The figure, which must be one, as it is drawn."""
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def texts_of(figure: Figure) -> list[Text]:
    """The visible texts of a figure."""
    figure.draw_without_rendering()
    hidden: set[int] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = [tick for tick in axis._update_ticks() if axis.get_visible() and axes.axison]  # type: ignore[attr-defined]
            for tick in {*axis.majorTicks, *axis.minorTicks} - set(shown):  # those outside the view
                hidden |= {id(tick.label1), id(tick.label2)}
            if not (axis.get_visible() and axes.axison):
                hidden.add(id(axis.label))
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in hidden]


def overlaps(figure: Figure, slack: float = 0.5) -> list[tuple[str, str]]:
    """Pairs of texts that overlap by more than `slack` pixels, and texts that exceed the edge of the figure."""
    boxes = [(t.get_text(), t.get_window_extent(renderer(figure))) for t in texts_of(figure)]
    whole = figure.bbox
    found = [
        (a, b) for (a, x), (b, y) in combinations(boxes, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > slack and min(x.y1, y.y1) - max(x.y0, y.y0) > slack
    ]  # fmt: skip
    return found + [(a, "the edge") for a, x in boxes if not _inside(x, whole, slack)]


def _inside(box: Bbox, whole: Bbox, slack: float) -> bool:
    return bool(
        box.x0 >= whole.x0 - slack and box.x1 <= whole.x1 + slack
        and box.y0 >= whole.y0 - slack and box.y1 <= whole.y1 + slack
    )  # fmt: skip


def words_of(figure: Figure) -> str:
    """All texts of a figure in one string."""
    return " ".join(t.get_text() for t in texts_of(figure))
