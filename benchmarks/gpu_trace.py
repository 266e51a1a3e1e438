"""What a GPU does in a step: kernels, the time between them, and where the host waited; from the profiler's trace.

    python benchmarks/gpu_trace.py --method cpsc --networks wrn40_2-wrn16_2 --batch 256 --precision bf16 --rounds 20

Other words are options of `dfkd-bench profile`. A step whose kernels are short is bound by their launches: the device
then stands idle between them, and FLOP tell nothing. A wait of the host inside a round lets the queue of launches run
dry. Printed are, for each kind of step, kernels, copies and CUDA graphs, milliseconds from the first kernel to the
last, how many of them the device was idle, and calls by which the host waited; then the kernels that take most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from subject import phases, subject

from dfkd_bench.errors import UsageError
from dfkd_bench.report.markdown import table
from dfkd_bench.training.loop import Job
from dfkd_bench.utils.timing import timed

HEADERS = ("step", "kernels", "copies", "graphs", "ms", "idle ms", "idle", "waits")
ON_DEVICE = {"kernel": "kernels", "gpu_memcpy": "copies", "gpu_memset": "copies"}  # category of a trace -> what it is
CALLS = ("cuda_runtime", "cuda_driver")
LAUNCHES = ("LaunchKernel", "GraphLaunch", "Memcpy", "Memset")  # parts of the names of calls that give work
WAITS = ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize", "CtxSynchronize")
LONGEST = 5  # kernels named


@dataclass(frozen=True)
class Kernels:
    """One kind of step, medians over rounds; all but the last two are per step."""

    step: str
    kernels: float
    copies: float  # within the device's memory and between it and the host
    graphs: float  # CUDA graphs launched
    span_ms: float  # from the first kernel's beginning to the last one's end
    idle_ms: float  # of which nothing ran on the device
    waits: dict[str, int]  # calls by which the host waited, in all rounds, but for those after the last launch
    longest: tuple[tuple[str, float, float], ...]  # kernels that take most: name, milliseconds and calls per step

    @property
    def idle(self) -> float:
        """Share of the time in which the device stood idle."""
        return self.idle_ms / self.span_ms if self.span_ms else 0.0


@dataclass(frozen=True)
class Seen:
    """One trace."""

    kernels: int
    copies: int
    graphs: int
    span_ms: float
    idle_ms: float
    waits: Counter[str]
    milliseconds: dict[str, float]  # by kernel
    calls: Counter[str]


def kernels(job: Job, rounds: int, warmup: int = 3) -> list[Kernels]:
    """Trace the phases of `rounds` rounds of `job`, after `warmup`. Changes the job's networks.

    Raises `UsageError` on a CPU.
    """
    device = job.context.device
    if device.type != "cuda":
        raise UsageError("a trace of kernels needs a GPU: give --device cuda")
    kinds = phases(job)
    found: dict[str, list[Seen]] = {name: [] for name in kinds}
    for k in range(-warmup, rounds):
        job.context.streams.reseed(k)
        for name, (step, _) in kinds.items():
            if k < 0:
                timed(step, device)
            else:
                found[name].append(seen(trace(step, device)))
    return [summary(name, found[name], steps) for name, (_, steps) in kinds.items()]


def trace(step: Callable[[], Any], device: torch.device) -> list[dict[str, Any]]:
    """The events of one call, as the profiler writes them down."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        timed(step, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return events


def seen(events: Iterable[Mapping[str, Any]]) -> Seen:
    """What a trace tells; times in it are microseconds."""
    whole = [event for event in events if event.get("ph") == "X"]
    work = [event for event in whole if event.get("cat") in ON_DEVICE]
    calls = [event for event in whole if event.get("cat") in CALLS]
    given = [event for event in calls if any(part in event["name"] for part in LAUNCHES)]
    last = max((float(event["ts"]) for event in given), default=0.0)
    waits = [event for event in calls if any(part in event["name"] for part in WAITS) and float(event["ts"]) < last]
    kinds = Counter(ON_DEVICE[event["cat"]] for event in work)
    times = [(float(event["ts"]), float(event["ts"]) + float(event["dur"])) for event in work]
    span = max(end for _, end in times) - min(begin for begin, _ in times) if times else 0.0
    milliseconds: dict[str, float] = defaultdict(float)
    for event in work:
        milliseconds[event["name"]] += float(event["dur"]) / 1000.0
    return Seen(
        kinds["kernels"],
        kinds["copies"],
        sum("GraphLaunch" in event["name"] for event in calls),
        span / 1000.0,
        (span - covered(times)) / 1000.0,
        Counter(event["name"] for event in waits),
        milliseconds,
        Counter(event["name"] for event in work),
    )


def covered(times: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals: streams may overlap."""
    length, reached = 0.0, float("-inf")
    for begin, end in sorted(times):
        length += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return length


def summary(name: str, traces: Sequence[Seen], steps: int) -> Kernels:
    """Per step, from traces of whole phases."""

    def middle(of: Callable[[Seen], float]) -> float:
        return statistics.median(map(of, traces)) / steps

    calls: Counter[str] = sum((t.calls for t in traces), Counter())
    spent = {kernel: sum(t.milliseconds.get(kernel, 0.0) for t in traces) for kernel in calls}
    longest = sorted(calls, key=lambda kernel: -spent[kernel])[:LONGEST]
    per = steps * len(traces)
    return Kernels(
        name,
        middle(lambda t: t.kernels),
        middle(lambda t: t.copies),
        middle(lambda t: t.graphs),
        middle(lambda t: t.span_ms),
        middle(lambda t: t.idle_ms),
        dict(sum((t.waits for t in traces), Counter())),
        tuple((kernel, spent[kernel] / per, calls[kernel] / per) for kernel in longest),
    )


def main() -> int:
    """Parse, trace, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True)
    options, words = parser.parse_known_args()
    what = subject(options.method, words)
    found = kernels(what.make(what.spec), what.rounds)
    rows = [
        (
            k.step, f"{k.kernels:.1f}", f"{k.copies:.1f}", f"{k.graphs:.1f}", f"{k.span_ms:.3f}", f"{k.idle_ms:.3f}",
            f"{k.idle:.0%}", ", ".join(f"{name} {n}" for name, n in sorted(k.waits.items())) or "0",
        )
        for k in found
    ]  # fmt: skip
    longest = [(k.step, f"{ms:.3f}", f"{calls:.1f}", name) for k in found for name, ms, calls in k.longest]
    compiled = ", compiled" if what.spec.compile else ""
    print(f"{what.method} on {what.title}, {what.spec.precision}{compiled}; medians, under the profiler\n")
    print("\n".join(table(HEADERS, rows, ("step", "waits"))), end="\n\n")
    print("\n".join(table(("step", "ms", "calls", "kernel"), longest, ("step", "kernel"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
