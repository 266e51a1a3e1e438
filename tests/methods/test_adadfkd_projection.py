"""AdaDFKD between networks whose features differ in width (finding B1): a projection fresh, fixed or learned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference_streaming as ref
import torch
from hooks import array
from stream_jobs import BATCH, enter_synthesis, expected_step, make, student_batch, synthesis
from tiny import flat, make_job
from torch import Tensor, nn

from dfkd_bench import models
from dfkd_bench.training.loop import distill, synthesise, train_student
from dfkd_methods.adadfkd import AdaDFKD, AdaDFKDConfig

KINDS = ["fresh", "fixed", "learned"]


pytestmark = pytest.mark.usefixtures("double")


def maps(method: Any) -> list[tuple[Tensor, Tensor]]:
    """Every projection that the method uses from now on."""
    found: list[tuple[Tensor, Tensor]] = []
    map_S = method.map_S
    method.map_S = lambda *a, **k: found.append(map_S(*a, **k)) or found[-1]
    return found


@pytest.mark.parametrize("proj", KINDS)
def test_b1_values_with_a_projection(proj: str) -> None:
    job = make("adadfkd", student_features=3, proj=proj)
    method: Any = job.method
    used = maps(method)
    step = synthesis(job)
    batch, seen, loss = student_batch(job)
    assert batch.images.shape[0] == BATCH
    (first, second) = used
    projected = [v.f_s @ array(w).T + array(b) for v, (w, b) in ((step.seen, first), (seen, second))]
    assert step.losses == pytest.approx(expected_step(job, step, projected[0]), rel=1e-6)
    c = method.config
    assert loss.item() == pytest.approx(ref.adadfkd_student(c, seen, c.lambda_0, projected[1]), rel=1e-6)
    assert method.Q.columns.shape[0] == 5  # keys have the teacher's width


def test_b1_a_fresh_projection_differs_at_every_call_and_follows_the_method_s_stream() -> None:
    runs = []
    for seed in (5, 5, 6):
        job = make("adadfkd", student_features=3)
        job.context.streams.seed = seed
        job.context.streams.reseed(0)
        method: Any = job.method
        used = maps(method)
        torch.manual_seed(seed + 7)  # the global stream has no say
        for _ in range(2):
            synthesis(job)
            student_batch(job)
        runs.append([torch.cat([w, b[:, None]], 1) for w, b in used])
    assert len(runs[0]) == 4
    for i in range(4):
        assert torch.equal(runs[0][i], runs[1][i])
        assert not torch.equal(runs[0][i], runs[2][i])
        assert not any(torch.equal(runs[0][i], runs[0][k]) for k in range(i))
    bound = 1.0 / math.sqrt(3)
    everything = torch.cat([r.flatten() for r in runs[0]])
    assert everything.abs().max() <= bound
    assert everything.abs().max() > 0.9 * bound
    assert everything.min() < 0 < everything.max()
    assert not job.context.companions
    assert "projection" not in job.context.registered


def test_b1_a_fresh_projection_has_the_spread_of_a_linear_layer() -> None:
    job = make("adadfkd", student_features=3)
    method: Any = job.method
    draws = torch.cat([torch.cat([w, b[:, None]], 1) for w, b in (method.map_S("synthesis") for _ in range(200))])
    assert draws.std().item() == pytest.approx(1.0 / math.sqrt(3.0 * 3), rel=0.03)  # uniform within 1/sqrt(d_S)
    assert draws.mean().item() == pytest.approx(0.0, abs=0.02)


def test_b1_a_fixed_projection_stays_and_is_trained_by_nobody() -> None:
    job = make("adadfkd", student_features=3, proj="fixed")
    module: Any = job.context.registered["projection"]
    before = flat(module)
    assert isinstance(module, nn.Linear)
    used = maps(job.method)
    distill(job)
    assert torch.equal(flat(module), before)
    assert all(torch.equal(w, module.weight) and torch.equal(b, module.bias) for w, b in used)
    assert not any(p.requires_grad for p in module.parameters())
    owned = {id(p) for group in job.optimiser.param_groups for p in group["params"]}
    assert not {id(p) for p in module.parameters()} & owned


def test_b1_a_learned_projection_learns_with_the_student_and_is_still_for_the_generator() -> None:
    job = make("adadfkd", student_features=3, proj="learned")
    module: Any = job.context.companions["projection"]
    owned = {id(p) for group in job.optimiser.param_groups for p in group["params"]}
    assert {id(p) for p in module.parameters()} <= owned
    method: Any = job.method
    assert [v.requires_grad for v in method.map_S("synthesis")] == [False, False]
    assert [v.requires_grad for v in method.map_S("distillation", gradient=True)] == [True, True]
    before = flat(module)
    enter_synthesis(job)
    method.synthesize()
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(flat(module), before)
    train_student(job)
    assert not torch.equal(flat(module), before)
    assert all(p.grad is not None for p in module.parameters())
    for p in module.parameters():
        p.grad = None
    after = flat(module)
    synthesise(job)
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(flat(module), after)


@pytest.mark.parametrize("proj", KINDS)
def test_b1_equal_widths_need_no_projection(proj: str) -> None:
    job = make("adadfkd", proj=proj)
    method: Any = job.method
    assert method.map_S("synthesis") is None
    assert not job.context.companions
    assert "projection" not in job.context.registered
    assert not any(name.startswith("method/projection") for name in job.context.streams.states())


@pytest.mark.parametrize("proj", KINDS)
@pytest.mark.parametrize("pair", [("wrn40_2", "wrn16_1"), ("wrn16_1", "wrn16_2")])
def test_b1_networks_of_the_papers(pair: tuple[str, str], proj: str) -> None:
    method = AdaDFKD(AdaDFKDConfig(latent_dim=4, generator_width=2, proj=proj, queue_size=8, student_steps=2))  # 16 px
    teacher, student = (models.build(name, 4, (3, 32, 32)) for name in pair)
    job = make_job(method, teacher, student, classes=4, image_shape=(3, 16, 16), batch_size=4, filled=False)
    assert (method.d_T, method.d_S) == ((128, 64) if pair[0] == "wrn40_2" else (64, 128))
    weights = flat(teacher)
    synthesise(job)
    student_before = flat(student)
    train_student(job)
    assert all(math.isfinite(v) for v in job.tally.take().values())
    assert torch.equal(flat(teacher), weights)
    assert not torch.equal(flat(student), student_before)
    assert method.Q.columns.shape == (method.d_T, 8)
