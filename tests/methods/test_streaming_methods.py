"""The eight streaming methods: what each minimises, against NumPy, who gets gradient from it, and who wins the game."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from stream_jobs import (
    BATCH,
    CASES,
    METHODS,
    build,
    enter_synthesis,
    expected_step,
    expected_student,
    make,
    student_batch,
    synthesis,
)
from tiny import arithmetic, flat
from torch import Tensor

from dfkd_bench.blocks.disagreement import disagreement
from dfkd_bench.training.loop import distill, synthesise, train_student

NO_STUDENT = {("dafl", "official"), ("dafl", "datafree"), ("cgdd", "v1")}  # whose generator never sees the student
every_case = pytest.mark.parametrize(("name", "preset"), CASES)


pytestmark = pytest.mark.usefixtures("double")


# -- values -----------------------------------------------------------------------------------------------------------


@every_case
def test_the_generator_s_first_objective_and_all_its_terms(name: str, preset: str) -> None:
    job = make(name, preset)
    step = synthesis(job)
    assert step.losses == pytest.approx(expected_step(job, step), rel=1e-6)
    assert len(step.x) == BATCH
    assert all(abs(value) > 1e-4 for key, value in step.losses.items() if key != "h" and preset != "readme")


@every_case
def test_the_student_s_first_loss(name: str, preset: str) -> None:
    job = make(name, preset)
    synthesis(job)
    batch, seen, loss = student_batch(job)
    assert loss.item() == pytest.approx(expected_student(job, batch, seen), rel=1e-6)
    assert loss.item() > 1e-4


# the terms of a generator's loss whose weights are settings, and what chooses them
LABELS, NO_LABELS = {"conditional": "yes"}, {"conditional": "no"}  # MAD's, of many classes and of few
MAD_TERMS = {"L_nll": "w_nll", "L_bn": "w_bn", "D": "w_adv"}
WEIGHTED: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("dfq-gen", {}, {"L_oh": "w_oh", "L_bn": "w_bn", "L_bal": "w_bal", "D": "w_adv"}),
    ("cgdd", {}, {
        "L_cls": "lambda_cls", "L_bn": "lambda_bn", "D": "lambda_adv", "L_ie": "lambda_ie", "L_act": "lambda_act",
    }),
    ("pre-dfkd", {}, {"L_oh": "w_oh", "L_bal": "w_bal", "L_act": "w_act", "L_adv": "w_adv"}),
    ("mad", LABELS, {**MAD_TERMS, "L_norm": "w_norm"}),
    ("mad", NO_LABELS, {**MAD_TERMS, "L_bal": "w_bal"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "chosen", "weights", "term"), [(*case, term) for case in WEIGHTED for term in case[2]]
)
def test_each_weight_is_that_of_one_term(name: str, chosen: dict[str, Any], weights: dict[str, str], term: str) -> None:
    job = make(name, **chosen, **{w: 3.0 if other == term else 0.0 for other, w in weights.items()})
    step = synthesis(job)
    assert step.losses["L_G"] == pytest.approx((-3.0 if term == "D" else 3.0) * step.losses[term])
    assert step.losses[term] == pytest.approx(expected_step(job, step)[term], rel=1e-9)
    if name != "mad":  # which asks the student in any case
        assert job.context.meter.counts["student_forwards"] == (BATCH if term in ("D", "L_adv") else 0)


# -- routing ----------------------------------------------------------------------------------------------------------


def clear(*modules: Any) -> None:
    for module in modules:
        for p in module.parameters():
            p.grad = None


def total(module: Any) -> Tensor:
    """Of the absolute values of all gradients, each of which must be there."""
    found = [p.grad for p in module.parameters()]
    assert all(g is not None for g in found)
    return torch.stack([g.abs().sum() for g in found if g is not None])


@every_case
def test_the_student_s_loss_reaches_the_student_alone(name: str, preset: str) -> None:
    job = make(name, preset)
    method: Any = job.method
    synthesise(job)
    networks = [method.stream.G, job.context.teacher._module]  # type: ignore[attr-defined]
    networks += [m for m in job.context.registered.values() if isinstance(m, torch.nn.Module)]
    clear(*networks, job.student)
    for module in networks[:2]:
        module.requires_grad_(True)
    weights = [flat(m) for m in networks]
    batch, _, loss = student_batch(job)
    assert not batch.images.requires_grad
    loss.backward()
    assert all(p.grad is None for m in networks for p in m.parameters())
    assert (total(job.student) > 0).sum() >= 5
    assert all(torch.equal(flat(m), w) for m, w in zip(networks, weights, strict=True))


# -- the game ---------------------------------------------------------------------------------------------------------

# settings that leave nothing but the disagreement D on the generator's side; and how the log shows it
GAMES: dict[str, tuple[dict[str, Any], tuple[str, float]]] = {
    "dfad": ({}, ("D", 1.0)),
    "zskt": ({"gen_cosine": False}, ("D", 1.0)),
    "dfq-gen": ({"w_oh": 0.0, "w_bn": 0.0, "w_bal": 0.0}, ("D", 1.0)),
    "cgdd": ({"lambda_cls": 0.0, "lambda_bn": 0.0}, ("D", 1.0)),
    "adadfkd": ({"w_ent": 0.0, "w_oh": 0.0, "w_bn": 0.0, "gamma": 0.0}, ("L_adv", -1.0)),
    "pre-dfkd": ({"w_oh": 0.0, "w_bal": 0.0, "w_act": 0.0}, ("L_adv", -1.0)),
    "mad": ({"w_nll": 0.0, "w_bn": 0.0, "w_bal": 0.0}, ("D", 1.0)),
}


@pytest.mark.parametrize("name", GAMES)
def test_the_adversarial_weight_alone_makes_the_generator_raise_the_disagreement(name: str) -> None:
    settings, (shown, sign) = GAMES[name]
    job = make(name, gen_lr=1e-4, **settings)
    method: Any = job.method
    draw = method.stream.draw(BATCH, job.context.stream("synthesis"))
    method.stream.draw = lambda _n, _stream: draw  # the same latents at each step
    with torch.no_grad():
        for _ in range(50):  # let a spectral norm, if there is one, find its vectors
            method.stream.images(*draw)
    steps = [synthesis(job) for _ in range(4)]
    values = [sign * step.losses[shown] for step in steps]
    assert values == sorted(values)
    assert values[-1] > values[0]
    # and it is the one that NumPy sees
    form = {"dfad": "l1", "pre-dfkd": "js"}.get(name, "kl")
    seen = [disagreement(torch.tensor(v.seen.s), torch.tensor(v.seen.t), form).item() for v in (steps[0], steps[-1])]
    assert seen[1] > seen[0]


# -- precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, ("cgdd", "v4", {"feat": "hint"})], ids=str)
def test_bf16_networks_and_fp32_losses(case: tuple[Any, ...]) -> None:
    name, preset, settings = (*case, {})[:3]
    with arithmetic(torch.float32):
        job = make(name, preset, precision="bf16", student_features=3, student_steps=2, **settings)
        method: Any = job.method
        seen: list[torch.dtype] = []
        job.student.head.register_forward_hook(lambda _m, _a, out: seen.append(out.dtype))
        enter_synthesis(job)
        shown = method.synthesize()
        train_student(job)
    assert {value.dtype for value in shown.values()} == {torch.float32}
    assert all(torch.isfinite(value) for value in shown.values())
    assert math.isfinite(job.tally.take()["student"])
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in (*job.student.parameters(), *method.stream.G.parameters())} == {torch.float32}
    with arithmetic(torch.float32):
        exact = make(name, preset, student_features=3, student_steps=2, **settings)
        enter_synthesis(exact)
        assert shown["L_G"].item() == pytest.approx(exact.method.synthesize()["L_G"].item(), rel=0.1, abs=0.05)


# -- counts -----------------------------------------------------------------------------------------------------------

# generator and student updates of a published epoch
PUBLISHED = {
    ("dafl", "official"): (120, 120), ("dafl", "datafree"): (80, 400), ("dfad", "official"): (50, 250),
    ("zskt", "official"): (80, 800), ("zskt", "datafree"): (80, 400), ("dfq-gen", "datafree"): (40, 400),
    ("cgdd", "v4"): (80, 400), ("cgdd", "v1"): (80, 400), ("pre-dfkd", "official"): (36, 360),
    ("mad", "official"): (80, 400), **{("adadfkd", p): (40, 400) for p in METHODS["adadfkd"].presets},
}  # fmt: skip


@every_case
def test_updates_of_a_published_epoch(name: str, preset: str) -> None:
    flags = build(name, preset).flags
    per_round = (flags.synthesis_steps, flags.student_steps)
    assert tuple(n * flags.rounds_per_epoch for n in per_round) == PUBLISHED[name, preset]


@every_case
def test_counts_of_two_rounds(name: str, preset: str) -> None:
    job = make(name, preset)
    calls = {"synthesize": 0, "distill_loss": 0}
    method: Any = job.method
    for verb in calls:
        original = getattr(method, verb)

        def counted(*arguments: Any, verb: str = verb, original: Any = original) -> Any:
            calls[verb] += 1
            return original(*arguments)

        setattr(method, verb, counted)
    distill(job)
    flags, counts = method.flags, job.context.meter.counts
    assert calls == {"synthesize": 2 * flags.synthesis_steps, "distill_loss": 2 * flags.student_steps}
    assert counts["student_steps"] == 2 * flags.student_steps
    reused = preset == "official" and name in ("zskt", "dafl")  # one batch for the whole round
    drawn = 1 if reused else flags.student_steps
    assert counts["images_synthesised"] == 2 * BATCH * (1 + drawn)
    asked = (name, preset) not in NO_STUDENT  # the student is asked only where its opinion counts
    assert counts["student_forwards"] == 2 * BATCH * (asked + flags.student_steps)
    if name != "pre-dfkd":  # whose memory asks the teacher, too: see its own tests
        assert counts["teacher_forwards"] == 2 * BATCH * (1 + drawn)
        assert counts["teacher_backwards"] == 2 * BATCH
    assert counts["images_stored"] == 0
