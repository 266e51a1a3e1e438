"""DeepInversion: its loss against the formulas, pixels as the only leaf, jitter, clipping, and the presets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pool_jobs
import pytest
import reference_pool as ref
import torch
from contexts import CLASSES, stream
from hooks import Spy, array, look, running
from pool_jobs import BATCH, at, inner, make, watched, weighted
from reference_numpy import moments
from tiny import arithmetic
from torch import Tensor

from dfkd_bench.method import Outputs
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.training.loop import synthesise
from dfkd_methods.deepinversion import DeepInversion

WEIGHTS = pool_jobs.WEIGHTS[DeepInversion]
SETTINGS = [{}, {"w_oh": 0.7, "alpha_f": 0.3, "alpha_tv": 0.05, "alpha_c": 2.0}]


def case(preset: str | None = None, **settings: Any) -> tuple[Any, Tensor, Tensor]:
    """A job, images of every class, and labels; inside `arithmetic`."""
    job = make(DeepInversion, preset, dtype=torch.float64, **settings)
    at(job, 0)
    x = torch.randn(BATCH, 2, 8, 8, generator=stream(3))
    return job, x, torch.arange(BATCH) % CLASSES


def expected_terms(job: Any, pixels: Tensor, x: Tensor, y: Tensor) -> dict[str, float]:
    teacher, student, c = job.context.teacher._module, job.student, job.method.config
    (t, inputs, _), (s, *_) = look(teacher, x), look(student, x)
    rough = array(pixels if c.tv_of == "pixels" else x)
    found = [moments(a) for a in inputs]
    return ref.deep_inversion(s, t, y.tolist(), rough, found, running(teacher), c.tv, c.competition)


class Says:
    """A network that answers every image with given logits."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, images: Tensor, **_: Any) -> Outputs:
        return Outputs(self.logits, {})


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sure", [1.0, 200.0])
@pytest.mark.parametrize("preset", ["datafree", "nvlabs", "adaptive"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_terms_are_those_of_the_formulas(preset: str, settings: dict[str, float], sure: float) -> None:
    with arithmetic(torch.float64):
        job, x, y = case(preset, **settings)
        with torch.no_grad():
            job.context.teacher._module.head.weight *= sure  # beyond the clamp of JS
        pixels = x.roll(3, 3) + 0.1 * x.flip(0)  # rougher than x, so that R_TV tells the two apart
        loss, terms = job.method.inversion_loss(pixels, x, y)
        expected = expected_terms(job, pixels, x, y)
        if not job.method.config.alpha_c:
            del expected["R_compete"]
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert loss.item() == pytest.approx(weighted(job.method, expected), rel=1e-6)
    assert not any(v.requires_grad for v in terms.values())


@pytest.mark.parametrize("term", ["R_feature", "R_TV", "R_compete"])
def test_a_term_without_weight_is_not_computed(term: str) -> None:
    with arithmetic(torch.float64):
        job, x, y = case(**{WEIGHTS[term]: 0.0})
        _, terms = job.method.inversion_loss(x, x, y)
    assert set(terms) == set(WEIGHTS) - {term}
    assert job.context.meter.counts["teacher_forwards"] == BATCH
    assert job.context.meter.counts.get("student_forwards", 0) == (0 if term == "R_compete" else BATCH)


@pytest.mark.parametrize(("preset", "moves"), [("datafree", True), ("adaptive", False)])
def test_competition_beyond_one_has_a_gradient_unless_it_is_confined(preset: str, moves: bool) -> None:
    """Two sure networks that contradict each other: JS reaches 1.61, which NVlabs confines to 1."""
    s, t = (40.0 * torch.eye(10, dtype=torch.float64)[[k] * 4] for k in (0, 1))
    s.requires_grad_()
    job = make(DeepInversion, preset, w_oh=0.0, alpha_f=0.0, alpha_tv=0.0)
    job.context.teacher, job.context.student = Says(t), Says(s)
    loss, terms = job.method.inversion_loss(torch.zeros(1), torch.zeros(1), torch.zeros(4, dtype=torch.int64))
    assert terms["R_compete"].item() == pytest.approx(-1.6144292059304077 if moves else 0.0, abs=1e-12)
    (slope,) = torch.autograd.grad(loss, s)
    assert (slope.abs().max() > 0) == moves


def test_pixels_are_the_only_leaf() -> None:
    job = make(DeepInversion)
    at(job, 0)
    loop = inner(job.method)
    pixels = loop.draw()
    assert pixels.is_leaf
    loss, _ = loop.objective(loop.draw())
    loop.update(loss)
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0
    networks = [job.context.teacher._module, job.student]
    assert all(p.grad is None for n in networks for p in n.parameters())
    assert [k for k in job.context.registered if k != "pool"] == []  # there is no generator


def test_the_first_steps_are_adams_with_the_rates_given() -> None:
    with arithmetic(torch.float64):
        job = make(DeepInversion, dtype=torch.float64, lr=0.03, beta1=0.4, beta2=0.8, clip=False)
        at(job, 0)
        loop = inner(job.method)
        pixels, gradients = loop.draw(), []
        before = array(pixels)
        for _ in range(3):
            loop.update(loop.objective(loop.draw())[0])
            gradients.append(array(pixels.grad))
    expected = ref.adam(before, gradients, 0.03, 0.4, 0.8)
    assert array(pixels) == pytest.approx(expected, rel=1e-9)


# -- jitter and clipping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["datafree", "nvlabs"])
@pytest.mark.parametrize("flip", [False, True])
def test_jitter_moves_the_whole_batch_by_one_draw(flip: bool, preset: str) -> None:
    job = make(DeepInversion, preset, flip=flip, jitter=0.25)
    at(job, 0)
    job.context.teacher = spy = Spy(job.context.teacher)
    loop = inner(job.method)
    pixels, found = loop.draw().detach(), set()
    shifts = range(-2, 3)  # a quarter of eight pixels
    for _ in range(60):
        loop.objective(pixels)
        x = spy.images[-1]
        fits = [
            (a, b, f)
            for a in shifts
            for b in shifts
            for f in (False, True)
            if torch.equal(pixels.roll((a, b), (2, 3)).flip(3) if f else pixels.roll((a, b), (2, 3)), x)
        ]
        assert len(fits) == 1, "one shift fits all images of a batch"
        found.add(fits[0])
    assert {a for a, _, _ in found} == {b for _, b, _ in found} == set(shifts)
    # where the task allows it, and the preset does it
    assert {f for _, _, f in found} == ({False, True} if flip and preset == "datafree" else {False})


@pytest.mark.parametrize("clip", [True, False])
def test_pixels_are_clipped_after_every_step_and_not_before_the_first(clip: bool) -> None:
    job = make(DeepInversion, clip=clip, lr=1.0, iterations=4)
    render = job.method.inverter.render
    with watched(job.method) as calls:
        synthesise(job)
    inside = [bool(((x >= render.low) & (x <= render.high)).all()) for x in calls[0].images]
    assert inside == [False, clip, clip, clip]
    assert len({x.flatten()[0].item() for x in calls[0].images}) > 1


@pytest.mark.parametrize("jitter", [0.0, 0.25])
@pytest.mark.parametrize("preset", ["datafree", "nvlabs"])
def test_the_pixels_of_the_last_step_are_stored_unshifted(preset: str, jitter: float) -> None:
    job = make(DeepInversion, preset, lr=0.5, jitter=jitter, flip=True, iterations=3)
    at(job, 0)
    here = job.context.stream("synthesis").get_state()
    loop = inner(job.method)
    for _ in range(3):
        loop.update(loop.objective(loop.draw())[0])
    expected = job.method.inverter.pool.bytes_of(job.method.inverter.render.pixels(loop.draw()))
    job.context.stream("synthesis").set_state(here)
    synthesise(job)
    assert torch.equal(job.context.registered["pool"].images, expected)


@pytest.mark.parametrize("preset", ["datafree", "nvlabs"])
def test_the_iterate_of_lowest_loss_is_stored_where_it_is_asked_for(preset: str) -> None:
    job = make(DeepInversion, preset, store="best", lr=20.0, iterations=4, jitter=0.25, flip=True)
    with watched(job.method) as calls:
        synthesise(job)
    (call,) = calls
    best = int(np.argmin(call.losses))
    assert best != len(call.losses) - 1, "a rate at which the loss does not rise shows nothing"
    pool = job.context.registered["pool"]
    stored = [pool.bytes_of(job.method.inverter.render.pixels(x)) for x in call.images]
    assert [torch.equal(pool.images, x) for x in stored] == [k == best for k in range(4)]


def test_images_start_from_noise_in_the_teachers_space() -> None:
    job = make(DeepInversion, clip=False)
    at(job, 0)
    pixels = inner(job.method).draw().detach()
    assert abs(pixels.mean()) < 0.15
    assert pixels.std().item() == pytest.approx(1.0, abs=0.1)


def test_labels_are_drawn_or_in_turn_and_stay_with_their_images() -> None:
    job = make(DeepInversion)
    at(job, 0)
    y = job.method.inverter.labels(BATCH, job.context.stream("synthesis"))
    at(job, 0)
    synthesise(job)
    assert job.context.registered["pool"].labels.tolist() == sorted(y.tolist())  # the stream's first draw
    assert len(set(y.tolist())) == CLASSES
    job = make(DeepInversion, "nvlabs")
    synthesise(job)
    assert job.context.registered["pool"].labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


# -- presets ----------------------------------------------------------------------------------------------------------

NVLABS = {
    "alpha_f": 10.0, "alpha_tv": 2.5e-5, "tv": "l2", "tv_of": "jittered", "alpha_c": 0.0, "competition": "confined",
    "w_oh": 1.0, "lr": 0.05, "beta1": 0.9, "beta2": 0.999, "iterations": 2000, "jitter": 2 / 32, "flip": False,
    "clip": False, "labels": "in_turn", "store": "last", "pool_bytes": "round", "temperature": 3.0,
    "student_steps": 50, "pool_size": 1000 * 256,
}  # fmt: skip
ADAPTIVE = {**NVLABS, "alpha_c": 1.0}
DATAFREE = {
    "alpha_f": 10.0, "alpha_tv": 1e-3, "tv": "l1", "tv_of": "pixels", "alpha_c": 1.0, "competition": "js",
    "w_oh": 1.0, "lr": 0.1, "beta1": 0.5, "beta2": 0.99, "iterations": 1000, "jitter": 1 / 8, "flip": True,
    "clip": True, "labels": "drawn", "store": "last", "pool_bytes": "truncate", "temperature": 20.0,
    "student_steps": 400, "pool_size": 200 * 256,
}  # fmt: skip


@pytest.mark.parametrize(("preset", "published"), [("adaptive", ADAPTIVE), ("nvlabs", NVLABS), ("datafree", DATAFREE)])
def test_presets_are_the_published_settings(preset: str, published: dict[str, Any]) -> None:
    method = DeepInversion(DeepInversion.Config(**DeepInversion.presets[preset]))
    assert vars(method.config) == published
    assert method.flags.student_steps == published["student_steps"]
    assert method.flags.student_mode == "eval"
    recipe = method.recipe
    found = (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.epochs, recipe.batch_size)
    assert found == (0.1, 0.9, 1e-4, 200, 256)


def test_adaptive_differs_from_datafree_in_a_run_of_the_default_task(tmp_path: Any) -> None:
    settings = []
    for preset in ("datafree", "adaptive"):
        (planned,) = make_plan(Request(("deepinversion",), preset=preset, device="cpu"), tmp_path)
        settings.append(dict(planned.spec.settings))
    differing = {k for k in settings[0] if settings[0][k] != settings[1][k]}
    known = {"alpha_tv", "tv", "tv_of", "competition", "beta1", "beta2", "clip", "pool_size"}
    assert known <= differing  # rates may be tuned to the task


def test_the_teacher_sees_what_the_student_sees() -> None:
    job = make(DeepInversion, jitter=0.25)
    at(job, 0)
    job.context.teacher, job.context.student = Spy(job.context.teacher), Spy(job.context.student)
    job.method.synthesize()
    assert len(job.context.teacher.images) == 3
    for a, b in zip(job.context.teacher.images, job.context.student.images, strict=True):
        assert a is b
