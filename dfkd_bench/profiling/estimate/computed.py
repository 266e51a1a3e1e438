"""Seconds of a run on a device that is not here: its arithmetic over a share of the device's peak. Nothing is timed."""

from __future__ import annotations

from dataclasses import dataclass

from dfkd_bench import models
from dfkd_bench.errors import UsageError
from dfkd_bench.models.count import count
from dfkd_bench.profiling.estimate.arithmetic import Counted
from dfkd_bench.profiling.estimate.timing import Timing
from dfkd_bench.profiling.steps import PEAKS
from dfkd_bench.protocol import check_word
from dfkd_bench.training.dry_run import Rehearsal, shows
from dfkd_bench.training.storage import FINAL, PROBE


@dataclass(frozen=True)
class Device:
    """One that a data sheet describes, and how much of it is taken to be used."""

    name: str
    utilisation: float  # share of the peak that a run is assumed to reach

    def __post_init__(self) -> None:
        """Raise `UsageError` for a device without a data sheet here, or a share that is none."""
        check_word("device", self.name, tuple(PEAKS))
        if not 0.0 < self.utilisation <= 1.0:
            raise UsageError("--utilisation takes a share of the peak, above 0 and up to 1")

    def rate(self, precision: str) -> float:
        """FLOP/s assumed."""
        return PEAKS[self.name][precision] * self.utilisation


def computed(rehearsal: Rehearsal, whole: Counted, device: Device) -> Timing:
    """The timing of a run whose work is `whole`. Reading, writing and the start of a process are not in it."""
    rate = device.rate(rehearsal.spec.precision)
    chosen, points = rehearsal.task, len(rehearsal.schedule.snapshots)
    facts = chosen.dataset
    teacher, student = (
        2.0 * count(models.build(arch, facts.classes, facts.image_shape), facts.image_shape).macs
        for arch in (chosen.teacher, chosen.student)
    )
    seen = shows(rehearsal.method(rehearsal.settings))
    tested = facts.test_size + (PROBE * points if seen else 0)
    shown = whole.preview.flop * whole.growth[-1] / rate
    judged = facts.test_size + 3 * FINAL if seen else 0  # the last images, and the features of all test images
    evaluation = teacher * (tested + judged) + student * (tested * points + FINAL)
    return Timing(
        whole.warmup.flop / rate,
        whole.synthesis.flop / rate,
        whole.distillation.flop / rate,
        shown,
        shown * FINAL / PROBE,
        around=evaluation / rate,
    )
