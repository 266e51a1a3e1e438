"""Counts the torch operators of a step of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from dfkd_bench.training.loop import Job


class Operators(TorchDispatchMode):
    """Counts the calls of the dispatcher, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operators(step: Callable[[Job], object], job: Job) -> Counter[str]:
    with Operators() as seen:
        step(job)
    return seen.calls
