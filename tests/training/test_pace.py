"""The pace of a job: which rounds are timed, for how long, what the method sees of it, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from dfkd_bench.method import Flags
from dfkd_bench.runs.length import RoundTiming
from dfkd_bench.training import round_timing as module
from dfkd_bench.training.round_timing import time_rounds, timing_seconds


@dataclass
class Timed:
    """A job in name, whose rounds take what `synthesis` and `distillation` say, by a clock that nothing else moves."""

    clock: ClassVar[float] = 0.0  # seconds
    synthesis: list[float]  # seconds of each round, the one that is not counted first; the last stays
    distillation: list[float]
    rounds_per_epoch: int = 4
    steps: int = 1
    compiles: bool = False
    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schedule = SimpleNamespace(rounds=100, epochs=25, total_steps=500, rounds_per_epoch=self.rounds_per_epoch)
        self.progress = SimpleNamespace(round=-1, epoch=-1)
        streams = SimpleNamespace(reseed=lambda k: self.seen.append(("reseed", k)))
        self.context = SimpleNamespace(device="cpu", streams=streams, progress=self.progress, compiles=self.compiles)
        self.method = SimpleNamespace(
            flags=Flags(synthesis_steps=self.steps),
            on_epoch_start=lambda epoch: self.seen.append(("start", epoch)),
            on_epoch_end=lambda epoch: self.seen.append(("end", epoch)),
        )

    def work(self, part: list[float], what: str) -> None:
        self.seen.append((what, self.progress.round, self.progress.epoch))
        Timed.clock += part.pop(0) if len(part) > 1 else part[0]


@pytest.fixture(autouse=True)
def own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(function: Any, device: Any) -> float:
        before = Timed.clock
        function()
        return 1000.0 * (Timed.clock - before)

    monkeypatch.setattr(Timed, "clock", 0.0)
    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(module, "synthesise", lambda job: job.work(job.synthesis, "synthesise"))
    monkeypatch.setattr(module, "train_student", lambda job: job.work(job.distillation, "teach"))


def found(job: Timed, seconds: float, **more: Any) -> RoundTiming:
    return time_rounds(job, seconds, **more)  # type: ignore[arg-type]


def test_a_pace_is_a_mean_without_the_very_first_round() -> None:
    job = Timed([90.0, 1.0, 3.0, 2.0], [70.0, 4.0, 4.0, 7.0])
    assert found(job, 0.0) == RoundTiming(synthesis=2.0, distillation=5.0, rounds=3)
    assert found(Timed([0.0, 1.0, 3.0, 2.0], [0.0, 4.0, 4.0, 7.0]), 0.0).round == 7.0


def test_rounds_are_timed_for_about_so_many_seconds() -> None:
    assert found(Timed([1.0], [1.0]), 0.0).rounds == 3  # at least
    assert found(Timed([1.0], [1.0]), 20.0).rounds == 9  # with the one that is not counted
    assert found(Timed([1.0], [1.0]), 1e9).rounds == 50  # at most
    assert found(Timed([1.0], [1.0]), 1e9, most=7).rounds == 7
    assert found(Timed([1.0], [1.0]), 0.0, least=5).rounds == 5
    assert found(Timed([1.0], [1.0]), 0.0, longest=1.5).rounds == 1
    assert found(Timed([1.0], [1.0]), 0.0, longest=2.5).rounds == 2
    assert found(Timed([90.0, 1.0], [1.0]), 0.0, longest=7.0).rounds == 3  # the one that is not counted is left out
    assert found(Timed([1.0], [1.0]), 0.0, longest=0.5).rounds == 1  # and not none


def test_what_compiling_takes_is_not_counted() -> None:
    job = Timed([5.0, 90.0, 1.0], [5.0, 70.0, 2.0], compiles=True)
    assert found(job, 0.0) == RoundTiming(1.0, 2.0, 3)
    assert [seen[1] for seen in job.seen if seen[0] == "reseed"] == [-2, -1, 0, 1, 2]
    assert [seen for seen in job.seen if seen[0] == "start"] == [("start", 0)]


def test_the_method_meets_the_rounds_of_a_run() -> None:
    job = Timed([1.0], [1.0], rounds_per_epoch=2)
    found(job, 0.0)
    work = [[("synthesise", k, k // 2), ("teach", k, k // 2)] for k in range(3)]
    assert job.seen == [
        ("reseed", -1), ("start", 0), *work[0],  # not counted
        ("reseed", 0), *work[0],
        ("reseed", 1), *work[1], ("end", 0),
        ("reseed", 2), ("start", 1), *work[2],
    ]  # fmt: skip
    short = Timed([1.0], [1.0], rounds_per_epoch=1)
    found(short, 0.0)
    told = [seen for seen in short.seen if seen[0] in ("start", "end")]
    assert told == [(word, epoch) for epoch in range(3) for word in ("start", "end")]
    assert (job.progress.rounds, job.progress.epochs, job.progress.student_steps) == (100, 25, 500)


def test_a_method_without_synthesis_spends_none() -> None:
    job = Timed([5.0], [2.0], steps=0)
    assert found(job, 0.0) == RoundTiming(0.0, 2.0, 3)
    assert not [seen for seen in job.seen if seen[0] == "synthesise"]


def test_rounds_that_fit() -> None:
    steady = RoundTiming(synthesis=2.0, distillation=3.0, rounds=3)
    assert steady.rounds_in(100.0, Flags()) == 20
    assert steady.rounds_in(102.4, Flags()) == 20  # the nearest number
    assert steady.rounds_in(102.6, Flags()) == 21
    assert steady.rounds_in(0.001, Flags()) == 1
    assert steady.rounds_in(100.0, Flags(warmup_rounds=10)) == 16  # (100 - 10 * 2) / 5
    assert steady.rounds_in(100.0, Flags(warmup_rounds=60)) == 1
    assert steady.rounds_in(100.0, Flags(warmup_fraction=0.5)) == 17  # 100 / (5 + 0.5 * 2) = 16.7
    longer = {"synthesis_steps": 2, "warmup_synthesis_steps": 6}  # a round of the warm-up takes three times as long
    assert steady.rounds_in(100.0, Flags(warmup_rounds=10, **longer)) == 8  # (100 - 10 * 6) / 5
    assert steady.rounds_in(100.0, Flags(warmup_fraction=0.5, **longer)) == 12  # 100 / (5 + 0.5 * 6) = 12.5
    assert steady.rounds_in(100.0, Flags(synthesis_steps=0, warmup_rounds=10)) == 20


def test_finding_a_pace_takes_a_twentieth_between_a_second_and_half_a_minute() -> None:
    assert [timing_seconds(s) for s in (0.5, 20.0, 100.0, 600.0, 1e6, float("inf"))] == [
        1.0,
        1.0,
        5.0,
        30.0,
        30.0,
        30.0,
    ]
