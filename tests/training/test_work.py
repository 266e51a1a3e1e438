"""What a step computes, counted: no weight gradients for frozen networks, no statistics that nobody reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from operators import operators
from tiny import make_job
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dfkd_bench import models
from dfkd_bench.blocks import observed_norm
from dfkd_bench.blocks.observed_norm import moments
from dfkd_bench.training.loop import Job, synthesise, train_student
from dfkd_methods.cpsc import CPSC

B = 4
FEATURES = 128


@pytest.fixture
def job() -> Job:
    """WRN-40-2 -> WRN-16-2 at 32 px, the published pair, with one step of each kind per round."""
    torch.manual_seed(0)
    method = CPSC(CPSC.Config(synthesis_steps=1, student_steps=1, generator_width=8))
    return make_job(
        method, models.build("wrn40_2", 10, (3, 32, 32)), models.build("wrn16_2", 10, (3, 32, 32)),
        classes=10, image_shape=(3, 32, 32), batch_size=B, filled=False,
    )  # fmt: skip


def multiplications(network: nn.Module, *inputs: Tensor) -> list[int]:
    """Multiply-adds of one forward, layer by layer, from the shapes that pass each convolution and linear layer."""
    found: list[int] = []

    def hook(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            found.append(output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1])
        elif isinstance(layer, nn.Linear):
            found.append(output.numel() * layer.in_features)

    handles = [m.register_forward_hook(hook) for m in network.modules()]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()
    return found


def parts(job: Job) -> tuple[list[int], list[int], list[int]]:
    """Multiply-adds of G, T and S on one batch."""
    method: Any = job.method
    z, y = torch.randn(B, 256), torch.randint(0, 10, (B,))
    x = torch.randn(B, 3, 32, 32)
    return (
        multiplications(method.G, z, y),
        multiplications(job.context.teacher._module, x),
        multiplications(job.student, x),
    )


def counted(step: Callable[[Job], object], job: Job) -> int:
    with FlopCounterMode(display=False) as counter:
        step(job)
    return int(counter.get_total_flops())


def test_a_generator_step_makes_no_weight_gradients_of_teacher_or_student(job: Job) -> None:
    G, T, S = parts(job)
    assert (len(T), len(S)) == (37 + 3 + 1, 13 + 3 + 1)  # convolutions, shortcuts, the linear layer
    generator = sum(G) + (2 * sum(G) - G[0])  # forward; both gradients, but none for the latent
    networks = 2 * (sum(T) + sum(S))  # forward; the gradient for the image alone
    contrast = 3 * (2 * B) ** 2 * FEATURES  # the similarities, and their gradient in each factor
    by_hand = 2 * (generator + networks + contrast)
    assert counted(synthesise, job) == by_hand

    # the count sees weight gradients where there are any
    def with_gradients(networks: list[nn.Module]) -> int:
        job.student.train()
        for network in networks:
            network.requires_grad_(True)
        flops = counted(lambda job: job.method.synthesize(), job)
        for network in networks:
            network.requires_grad_(False)
        return flops

    teacher: nn.Module = job.context.teacher._module
    assert with_gradients([job.student]) == by_hand + 2 * sum(S)
    assert with_gradients([teacher]) == by_hand + 2 * sum(T)
    saved = 1 - by_hand / with_gradients([teacher, job.student])
    assert 0.25 < saved < 0.34


def test_a_student_step_computes_nothing_for_teacher_and_generator_but_their_forwards(job: Job) -> None:
    G, T, S = parts(job)
    # the first convolution needs no gradient for the image
    assert counted(train_student, job) == 2 * (sum(G) + sum(T) + 3 * sum(S) - S[0])


def test_moments_are_made_once_per_teacher_layer_in_a_generator_step_and_never_in_a_student_step(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(observed_norm, "moments", lambda x: made.append(x.shape[1]) or moments(x))
    in_generator_step = operators(synthesise, job)
    assert len(made) == 37
    in_student_step = operators(train_student, job)
    assert len(made) == 37
    for name in ("var", "std", "std_mean", "var_mean"):  # no other way of making them either
        assert in_generator_step[name] == in_student_step[name] == 0, name


def test_no_step_waits_for_the_device(job: Job) -> None:
    """`.item()`, `.tolist()` and `if tensor` all come down to this operator, and each would drain a GPU's queue."""
    for step in (synthesise, train_student):
        calls = operators(step, job)
        assert calls["_local_scalar_dense"] == 0
        assert calls["nonzero"] == 0
        assert sum(calls.values()) > 100  # the mode did see the step
    assert operators(lambda job: job.tally.take(), job)["stack"] == 1


def test_networks_run_in_channels_last(job: Job) -> None:
    seen: list[bool] = []

    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    for network in (job.student, job.context.teacher._module):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(hook)
                assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    synthesise(job)
    train_student(job)
    assert seen
    assert all(seen)
