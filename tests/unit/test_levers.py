"""Levers of speed: each costs what it says when it is off, none changes a loss, and what is timed is told right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from commands import dfkd
from operators import operators
from tiny import cpsc, make_job
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dfkd_bench import models
from dfkd_bench.data import loading
from dfkd_bench.models import tapped
from dfkd_bench.profiling import speedups
from dfkd_bench.profiling.speedups import ALWAYS, OFF, ON, TOGETHER, Levers, Row, set_levers
from dfkd_bench.profiling.speedups_table import levers_table, paid_back
from dfkd_bench.training.loop import Job, synthesise, teach

SETTINGS = {**ALWAYS, TOGETHER: OFF}
ONE_STEP = ("--set", "synthesis_steps=1", "--set", "student_steps=1")
PROFILE = ("profile", "-m", "cpsc", "--device", "cpu", "--threads", "1", "--rounds", "1", "--batch", "4", *ONE_STEP)


def job(setting: Levers = ON, **settings: Any) -> Job:
    """CPSC with one step of each kind a round on tiny wide ResNets, always from the same state."""
    made = make_job(
        cpsc(**{"synthesis_steps": 1, "student_steps": 1, "generator_width": 4, **settings}),
        models.build("wrn16_1", 3, (3, 8, 8)), models.build("wrn16_1", 3, (3, 8, 8)),
        image_shape=(3, 8, 8), batch_size=8,
    )  # fmt: skip
    return set_levers(made, setting)


def gradients(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_and_gradients_agree_from_equal_state(name: str) -> None:
    found = []
    for setting in (ON, SETTINGS[name]):
        generator, student = job(setting), job(setting)  # a step each: the next would start from another state
        synthesise(generator)
        teach(student)
        G: Any = generator.method
        found.append((generator.tally.take(), student.tally.take(), gradients(G.G), gradients(student.student)))
    for mine, usual in zip(found[1][:2], found[0][:2], strict=True):
        assert set(mine) == set(usual)
        for term in usual:
            assert mine[term] == pytest.approx(usual[term], rel=1e-4), term
    for mine, usual in zip(found[1][2:], found[0][2:], strict=True):
        assert usual.norm() > 1e-3
        assert (mine - usual).norm() < 1e-3 * usual.norm()


def flops(step: Callable[[Job], object], made: Job) -> int:
    with FlopCounterMode(display=False) as counter:
        step(made)
    return int(counter.get_total_flops())


def test_without_frozen_weights_both_networks_get_weight_gradients_in_synthesis_alone() -> None:
    on, off = job(), job(replace(ON, frozen=False))
    networks: list[nn.Module] = [speedups.views(off)[0]._module, off.student]
    saved = flops(synthesise, off) - flops(synthesise, on)
    layers: list[int] = []

    def hook(layer: Any, _inputs: Any, output: Tensor) -> None:
        per_output = layer.weight[0].numel()
        layers.append(2 * output.numel() * per_output)

    for network in networks:
        assert all(p.requires_grad and p.grad is not None for p in network.parameters())
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(hook)
    with torch.no_grad():
        for network in networks:
            network(torch.randn(8, 3, 8, 8))
    assert saved == sum(layers)
    assert flops(teach, off) == flops(teach, on)  # there the teacher runs without gradients in any case


def test_without_lean_moments_every_teacher_forward_makes_them() -> None:
    on, off = job(), job(replace(ON, moments=False))
    layers = len(speedups.views(on)[0]._module.bn_layers())
    for step, asked in ((synthesise, layers), (teach, 0)):
        lean, fat = operators(step, on), operators(step, off)
        assert (lean["pow_"], fat["pow_"]) == (asked, layers)  # squares of the deviations
    assert speedups.views(off)[0](torch.zeros(2, 3, 8, 8)).moments == ()  # still, nobody gets what was not asked for


def test_without_few_passes_layer_and_moments_are_the_librarys() -> None:
    on, off = job(), job(replace(ON, passes=False))
    layers = len(speedups.views(on)[0]._module.bn_layers())
    for step, asked in ((synthesise, layers), (teach, 0)):
        few, many = operators(step, on), operators(step, off)
        assert (few["var"], many["var"]) == (0, asked)
        assert many["native_batch_norm"] - few["native_batch_norm"] == layers
    assert tapped.normalise.__name__ == "normalise"


def test_two_pass_moments_are_the_moments() -> None:
    x = 3 + 2 * torch.randn(5, 4, 3, 2)
    for mine, usual in zip(speedups.two_pass_moments(x), tapped.batch_moments(x), strict=True):
        torch.testing.assert_close(mine, usual)


@pytest.mark.parametrize("kept", [True, False])
def test_layout_of_weights_and_of_what_passes_through_the_networks(kept: bool) -> None:
    made = job(replace(ON, channels_last=kept))
    generator: Any = made.method
    seen: list[bool] = []

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    for network in (made.student, speedups.views(made)[0]._module, generator.G):
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1) and layer.in_channels > 1:
                if network is not generator.G:  # its first map comes from a linear layer, in the default layout
                    layer.register_forward_pre_hook(hook)
                assert layer.weight.is_contiguous(memory_format=torch.channels_last) == kept, name
    synthesise(made)
    teach(made)
    assert len(seen) > 50
    assert set(seen) == {kept}


def test_what_is_on_top_of_what() -> None:
    assert [name for name, _, _ in speedups.comparisons(())] == [*ALWAYS, TOGETHER]
    bf16, both = replace(ON, bf16=True), replace(ON, bf16=True, compiled=True)
    assert speedups.comparisons(("compile", "bf16"))[len(ALWAYS) + 1 :] == [
        ("bf16, on top", ON, bf16), ("compile, on top", bf16, both), ("everything", OFF, both),
    ]  # fmt: skip
    assert speedups.comparisons(("compile",))[len(ALWAYS) + 1] == ("compile, on top", ON, replace(ON, compiled=True))


def test_ratios_are_of_the_same_round() -> None:
    off = [{"student": v} for v in (20.0, 300.0, 44.0)]  # the machine was busy in the second round
    on = [{"student": v} for v in (10.0, 200.0, 20.0)]
    assert speedups.rows("x", off, on) == [Row("x", "student", 44.0, 20.0, 2.0, 1.5, 2.2)]


def test_what_compiling_costs_is_paid_back_by_rounds(monkeypatch: Any) -> None:
    monkeypatch.setattr(speedups, "set_levers", lambda _, setting: setting)
    now = [0.0]
    monkeypatch.setattr(speedups.time, "perf_counter", lambda: now[0])

    def one_round(setting: Any, k: int) -> dict[str, float]:
        now[0] += 31.0 if k < 0 and setting.compiled else 1.0
        return {"student": 9.0, "whole round": 600.0 if setting.compiled else 1000.0}

    monkeypatch.setattr(speedups, "one_round", one_round)
    rows = speedups.measure(lambda _: job(), ("compile",), 2)
    priced = {row.lever: row for row in rows if row.price is not None}
    assert set(priced) == {"compile, on top", "everything"}  # both go from eager to compiled
    found = priced["compile, on top"]
    assert (found.step, found.price, found.even) == ("whole round", 60.0, 150.0)
    assert speedups.Row("x", "whole round", 1.0, 1.0, 1.0, 1.0, 1.0, 3.0).even == float("inf")
    table = levers_table("t", rows, "CPU time")
    assert "compile, on top: 60 s before the first round, paid back after 150 rounds" in str(table.caption)
    assert paid_back(float("inf")) == "never paid back"


def test_every_setting_runs_in_every_round_and_takes_turns(monkeypatch: Any) -> None:
    names = {ON: "on", OFF: "off", **{setting: name for name, setting in ALWAYS.items()}}
    ran: list[tuple[int, str]] = []
    monkeypatch.setattr(speedups, "set_levers", lambda _, setting: setting)

    def one_round(setting: Any, k: int) -> dict[str, float]:
        ran.append((k, names[setting]))
        usual = {"on": 1.0, "off": 4.0}.get(names[setting], 2.0)
        return {"student": 100.0 if k < 0 and setting != ON else usual}

    monkeypatch.setattr(speedups, "one_round", one_round)
    heard: list[int] = []
    rows = speedups.measure(lambda _: job(), (), len(names), heard.append)
    assert heard == [*range(-1, len(names))]
    for k in heard:
        assert sorted(name for round, name in ran if round == k) == sorted(names.values())
    assert {ran[len(names) * k][1] for k in range(1, 6 + 1)} == set(names.values())  # each came first once
    assert [(row.lever, row.off, row.on, row.ratio, row.highest) for row in rows] == [  # and no warm-up in it
        *((name, 2.0, 1.0, 2.0, 2.0) for name in ALWAYS), (TOGETHER, 4.0, 1.0, 4.0, 4.0),
    ]  # fmt: skip


def test_a_round_is_timed_per_step_and_leaves_no_gradients(monkeypatch: Any) -> None:
    made = job(OFF, synthesis_steps=2, student_steps=4)
    ticks = iter([0.0, 0.010, 1.0, 1.100])
    monkeypatch.setattr(speedups, "clock_for", lambda _: (lambda: next(ticks), "ticks"))
    assert speedups.one_round(made, 0) == pytest.approx({"synthesis": 5.0, "student": 25.0, "whole round": 110.0})
    teacher = speedups.views(made)[0]._module
    assert all(p.grad is None for network in (teacher, made.student) for p in network.parameters())
    assert all(p.requires_grad for p in teacher.parameters())


def test_one_thread_is_timed_by_what_it_computed() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert speedups.clock_for(torch.device("cpu")) == (time.process_time, "CPU time")
        torch.set_num_threads(2)
        assert speedups.clock_for(torch.device("cpu")) == (time.perf_counter, "wall time")
    finally:
        torch.set_num_threads(threads)


def test_a_table_names_each_lever_once() -> None:
    rows = [Row("a[b]", step, 2.0, 1.0, 2.0, 1.5, 2.5) for step in ("synthesis", "student")]
    table = levers_table("t", rows, "CPU time")
    assert list(table.columns[0].cells) == ["a\\[b]", ""]
    assert list(table.columns[5].cells) == ["1.50-2.50"] * 2


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_data(monkeypatch: Any, tmp_path: Any) -> None:
    """Whoever profiles has no dataset, and no teachers of their own."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a profile looked at data")

    for name in ("load", "digest"):
        monkeypatch.setattr(loading, name, refuse)
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_the_command_shows_every_lever_off_and_on(monkeypatch: Any, capsys: Any) -> None:
    status, out, err = dfkd(monkeypatch, capsys, *PROFILE, "--levers")
    assert (status, err) == (0, "")
    for name in (*SETTINGS, "bf16, on top", "everything"):
        assert sum(name in line.split("  ")[1:3] for line in out.split("\n")) == 1, name
    assert out.count("whole round") == len(ALWAYS) + 3
    assert "batch 4, cpu, 1 thread, 1 round " in out
    status, out, _ = dfkd(monkeypatch, capsys, *PROFILE, "--levers", "fp32")
    assert (status, out.count("whole round")) == (0, len(ALWAYS) + 1)
    assert "bf16" not in out


