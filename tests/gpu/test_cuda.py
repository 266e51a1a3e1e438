"""What can only be seen on a CUDA device: `pytest -m gpu`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_trace import kernels

from dfkd_bench.plugins.registry import entries
from dfkd_bench.protocol import BOUNDS, task
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import RunOptions
from dfkd_bench.training.dry_run import job_for
from dfkd_bench.training.runner import Outcome, run

pytestmark = pytest.mark.gpu


def go(tmp: Path, **changes: object) -> Outcome:
    fields = {"methods": ("cpsc",), "budget": "smoke", "device": "cuda", **changes}
    (planned,) = make_plan(Request(**fields), tmp)  # type: ignore[arg-type]
    return run(planned, RunOptions(tmp))


def check_sane(record: dict[str, Any], method: str) -> None:
    """A whole run: every number there and possible, and the counts those of its schedule."""
    result, plan = record["result"], record["manifest"]["settings"]["schedule"]
    assert (result["status"], record["spec"]["method"]) == ("complete", method)
    numbers = [v for part in ("accuracy", "fidelity") for v in result[part].values() if v is not None]
    assert all(math.isfinite(v) for v in numbers)
    for name in ("last", "oracle", "mean"):
        assert 0.0 <= result["accuracy"][name] <= 100.0
    assert result["accuracy"]["oracle"] >= result["accuracy"]["last"]
    assert result["fidelity"]["teacher_top1"] > 99.0
    steps, counts = plan["rounds"] * plan["student_steps"], result["counts"]
    assert counts["student_steps"] == steps
    assert counts["student_images"] == steps * plan["batch_size"] >= 30 * 128
    assert (counts["images_synthesised"] > 0) == (method not in ("real-kd", "scratch"))
    assert (counts["teacher_backwards"] > 0) == (result["generator_parameters"] > 0 or counts["images_stored"] > 0)
    assert method in BOUNDS or counts["teacher_backwards"] > 0
    seconds = record["measurement"]["seconds"]
    assert seconds["distillation"] > 0
    assert record["measurement"]["seconds_total"] == pytest.approx(sum(seconds.values()))


@pytest.mark.parametrize("method", entries())
def test_every_method_runs_on_the_device(tmp_path: Path, method: str) -> None:
    record = go(tmp_path, methods=(method,)).record
    check_sane(record, method)
    assert record["spec"]["device"] == "cuda"
    assert record["manifest"]["device"] == torch.cuda.get_device_name()
    assert record["measurement"]["peak_memory_bytes"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_on_the_device(tmp_path: Path, precision: str) -> None:
    record = go(tmp_path, precision=precision).record
    assert record["result"]["status"] == "complete"
    assert record["manifest"]["device"] == torch.cuda.get_device_name()
    assert record["measurement"]["gpu_hours"] > 0


def test_cpu_and_gpu_draw_other_numbers_but_count_alike(tmp_path: Path) -> None:
    cuda, cpu = go(tmp_path).record, go(tmp_path, device="cpu").record
    assert cuda["result"]["counts"] == cpu["result"]["counts"]


def test_deterministic_kernels_repeat(tmp_path: Path) -> None:
    one, two = go(tmp_path / "a").record, go(tmp_path / "b").record
    assert records.canonical(one["result"]) == records.canonical(two["result"])


def test_no_step_waits_for_the_device(tmp_path: Path) -> None:
    """A whole round under a mode that raises on every synchronising call."""
    from dfkd_bench.plugins.registry import load
    from dfkd_bench.protocol import task
    from dfkd_bench.teachers.registry import load_teacher
    from dfkd_bench.training.build import allowed_privileges, assemble
    from dfkd_bench.training.loop import synthesise, train_student
    from dfkd_bench.utils.device import configure_device

    (planned,) = make_plan(Request(("cpsc",), budget="smoke", device="cuda"), tmp_path)
    device = configure_device("cuda", 2)
    job, _ = assemble(
        planned.spec, task(planned.spec.task), load(planned.method), allowed_privileges(planned.method),
        load_teacher(planned.teacher, device), device, storage=None,  # type: ignore[arg-type]
    )  # fmt: skip
    job.context.streams.reseed(0)
    synthesise(job), train_student(job)
    torch.cuda.set_sync_debug_mode("error")
    try:
        synthesise(job), train_student(job)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
def test_the_host_never_waits_inside_a_round(compiled: bool) -> None:
    (planned,) = make_plan(Request(methods=("cpsc",), device="cuda", compile=compiled), Path("nowhere"))
    found = kernels(job_for(planned.spec, planned.method, planned.teacher, task(planned.spec.task)), 3)
    assert [row.step for row in found] == ["synthesis", "student"]
    for row in found:
        assert row.kernels > 10
        assert row.span_ms > 0.0
        assert 0.0 <= row.idle < 1.0
        assert row.waits == {}
