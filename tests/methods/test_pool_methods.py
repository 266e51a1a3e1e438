"""What the methods that invert and pool have in common: what they move, what they store, what they give the student."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_numpy as ref
import torch
from contexts import CLASSES, MEAN, STD, state, stream
from pool_jobs import BATCH, Caught, Spy, array, at, inner, make, watched
from tiny import arithmetic

from dfkd_bench.conformance.check import preview_state
from dfkd_bench.errors import RunError
from dfkd_bench.method import Outputs
from dfkd_bench.training.loop import synthesise, train_student
from dfkd_bench.training.storage import load_state, plain, preview, state_of
from dfkd_methods.cmi import CMI
from dfkd_methods.deepinversion import DeepInversion
from dfkd_methods.fastdfkd import FastDFKD
from dfkd_methods.nayer import NAYER

CASES = [
    (DeepInversion, "datafree"), (DeepInversion, "adaptive"), (CMI, "scratch"), (FastDFKD, "fast5"),
    (FastDFKD, "no-meta"), (NAYER, "no-text"),
]  # fmt: skip
every = pytest.mark.parametrize(("kind", "preset"), CASES, ids=[f"{k.__name__}-{p}" for k, p in CASES])
WITH_MASK = [CMI, FastDFKD, NAYER]
mean, std = (torch.tensor(v).view(1, 2, 1, 1) for v in (MEAN, STD))


@every
def test_synthesis_moves_neither_teacher_nor_student(kind: Any, preset: str) -> None:
    job = make(kind, preset)
    networks = [job.context.teacher._module, job.student]
    networks[1].requires_grad_(True)  # as a student step leaves it
    before = [state(n) for n in networks]
    for _ in range(2):
        synthesise(job)
    for network, old in zip(networks, before, strict=True):
        assert all(p.grad is None for p in network.parameters())
        assert all(torch.equal(v, old[k]) for k, v in network.state_dict().items())
        assert not any(p.requires_grad for p in network.parameters())


@every
def test_the_student_is_trained_on_the_pool_alone(kind: Any, preset: str) -> None:
    job = make(kind, preset)
    synthesise(job)
    pool, held = job.context.registered["pool"], state_of(job)["registered"]
    before = {k: torch.cat([v.flatten().float() for v in tensors(s)]) for k, s in held.items()}
    train_student(job)
    after = state_of(job)["registered"]
    assert all(torch.equal(torch.cat([v.flatten().float() for v in tensors(after[k])]), v) for k, v in before.items())
    batch = job.method.sample(5)
    stored = (pool.images.float() / 255.0 - mean) / std
    assert all(any(torch.equal(row, image) for image in stored) for row in batch.images)


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a state, in order; one number where there is none."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [t for item in items for t in tensors(item)] or [torch.zeros(1)]


# -- the pool ---------------------------------------------------------------------------------------------------------

OPENED: list[str] | None = None


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is not None and event in ("open", "os.listdir", "os.scandir", "glob.glob"):
        OPENED.append(str(arguments[0]))


@contextmanager
def opened() -> Iterator[list[str]]:
    """Names of the files and folders that are opened inside. An audit hook stays for good, but falls asleep."""
    global OPENED
    if not hasattr(sys, "_pool_hook"):
        sys.addaudithook(hook)
        sys._pool_hook = True  # type: ignore[attr-defined]
    OPENED = []
    try:
        yield OPENED
    finally:
        OPENED = None


@every
def test_the_pool_starts_empty_whatever_lies_on_the_disk(
    kind: Any, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(kind, preset).method.synthesize()  # imports what it needs
    for name in ("run/0.png", "pool.pt", "pool/images.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"an image of an earlier run")
    monkeypatch.chdir(tmp_path)
    with opened() as names:
        Path("pool.pt").read_bytes()
        assert names == ["pool.pt"]  # the hook sees
        names.clear()
        job = make(kind, preset)
        pool = job.context.registered["pool"]
        assert len(pool) == 0
        with pytest.raises(RunError, match="pool is empty"):
            job.method.sample(2)
        synthesise(job)
        assert len(pool) == len(pool.labels) > 0
        train_student(job)
    assert names == []


@every
def test_the_pool_is_capped_and_counted(kind: Any, preset: str) -> None:
    job = make(kind, preset, pool_size=10)
    pool, counts = job.context.registered["pool"], job.context.meter.counts
    synthesise(job)
    first = pool.images.clone()
    assert len(pool) == counts["images_stored"] == counts["images_synthesised"] == BATCH
    synthesise(job)
    assert len(pool) == counts["images_stored"] == 10
    assert counts["images_synthesised"] == 2 * BATCH
    assert torch.equal(pool.images[: 10 - BATCH], first[2 * BATCH - 10 :])  # the oldest go


WILD: dict[Any, dict[str, Any]] = {
    CMI: {"gen_lr": 1.0, "iterations": 4},
    FastDFKD: {"gen_lr": 1.0, "z_lr": 10.0, "k": 4}, NAYER: {"gen_lr": 1.0, "g_steps": 4},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "preset"), [c for c in CASES if c[0] is not DeepInversion])
def test_the_pool_holds_the_best_iterate_and_not_the_last(kind: Any, preset: str) -> None:
    """What DeepInversion stores is a setting, with tests of its own."""
    job = make(kind, preset, **WILD[kind])
    with watched(job.method) as calls:
        synthesise(job)
    (call,) = calls
    best = int(np.argmin(call.losses))
    assert best != len(call.losses) - 1, "a rate at which the loss does not rise shows nothing"
    images = call.images[best], call.images[-1]
    expected, last = (((x * std + mean).clamp(0, 1) * 255.0).to(torch.uint8) for x in images)
    assert torch.equal(job.context.registered["pool"].images, expected)
    assert not torch.equal(expected, last)
    assert torch.equal(call.best, call.images[best])


# -- the adversarial term ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_MASK)
def test_the_adversarial_term_pushes_apart_where_they_agree_and_nowhere_else(kind: Any) -> None:
    zero = {"alpha": 0.0, "beta": 0.0, "w_cr": 0.0} if kind is CMI else {"w_oh": 0.0, "w_bn": 0.0}
    with arithmetic(torch.float64):
        job = make(kind, dtype=torch.float64, w_adv=1.0, **zero)
        at(job, 0)
        loop = inner(job.method)
        s, t = (view._module for view in (job.context.student, job.context.teacher))
        x = torch.randn(BATCH, 2, 8, 8, generator=stream(3)).requires_grad_()
        agree = s(x).argmax(1) == t(x).argmax(1)
        assert 1 < agree.sum() < BATCH - 1
        loss, terms = loop.objective(x)
        (slope,) = torch.autograd.grad(loss, x)
        assert loss.item() == pytest.approx(-terms["D_agree"].item())
        assert torch.equal(slope[~agree], torch.zeros_like(slope[~agree]))
        assert (slope[agree].flatten(1).abs().amax(1) > 1e-8).all()
        downhill = loop.objective(x.detach() - 1e-3 * slope)[1]["D_agree"]
        assert downhill > terms["D_agree"]  # what is minimised raises the disagreement


@pytest.mark.parametrize("kind", WITH_MASK)
def test_a_student_that_equals_its_teacher_gives_no_adversarial_gradient(kind: Any) -> None:
    zero = {"alpha": 0.0, "beta": 0.0, "w_cr": 0.0} if kind is CMI else {"w_oh": 0.0, "w_bn": 0.0}
    with arithmetic(torch.float64):
        job = make(kind, dtype=torch.float64, w_adv=1.0, **zero)
        job.context.student._module.load_state_dict(job.context.teacher._module.state_dict())
        at(job, 0)
        x = torch.randn(BATCH, 2, 8, 8, generator=stream()).requires_grad_()
        loss, _ = inner(job.method).objective(x)
        assert abs(loss.item()) < 1e-12
        assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-12


def test_a_method_without_weight_for_the_student_does_not_ask_it() -> None:
    for kind, name in ((DeepInversion, "alpha_c"), (CMI, "w_adv"), (FastDFKD, "w_adv"), (NAYER, "w_adv")):
        job = make(kind, **{name: 0.0})
        synthesise(job)
        assert job.context.meter.counts.get("student_forwards", 0) == 0, kind


# -- distillation and preview -----------------------------------------------------------------------------------------


@every
def test_distillation_is_kl_at_the_methods_temperature(kind: Any, preset: str) -> None:
    s, t = (torch.randn(5, CLASSES, generator=stream(k), dtype=torch.float64) for k in (1, 2))
    published = 3.0 if preset == "adaptive" else 20.0
    for settings, temperature in (({}, published), ({"temperature": 2.5}, 2.5)):
        job = make(kind, preset, **settings)
        loss = job.method.distill_loss(None, Outputs(s, {}), Outputs(t, {}))
        assert loss.item() == pytest.approx(ref.kd(array(s), array(t), temperature), rel=1e-9)


@every
def test_preview_changes_nothing_and_is_no_replay(kind: Any, preset: str) -> None:
    job = make(kind, preset)
    for _ in range(2):
        synthesise(job)
    before = preview_state(job)
    one, two, other = (preview(job, 2 * BATCH + 1, stream(k)) for k in (5, 5, 6))
    assert preview_state(job) == before
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, other.images)
    assert one.images.shape == (2 * BATCH + 1, 2, 8, 8)
    assert one.labels is not None
    assert one.labels.shape == (2 * BATCH + 1,)
    stored = (job.context.registered["pool"].images.float() / 255.0 - mean) / std
    assert not any(torch.equal(row, image) for row in one.images for image in stored)
    pixels = one.images * std + mean
    torch.testing.assert_close(pixels * 255.0, (pixels * 255.0).round(), rtol=0, atol=1e-3)


@every
def test_a_run_goes_on_after_a_checkpoint_as_if_nothing_had_been(kind: Any, preset: str) -> None:
    more = {"gen_life": 2} if kind is NAYER else {"redraw": 0.25} if kind is FastDFKD else {}
    one, two = make(kind, preset, rounds=4, **more), make(kind, preset, rounds=4, filled=False, **more)
    for k in range(3):
        at(one, k)
        synthesise(one), train_student(one)
        if k == 1:
            saved = copy.deepcopy(plain(state_of(one)))
            load_state(two, saved)
            at(two, 2)
            synthesise(two), train_student(two)
    a, b = (preview_state(job) for job in (one, two))
    assert {k: v for k, v in a.items() if a[k] != b[k]} == {}


def test_the_eyes_of_these_tests_stop_a_synthesis_before_its_loop() -> None:
    job = make(CMI)
    assert inner(job.method).steps == 3
    assert len(job.context.registered["pool"]) == 0
    assert issubclass(Caught, Exception)
    spy = Spy(job.context.teacher)
    assert spy.feature_dim == job.context.teacher.feature_dim
