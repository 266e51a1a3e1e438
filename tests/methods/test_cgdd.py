"""CGDD-style against its specification: the unit tests that its section 7.2 asks for, and every switch of its settings.

`item N` is a number of that list. Items 1, 5 and 9 are in `test_streaming_methods.py`; items 2, 10 and the first half
of 3 hold of every method and are in the conformance suite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference_blocks as blocks
import reference_streaming as ref
import torch
from hooks import array
from reference_numpy import cross_entropy, kd
from stream_jobs import BATCH, CLASSES, enter_synthesis, make, student_batch, synthesis
from tiny import flat, make_job
from torch import Tensor

from dfkd_bench import models
from dfkd_bench.blocks.attention import attention_loss
from dfkd_bench.blocks.generators import DeepGenerator, Generator, LabelledGenerator
from dfkd_bench.errors import RunError
from dfkd_bench.models.cnn import CNN
from dfkd_bench.training.loop import Job, synthesise, train_student
from dfkd_methods.cgdd import CGDD, CGDDConfig

pytestmark = pytest.mark.usefixtures("double")


def without_student_terms(**settings: Any) -> Job:
    """A job whose L_S is `settings` alone."""
    return make("cgdd", **{"lambda_kd": 0.0, "lambda_ce": 0.0, "lambda_at": 0.0, "feat": "attention", **settings})


# -- the generator ----------------------------------------------------------------------------------------------------

WEIGHTS = ("lambda_cls", "lambda_bn", "lambda_adv", "lambda_ie", "lambda_act")


@pytest.mark.parametrize("disc", ["kl", "l1", "js"])
def test_both_players_use_the_same_disagreement(disc: str) -> None:
    job = make("cgdd", disc=disc, lambda_ie=0.5, lambda_act=0.3)
    step = synthesis(job)
    c: Any = job.method.config  # type: ignore[attr-defined]
    assert step.losses == pytest.approx(ref.cgdd(c, step.seen, step.y), rel=1e-6)
    assert step.losses["D"] == pytest.approx(ref.disagreement(step.seen, disc), rel=1e-9)
    batch, seen, loss = student_batch(without_student_terms(disc=disc, lambda_kd=2.0))
    assert loss.item() == pytest.approx(2.0 * ref.disagreement(seen, disc), rel=1e-9)
    assert batch.labels is not None


@pytest.mark.parametrize("imitation", ["kl", "l1", "js"])
def test_unless_the_student_s_is_overridden(imitation: str) -> None:
    job = without_student_terms(disc="l1", imitation=imitation, lambda_kd=1.0)
    assert synthesis(job).losses["D"] == pytest.approx(synthesis(make("cgdd", disc="l1")).losses["D"])
    _, seen, loss = student_batch(job)
    assert loss.item() == pytest.approx(ref.disagreement(seen, imitation), rel=1e-9)


def test_item_3_neither_side_of_the_disagreement_is_detached() -> None:
    x = torch.randn(BATCH, 1, 8, 8)
    found = []
    for blind in ((), ("teacher",), ("student",)):
        job = make("cgdd", **{**dict.fromkeys(WEIGHTS, 0.0), "lambda_adv": 1.0})
        method: Any = job.method
        enter_synthesis(job)
        for role in blind:
            view = getattr(job.context, role)
            setattr(job.context, role, lambda x, view=view, **more: view(x.detach(), **more))
        images = x.clone().requires_grad_()
        method.L_G(images, torch.zeros(BATCH, dtype=torch.int64))[0].backward()
        found.append(images.grad)
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    torch.testing.assert_close(
        found[0], found[1] + found[2]
    )  # what flows through both is the sum of what flows through each


# -- maps -------------------------------------------------------------------------------------------------------------


def test_item_4_attention_through_the_method() -> None:
    job = without_student_terms(lambda_at=7.0)
    batch, seen, loss = student_batch(job)
    assert loss.item() == pytest.approx(7.0 * blocks.attention(seen.maps_s, seen.maps_t), rel=1e-9)
    assert 0.0 < loss.item() <= 14.0
    # the same network says nothing new, whatever the scale of its maps
    method: Any = job.method
    out = job.teacher_outputs(batch.images)
    assert method.L_at(out, out).item() == 0.0
    for value in out.taps.values():
        value.mul_(3.0)
    assert method.L_at(job.teacher_outputs(batch.images), out).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(
    ("pair", "fitting"),
    [
        (("wrn16_1", "wrn40_2"), [(16, 32), (32, 64), (64, 128)]),
        (("wrn16_2", "cnn32"), [(32, 32), (64, 64), (128, 96)]),
        (("wrn16_1", "resnet34"), []),  # stages of 8, 16 and 32 px beside 4, 8 and 16 px
        (("resnet18", "wrn40_2"), []),
    ],
)
@pytest.mark.parametrize("feat", ["attention", "hint"])
def test_item_4_any_pair_of_networks(pair: tuple[str, str], fitting: list[tuple[int, int]], feat: str) -> None:
    student, teacher = (models.build(name, CLASSES, (3, 32, 32)) for name in pair)
    method = CGDD(CGDDConfig(latent_dim=4, generator_width=2, feat=feat, student_steps=1))
    job = make_job(method, teacher, student, classes=CLASSES, image_shape=(3, 32, 32), batch_size=2, filled=False)
    with torch.no_grad():
        batch = method.sample(2)
        s, t = job.student_outputs(batch.images), job.teacher_outputs(batch.images)
    with torch.no_grad():
        L_at = method.L_at(s, t).item()
    assert math.isfinite(L_at)
    assert L_at > 0.0
    assert [(h.in_channels, h.out_channels) for h in method.hints.values()] == (fitting if feat == "hint" else [])
    if not method.hints:
        maps = [[o.taps[k] for k in n.tap_names[:-1]] for n, o in ((student, s), (teacher, t))]
        assert L_at == pytest.approx(attention_loss(*maps).item(), rel=1e-6)


def test_hints_where_stages_fit_and_attention_where_not() -> None:
    student, teacher = (models.build(name, CLASSES, (1, 28, 28)) for name in ("lenet5_half", "cnn32"))
    method = CGDD(CGDDConfig(latent_dim=4, generator_width=2, feat="hint"))
    job = make_job(method, teacher, student, classes=CLASSES, image_shape=(1, 28, 28), batch_size=2, filled=False)
    with torch.no_grad():
        batch = method.sample(2)
        s, t = job.student_outputs(batch.images).taps, job.teacher_outputs(batch.images).taps
        found = method.L_at(job.student_outputs(batch.images), job.teacher_outputs(batch.images)).item()
    assert [(s[k].shape[2], t[k].shape[2]) for k in ("stage1", "stage2", "stage3")] == [(28, 28), (10, 14), (1, 7)]
    ((stages, r),) = method.hints.items()
    assert stages == ("stage1", "stage1")
    with torch.no_grad():
        terms = [((r(s["stage1"]) - t["stage1"]) ** 2).mean().item()]
    terms += [blocks.attention([array(s[k])], [array(t[k])]) for k in ("stage2", "stage3")]
    assert found == pytest.approx(sum(terms) / 3, rel=1e-9)


def test_maps_need_a_stage_of_both_networks() -> None:
    method = CGDD(CGDDConfig(latent_dim=4, generator_width=2))
    student = CNN(2, CLASSES, 1, 5)
    student.tap_names = ("penultimate",)
    with pytest.raises(RunError, match="map matching needs feature maps of teacher and student: set lambda_at to 0"):
        make_job(method, CNN(3, CLASSES, 1, 5), student, classes=CLASSES)


def test_hints_are_companions_and_learn_with_the_student() -> None:
    job = without_student_terms(feat="hint", lambda_at=2.0)
    hints: Any = job.context.companions["hints"]
    assert "hints" not in job.context.registered
    assert [tuple(h.weight.shape) for h in hints] == [(3, 2, 1, 1), (6, 4, 1, 1), (5, 5, 1, 1)]
    owned = {id(p) for group in job.optimiser.param_groups for p in group["params"]}
    assert {id(p) for p in hints.parameters()} <= owned
    _, seen, loss = student_batch(job)
    tables = [(array(h.weight), array(h.bias)) for h in job.method.hints.values()]  # type: ignore[attr-defined]
    assert loss.item() == pytest.approx(2.0 * ref.hint(seen.maps_s, seen.maps_t, tables), rel=1e-9)
    before = flat(hints)
    synthesise(job)
    assert torch.equal(flat(hints), before)
    train_student(job)
    assert not torch.equal(flat(hints), before)
    assert not make("cgdd", feat="hint", lambda_at=0.0).context.companions


# -- the student's other terms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_item_6_distillation_is_the_batch_mean_at_tau(tau: float) -> None:
    _, seen, loss = student_batch(without_student_terms(lambda_kd=1.0, tau=tau))
    assert loss.item() == pytest.approx(kd(seen.s, seen.t, tau), rel=1e-9)


def test_the_student_s_cross_entropy_and_its_mask() -> None:
    plain, masked = (without_student_terms(lambda_ce=1.0, ce_mask=mask) for mask in (False, True))
    batch, seen, loss = student_batch(plain)
    assert batch.labels is not None
    y = batch.labels.tolist()
    assert loss.item() == pytest.approx(cross_entropy(seen.s, y), rel=1e-9)
    agree = [i for i in range(BATCH) if seen.t[i].argmax() == y[i]]
    assert 0 < len(agree) < BATCH, "some labels must be seen by the teacher, and some not"
    kept = cross_entropy(seen.s[agree], [y[i] for i in agree]) * len(agree) / BATCH
    assert student_batch(masked)[2].item() == pytest.approx(kept, rel=1e-9)


# -- the generator's networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("label_input", ["embedding", "onehot"])
def test_item_8_images_of_a_training_generator_are_standardised(side: int, label_input: str) -> None:
    method = CGDD(CGDDConfig(generator_width=4, label_input=label_input))
    make_job(method, CNN(2, 10, 3, 5), CNN(2, 10, 3, 5), classes=10, image_shape=(3, side, side), filled=False)
    G: Any = method.stream.G
    assert isinstance(G, LabelledGenerator)
    assert isinstance(G.generator, Generator if side < 64 else DeepGenerator)
    assert G.generator.fc.in_features == 256 + (50 if label_input == "embedding" else 10)
    z, y = method.stream.draw(32, torch.Generator().manual_seed(0))
    with torch.no_grad():
        x: Tensor = method.stream.images(z, y)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), rtol=0.0, atol=1e-3)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), rtol=0.02, atol=0.0)


def test_sizes_are_those_of_the_specification() -> None:
    for classes, total in ((10, 2_739_191), (100, 2_743_691)):
        method = CGDD(CGDDConfig())
        make_job(method, CNN(2, classes, 3, 5), CNN(2, classes, 3, 5), classes=classes, image_shape=(3, 32, 32))
        assert sum(p.numel() for p in method.stream.G.parameters()) == total
        assert method.stream.adam.defaults["betas"] == (0.5, 0.999)


@pytest.mark.parametrize("label_input", ["embedding", "onehot"])
def test_the_label_reaches_the_image(label_input: str) -> None:
    method: Any = make("cgdd", label_input=label_input).method
    z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    G = method.stream.G.eval()
    code = array(G.table(y)) if label_input == "embedding" else np.eye(CLASSES)[:3]
    inside = torch.tensor(np.concatenate([array(z), code], 1))
    torch.testing.assert_close(G(z, y), G.generator(inside))
    assert not torch.allclose(G(z, y), G(z, torch.tensor([3, 3, 3])))


# -- the schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "per_round", "rounds"), [(500, 1, 500), (500, 4, 125), (5, 2, 3), (0, 1, 0)])
def test_v1_trains_its_generator_first(steps: int, per_round: int, rounds: int) -> None:
    assert CGDD(CGDDConfig(warmup_steps=steps, synthesis_steps=per_round)).flags.warmup_rounds == rounds
    v1 = CGDDConfig(**CGDD.presets["v1"])
    assert (v1.lambda_adv, v1.warmup_steps) == (0.0, 500)
    assert CGDD.default_preset == "v4"
    assert (CGDDConfig().lambda_adv, CGDDConfig().warmup_steps) == (1.0, 0)


def test_labels_are_meant_on_every_task_and_v4_matches_whole_maps() -> None:
    v4, v1 = (CGDDConfig(**CGDD.presets[name]) for name in ("v4", "v1"))
    assert (v4.feat, v1.feat) == ("hint", "attention")
    assert (v4.ce_mask, v1.ce_mask) == (True, True)
    assert CGDD.least_label_consistency == 90.0
    weights = [settings.get("lambda_cls", v4.lambda_cls) for _, _, settings in CGDD.task_settings]
    assert min([v4.lambda_cls, v1.lambda_cls, *weights, *CGDD.search["lambda_cls"]]) >= 0.5
