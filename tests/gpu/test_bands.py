"""Do the methods reach the published numbers? `pytest -m gpu tests/gpu/test_bands.py`, hours per test on one GPU.

Each test needs CIFAR-10 and a registered teacher of about the published accuracy, and says so where one is missing. The
bands are for one run: readings of the published tables and of independent reruns, with their scatter, not tolerances
that anybody published. Where only one side is known, the other is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dfkd_bench.cli.run import command as run_command
from dfkd_bench.plugins.registry import card, entries
from dfkd_bench.protocol import task
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import RunOptions
from dfkd_bench.teachers.registry import load_teacher, teacher_for
from dfkd_bench.training.runner import run

WRN, RESNET = "cifar10/wrn40_2-wrn16_1", "cifar10/resnet34-resnet18"
TEACHERS = {WRN: 94.87, RESNET: 95.70}  # top-1 of the teachers behind the published numbers
MARGIN = 0.3


@dataclass(frozen=True)
class Band:
    """Top-1 of the last checkpoint in percent, on the recipe track, budget full."""

    method: str
    preset: str
    task: str
    low: float = 0.0
    high: float = 100.0

    @property
    def words(self) -> list[str]:
        """What to type behind `dfkd-bench run` for the same run."""
        named = {"method": self.method, "preset": self.preset, "task": self.task, "track": "recipe", "budget": "full"}
        return [word for key, value in named.items() for word in (f"--{key}", value)]


BANDS = [
    Band("fastdfkd", "fast10", WRN, 88.0, 89.6),
    Band("fastdfkd", "fast5", WRN, 88.0, 89.3),
    Band("cmi", "scratch", WRN, 88.3, 89.3),
    Band("deepinversion", "datafree", WRN, 81.0, 85.0),
    Band("dfq-gen", "datafree", WRN, low=86.0),
    Band("zskt", "datafree", WRN, 82.0, 86.0),
    Band("dafl", "datafree", WRN, 60.0, 75.0),
    Band("noise", "normal", WRN, high=15.0),
    Band("fastdfkd", "fast10", RESNET, 93.5, 94.2),
    Band("dfad", "official", RESNET, 92.5, 93.5),
    Band("dafl", "datafree", RESNET, 88.0, 90.0),  # at batch 256
    Band("dafl", "official", RESNET, 91.5, 92.5),  # at batch 1024
]
every = pytest.mark.parametrize("band", BANDS, ids=[f"{b.method}-{b.preset}-{b.task.partition('/')[2]}" for b in BANDS])


@every
def test_a_band_names_what_exists_and_a_command_that_can_be_typed(band: Band) -> None:
    """The task need not exist yet: the tests below say what is missing."""
    assert band.preset in card(entries()[band.method]).presets
    assert band.task in TEACHERS
    assert 0.0 <= band.low < band.high <= 100.0
    assert (band.low, band.high) != (0.0, 100.0)
    typed = run_command.make_context("run", band.words).params.values()
    assert set(band.words[1::2]) <= {word for v in typed for word in (v if isinstance(v, tuple) else (v,))}


@pytest.mark.gpu
@pytest.mark.timeout(48 * 3600)
@every
def test_a_full_run_ends_in_its_band(band: Band, tmp_path: Path) -> None:
    chosen = task(band.task)  # says which dataset or architecture is missing
    teacher_entry = teacher_for(chosen)  # says how to make the teacher
    request = Request(
        (band.method,), (band.task,), preset=band.preset, track="recipe", budget="full", device="cuda",
    )  # fmt: skip
    (planned,) = make_plan(request, tmp_path)
    load_teacher(teacher_entry, "cpu")  # type: ignore[arg-type]  # says which file is missing, before hours are spent
    off = abs(teacher_entry.top1 - TEACHERS[band.task])
    assert off <= MARGIN, (
        f"{teacher_entry.name} has {teacher_entry.top1} %, the band is for one of {TEACHERS[band.task]} %"
    )
    record = run(planned, RunOptions(tmp_path)).record
    assert record["result"]["status"] == "complete"
    assert band.low <= record["result"]["accuracy"]["last"] <= band.high
