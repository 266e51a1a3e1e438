"""PRE-DFKD: the generator's terms, the memory's loss against NumPy, replay, and when the memory learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference_blocks as blocks
import reference_streaming as ref
import torch
from hooks import array
from stream_jobs import BATCH, enter_synthesis, look, make
from tiny import buffers, flat
from torch import Tensor

from dfkd_bench.method import Batch
from dfkd_bench.training.loop import Job, distill, synthesise, train_student
from dfkd_methods.pre_dfkd import PREDFKD, PREDFKDConfig

TERMS = {"L_oh": "w_oh", "L_bal": "w_bal", "L_act": "w_act", "L_adv": "w_adv"}


pytestmark = pytest.mark.usefixtures("double")


def pre(job: Job) -> Any:
    return job.method


# -- the generator ----------------------------------------------------------------------------------------------------


def test_the_published_weights() -> None:
    c = PREDFKDConfig()
    assert [getattr(c, w) for w in TERMS.values()] == [1.0, 5.0, 0.1, 1.0]
    assert (c.latent_dim, c.gen_lr, c.gen_lr * c.memory_lr) == (1000, 0.02, 0.0005)
    assert (c.memory_steps, c.w_kl) == (4, 1e-5)


def test_the_teacher_s_side_of_js_is_detached() -> None:
    x = torch.randn(BATCH, 1, 8, 8)
    found = []
    for blind in ((), ("teacher",), ("student",)):
        job = make("pre-dfkd", w_oh=0.0, w_bal=0.0, w_act=0.0)
        enter_synthesis(job)
        for role in blind:
            view = getattr(job.context, role)
            setattr(job.context, role, lambda x, view=view, **more: view(x.detach(), **more))
        images = x.clone().requires_grad_()
        loss = pre(job).L_G(images)[0]
        if blind == ("student",):
            (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
            assert gradient is None or not gradient.any()
            continue
        loss.backward()
        found.append(images.grad)
    assert torch.equal(found[0], found[1])
    assert found[0].abs().sum() > 0


# -- the memory's loss ------------------------------------------------------------------------------------------------


def test_l_m_is_that_of_the_formula() -> None:
    job = make("pre-dfkd", w_kl=0.3)
    method = pre(job)
    x = torch.randn(BATCH, 1, 8, 8)
    teacher: Any = job.context.teacher
    with torch.no_grad():
        t = teacher._module(x)
    noise = torch.randn(BATCH, 5, generator=job.context.stream("memory"))
    job.context.streams.reseed(0)
    method.M.train()
    loss = method.L_M(x, t)
    with torch.no_grad():
        mean, log_variance = method.M.encode(x)
        copy = method.M(mean + noise * (0.5 * log_variance).exp())
        t_copy = teacher._module(copy)
    expected = ref.memory(method.config, *(array(v) for v in (x, copy, t, t_copy, mean, log_variance)))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_l_m_reaches_the_memory_alone() -> None:
    job = make("pre-dfkd")
    method = pre(job)
    x, t = torch.randn(BATCH, 1, 8, 8), torch.randn(BATCH, 4)
    method.M.train()
    method.L_M(x, t).backward()
    assert all(p.grad is not None for p in method.M.parameters())
    assert sum(float(p.grad.abs().sum()) for p in method.M.encoder.parameters()) > 0
    others = [method.stream.G, job.student, job.context.teacher._module]  # type: ignore[attr-defined]
    assert all(p.grad is None for m in others for p in m.parameters())


# -- replay -----------------------------------------------------------------------------------------------------------


def test_one_part_in_eight_is_replayed() -> None:
    method = PREDFKD(PREDFKDConfig())
    assert method.split(1152) == (1024, 128)
    assert [method.split(n) for n in (9, 128, 256)] == [(8, 1), (114, 14), (228, 28)]
    assert PREDFKD(PREDFKDConfig(replay=0.0)).split(64) == (64, 0)


def test_a_batch_is_fresh_images_and_after_them_replayed_ones() -> None:
    job = make("pre-dfkd", replay=0.5)
    method = pre(job)
    memory = [flat(method.M), buffers(method.M)]
    with torch.no_grad():
        images = method.sample(9).images
        job.context.streams.reseed(0)
        fresh = method.stream.sample(6, job.context.stream("sample"), train=True).images
        replayed = method.remember(3, job.context.stream("replay"))
    torch.testing.assert_close(images[6:], replayed)
    assert images[:6].shape == fresh.shape
    assert not method.M.training
    assert all(torch.equal(a, b) for a, b in zip([flat(method.M), buffers(method.M)], memory, strict=True))
    assert all(p.grad is None for p in method.M.parameters())
    assert not images.requires_grad


def test_replayed_latents_take_one_step_of_a_new_adam() -> None:
    job = make("pre-dfkd")
    method = pre(job)
    teacher: Any = job.context.teacher
    with torch.no_grad():
        found = method.remember(4, job.context.stream("replay"))
    job.context.streams.reseed(0)
    u = torch.randn(4, 5, generator=job.context.stream("replay")).requires_grad_()
    adam = torch.optim.Adam([u], 0.05)

    def penalty(v: Tensor) -> Tensor:
        t = teacher._module(method.M(v))
        p = t.softmax(1).mean(0)
        one_hot = -t.log_softmax(1).max(1).values.mean()
        unit = v.mean(1) ** 2 + (v.std(1, correction=0) - 1.0) ** 2
        return one_hot + (p * p.log()).sum() + unit.mean()

    first = penalty(u)
    first.backward()
    adam.step()
    with torch.no_grad():
        torch.testing.assert_close(found, method.M(u))
        assert penalty(u) < first
    sums = blocks.one_hot(array(teacher._module(method.M(u)))), blocks.unit_moments(array(u))
    assert all(math.isfinite(v) for v in sums)


# -- when the memory learns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory_steps", "steps"), [(4, 10), (2, 3), (0, 3), (9, 3)])
def test_the_memory_learns_after_the_first_steps_of_each_round(memory_steps: int, steps: int) -> None:
    job = make("pre-dfkd", memory_steps=memory_steps, student_steps=steps)
    method = pre(job)
    moved: list[bool] = []
    original = method.after_distill_step

    def watched(batch: Batch) -> None:
        before = flat(method.M)
        original(batch)
        moved.append(not torch.equal(flat(method.M), before))

    method.after_distill_step = watched
    distill(job)
    assert moved == 2 * ([True] * min(memory_steps, steps) + [False] * max(0, steps - memory_steps))


def test_it_learns_half_of_the_fresh_images_and_all_replayed_ones() -> None:
    job = make("pre-dfkd", replay=0.5, student_steps=1)
    method = pre(job)
    seen: list[tuple[Tensor, Tensor]] = []
    L_M = method.L_M
    method.L_M = lambda x, t: seen.append((x, t)) or L_M(x, t)
    batches: list[Batch] = []
    sample = method.sample
    method.sample = lambda n: batches.append(sample(n)) or batches[-1]
    synthesise(job)
    train_student(job)
    ((x, t),) = seen
    rows = [0, 1, 4, 5]  # of four fresh and two replayed images
    assert torch.equal(x, batches[0].images[rows])
    torch.testing.assert_close(t, torch.tensor(look(job, batches[0].images).t)[rows])
    adam = method.memory_adam
    assert adam.param_groups[0]["lr"] == pytest.approx(0.02 / 40.0)
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in method.M.parameters()}


def test_what_the_teacher_is_asked() -> None:
    """Per round: the generator step; ten batches, and an earlier form of their replayed images; four lessons."""
    job = make("pre-dfkd", rounds=1, replay=0.5)
    distill(job)
    counts = job.context.meter.counts
    fresh, replayed, lesson = 4, 2, 4
    assert counts["teacher_forwards"] == BATCH + 10 * (fresh + replayed + replayed) + 4 * lesson
    assert counts["teacher_backwards"] == BATCH + 10 * replayed + 4 * lesson
    assert counts["student_forwards"] == BATCH + 10 * BATCH
