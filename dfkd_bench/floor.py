"""How far a step is from the machine's limit: against its own convolutions and matrix products, run one by one.

The floor of a step is its arithmetic divided by the rate that the very same operations (shapes, layouts, formats) reach
on this machine when nothing else is done. Both are taken in the same run, in turn, since machines are shared.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dfkd_bench.levers import clock_for
from dfkd_bench.loop import Job
from dfkd_bench.profiling import phases, timed


@dataclass(frozen=True)
class Like:
    """What stands for a tensor: all that decides how long an operation on it takes."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def make(self) -> Tensor:
        """Such a tensor, of normal numbers."""
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return made.normal_()


@dataclass(frozen=True)
class Operation:
    """One convolution or matrix product, forward or backward."""

    function: Any  # an overload of torch.ops.aten
    arguments: tuple[Any, ...]
    flop: int  # 2 per multiply-add

    def ready(self) -> Callable[[], Any]:
        """The operation on tensors of its own, to be called again and again."""
        arguments = [
            a.make() if isinstance(a, Like) else list(a) if isinstance(a, tuple) else a for a in self.arguments
        ]
        return lambda: self.function(*arguments)


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


class Recorder(TorchDispatchMode):
    """Writes down every convolution and matrix product that is called, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Operation] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation itself, noted."""
        out = func(*args, **(kwargs or {}))
        packet = getattr(func, "_overloadpacket", None)
        if packet in flop_registry and not kwargs:
            flop = int(flop_registry[packet](*args, out_val=out))
            self.found[Operation(func, tuple(standing(a) for a in args), flop)] += 1
        return out


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
    recorder = Recorder()
    with recorder:
        step()
    return recorder.found


def floors(job: Job, rounds: int, warmup: int = 1, watch: Callable[[int], None] = lambda k: None) -> list[Floor]:
    """Time the steps of `job` and their operations alone, in turn, `rounds` times. Changes the job's networks."""
    device = job.context.device
    clock, _ = clock_for(device)
    kinds = phases(job)
    job.context.streams.reseed(-warmup - 1)
    found = {name: operations_of(step) for name, (step, _) in kinds.items()}
    ready = {op: op.ready() for op in {op for ops in found.values() for op in ops}}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for k in range(-warmup, rounds):
        watch(k)
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
