"""What a trace of a GPU tells; the trace here is made up, and of the form that the profiler writes."""

from typing import Any

import pytest
import torch
from commands import dfkd
from rich.console import Console
from tiny import cpsc, make_job

from dfkd_bench import models
from dfkd_bench.errors import UsageError
from dfkd_bench.profiling import gpu_trace as module
from dfkd_bench.profiling.gpu_trace import Kernels, covered, kernels, seen, summary
from dfkd_bench.profiling.gpu_trace_table import kernels_table
from dfkd_bench.training.loop import Job


def event(cat: str, name: str, ts: float, dur: float = 1.0) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": {}}


TRACE = [
    {"ph": "M", "name": "process_name", "args": {}},
    {"ph": "i", "cat": "kernel", "name": "a mark, no kernel", "ts": 0.0},
    event("cuda_runtime", "cudaLaunchKernel", 0.0),
    event("cuda_runtime", "cudaLaunchKernel", 2.0),
    event("cuda_runtime", "cudaStreamSynchronize", 4.0),  # inside: a loss was printed
    event("cuda_driver", "cuLaunchKernelEx", 6.0),
    event("cuda_runtime", "cudaGraphLaunch", 8.0),
    event("cuda_runtime", "cudaMemcpyAsync", 9.0),
    event("cuda_runtime", "cudaDeviceSynchronize", 20.0),  # the end: everything was given out
    event("kernel", "conv", 100.0, 400.0),
    event("kernel", "relu", 450.0, 100.0),  # on another stream, 50 us beside the first
    event("kernel", "conv", 750.0, 200.0),  # after 200 us of nothing
    event("gpu_memcpy", "Memcpy HtoD", 1050.0, 50.0),  # after 100 us
    event("cpu_op", "aten::relu", 0.0, 5000.0),
]


def test_a_trace_is_taken_apart() -> None:
    found = seen(TRACE)
    assert (found.kernels, found.copies, found.graphs) == (3, 1, 1)
    assert found.span_ms == pytest.approx(1.0)  # 100 to 1100 us
    assert found.idle_ms == pytest.approx(0.3)
    assert found.waits == {"cudaStreamSynchronize": 1}
    assert found.milliseconds == pytest.approx({"conv": 0.6, "relu": 0.1, "Memcpy HtoD": 0.05})
    assert found.calls == {"conv": 2, "relu": 1, "Memcpy HtoD": 1}


def test_a_trace_without_work_is_empty() -> None:
    found = seen([event("cpu_op", "aten::relu", 0.0), event("cuda_runtime", "cudaDeviceSynchronize", 1.0)])
    assert (found.kernels, found.span_ms, found.idle_ms, found.waits) == (0, 0.0, 0.0, {})
    assert summary("student", [found], 1).idle == 0.0


def test_the_union_of_intervals() -> None:
    assert covered([]) == 0.0
    assert covered([(5.0, 6.0), (0.0, 3.0), (1.0, 2.0), (2.5, 4.0)]) == pytest.approx(5.0)


def test_numbers_are_per_step_and_medians_over_rounds() -> None:
    slow = [dict(e, ts=2 * e["ts"], dur=2 * e["dur"]) if e.get("cat") == "kernel" and "dur" in e else e for e in TRACE]
    found = summary("synthesis", [seen(TRACE), seen(TRACE), seen([*slow, event("kernel", "more", 3000.0)])], 2)
    assert (found.kernels, found.copies, found.graphs) == (1.5, 0.5, 0.5)
    assert (found.span_ms, found.idle_ms) == pytest.approx((0.5, 0.15))
    assert found.idle == pytest.approx(0.3)
    assert found.waits == {"cudaStreamSynchronize": 3}  # of all rounds
    assert found.longest[0] == ("conv", pytest.approx((0.6 + 0.6 + 1.2) / 6), 1.0)
    assert [name for name, _, _ in found.longest] == ["conv", "relu", "Memcpy HtoD", "more"]


def test_a_cpu_has_no_kernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        kernels(job(), 1)
    words = ("profile", "-m", "cpsc", "--kernels", "--device", "cpu", "--rounds", "1", "--batch", "4")
    for more, says in (((), "--kernels needs a GPU"), (("--floor",), "--floor and --kernels are tables of their own")):
        status, _, errors = dfkd(monkeypatch, capsys, *words, *more)
        assert (status, says in errors) == (2, True), errors


def test_phases_are_traced_after_the_warm_up_in_the_order_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that only says that it is one."""
    made, heard, steps = job(), [], []
    monkeypatch.setattr(module, "timed", lambda step, device: steps.append("timed"))
    monkeypatch.setattr(module, "trace", lambda step, device: steps.append("traced") or TRACE)
    monkeypatch.setattr(made.context, "device", torch.device("cuda"))
    found = kernels(made, 2, warmup=1, watch=heard.append)
    assert heard == [-1, 0, 1]
    assert steps == ["timed"] * 2 + ["traced"] * 4
    assert [(row.step, row.kernels) for row in found] == [("synthesis", 1.5), ("student", 1.0)]  # 2 and 3 steps


def test_the_table_names_waits_and_the_longest_kernels() -> None:
    rows = [
        Kernels("synthesis", 412.0, 3.0, 0.0, 12.5, 5.0, {"cudaStreamSynchronize": 4}, (("conv[x]", 1.25, 40.0),)),
        Kernels("student", 200.0, 0.0, 1.0, 4.0, 0.0, {}, (("gemm", 0.5, 9.0),)),
    ]
    console = Console(width=120, record=True)
    console.print(kernels_table("cpsc on [a task]", rows))
    text = console.export_text()
    lines = [line.split() for line in text.splitlines()]
    assert ["synthesis", "412.0", "3.0", "0.0", "12.500", "5.000", "40%", "4"] in lines
    assert ["student", "200.0", "0.0", "1.0", "4.000", "0.000", "0%", "0"] in lines
    assert ["synthesis", "1.250", "40.0", "conv[x]"] in lines
    assert "the host waited in synthesis: cudaStreamSynchronize 4" in text
    assert "cpsc on [a task]" in text


def job() -> Job:
    return make_job(
        cpsc(synthesis_steps=2, student_steps=3, generator_width=4),
        models.build("wrn16_1", 3, (3, 8, 8)), models.build("wrn16_1", 3, (3, 8, 8)),
        image_shape=(3, 8, 8), batch_size=8,
    )  # fmt: skip
