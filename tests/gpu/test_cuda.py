"""What can only be seen on a CUDA device: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfkd_bench import records
from dfkd_bench.plan import Request, make_plan
from dfkd_bench.run import Outcome, run

pytestmark = pytest.mark.gpu


def go(tmp: Path, **changes: object) -> Outcome:
    fields = {"methods": ("cpsc",), "budget": "smoke", "device": "cuda", **changes}
    (planned,) = make_plan(Request(**fields), tmp)  # type: ignore[arg-type]
    return run(planned.spec, tmp, method=planned.entry, teacher=planned.teacher)


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
    from dfkd_bench.assemble import allowed_privileges, assemble
    from dfkd_bench.device import settle
    from dfkd_bench.loop import synthesise, teach
    from dfkd_bench.protocol import task
    from dfkd_bench.registry import load
    from dfkd_bench.teachers.registry import load_teacher

    (planned,) = make_plan(Request(("cpsc",), budget="smoke", device="cuda"), tmp_path)
    device = settle("cuda", 2)
    job, _ = assemble(
        planned.spec, task(planned.spec.task), load(planned.entry), allowed_privileges(planned.entry),
        load_teacher(planned.teacher, device), device, keeper=None,  # type: ignore[arg-type]
    )  # fmt: skip
    job.context.streams.reseed(0)
    synthesise(job), teach(job)
    torch.cuda.set_sync_debug_mode("error")
    try:
        synthesise(job), teach(job)
    finally:
        torch.cuda.set_sync_debug_mode("default")
