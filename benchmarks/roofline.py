"""Time of steps compared with the time of their convolutions, matrix products and attention alone (the floor).

    python benchmarks/roofline.py --method cpsc --rounds 5 --threads 1

Other options are those of `dfkd-bench profile`; steps are not compiled. The floor of a step is the time of the same
operations (shapes, layouts, dtypes), run one by one on this machine. Both are timed in the same rounds, because other
processes may share the machine.
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
class TensorSpec:
    """The properties of a tensor that determine the time of an operation."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def make(self) -> Tensor:
        """A tensor of normal numbers, or of zeros for an integer dtype (such as seeds of dropout)."""
        tensor = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return tensor.normal_() if tensor.is_floating_point() else tensor.zero_()


@dataclass(frozen=True)
class Operation:
    """One convolution, matrix product or attention, forward or backward."""

    function: Any  # an overload of torch.ops.aten
    arguments: tuple[Any, ...]
    flop: int  # 2 per multiply-add
    named: tuple[tuple[str, Any], ...] = ()  # keyword arguments

    def prepare(self) -> Callable[[], Any]:
        """A function that calls the operation on new tensors."""
        arguments, named = [argument(a) for a in self.arguments], {name: argument(a) for name, a in self.named}
        return lambda: self.function(*arguments, **named)


@dataclass(frozen=True)
class Floor:
    """One kind of step: milliseconds of the step and of its operations alone, medians over rounds."""

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
        """FLOP/s of the operations alone."""
        return 1000.0 * self.flop / self.floor_ms


def hashable(value: Any) -> Any:
    """An argument as a hashable value, a tensor as its `TensorSpec`."""
    if isinstance(value, Tensor):
        stride = torch.empty_like(value, device="meta").stride()  # dense, also for views that skip or repeat elements
        return TensorSpec(tuple(value.shape), tuple(stride), value.dtype, value.device.type)
    return tuple(value) if isinstance(value, list) else value


def argument(value: Any) -> Any:
    """The inverse of `hashable`: an argument to call an operation with."""
    return value.make() if isinstance(value, TensorSpec) else list(value) if isinstance(value, tuple) else value


def operations_of(step: Callable[[], Any]) -> Counter[Operation]:
    """The operations of one call of `step`, with their numbers of calls."""
    counts: Counter[Operation] = Counter()

    def note(function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], flop: int) -> None:
        pairs = tuple((name, hashable(value)) for name, value in named.items() if value is not None)
        counts[Operation(function, tuple(map(hashable, arguments)), flop, pairs)] += 1

    with Arithmetic(note):
        step()
    return counts


def floors(job: Job, rounds: int, warmup: int = 1) -> list[Floor]:
    """Time the steps of `job` and their operations alone in `rounds` rounds. Changes the job's networks."""
    device = job.context.device
    clock, _ = clock_for(device)
    kinds = phases(job)
    job.context.streams.reseed(-warmup - 1)
    operations = {name: operations_of(step) for name, (step, _) in kinds.items()}
    calls = {op: op.prepare() for op in {op for ops in operations.values() for op in ops}}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for k in range(-warmup, rounds):
        job.context.streams.reseed(k)
        whole = {name: timed(step, device, clock) for name, (step, _) in kinds.items()}
        alone = {}
        for op, call in calls.items():
            call()  # fills the caches with its weights and images, as in the step
            alone[op] = timed(call, device, clock)
        if k >= 0:
            for name, ops in operations.items():
                times[name].append((whole[name], sum(alone[op] * n for op, n in ops.items())))
    return [summary(name, times[name], kinds[name][1], operations[name]) for name in kinds]


def summary(name: str, times: list[tuple[float, float]], steps: int, ops: Counter[Operation]) -> Floor:
    """The numbers per step, from milliseconds of whole phases and of their operations alone."""
    ratios = [whole / alone for whole, alone in times]
    return Floor(
        name,
        statistics.median(whole for whole, _ in times) / steps,
        statistics.median(alone for _, alone in times) / steps,
        statistics.median(ratios), min(ratios), max(ratios),
        sum(op.flop * n for op, n in ops.items()) // steps,
        sum(ops.values()) // steps,
    )  # fmt: skip


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True)
    options, words = parser.parse_known_args()
    what = subject(options.method, words)
    if what.spec.compile:
        parser.error("steps are not compiled here: leave out --compile")
    results = floors(what.make(what.spec), what.rounds)
    rows = [
        (
            f.step, f"{f.ms:.2f}", f"{f.floor_ms:.2f}", f"{f.ratio:.2f}", f"{f.lowest:.2f}-{f.highest:.2f}",
            f"{f.flop / what.batch_size / 1e9:.4g}", f"{f.rate / 1e9:.1f}", str(f.operations),
        )
        for f in results
    ]  # fmt: skip
    clock = clock_for(torch.device(what.spec.device))[1]
    print(f"{what.method} on {what.title}, {what.spec.precision}, ms: medians of {clock}\n")
    print("\n".join(table(HEADERS, rows, ("step",))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