def test_networks_without_a_teacher_have_random_weights(monkeypatch: Any, capsys: Any) -> None:
    status, out, err = dfkd(monkeypatch, capsys, *PROFILE, "--task", "digits16/cnn16-cnn16")
    assert (status, err) == (0, "")
    assert "no teacher registered for digits16/cnn16-cnn16: random weights, which take the same time\n" in out
    status, out, _ = dfkd(monkeypatch, capsys, *PROFILE)
    assert "no teacher" not in out
    status, out, err = dfkd(monkeypatch, capsys, *PROFILE, "--networks", "cnn16-cnn16", "--shape", "1x16x16")
    assert (status, err, "no teacher" in out) == (0, "", False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--levers", "bf61"), "unknown lever 'bf61'; did you mean 'bf16'?"),
        (("--levers", "--compile"), "--levers sets precision and compile by itself"),
        (("--levers", "--precision", "bf16"), "--levers sets precision and compile by itself"),
        (("--levers", "--threads", "0"), "Invalid value for '--threads'"),
        (("--batch", "0"), "Invalid value for '--batch'"),
        (("--rounds", "0"), "Invalid value for '--rounds'"),
        (("--precision", "bf61"), "unknown precision"),
        (("--task", "digits16/cnn17-cnn16"), "unknown architecture 'cnn17'"),
        (("--networks", "cnn16-cnn16", "-m", "real-kd"), "needs real data"),
    ],
)
def test_the_command_refuses_in_one_line(monkeypatch: Any, capsys: Any, words: tuple[str, ...], says: str) -> None:
    drop = ONE_STEP if "real-kd" in words else ()
    status, _, err = dfkd(monkeypatch, capsys, *[w for w in PROFILE if w not in drop], *words)
    assert (status, err.count("\n")) == (2, 1)
    assert says in err
