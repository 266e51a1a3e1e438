"""What the methods that invert and pool have in common: what they move, what they store, what they give the student."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_numpy as ref
import reference_pool
import torch
from contexts import CLASSES, MEAN, STD, stream
from hooks import Spy, array, look, running
from pool_jobs import BATCH, WEIGHTS, at, inner, make, watched, weighted
from tiny import arithmetic

from dfkd_bench.errors import RunError
from dfkd_bench.method import Outputs
from dfkd_bench.training.loop import synthesise, train_student
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


# -- the loss of the inner loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FastDFKD, NAYER])
@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("settings", [{}, {"w_oh": 0.3, "w_bn": 2.0, "w_adv": 1.5, "bn_momentum": 0.6}])
def test_loss_and_terms_are_those_of_the_formulas(kind: Any, rounds: int, settings: dict[str, float]) -> None:
    """Of FastDFKD and NAYER, which have one loss; the others have tests of their own."""
    with arithmetic(torch.float64):
        job = make(kind, dtype=torch.float64, crop_padding=1, flip=True, **settings)
        for k in range(rounds):
            at(job, k)
            synthesise(job)
        at(job, rounds)
        job.context.teacher, job.context.student = Spy(job.context.teacher), Spy(job.context.student)
        loop = inner(job.method)
        loss, terms = loop.objective(torch.randn(BATCH, 2, 8, 8, generator=stream(3)))
        y = loop.inside("y", "objective").tolist()
        (view,) = job.context.teacher.images
        assert job.context.student.images[0] is view
        teacher = job.context.teacher._module
        (t, inputs, _), (s, *_) = look(teacher, view.detach()), look(job.student, view.detach())
    average = [(array(m), array(v)) for m, v in job.method.moments.average]
    assert len(average) == (len(inputs) if rounds else 0)
    found, momentum = [ref.moments(a) for a in inputs], job.method.config.bn_momentum
    expected = reference_pool.noisy(s, t, y, found, running(teacher), average, momentum)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert expected["D_agree"] > 0
    assert loss.item() == pytest.approx(weighted(job.method, expected), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "preset", "term"),
    [(kind, preset, term) for kind, preset in CASES if preset != "no-meta" for term in WEIGHTS[kind]],
)
def test_each_term_moves_as_its_sign_says(kind: Any, preset: str, term: str) -> None:
    with arithmetic(torch.float64):
        weights = {name: float(k == term) for k, name in WEIGHTS[kind].items()}
        job = make(kind, preset, dtype=torch.float64, **weights)
        at(job, 0)
        loop, x, values = inner(job.method), torch.randn(BATCH, 2, 8, 8, generator=stream(3)), []
        here = job.context.stream("synthesis").get_state()
        for _ in range(2):
            job.context.stream("synthesis").set_state(here)  # the same views again
            loss, terms = loop.objective(x.requires_grad_())
            (slope,) = torch.autograd.grad(loss, x)
            values.append(terms[term].item())
            x = x.detach() - 1e-3 * slope / slope.norm()
    assert values[1] > values[0] if term == "D_agree" else values[1] < values[0]


@pytest.mark.parametrize(("kind", "first"), [(FastDFKD, -1), (NAYER, 0)])
def test_the_adversarial_term_enters_at_the_end_of_the_warm_up(kind: Any, first: int) -> None:
    """FastDFKD's with the last round of it."""
    job, asked = make(kind, rounds=3), 0
    for k in (-3, -2, -1, 0, 1):
        at(job, k)
        with watched(job.method) as calls:
            job.method.synthesize()
        assert {"D_agree" in terms for terms in calls[0].terms} == {k >= first}
        asked += BATCH * len(calls[0].terms) * (k >= first)
        assert job.context.meter.counts.get("student_forwards", 0) == asked
    assert len(job.context.registered["pool"]) == 5 * BATCH  # warm-up batches are kept


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
