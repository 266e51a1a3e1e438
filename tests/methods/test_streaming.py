"""The streaming synthesiser: the adversarial gradient, one step, fresh images, and looking without a trace."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from contexts import CLASSES, SHAPE, make_context, network, same, state, stream
from tiny import fill
from torch import Tensor, nn

from dfkd_bench.blocks.generators import Generator, LabelledGenerator
from dfkd_bench.blocks.streaming import Priors, Stream, Weights
from dfkd_bench.training.context import RunContext

FULL = Weights(oh=0.5, bn=2.0, bal=3.0, act=0.25, adv=1.5)

# -- the adversarial term at the generator ----------------------------------------------------------------------------


def make(context: RunContext, *, classes: int = 0, clip: float = 0.0, spectral: bool = False) -> Stream:
    generator: nn.Module
    if classes:
        generator = LabelledGenerator(lambda d: Generator(SHAPE, d, 2), 6, classes, code=2)
    else:
        generator = Generator(SHAPE, 6, 2, spectral=spectral)
    fill(generator, 9)
    return Stream(context, generator, 6, lr=1e-2, betas=(0.5, 0.999), classes=classes, clip=clip)


@pytest.mark.parametrize("form", ["kl", "l1", "js"])
@pytest.mark.parametrize("student", [1, 2])
def test_the_adversarial_gradient_is_zero_only_where_student_and_teacher_are_equal(form: str, student: int) -> None:
    context = make_context(teacher=network(1), student=network(student))
    made = make(context)
    z, y = made.draw(4, stream())
    loss, terms, _ = made.through(Priors(context, Weights(adv=1.0), form=form))(z, y)
    loss.backward()
    found = torch.cat([p.grad.flatten() for p in made.G.parameters() if p.grad is not None])
    if student == 1:
        assert terms["D"].abs() <= 1e-7
        assert torch.equal(found, torch.zeros_like(found))
    else:
        assert terms["D"] > 1e-4
        assert found.abs().max() > 1e-5


@pytest.mark.parametrize("form", ["kl", "l1", "js"])
def test_a_step_raises_the_disagreement_and_lowers_the_loss(form: str) -> None:
    context = make_context()
    made = make(context)
    made.adam.param_groups[0]["lr"] = 1e-4
    z, y = made.draw(16, stream())
    forward = made.through(Priors(context, Weights(adv=1.0), form=form))
    first, _ = made.step(forward, z, y)
    second, _ = made.step(forward, z, y)
    assert second["D"] > first["D"]
    assert second["L_G"] < first["L_G"]
    assert first["L_G"].item() == pytest.approx(-first["D"].item())


# -- the generator and its optimiser ----------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_a_step_is_one_of_adam_on_the_generator_alone(clip: float) -> None:
    context = make_context()
    made, twin = make(context, clip=clip), make(make_context())
    adam = torch.optim.Adam(twin.G.parameters(), 1e-2, (0.5, 0.999))
    objective = Priors(context, FULL)
    forward, norms = made.through(objective), []
    networks = [view._module for view in (context.teacher, context.student)]  # type: ignore[attr-defined]
    before = [state(m) for m in networks]
    for k in range(3):
        z, y = made.draw(5, stream(k))
        kept = z.clone()
        made.G.eval()  # a step trains it, however it was left
        terms, x = made.step(forward, z, y)
        adam.zero_grad()
        shown = (twin.G(z) - made.render.mean) / made.render.std
        loss, _ = objective(shown)
        loss.backward()
        norms.append(torch.cat([p.grad.flatten() for p in twin.G.parameters()]).norm())  # type: ignore[union-attr]
        if clip:
            torch.nn.utils.clip_grad_norm_(twin.G.parameters(), clip)
        adam.step()
        assert torch.equal(z, kept)
        torch.testing.assert_close(x, shown.detach())
        assert not x.requires_grad
        torch.testing.assert_close(terms["L_G"], loss.detach())
        for p, q in zip(made.G.parameters(), twin.G.parameters(), strict=True):
            torch.testing.assert_close(p, q)
    assert min(norms) > 0.01
    if clip:
        assert torch.cat([p.grad.flatten() for p in made.G.parameters()]).norm() <= 1.01 * clip  # type: ignore
    assert [same(state(m), old) for m, old in zip(networks, before, strict=True)] == [True, True]
    assert all(p.grad is None for m in networks for p in m.parameters())
    assert context.meter.counts["images_synthesised"] == 15


def test_generator_and_adam_are_registered() -> None:
    context = make_context()
    made = make(context)
    assert context.registered == {"generator": made.G, "generator_adam": made.adam}
    assert (made.adam.param_groups[0]["lr"], made.adam.param_groups[0]["betas"]) == (1e-2, (0.5, 0.999))


def test_latents_are_normal_and_labels_uniform() -> None:
    z, y = make(make_context()).draw(4000, stream())
    assert y is None
    assert z.mean().item() == pytest.approx(0.0, abs=0.03)
    assert z.std().item() == pytest.approx(1.0, abs=0.03)
    conditional = make(make_context(), classes=CLASSES)
    z, y = conditional.draw(900, stream())
    assert y is not None
    assert torch.bincount(y, minlength=CLASSES).min() > 250
    assert set(y.tolist()) == set(range(CLASSES))
    seen: list[Any] = []

    def objective(x: Tensor, labels: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(labels)
        return x.square().mean(), {}

    conditional.step(conditional.through(objective), z[:4], y[:4])
    assert torch.equal(seen[0], y[:4])
    batch = conditional.sample(5, stream(1), train=False)
    assert batch.labels is not None
    assert batch.latents is not None
    assert torch.equal(batch.images, conditional.images(batch.latents, batch.labels))


@pytest.mark.parametrize(("round", "share"), [(0, 1.0), (2, (1 + math.sqrt(0.5)) / 2), (4, 0.5), (8, 0.0)])
def test_the_rate_is_a_cosine_over_the_run(round: int, share: float) -> None:
    context = make_context()  # of eight rounds
    made = make(context)
    context.progress.round = round
    made.cosine(0.3)
    assert made.adam.param_groups[0]["lr"] == pytest.approx(0.3 * share, abs=1e-12)


@torch.no_grad()
def test_sample_in_eval_and_in_train_mode() -> None:
    made = make(make_context())
    before = state(made.G)
    batch = made.sample(6, stream(), train=False)
    assert same(state(made.G), before)
    assert batch.latents is not None
    assert batch.labels is None
    # stored statistics: a row does not depend on the others
    torch.testing.assert_close(made.images(batch.latents[:1], None), batch.images[:1])
    other = made.sample(6, stream(), train=True)
    assert torch.equal(other.latents, batch.latents)  # type: ignore[arg-type]
    assert not torch.allclose(other.images, batch.images)
    assert not torch.allclose(made.images(batch.latents[:3], None), other.images[:3])
    after = made.G.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved == {k for k in before if k.endswith(("running_mean", "running_var", "num_batches_tracked"))}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("spectral", [True, False])
@torch.no_grad()
def test_preview_is_a_sample_that_leaves_everything_as_it_was(train: bool, left: bool, spectral: bool) -> None:
    context = make_context()
    made = make(context, spectral=spectral)
    made.G.train(left)
    before, rng, drawn = state(made.G), torch.get_rng_state(), context.streams.states()
    shown = made.preview(6, stream(), train=train)
    assert same(state(made.G), before)
    assert {m.training for m in made.G.modules()} == {left}
    assert torch.equal(torch.get_rng_state(), rng)
    assert context.streams.states() == drawn
    assert sum(context.meter.counts.values()) == 0
    assert torch.equal(shown.images, made.sample(6, stream(), train=train).images)
    assert same(state(made.G), before) is not train
