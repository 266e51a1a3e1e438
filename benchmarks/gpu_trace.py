"""Kernels of a step on a GPU, the idle time between them, and waits of the host, from the profiler's trace.

    python benchmarks/gpu_trace.py --method cpsc --networks wrn40_2-wrn16_2 --batch 256 --precision bf16 --rounds 20

Other options are those of `dfkd-bench profile`. A step with short kernels is limited by their launches: the device is
idle between them, and its time does not depend on FLOP. If the host waits inside a round, the queue of launches becomes
empty. For each kind of step the script prints kernels, copies and CUDA graphs, milliseconds from the first to the last
kernel, idle milliseconds, and calls in which the host waited; then the kernels with the most time.
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
ON_DEVICE = {"kernel": "kernels", "gpu_memcpy": "copies", "gpu_memset": "copies"}  # category in a trace -> kind of work
CALLS = ("cuda_runtime", "cuda_driver")
LAUNCHES = ("LaunchKernel", "GraphLaunch", "Memcpy", "Memset")  # parts of the names of calls that launch work
WAITS = ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize", "CtxSynchronize")
LONGEST = 5  # number of kernels listed


@dataclass(frozen=True)
class Kernels:
    """One kind of step: medians over rounds, per step except for `waits` and `longest`."""

    step: str
    kernels: float
    copies: float  # on the device, and between device and host
    graphs: float  # launched CUDA graphs
    span_ms: float  # from the start of the first kernel to the end of the last one
    idle_ms: float  # part of it in which nothing ran on the device
    waits: dict[str, int]  # calls in which the host waited, in all rounds, without those after the last launch
    longest: tuple[tuple[str, float, float], ...]  # kernels with the most time: name, milliseconds, calls per step

    @property
    def idle(self) -> float:
        """Share of the time in which the device was idle."""
        return self.idle_ms / self.span_ms if self.span_ms else 0.0


@dataclass(frozen=True)
class TraceSummary:
    """Numbers of one trace."""

    kernels: int
    copies: int
    graphs: int
    span_ms: float
    idle_ms: float
    waits: Counter[str]
    milliseconds: dict[str, float]  # by kernel
    calls: Counter[str]


def kernels(job: Job, rounds: int, warmup: int = 3) -> list[Kernels]:
    """Trace the phases of `rounds` rounds of `job`, after `warmup` rounds. Changes the job's networks.

    Raises `UsageError` on a CPU.
    """
    device = job.context.device
    if device.type != "cuda":
        raise UsageError("a trace of kernels needs a GPU: give --device cuda")
    kinds = phases(job)
    traces: dict[str, list[TraceSummary]] = {name: [] for name in kinds}
    for k in range(-warmup, rounds):
        job.context.streams.reseed(k)
        for name, (step, _) in kinds.items():
            if k < 0:
                timed(step, device)
            else:
                traces[name].append(summarise(trace(step, device)))
    return [summary(name, traces[name], steps) for name, (_, steps) in kinds.items()]


def trace(step: Callable[[], Any], device: torch.device) -> list[dict[str, Any]]:
    """The profiler's events of one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        timed(step, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return events


def summarise(events: Iterable[Mapping[str, Any]]) -> TraceSummary:
    """The numbers of a trace, whose times are in microseconds."""
    complete = [event for event in events if event.get("ph") == "X"]
    work = [event for event in complete if event.get("cat") in ON_DEVICE]
    calls = [event for event in complete if event.get("cat") in CALLS]
    launches = [event for event in calls if any(part in event["name"] for part in LAUNCHES)]
    last = max((float(event["ts"]) for event in launches), default=0.0)
    waits = [event for event in calls if any(part in event["name"] for part in WAITS) and float(event["ts"]) < last]
    kinds = Counter(ON_DEVICE[event["cat"]] for event in work)
    times = [(float(event["ts"]), float(event["ts"]) + float(event["dur"])) for event in work]
    span = max(end for _, end in times) - min(begin for begin, _ in times) if times else 0.0
    milliseconds: dict[str, float] = defaultdict(float)
    for event in work:
        milliseconds[event["name"]] += float(event["dur"]) / 1000.0
    return TraceSummary(
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
    """The length of the union of intervals, which may overlap."""
    length, reached = 0.0, float("-inf")
    for begin, end in sorted(times):
        length += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return length


def summary(name: str, traces: Sequence[TraceSummary], steps: int) -> Kernels:
    """The numbers per step, from traces of whole phases."""

    def median(of: Callable[[TraceSummary], float]) -> float:
        return statistics.median(map(of, traces)) / steps

    calls: Counter[str] = sum((t.calls for t in traces), Counter())
    spent = {kernel: sum(t.milliseconds.get(kernel, 0.0) for t in traces) for kernel in calls}
    longest = sorted(calls, key=lambda kernel: -spent[kernel])[:LONGEST]
    per = steps * len(traces)
    return Kernels(
        name,
        median(lambda t: t.kernels),
        median(lambda t: t.copies),
        median(lambda t: t.graphs),
        median(lambda t: t.span_ms),
        median(lambda t: t.idle_ms),
        dict(sum((t.waits for t in traces), Counter())),
        tuple((kernel, spent[kernel] / per, calls[kernel] / per) for kernel in longest),
    )


def main() -> int:
    """Parse, trace, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True)
    options, words = parser.parse_known_args()
    what = subject(options.method, words)
    results = kernels(what.make(what.spec), what.rounds)
    rows = [
        (
            k.step, f"{k.kernels:.1f}", f"{k.copies:.1f}", f"{k.graphs:.1f}", f"{k.span_ms:.3f}", f"{k.idle_ms:.3f}",
            f"{k.idle:.0%}", ", ".join(f"{name} {n}" for name, n in sorted(k.waits.items())) or "0",
        )
        for k in results
    ]  # fmt: skip
    longest = [(k.step, f"{ms:.3f}", f"{calls:.1f}", name) for k in results for name, ms, calls in k.longest]
    compiled = ", compiled" if what.spec.compile else ""
    print(f"{what.method} on {what.title}, {what.spec.precision}{compiled}; medians, under the profiler\n")
    print("\n".join(table(HEADERS, rows, ("step", "waits"))), end="\n\n")
    print("\n".join(table(("step", "ms", "calls", "kernel"), longest, ("step", "kernel"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
