"""Steps against their arithmetic alone: which operations are found, how they are called again, and what is told."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from commands import dfkd
from tiny import cpsc, make_job
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfkd_bench import models
from dfkd_bench.profiling import roofline
from dfkd_bench.profiling.roofline import Floor, Operation, floors, made, operations_of, standing
from dfkd_bench.profiling.roofline_table import floor_table
from dfkd_bench.training.loop import Job, synthesise, teach

PROFILE = ("profile", "-m", "cpsc", "--floor", "--device", "cpu", "--threads", "1", "--rounds", "1", "--batch", "4")


def job(**settings: Any) -> Job:
    return make_job(
        cpsc(**{"synthesis_steps": 2, "student_steps": 3, "generator_width": 4, **settings}),
        models.build("wrn16_1", 3, (3, 8, 8)), models.build("wrn16_1", 3, (3, 8, 8)),
        image_shape=(3, 8, 8), batch_size=8,
    )  # fmt: skip


@pytest.mark.parametrize("step", [synthesise, teach])
def test_the_operations_found_are_all_of_the_arithmetic(step: Any) -> None:
    made = job()
    found = operations_of(lambda: step(made))
    with FlopCounterMode(display=False) as counter:
        step(made)
    assert sum(op.flop * times for op, times in found.items()) == counter.get_total_flops() > 0
    assert {op.function.overloadpacket.__name__ for op in found} == {
        "convolution", "convolution_backward", "addmm", "mm",
    }  # fmt: skip


def test_an_operation_is_called_again_with_the_same_shapes_layouts_and_formats() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1).to(memory_format=torch.channels_last).bfloat16()
    x = torch.randn(2, 3, 6, 6).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = operations_of(lambda: conv(x).sum().backward())
    forward, backward = sorted(found, key=lambda op: op.function.overloadpacket.__name__)
    assert (forward.flop, backward.flop) == (2 * 2 * 36 * 5 * 27, 2 * 2 * 2 * 36 * 5 * 27)
    again = operations_of(forward.ready()) + operations_of(backward.ready())
    assert again == Counter({forward: 1, backward: 1})
    ours = made(forward.arguments[0])
    assert (ours.shape, ours.stride(), ours.dtype) == (x.shape, x.stride(), x.dtype)
    assert bool(ours.std() > 0.5)


def test_views_that_repeat_stand_for_plain_tensors() -> None:
    spread = torch.ones(3, 1).expand(3, 4)
    assert made(standing(spread)).stride() == (4, 1)
    assert made(standing([1, 2])) == [1, 2]
    assert made(standing(None)) is None


def test_ratios_are_of_the_same_round_and_milliseconds_of_a_step() -> None:
    op = Operation("conv", (), 50)
    found = roofline.summary("student", [(20.0, 10.0), (600.0, 400.0), (44.0, 20.0)], 2, Counter({op: 4}))
    assert found == Floor("student", 22.0, 10.0, 2.0, 1.5, 2.2, 100, 2)
    assert found.rate == 10_000.0  # 100 FLOP in 10 ms


def test_every_round_times_the_steps_and_each_operation_once(monkeypatch: Any) -> None:
    calls = []
    monkeypatch.setattr(roofline, "timed", lambda function, device, clock: calls.append(function) or 2.0)
    heard: list[int] = []
    rows = floors(job(), rounds=3, watch=heard.append)
    assert heard == [-1, 0, 1, 2]
    assert [(row.step, row.ms) for row in rows] == [("synthesis", 1.0), ("student", 2.0 / 3)]
    kinds = (len(calls) - 4 * 2) // 4  # two kinds of steps in each round, and every operation
    assert len(calls) == 4 * (2 + kinds)
    for row in rows:
        assert row.operations > 20
        assert row.ratio == pytest.approx(row.ms / row.floor_ms)


def test_the_table_and_the_command(monkeypatch: Any, capsys: Any) -> None:
    table = floor_table("t", [Floor("student", 22.0, 10.0, 2.2, 1.5, 2.5, 10**9, 7)], 10, "CPU time")
    assert [list(column.cells) for column in table.columns] == [
        ["student"], ["22.00"], ["10.00"], ["2.20"], ["1.50-2.50"], ["0.1"], ["100.0"], ["7"],
    ]  # fmt: skip
    status, out, err = dfkd(monkeypatch, capsys, *PROFILE, "--set", "synthesis_steps=1", "--set", "student_steps=1")
    assert (status, err) == (0, "")
    assert "step/floor" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(" s")][1:] == ["synthesis", "student"]
    for words, says in (
        (("--compile",), "--floor times eager steps"),
        (("--levers",), "--floor and --levers are tables of their own"),
    ):
        status, _, err = dfkd(monkeypatch, capsys, *PROFILE, *words)
        assert (status, err.count("\n")) == (2, 1)
        assert says in err
