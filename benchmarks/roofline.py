"""Steps against the machine's limit: their convolutions, matrix products and attention alone, one by one.

    python benchmarks/roofline.py --method cpsc --rounds 5 --threads 1

Other words are options of `dfkd-bench profile`; steps are eager. The floor of a step is the time that the very same
operations (shapes, layouts, formats) take on this machine when nothing else is done. Both are taken in the same rounds,
in turn, since machines are shared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from subject import clock_for, phases, subject
from torch import Tensor

from dfkd_bench.report.markdown import table
from dfkd_bench.training.loop import Job
from dfkd_bench.utils.flop import Arithmetic
from dfkd_bench.utils.timing import timed

HEADERS = ("step", "ms", "floor ms", "step/floor", "range", "GFLOP an image", "GFLOP/s", "operations")


@dataclass(frozen=True)
class Like:
    """What stands for a tensor: all that decides how long an operation on it takes."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def make(self) -> Tensor:
        """Such a tensor, of normal numbers; of zeros where they are whole, as the seeds of dropout are."""
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return made.normal_() if made.is_floating_point() else made.zero_()


@dataclass(frozen=True)
class Operation:
    """One convolution, matrix product or attention, forward or backward."""

    function: Any  # an overload of torch.ops.aten
    arguments: tuple[Any, ...]
    flop: int  # 2 per multiply-add
    named: tuple[tuple[str, Any], ...] = ()  # arguments given by name

    def ready(self) -> Callable[[], Any]:
        """The operation on tensors of its own, to be called again and again."""
        arguments, named = [made(a) for a in self.arguments], {name: made(a) for name, a in self.named}
        return lambda: self.function(*arguments, **named)


@dataclass(frozen=True)
class Floor:
    """One kind of step: milliseconds are medians over rounds, of the step as it is and of its arithmetic alone."""

    step: str
    ms: float
    floor_ms: float
    ratio: float  # step over floor, median over rounds
    lowest: float
    highest: float
    flop: int  # of a step, 2 per multiply-add
    operations: int  # of a step

    @property
    def rate(self) -> float:
        """FLOP/s that the operations reach by themselves."""
        return 1000.0 * self.flop / self.floor_ms


def standing(value: Any) -> Any:
    """`value` as it can be kept and compared."""
    if isinstance(value, Tensor):
        stride = torch.empty_like(value, device="meta").stride()  # its own, but for views that leave out or repeat
        return Like(tuple(value.shape), tuple(stride), value.dtype, value.device.type)
    return tuple(value) if isinstance(value, list) else value


def made(value: Any) -> Any:
    """What was kept by `standing`, to be called with."""
    return value.make() if isinstance(value, Like) else list(value) if isinstance(value, tuple) else value


def operations_of(step: Callable[[], Any]) -> Counter[Operation]:
    """The operations of one call, each with how often it is called."""
    found: Counter[Operation] = Counter()

    def note(function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], flop: int) -> None:
        pairs = tuple((name, standing(value)) for name, value in named.items() if value is not None)
        found[Operation(function, tuple(map(standing, arguments)), flop, pairs)] += 1

    with Arithmetic(note):
        step()
    return found


def floors(job: Job, rounds: int, warmup: int = 1) -> list[Floor]:
    """Time the steps of `job` and their operations alone, in turn, `rounds` times. Changes the job's networks."""
    device = job.context.device
    clock, _ = clock_for(device)
    kinds = phases(job)
    job.context.streams.reseed(-warmup - 1)
    found = {name: operations_of(step) for name, (step, _) in kinds.items()}
    ready = {op: op.ready() for op in {op for ops in found.values() for op in ops}}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for k in range(-warmup, rounds):
        job.context.streams.reseed(k)
        whole = {name: timed(step, device, clock) for name, (step, _) in kinds.items()}
        alone = {}
        for op, call in ready.items():
            call()  # its own weights and images into the caches, as they are in the step
            alone[op] = timed(call, device, clock)
        if k >= 0:
            for name, ops in found.items():
                taken[name].append((whole[name], sum(alone[op] * times for op, times in ops.items())))
    return [summary(name, taken[name], kinds[name][1], found[name]) for name in kinds]


def summary(name: str, taken: list[tuple[float, float]], steps: int, ops: Counter[Operation]) -> Floor:
    """Per step, from the milliseconds of whole phases and of their arithmetic alone."""
    ratios = [whole / alone for whole, alone in taken]
    return Floor(
        name,
        statistics.median(whole for whole, _ in taken) / steps,
        statistics.median(alone for _, alone in taken) / steps,
        statistics.median(ratios), min(ratios), max(ratios),
        sum(op.flop * times for op, times in ops.items()) // steps,
        sum(ops.values()) // steps,
    )  # fmt: skip


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True)
    options, words = parser.parse_known_args()
    what = subject(options.method, words)
    if what.spec.compile:
        parser.error("steps are eager: leave out --compile")
    found = floors(what.make(what.spec), what.rounds)
    rows = [
        (
            f.step, f"{f.ms:.2f}", f"{f.floor_ms:.2f}", f"{f.ratio:.2f}", f"{f.lowest:.2f}-{f.highest:.2f}",
            f"{f.flop / what.batch_size / 1e9:.4g}", f"{f.rate / 1e9:.1f}", str(f.operations),
        )
        for f in found
    ]  # fmt: skip
    clock = clock_for(torch.device(what.spec.device))[1]
    print(f"{what.method} on {what.title}, {what.spec.precision}, ms: medians of {clock}\n")
    print("\n".join(table(HEADERS, rows, ("step",))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
