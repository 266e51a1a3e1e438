"""CMI: its loss against the formulas, what the contrast reaches, the generator of each round, and the bank."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import reference_numpy
import reference_pool as ref
import torch
from contexts import CLASSES, state, stream
from hooks import Spy, array, look, running
from pool_jobs import BATCH, WEIGHTS, at, inner, make, watched, weighted
from reference_blocks import masked_kl
from tiny import arithmetic, fill
from torch import nn

from dfkd_bench.plugins.registry import card, resolve
from dfkd_bench.protocol import task
from dfkd_bench.runs.spec import resolve_settings
from dfkd_bench.training.loop import synthesise
from dfkd_methods.cmi import CMI


def head_of(job: Any) -> list[Any]:
    return [array(p) for p in job.method.head.parameters()]


def means(inputs: list[Any]) -> Any:
    """Means over space of every BatchNorm layer's input, side by side."""
    return np.concatenate([a.mean((2, 3)) for a in inputs], axis=1)


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.3, "beta": 2.0, "w_adv": 1.5, "w_cr": 0.4, "tau": 0.2}])
def test_loss_and_terms_are_those_of_the_formulas(rounds: int, settings: dict[str, float]) -> None:
    with arithmetic(torch.float64):
        job = make(CMI, dtype=torch.float64, crop_padding=1, flip=True, **settings)
        for k in range(rounds):
            at(job, k)
            synthesise(job)
        at(job, rounds)
        job.context.teacher, job.context.student = Spy(job.context.teacher), Spy(job.context.student)
        drawn, bank = [], job.method.bank
        with patch.object(bank, "draw", lambda n, s, real=bank.draw: drawn.append(real(n, s)) or drawn[-1]):
            loop = inner(job.method)
            loss, terms = loop.objective(torch.randn(BATCH, 2, 8, 8, generator=stream(3)))
        y = loop.inside("y", "objective").tolist()
        glob, local = (v.detach() for v in job.context.teacher.images)
        teacher = job.context.teacher._module
        (t, whole, _), (_, part, _), (s, *_) = look(teacher, glob), look(teacher, local), look(job.student, glob)
        cached = [array(v) for v in drawn[0]]
    assert len(cached[0]) == (10 if rounds else 0)
    assert job.context.student.images[0] is job.context.teacher.images[0]  # both judge the global view
    expected = {
        "L_bn": reference_numpy.bn_statistics([reference_numpy.moments(a) for a in whole], running(teacher)),
        "L_cls": reference_numpy.cross_entropy(t, y),
        "L_cr": ref.contrast(means(part), means(whole), cached, head_of(job), job.method.config.tau),
        "D_agree": masked_kl(s, t),
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert expected["D_agree"] > 0
    assert loss.item() == pytest.approx(weighted(job.method, expected), rel=1e-6)


def test_no_gradient_passes_through_the_global_side() -> None:
    with arithmetic(torch.float64):
        method = make(CMI, dtype=torch.float64).method
        dim = sum(len(m) for m, _ in method.bn_running)
        local, glob = (torch.randn(4, dim, generator=stream(k)).requires_grad_() for k in (1, 2))
        cached = tuple(torch.randn(5, dim, generator=stream(k)) for k in (3, 4))
        method.L_cr(method.head, local, glob, cached).backward()
        assert glob.grad is None
        assert local.grad.abs().amax(1).min() > 0
        found = [p.grad.clone() for p in method.head.parameters()]
        assert all(g.abs().max() > 0 for g in found)
        # of the local side alone: the global one is a constant
        constant = method.head(torch.cat([glob, cached[1]])).detach()
        moving = method.head(torch.cat([local, cached[0]]).detach())
        rows = -torch.log_softmax(moving @ constant.T / 0.1, dim=1).diagonal()
        wanted = torch.autograd.grad(rows[:4].mean() + rows[4:].mean(), list(method.head.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_generator_latents_and_head_are_trained_and_nothing_else() -> None:
    job = make(CMI)
    at(job, 0)
    loop = inner(job.method)
    z, head = loop.inside("z"), job.method.head
    frozen = [job.context.teacher._module, job.student]
    before = [state(m) for m in (job.method.G, head, *frozen)]
    start = z.detach().clone()
    loop.update(loop.objective(loop.draw())[0])
    assert z.grad.abs().amax(1).min() > 0
    assert not torch.equal(z, start)
    for module in (job.method.G, head):
        assert all(p.grad is not None for p in module.parameters())
    assert max(p.grad.abs().max() for p in job.method.G.parameters()) > 0
    moved = [any(not torch.equal(v, m.state_dict()[k]) for k, v in old.items())
             for m, old in zip((job.method.G, head, *frozen), before, strict=True)]  # fmt: skip
    assert moved == [True, True, False, False]
    assert all(p.grad is None for n in frozen for p in n.parameters())


def test_the_local_view_is_a_window_of_the_image_and_the_global_one_a_crop() -> None:
    with arithmetic(torch.float64):
        job = make(CMI, dtype=torch.float64, crop_scale=1.0)  # the window is the whole image
        at(job, 0)
        job.context.teacher = Spy(job.context.teacher)
        loop = inner(job.method)
        x = loop.draw().detach()
        loop.objective(x)
        torch.testing.assert_close(job.context.teacher.images[1], x)
        torch.testing.assert_close(job.context.teacher.images[0], x)  # this task has no augmentation
        small = make(CMI, dtype=torch.float64, crop_scale=0.1)
        at(small, 0)
        small.context.teacher = Spy(small.context.teacher)
        loop = inner(small.method)
        loop.objective(x)
    local = small.context.teacher.images[1]
    rough = [v.diff(dim=3).abs().mean().item() for v in (local, x)]
    assert rough[0] < rough[1]  # enlarged


# -- rounds -----------------------------------------------------------------------------------------------------------


def test_the_generator_is_drawn_anew_each_round_and_the_head_is_not() -> None:
    one, two = make(CMI), make(CMI)
    two.method.head.load_state_dict(one.method.head.state_dict())
    for k in range(2):
        fill(two.method.G, 40 + k)  # whatever it was, it is forgotten
        for job in (one, two):
            at(job, k)
            synthesise(job)
        assert torch.equal(one.context.registered["pool"].images, two.context.registered["pool"].images)
    pool = one.context.registered["pool"].images
    assert not torch.equal(pool[:BATCH], pool[BATCH:])
    at(one, 2)
    before = state(one.method.head)
    loop = inner(one.method)
    G = one.method.G
    weights = torch.cat([m.weight.flatten() for m in G.modules() if isinstance(m, nn.Linear | nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(torch.equal(v, before[k]) for k, v in one.method.head.state_dict().items())
    assert loop.steps == 3


def test_the_heads_adam_goes_on_from_round_to_round() -> None:
    job = make(CMI)
    for _ in range(2):
        synthesise(job)
    steps = {int(s["step"]) for s in job.method.head_adam.state.values()}
    assert steps == {6}
    (group,) = job.method.head_adam.param_groups
    assert (group["lr"], group["betas"]) == (1e-3, (0.9, 0.999))  # not those of the generator's


def test_generator_and_latents_share_an_adam_of_the_round() -> None:
    built: list[Any] = []

    class Watched(torch.optim.Adam):
        def __init__(self, parameters: Any, *more: Any) -> None:
            super().__init__(parameters, *more)
            built.append(self)

    job = make(CMI, gen_lr=0.5, gen_beta1=0.25)
    with patch.object(sys.modules["dfkd_methods.cmi"].torch.optim, "Adam", Watched):
        loop = inner(job.method)
    (adam,) = built
    (group,) = adam.param_groups
    assert (group["lr"], group["betas"]) == (0.5, (0.25, 0.999))
    assert {id(p) for p in group["params"]} == {id(p) for p in (*job.method.G.parameters(), loop.inside("z"))}


def test_labels_are_sorted_and_stay_with_their_images() -> None:
    job = make(CMI, iterations=1)
    for k in range(4):
        at(job, k)
        synthesise(job)
    labels = job.context.registered["pool"].labels.view(4, BATCH)
    assert all(row.tolist() == sorted(row.tolist()) for row in labels)
    assert len(torch.unique(labels)) == CLASSES
    assert len({tuple(row.tolist()) for row in labels}) > 1


def test_the_bank_grows_and_is_drawn_from() -> None:
    job = make(CMI, bank_size=17)
    bank, asked = job.method.bank, []
    with patch.object(bank, "draw", lambda n, s, real=bank.draw: asked.append((n, len(real(n, s)[0]))) or real(n, s)):
        sizes = []
        for k in range(4):
            at(job, k)
            synthesise(job)
            sizes.append(len(bank))
    assert sizes == [7, 14, 17, 17]
    # three steps a round, 10 rows at most
    assert asked == [(10, m) for m in (0, 7, 10, 10) for _ in range(3)]


@pytest.mark.parametrize(("gen_lr", "best"), [(1e-3, 2), (1.0, 0)])
def test_the_bank_holds_the_features_of_the_images_that_the_pool_holds(gen_lr: float, best: int) -> None:
    job = make(CMI, gen_lr=gen_lr, iterations=4)
    at(job, 0)
    spy = job.context.teacher = Spy(job.context.teacher)
    with watched(job.method) as calls:
        synthesise(job)
    assert int(np.argmin(calls[0].losses)) == best  # neither is the last of four
    rows = job.method.bank.rows
    glob, local = spy.images[2 * best : 2 * best + 2]
    with torch.no_grad():
        expected = [spy(v, taps=("bn_means",)).taps["bn_means"] for v in (local, glob)]
    torch.testing.assert_close(rows, torch.stack(expected, dim=1))
    assert not rows.requires_grad
    synthesise(job)
    assert torch.equal(job.method.bank.rows[:BATCH], rows)


@pytest.mark.parametrize("images", [4, 11])
def test_a_batch_of_inverted_images_need_not_be_one_of_the_students(images: int) -> None:
    job = make(CMI, synthesis_batch=images)
    synthesise(job)
    assert len(job.context.registered["pool"]) == len(job.method.bank) == images
    assert len(job.method.sample(BATCH).images) == BATCH
    with patch.object(job.method, "invert", wraps=job.method.invert) as inverted:
        job.method.preview(images + 1, stream())
    assert [call.args[0] for call in inverted.call_args_list] == [images, 1]


def test_the_pinned_track_fixes_the_synthesis_batch_and_the_recipe_is_the_scripts() -> None:
    about, on = card(resolve("cmi")), task("digits16/cnn32-cnn16")
    found = {t: dict(resolve_settings(about, "cmi", "scratch", on, t, "full", {})) for t in ("pinned", "recipe")}
    assert (found["pinned"]["synthesis_batch"], found["recipe"]["synthesis_batch"]) == (128, 256)
    assert on.pinned.batch_size == 128
    assert CMI(CMI.Config()).recipe.batch_size == 128


def test_preset_is_the_published_one() -> None:
    c = CMI.Config()
    found = {k: getattr(c, k) for k in (*WEIGHTS[CMI].values(), "tau", "bank_size", "bank_draw")}
    assert found == {
        "alpha": 1.0, "beta": 1.0, "w_cr": 0.8, "w_adv": 0.5, "tau": 0.1, "bank_size": 40960, "bank_draw": 4096,
    }  # fmt: skip
    assert (c.iterations, c.gen_lr, c.temperature, c.head_dim, c.latent_dim) == (200, 1e-3, 20.0, 256, 256)
    assert CMI.presets == {"scratch": {}}
