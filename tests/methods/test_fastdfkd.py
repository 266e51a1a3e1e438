"""FastDFKD: warm-up, the meta-step by hand, smoothed moments, and the one redraw; its loss: `test_pool_methods.py`."""

from __future__ import annotations

import copy
from typing import Any
from unittest.mock import patch

import pytest
import reference_pool as ref
import torch
from contexts import CLASSES, state
from hooks import Spy, array, look
from pool_jobs import BATCH, at, inner, make
from reference_numpy import moments
from tiny import arithmetic
from torch import nn

from dfkd_bench.plugins.registry import load
from dfkd_bench.protocol import DEFAULT_TASK, task
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.training.build import plan_run
from dfkd_bench.training.loop import distill
from dfkd_bench.training.storage import load_state, plain, state_of
from dfkd_methods import fastdfkd
from dfkd_methods.fastdfkd import FastDFKD


def average_of(job: Any) -> list[Any]:
    return [(array(m), array(v)) for m, v in job.method.moments.average]


def test_the_warm_up_is_a_share_of_the_run_and_distils_nothing(tmp_path: Any) -> None:
    (planned,) = make_plan(Request(("fastdfkd",), device="cpu"), tmp_path)
    kind, chosen = load(planned.method), task(DEFAULT_TASK)
    method = kind(kind.Config(**dict(planned.spec.settings)))
    _, plan = plan_run(planned.spec, chosen, method.flags, method.recipe)
    assert plan.warmup_rounds == -(-plan.rounds // 10)  # 20 of 220 published epochs
    job = make(FastDFKD, rounds=2)
    job.schedule = type(job.schedule)(2, 2, 2, BATCH, 3, ())
    distill(job)
    assert job.context.meter.counts["student_steps"] == 4
    assert len(job.context.registered["pool"]) == 5 * BATCH  # warm-up batches are kept


# -- the meta-step ----------------------------------------------------------------------------------------------------


def test_the_summed_gradients_of_k_steps_move_the_meta_generator_once() -> None:
    """Two rounds by hand: inner steps, their gradients, and the outer Adam of k times the rate."""
    with arithmetic(torch.float64):
        job = make(FastDFKD, dtype=torch.float64, k=3, gen_lr=2e-3, z_lr=0.05)
        G = job.method.G
        start = [array(p) for p in G.parameters()]
        sums: list[list[Any]] = []
        real = fastdfkd.invert

        def counting(draw: Any, objective: Any, update: Any, steps: int) -> Any:
            total = [torch.zeros_like(p) for p in G.parameters()]
            fast = job.method.meta.fast

            def counted(loss: torch.Tensor) -> None:
                assert all(torch.equal(p, q) for p, q in zip(G.parameters(), held, strict=True))  # it stands still
                update(loss)
                for sum_of, p in zip(total, fast.parameters(), strict=True):
                    sum_of += p.grad

            found = real(draw, objective, counted, steps)
            sums.append([array(v) for v in total])
            return found

        with patch.object(fastdfkd, "invert", counting):
            for k in range(2):
                held = [p.detach().clone() for p in G.parameters()]
                at(job, k)
                job.method.synthesize()
                for i, p in enumerate(G.parameters()):
                    by_hand = ref.adam(start[i], [s[i] for s in sums], 3 * 2e-3, 0.5)
                    assert array(p) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    assert {int(s["step"]) for s in job.method.meta.optimiser.state.values()} == {2}


def test_inner_steps_are_adams_of_their_own_on_a_copy_and_on_z() -> None:
    with arithmetic(torch.float64):
        job = make(FastDFKD, dtype=torch.float64, gen_lr=0.02, z_lr=0.3, gen_beta1=0.4)
        at(job, 0)
        before = state(job.method.G)
        loop = inner(job.method)
        fast, z = loop.inside("G"), loop.inside("z")
        assert fast is job.method.meta.fast
        assert fast is not job.method.G
        leaves = [*fast.parameters(), z]
        assert all(torch.equal(p, q) for p, q in zip(fast.parameters(), job.method.G.parameters(), strict=True))
        starts, gradients = [array(p) for p in leaves], []
        for _ in range(2):
            loop.update(loop.objective(loop.draw())[0])
            gradients.append([array(p.grad) for p in leaves])
    assert loop.steps == 5
    for i, p in enumerate(leaves):
        by_hand = ref.adam(starts[i], [g[i] for g in gradients], 0.3 if p is z else 0.02, 0.4)
        assert array(p) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    assert abs(array(z.grad)).max(1).min() > 0
    assert all(torch.equal(v, before[k]) for k, v in job.method.G.state_dict().items())
    networks = [job.context.teacher._module, job.student]
    assert all(p.grad is None for n in networks for p in n.parameters())


def test_reptile_moves_towards_the_copy() -> None:
    with arithmetic(torch.float64):
        job = make(FastDFKD, dtype=torch.float64, meta="reptile", gen_lr=1e-3)
        at(job, 0)
        before = [array(p) for p in job.method.G.parameters()]
        job.method.synthesize()
        for p, fast, old in zip(
            job.method.G.parameters(), job.method.meta.fast.parameters(), before, strict=True
        ):  # fmt: skip
            assert array(p) == pytest.approx(ref.adam(old, [67.0 * (old - array(fast))], 5e-3, 0.5), abs=1e-9)


@pytest.mark.parametrize(("preset", "rate"), [("fast2", 0.01), ("fast5", 0.015), ("fast10", 0.02)])
def test_the_outer_rate_is_k_times_the_inner_one(preset: str, rate: float) -> None:
    job = make(FastDFKD, preset)
    optimiser = job.method.meta.optimiser
    assert job.context.registered["generator_adam"] is optimiser
    (group,) = optimiser.param_groups
    assert group["lr"] == pytest.approx(rate)
    assert group["betas"] == (0.5, 0.999)


PUBLISHED = {"fast2": (2, 5e-3, 0.015), "fast5": (5, 3e-3, 0.01), "fast10": (10, 2e-3, 0.01)}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_are_the_published_settings(preset: str) -> None:
    c = FastDFKD.Config(**FastDFKD.presets[preset])
    assert (c.k, c.gen_lr, c.z_lr) == PUBLISHED[preset]
    assert (c.w_oh, c.w_bn, c.w_adv, c.bn_momentum, c.temperature) == (0.5, 10.0, 1.33, 0.9, 20.0)
    assert c.pool_size == 220 * 256
    recipe = FastDFKD(c).recipe
    found = (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.floor, recipe.epochs, recipe.batch_size)
    assert found == (0.2, 0.9, 1e-4, 2e-4, 200, 256)


def test_without_meta_learning_one_generator_goes_on_with_a_new_adam_each_round() -> None:
    with arithmetic(torch.float64):
        job = make(FastDFKD, "no-meta", dtype=torch.float64, gen_lr=0.02)
        G = job.method.G
        assert job.method.meta is None
        assert "generator_adam" not in job.context.registered
        for k in range(3):
            at(job, k)
            starts, gradients, loop = [array(p) for p in G.parameters()], [], inner(job.method)
            assert loop.inside("G") is G
            for _ in range(2):
                loop.update(loop.objective(loop.draw())[0])
                gradients.append([array(p.grad) for p in G.parameters()])
            for i, p in enumerate(G.parameters()):
                by_hand = ref.adam(starts[i], [g[i] for g in gradients], 0.02, 0.5)
                assert array(p) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)


