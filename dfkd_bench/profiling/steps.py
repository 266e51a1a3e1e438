"""Where a method's time goes: its own steps in the real loop, timed one by one, with their arithmetic counted."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from dfkd_bench.training.loop import Job, labelled_batches, synthesise, train_student
from dfkd_bench.utils.flop import flop_of
from dfkd_bench.utils.timing import timed

# dense peak rates in FLOP/s by the vendors' data sheets (no sparsity); fp32 without TF32
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp32": 91.6e12},
    "RTX 4090": {"bf16": 165e12, "fp32": 82.6e12},
    "RTX 3090": {"bf16": 71e12, "fp32": 35.6e12},
}


@dataclass(frozen=True)
class Profile:
    """One method's steps. Milliseconds are medians and 95th percentiles over `rounds`; FLOP per step, 2 per MAC."""

    rounds: int
    synthesis_steps: int
    student_steps: int
    batch_size: int
    synthesis_ms: tuple[float, float] | None  # per synthesis step: median, p95
    student_ms: tuple[float, float]  # per student step, sampling and labelling included
    labelling_ms: float  # of which: sample() and the teacher's forward, median
    synthesis_flop: int
    student_flop: int
    peak: float | None  # FLOP/s
    peak_source: str

    @property
    def round_ms(self) -> float:
        """One round from the medians."""
        return (self.synthesis_ms[0] if self.synthesis_ms else 0.0) * self.synthesis_steps + self.student_ms[
            0
        ] * self.student_steps

    @property
    def student_images_per_second(self) -> float:
        """Images the student learns from per second of a whole round."""
        return 1000.0 * self.student_steps * self.batch_size / self.round_ms

    @property
    def flop(self) -> int:
        """Arithmetic of a round."""
        return self.synthesis_flop * self.synthesis_steps + self.student_flop * self.student_steps

    @property
    def utilisation(self) -> float | None:
        """Model FLOP utilisation of a round: arithmetic per second over the peak, None where no peak is known."""
        return None if self.peak is None else self.flop / (self.round_ms / 1000.0) / self.peak


def profile(job: Job, rounds: int, warmup: int = 2) -> Profile:
    """Run `warmup` and then `rounds` rounds of `job`, timing each step. Changes the job's networks."""
    device, flags = job.context.device, job.method.flags
    synthesis: list[float] = []
    whole: list[float] = []
    labels: list[float] = []

    steps = max(1, flags.synthesis_steps)
    for k in range(-warmup, rounds):
        job.context.streams.reseed(k)
        one = timed(lambda: synthesise(job), device) / steps if flags.synthesis_steps else 0.0
        two = timed(lambda: train_student(job), device) / flags.student_steps
        three = timed(lambda: [None for _ in labelled_batches(job)], device) / flags.student_steps
        if k >= 0:
            synthesis.append(one)
            whole.append(two)
            labels.append(three)
    peak, source = peak_rate(device, job.context.precision)
    return Profile(
        rounds,
        flags.synthesis_steps,
        flags.student_steps,
        job.schedule.batch_size,
        spread(synthesis) if flags.synthesis_steps else None,
        spread(whole),
        statistics.median(labels),
        flop_of(lambda: synthesise(job)) // steps if flags.synthesis_steps else 0,
        flop_of(lambda: train_student(job)) // flags.student_steps,
        peak,
        source,
    )


def spread(values: list[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


def peak_rate(device: torch.device, precision: str) -> tuple[float | None, str]:
    """The device's peak in FLOP/s and where it is from: a data sheet for known GPUs, a measured product on CPU."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, rates in PEAKS.items():
            if part in name:
                return rates[precision], f"data sheet, {precision}, dense"
        return None, f"unknown for {name}"
    n = 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    best = float("inf")
    for _ in range(7):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return 2.0 * n**3 / best, f"best of seven {n}x{n} {precision} products, {torch.get_num_threads()} threads, this run"
