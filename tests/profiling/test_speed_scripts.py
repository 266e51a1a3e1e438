"""The scripts of benchmarks/ that time steps: a speedup that is off costs what it says, and numbers are told right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import gpu_trace
import pytest
import roofline
import speedups
import torch
from operators import operators
from speedups import ALWAYS, OFF, ON, Row
from tiny import cpsc, make_job
from torch import Tensor, nn

from dfkd_bench import models
from dfkd_bench.errors import UsageError
from dfkd_bench.training.loop import Job, synthesise, train_student
from dfkd_bench.utils.flop import flop_of


def job(setting: speedups.Setting = ON) -> Job:
    """CPSC with one step of each kind a round on tiny wide ResNets, always from the same state."""
    made = make_job(
        cpsc(synthesis_steps=1, student_steps=1, generator_width=4),
        models.build("wrn16_1", 3, (3, 8, 8)), models.build("wrn16_1", 3, (3, 8, 8)),
        image_shape=(3, 8, 8), batch_size=8,
    )  # fmt: skip
    return speedups.switched(made, setting)


def gradients(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("setting", [*ALWAYS.values(), OFF], ids=[*ALWAYS, "all"])
def test_losses_and_gradients_are_those_of_a_run(setting: speedups.Setting) -> None:
    found = []
    for each in (ON, setting):
        generator, student = job(each), job(each)  # a step each: the next would start from another state
        synthesise(generator)
        train_student(student)
        G: Any = generator.method
        found.append((generator.tally.take(), student.tally.take(), gradients(G.G), gradients(student.student)))
    for mine, usual in zip(found[1][:2], found[0][:2], strict=True):
        assert mine == pytest.approx(usual, rel=1e-4)
    for mine, usual in zip(found[1][2:], found[0][2:], strict=True):
        assert usual.norm() > 1e-3
        assert (mine - usual).norm() < 1e-3 * usual.norm()


def test_without_frozen_weights_both_networks_get_weight_gradients_in_synthesis_alone() -> None:
    on, off = job(), job(replace(ON, frozen=False))
    networks: list[nn.Module] = [speedups.views(off)[0]._module, off.student]
    saved = flop_of(lambda: synthesise(off)) - flop_of(lambda: synthesise(on))
    layers: list[int] = []

    def hook(layer: Any, _inputs: Any, output: Tensor) -> None:
        layers.append(2 * output.numel() * layer.weight[0].numel())

    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(hook)
        with torch.no_grad():
            network(torch.randn(8, 3, 8, 8))
    assert saved == sum(layers)
    assert flop_of(lambda: train_student(off)) == flop_of(
        lambda: train_student(on)
    )  # there the teacher has no gradients anyway


@pytest.mark.parametrize(
    ("setting", "operator", "synthesis", "student"),
    [
        (replace(ON, moments=False), "pow_", (1, 1), (0, 1)),  # squares of the deviations
        (replace(ON, passes=False), "var", (0, 1), (0, 0)),
    ],
    ids=["moments", "passes"],
)
def test_batchnorm_does_the_work_that_is_saved(
    setting: speedups.Setting, operator: str, synthesis: tuple[int, int], student: tuple[int, int]
) -> None:
    on, off = job(), job(setting)
    layers = len(speedups.views(on)[0]._module.bn_layers())
    for step, times in ((synthesise, synthesis), (train_student, student)):
        found = tuple(operators(step, made)[operator] for made in (on, off))
        assert found == tuple(layers * n for n in times)


def test_every_setting_is_timed_in_every_round_and_compiling_has_a_price(monkeypatch: Any) -> None:
    ran: list[tuple[int, speedups.Setting]] = []
    now = [0.0]
    monkeypatch.setattr(speedups, "switched", lambda _, setting: setting)
    monkeypatch.setattr(speedups.time, "perf_counter", lambda: now[0])

    def one_round(setting: Any, k: int) -> dict[str, float]:
        ran.append((k, setting))
        now[0] += 31.0 if k < 0 and setting.compiled else 1.0
        busy = 3.0 if k == 1 else 1.0  # the machine, in the second round
        return {"student": busy * (20.0 if setting == OFF else 10.0), "whole round": 60.0 if setting.compiled else 90.0}

    monkeypatch.setattr(speedups, "one_round", one_round)
    rows = speedups.measure(lambda _: job(), ("compile",), 7)
    settings = {*ALWAYS.values(), ON, OFF, replace(ON, compiled=True)}
    for k in range(-2, 7):
        assert {setting for round, setting in ran if round == k} == settings
    assert {ran[len(settings) * (k + 2)][1] for k in range(7)} == settings  # each came first once
    assert Row("all of fp32", "student", 20.0, 10.0, 2.0) in rows
    (priced,) = (row for row in rows if row.price)
    assert (priced.speedup, priced.step, priced.price, priced.even) == (
        "compile on top", "whole round", 60.0, pytest.approx(2000.0),
    )  # fmt: skip


# -- the roofline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [synthesise, train_student])
def test_the_operations_found_are_all_of_the_arithmetic(step: Any) -> None:
    made = job()
    found = roofline.operations_of(lambda: step(made))
    assert sum(op.flop * times for op, times in found.items()) == flop_of(lambda: step(made)) > 0
    assert {op.function.overloadpacket.__name__ for op in found} == {
        "convolution", "convolution_backward", "addmm", "mm",
    }  # fmt: skip


def test_an_operation_is_called_again_with_the_same_shapes_layouts_and_formats() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1).to(memory_format=torch.channels_last).bfloat16()
    x = torch.randn(2, 3, 6, 6).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = roofline.operations_of(lambda: conv(x).sum().backward())
    forward, backward = sorted(found, key=lambda op: op.function.overloadpacket.__name__)
    assert (forward.flop, backward.flop) == (2 * 2 * 36 * 5 * 27, 2 * 2 * 2 * 36 * 5 * 27)
    again = roofline.operations_of(forward.ready()) + roofline.operations_of(backward.ready())
    assert again == Counter({forward: 1, backward: 1})
    ours = roofline.made(forward.arguments[0])
    assert (ours.shape, ours.stride(), ours.dtype) == (x.shape, x.stride(), x.dtype)


@pytest.mark.parametrize("needs_grad", [True, False])
def test_attention_is_among_the_operations(needs_grad: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).train(needs_grad)
    x = torch.randn(3, 5, 16, requires_grad=needs_grad)

    def step() -> None:
        with torch.set_grad_enabled(needs_grad):
            out = layer(x)
        if needs_grad:
            out.sum().backward()

    found = roofline.operations_of(step)
    assert sum(op.flop * times for op, times in found.items()) == flop_of(step)
    for op in found:
        assert roofline.operations_of(op.ready()) == {op: 1}


def test_ratios_are_of_the_same_round_and_milliseconds_of_a_step() -> None:
    op = roofline.Operation("conv", (), 50)
    found = roofline.summary("student", [(20.0, 10.0), (600.0, 400.0), (44.0, 20.0)], 2, Counter({op: 4}))
    assert found == roofline.Floor("student", 22.0, 10.0, 2.0, 1.5, 2.2, 100, 2)
    assert found.rate == 10_000.0  # 100 FLOP in 10 ms


# -- a GPU's trace ----------------------------------------------------------------------------------------------------


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
    found = gpu_trace.seen(TRACE)
    assert (found.kernels, found.copies, found.graphs) == (3, 1, 1)
    assert (found.span_ms, found.idle_ms) == pytest.approx((1.0, 0.3))  # 100 to 1100 us
    assert found.waits == {"cudaStreamSynchronize": 1}
    assert found.milliseconds == pytest.approx({"conv": 0.6, "relu": 0.1, "Memcpy HtoD": 0.05})
    nothing = gpu_trace.seen([event("cpu_op", "aten::relu", 0.0), event("cuda_runtime", "cudaDeviceSynchronize", 1.0)])
    assert (nothing.kernels, nothing.span_ms, nothing.waits) == (0, 0.0, {})


def test_kernels_are_per_step_and_medians_over_rounds(monkeypatch: Any) -> None:
    """On a device that only says that it is a GPU."""
    made, calls = job(), []
    with pytest.raises(UsageError, match="needs a GPU"):
        gpu_trace.kernels(made, 1)
    traces = iter([TRACE, TRACE, [*TRACE, event("kernel", "more", 2100.0)], TRACE])
    monkeypatch.setattr(gpu_trace, "timed", lambda step, device: calls.append("timed"))
    monkeypatch.setattr(gpu_trace, "trace", lambda step, device: calls.append("traced") or next(traces))
    monkeypatch.setattr(made.context, "device", torch.device("cuda"))
    synthesis, student = gpu_trace.kernels(made, 2, warmup=1)
    assert calls == ["timed"] * 2 + ["traced"] * 4
    assert (synthesis.step, synthesis.kernels, student.step, student.kernels) == ("synthesis", 3.5, "student", 3.0)
    assert (student.idle, student.waits) == (pytest.approx(0.3), {"cudaStreamSynchronize": 2})  # of all rounds
    assert [name for name, _, _ in synthesis.longest] == ["conv", "relu", "Memcpy HtoD", "more"]


def test_words_are_those_of_profile() -> None:
    from subject import subject

    what = subject("deepinversion", ("--batch", "4", "--threads", "1", "--rounds", "3", "--device", "cpu"))
    assert (what.rounds, what.batch_size, what.spec.threads) == (3, 4, 1)
    assert dict(what.spec.settings)["iterations"] == 20  # as in a smoke run
    assert what.title == "digits16/cnn32-cnn16, batch 4, cpu, 1 thread(s), 3 rounds"
