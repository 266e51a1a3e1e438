"""The meter: counts of images and steps, and seconds by phase. Counting does not synchronise with the device."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_bench.utils import eager

COUNTS = (
    "teacher_forwards",  # images through the teacher, in every phase
    "teacher_backwards",  # images whose gradient went back through the teacher
    "student_forwards",  # images through the student, synthesis included
    "student_steps",  # student updates
    "student_images",  # images the student was trained on, repeats counted
    "images_synthesised",  # images made for the student or, as the method reports them, inside synthesis
    "images_stored",  # images held in a pool or memory at the end
)


class Meter:
    """Counts and seconds of one run; both are saved in checkpoints."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self.seconds: dict[str, float] = {}
        self.marks: list[float] = []  # seconds of synthesis and distillation up to each snapshot
        self._pending: list[tuple[str, Any, Any]] = []

    def add(self, name: str, n: int) -> None:
        """Count `n` more of `name`."""
        self.counts[name] += n

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase: by the clock on CPU, by a pair of events on a GPU (read later, to avoid synchronisation)."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._pending.append((name, start, end))
        else:
            begun = time.perf_counter()
            yield
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing inside, for work that is not part of the method's cost (preview)."""
        counts = self.counts.copy()
        try:
            yield
        finally:
            self.counts.clear()
            self.counts.update(counts)

    def flush(self) -> None:
        """Add up the events of finished phases (synchronises; called at snapshots only)."""
        if self._pending:
            torch.cuda.synchronize(self.device)
            for name, start, end in self._pending:
                self.seconds[name] = self.seconds.get(name, 0.0) + start.elapsed_time(end) / 1000.0
            self._pending.clear()

    def mark(self) -> None:
        """Store the seconds so far, at a snapshot."""
        self.flush()
        self.marks.append(sum(self.seconds.values()))

    def reset_peak(self) -> None:
        """Reset the peak memory, so that it is of one run and not of the process (Linux and GPUs only)."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to the current resident size
        except OSError:
            return

    def peak_memory(self) -> int:
        """Peak memory in bytes: of the allocator on a GPU, of the resident set of the process on CPU."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass  # the file exists on Linux only
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage if sys.platform == "darwin" else usage * 1024

    def state_dict(self) -> dict[str, Any]:
        """Counts and seconds so far."""
        self.flush()
        return {"counts": dict(self.counts), "seconds": dict(self.seconds), "marks": list(self.marks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.marks = list(state["marks"])
        self.counts = Counter(state["counts"])
        self.seconds = dict(state["seconds"])

    # -- counting of forwards and backwards, outside any compiled graph --------------------------------------------

    def watch(self, role: str, images: Tensor) -> Tensor:
        """Count a forward of `images` through `role`, and the teacher's backward when it happens.

        Returns `images`, or a view of them with the hook that counts the backward. Inside a compiled graph it does
        nothing: `compiled` adds the counts of one eager call of the same function.
        """
        if torch.compiler.is_compiling():
            return images
        n = len(images)
        self.counts[f"{role}_forwards"] += n
        if role == "teacher" and images.requires_grad and torch.is_grad_enabled():
            images = images.view_as(images)
            images.register_hook(lambda _grad: self.counts.update({"teacher_backwards": n}))
            self.counts["_armed"] += n
        return images

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`torch.compile` of `function` with fixed shapes; forwards and backwards are still counted.

        The first call runs eagerly and measures the counts of one call; every later call adds the same.
        """
        fast: Any = None
        cost: Counter[str] = Counter()

        def call(*arguments: Any) -> Any:
            nonlocal fast
            if fast is None:
                before = self.counts.copy()
                result = function(*arguments)
                cost.update({k: v - before[k] for k, v in self.counts.items() if v != before[k]})
                cost["teacher_backwards"] = cost.pop("_armed", 0)
                eager.allow_compiler()
                fast = torch.compile(function, fullgraph=True, dynamic=False)
                return result
            self.counts.update(cost)
            return fast(*arguments)

        return call


class Tally:
    """Running means of logged losses, kept on the device to avoid synchronisation."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._numbers: Counter[str] = Counter()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add scalar losses; they are detached."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._numbers[name] += 1

    def take(self) -> dict[str, float]:
        """The means since the last call (synchronises); resets the sums."""
        names = list(self._sums)
        sums = torch.stack([self._sums[n] for n in names]).tolist() if names else []
        means = {n: s / self._numbers[n] for n, s in zip(names, sums, strict=True)}
        self._sums.clear()
        self._numbers.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums and numbers so far."""
        return {"sums": dict(self._sums), "numbers": dict(self._numbers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._sums, self._numbers = dict(state["sums"]), Counter(state["numbers"])