def test_the_generator_is_the_small_one() -> None:
    G = make(FastDFKD, latent_dim=6, generator_width=4, filled=False).method.G
    assert [(c.in_channels, c.out_channels) for c in G.convs] == [(8, 8), (8, 4)]


# -- moments ----------------------------------------------------------------------------------------------------------


def test_moments_are_smoothed_over_rounds_by_the_last_step_of_each() -> None:
    with arithmetic(torch.float64):
        job = make(FastDFKD, dtype=torch.float64, bn_momentum=0.75)
        spy = job.context.teacher = Spy(job.context.teacher)
        expected: list[Any] = []
        for k in range(3):
            at(job, k)
            spy.images.clear()
            job.method.synthesize()
            _, inputs, _ = look(spy.view._module, spy.images[-1].detach())
            expected = list(ref.smoothed([moments(a) for a in inputs], expected, 0.75))
            for (a, b), (c, d) in zip(average_of(job), expected, strict=True):
                assert a == pytest.approx(c, rel=1e-9, abs=1e-12)
                assert b == pytest.approx(d, rel=1e-9, abs=1e-12)


def test_labels_are_random_and_not_balanced() -> None:
    job = make(FastDFKD, k=1)
    for k in range(6):
        at(job, k)
        job.method.synthesize()
    labels = job.context.registered["pool"].labels.view(6, BATCH)
    counts = {tuple(torch.bincount(row, minlength=CLASSES).tolist()) for row in labels}
    assert len(counts) > 2
    assert any(row.tolist() != sorted(row.tolist()) for row in labels)


# -- the redraw -------------------------------------------------------------------------------------------------------


def redraws(job: Any, rounds: range) -> list[int]:
    """The rounds in which something is drawn anew."""
    found: list[int] = []
    real, now = fastdfkd.reinitialise, 0

    def watch(module: nn.Module, *more: Any) -> None:
        found.append(now)
        real(module, *more)

    with patch.object(fastdfkd, "reinitialise", watch):
        for now in rounds:
            at(job, now)
            job.method.synthesize()
    return found


@pytest.mark.parametrize(
    ("rounds", "share", "expected"),
    [(10, 0.6, [5]), (5, 0.6, [2]), (3, 0.6, [1]), (10, 0.25, [2]), (10, 1.0, []), (1, 0.6, [0])],
)
def test_the_first_layers_are_redrawn_once(rounds: int, share: float, expected: list[int]) -> None:
    job = make(FastDFKD, "fast2", rounds=rounds, redraw=share, k=1)
    assert redraws(job, range(-2, rounds)) == expected
    assert job.method.redrawn.value == bool(expected)
    assert redraws(make(FastDFKD, "no-meta", rounds=rounds, redraw=share, k=1), range(-2, rounds)) == []


def test_never_again_after_a_resume() -> None:
    job = make(FastDFKD, k=1)
    assert redraws(job, range(8)) == [5]
    later = make(FastDFKD, k=1, filled=False)
    load_state(later, copy.deepcopy(plain(state_of(job))))
    assert redraws(later, range(8, 10)) == []
    early = make(FastDFKD, k=1)
    redraws(early, range(5))
    resumed = make(FastDFKD, k=1, filled=False)
    load_state(resumed, copy.deepcopy(plain(state_of(early))))
    assert redraws(resumed, range(5, 10)) == [5]


def test_only_the_first_linear_layer_and_norm_are_redrawn() -> None:
    job = make(FastDFKD, latent_dim=32, generator_width=4)
    with torch.no_grad():
        for p in job.method.G.parameters():
            p.fill_(3.0)
    at(job, 6)
    inner(job.method)
    G = job.method.G
    moved = {name for name, p in G.named_parameters() if not torch.equal(p, torch.full_like(p, 3.0))}
    assert moved == {"fc.weight", "fc.bias", "bn0.weight", "bn0.bias"}
    assert G.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert G.bn0.weight.abs().max().item() < 0.2  # around 0, as published, not around 1
    assert all(torch.equal(p, q) for p, q in zip(G.parameters(), job.method.meta.fast.parameters(), strict=True))
