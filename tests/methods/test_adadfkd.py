"""AdaDFKD's losses, queue and projection against its specification; the curricula are in `test_adadfkd_schedules.py`.

`D n` is a number of its list of self-tests (7.D), of which 6 is about a metric; `A n`, `B n` are findings (7.A, 7.B).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference_streaming as ref
import torch
from hooks import array
from reference_numpy import unit
from stream_jobs import BATCH, CASES, enter_synthesis, expected_step, expected_student, make, student_batch, synthesis

from dfkd_methods.adadfkd import r2m_loss, relation_loss, self_paced_weight

PRESETS = [preset for name, preset in CASES if name == "adadfkd"]
NOTHING = {"w_ent": 0.0, "w_oh": 0.0, "w_bn": 0.0, "alpha_0": 0.0, "gamma": 0.0}


pytestmark = pytest.mark.usefixtures("double")


# -- L_R2M ------------------------------------------------------------------------------------------------------------


def test_d1_the_weight_is_one_at_no_loss_and_half_way_down_at_the_threshold() -> None:
    for lam in (0.5, 2.2, 14.2):
        losses = torch.tensor([0.0, lam, 0.5 * lam, 1.5 * lam, 200.0])
        v = self_paced_weight(losses, lam, "log")
        assert v[0].item() == pytest.approx(1.0)
        assert v[1].item() == pytest.approx((1.0 + math.exp(-lam)) / 2.0)
        assert v[4].item() == pytest.approx(0.0, abs=1e-12)
        order = self_paced_weight(torch.linspace(0.0, 3.0 * lam, 50), lam, "log")
        assert (order.diff() < 0).all()


@pytest.mark.parametrize("family", ["log", "soft", "hard", "none"])
def test_the_four_families_of_weights(family: str) -> None:
    losses = np.linspace(0.0, 6.0, 25)  # the threshold itself included
    found = self_paced_weight(torch.tensor(losses), 1.5, family)
    assert found.tolist() == pytest.approx([ref.self_paced(x, 1.5, family) for x in losses], abs=1e-12)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_d2_the_two_values_known_without_computing(tau: float) -> None:
    n, m = 3, 5
    q = torch.eye(8)[:n]
    apart = torch.eye(8)[:, 3:]  # right angles to every anchor
    everything = torch.tensor((0, m))
    exact = r2m_loss(q, q, apart, everything, tau).item()
    assert exact == pytest.approx(math.log1p(m * math.exp(-1.0 / tau)), rel=1e-9, abs=1e-15)
    alike = torch.ones(n, 8) / math.sqrt(8.0)
    everywhere = r2m_loss(alike, alike, alike[:1].T.expand(8, m), everything, tau).item()
    assert everywhere == pytest.approx(math.log1p(m))


def test_d3_r2m_gives_the_student_exactly_nothing_and_the_generator_something() -> None:
    job = make("adadfkd", **{**NOTHING, "gamma": 1.0})
    method: Any = job.method
    enter_synthesis(job)
    job.student.requires_grad_(True)  # which the loop would not do
    z, _ = method.stream.draw(BATCH, job.context.stream("synthesis"))
    total, terms, keys = method.L_G(z, torch.tensor(0.0), torch.tensor((0, 9)), None)
    assert total.item() == pytest.approx(terms["L_R2M"].item())
    total.backward()
    for p in job.student.parameters():
        assert p.grad is None or torch.equal(p.grad, torch.zeros_like(p.grad))
    assert sum(float(p.grad.abs().sum()) for p in method.stream.G.parameters()) > 1e-6
    assert not keys.requires_grad
    assert all(p.grad is None for p in job.context.teacher._module.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("adv_type", ["kl", "js"])
def test_a4_l_adv_alone_reaches_the_student_were_it_not_frozen(adv_type: str) -> None:
    job = make("adadfkd", **{**NOTHING, "adv_type": adv_type})
    method: Any = job.method
    enter_synthesis(job)
    job.student.requires_grad_(True)
    z, _ = method.stream.draw(BATCH, job.context.stream("synthesis"))
    method.L_G(z, torch.tensor(1.0), torch.tensor((0, 9)), None)[0].backward()
    assert float(job.student.head.weight.grad.abs().sum()) > 1e-6


def test_r2m_pulls_towards_the_key_and_pushes_from_the_queue() -> None:
    torch.manual_seed(0)
    q, keys, queue = (torch.nn.functional.normalize(torch.randn(*s), dim=1) for s in ((4, 6), (4, 6), (10, 6)))
    q.requires_grad_()
    tau = 0.3
    r2m_loss(q, keys, queue.T, torch.tensor((2, 7)), tau).backward()
    for i in range(4):
        order = (q[i] @ queue.T).argsort()[2:7]
        scores = torch.cat([(q[i] @ keys[i]).view(1), q[i] @ queue[order].T]).detach() / tau
        w = scores.softmax(0)
        expected = ((w[1:, None] * queue[order]).sum(0) - (1.0 - w[0]) * keys[i]) / tau / 4
        torch.testing.assert_close(q.grad[i], expected)  # type: ignore[index]


# -- the queue --------------------------------------------------------------------------------------------------------


def test_d4_the_queue_holds_past_keys_never_those_of_the_batch() -> None:
    job = make("adadfkd", queue_size=3 * BATCH)
    method: Any = job.method
    start = array(method.Q.columns)
    assert start.shape == (5, 3 * BATCH)
    steps, keys = [], []
    for k in range(5):
        steps.append(synthesis(job))
        expected = unit(steps[-1].seen.f_s).T
        place = k % 3 * BATCH
        # before the step the batch's keys are not there, after it they are in the place of the oldest
        gaps = np.abs(steps[-1].queue[:, :, None] - expected[:, None, :]).max(0)
        assert gaps.min() > 1e-9
        np.testing.assert_allclose(array(method.Q.columns)[:, place : place + BATCH], expected, rtol=1e-9, atol=1e-12)
        keys.append(expected)
        np.testing.assert_allclose(np.linalg.norm(array(method.Q.columns), axis=0), 1.0)
    np.testing.assert_allclose(steps[1].queue[:, BATCH:], start[:, BATCH:])  # the first of Gaussian directions
    held = np.concatenate([keys[3], keys[4], keys[2]], 1)
    np.testing.assert_allclose(array(method.Q.columns), held, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_without_gamma_nothing_enters_the_queue(preset: str) -> None:
    job = make("adadfkd", preset)
    method: Any = job.method
    before = method.Q.columns.clone()
    enter_synthesis(job)
    shown = method.synthesize()
    assert torch.equal(method.Q.columns, before) is (preset in ("student-only", "cudfkd"))
    assert ("L_R2M" in shown) is (preset not in ("student-only", "cudfkd"))


@pytest.mark.parametrize(("asked", "held"), [(BATCH - 1, 1), (BATCH, 1), (BATCH + 1, 2), (8 * BATCH, 8)])
def test_b2_the_queue_is_a_multiple_of_the_batch(asked: int, held: int) -> None:
    """The authors' code aborts where it is not: its script of cifar10/resnet34-resnet18 asks for 4,096 at batch 768."""
    assert make("adadfkd", queue_size=asked).method.Q.columns.shape[1] == held * BATCH  # type: ignore[attr-defined]


# -- the other terms --------------------------------------------------------------------------------------------------


def test_a1_masked_rows_give_the_generator_no_gradient() -> None:
    job = make("adadfkd", adv_mask="agree")
    method: Any = job.method
    step = synthesis(job)
    s, t = (torch.tensor(v, requires_grad=True) for v in (step.seen.s, step.seen.t))
    method.L_adv(s, t).backward()
    agree = step.seen.s.argmax(1) == step.seen.t.argmax(1)
    assert 0 < agree.sum() < BATCH, "a mask must have something to hide, and something to leave"
    for gradient in (s.grad, t.grad):
        assert (gradient.abs().sum(1) > 0).tolist() == agree.tolist()  # type: ignore[union-attr]


VARIANTS: list[dict[str, Any]] = [
    {"adv_type": "js"},
    {"w_act": 0.3},
    {"ent_temperature": 1.0},
    {"w_ent": -5.0, "T_kd": 4.0},
    {"kd_loss": "l1", "spl": "soft", "lambda_0": 9.0},
    {"kd_loss": "l1", "spl_granularity": "sample", "spl": "soft", "lambda_0": 2.0},
    {"spl": "hard", "lambda_0": 0.5, "spl_granularity": "sample", "T_kd": 3.0, "eta": 0.01},
    {"spl": "none"},
    {"spl_granularity": "sample", "T_kd": 3.0},
    {"tau": 0.3, "k": 0.5, "queue_size": 30},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_switch_of_both_losses(settings: dict[str, Any]) -> None:
    job = make("adadfkd", **settings)
    step = synthesis(job)
    assert step.losses == pytest.approx(expected_step(job, step), rel=1e-6)
    batch, seen, loss = student_batch(job)
    assert loss.item() == pytest.approx(expected_student(job, batch, seen), rel=1e-6)


def test_a2_the_weight_is_no_path_for_gradients_and_is_of_the_sample_or_the_batch() -> None:
    for granularity in ("batch", "sample"):
        job = make("adadfkd", spl_granularity=granularity, eta=0.0, T_kd=3.0, lambda_0=0.4)
        synthesis(job)
        _, seen, loss = student_batch(job)
        loss.backward()
        s = torch.tensor(seen.s, requires_grad=True)
        t = torch.tensor(seen.t)
        rows = 9.0 * (t / 3).softmax(1).mul((t / 3).log_softmax(1) - (s / 3).log_softmax(1)).sum(1)
        each = rows.mean().view(1) if granularity == "batch" else rows
        v = torch.tensor([ref.self_paced(x, 0.4, "log") for x in each.tolist()])
        (v * each).mean().backward()
        expected = s.grad.T @ torch.tensor(seen.f_s)  # type: ignore[union-attr]
        torch.testing.assert_close(job.student.head.weight.grad, expected)


def test_l_rel_has_the_teacher_as_anchor() -> None:
    torch.manual_seed(1)
    f_T, f_S = torch.randn(4, 5), torch.randn(4, 5)
    found = relation_loss(f_T, f_S, 0.2).item()
    assert found == pytest.approx(ref.relation(array(f_T), array(f_S), 0.2), rel=1e-9)
    assert found != pytest.approx(ref.relation(array(f_S), array(f_T), 0.2), rel=1e-3)
    assert relation_loss(torch.eye(4), torch.eye(4), 0.05).item() == pytest.approx(math.log1p(3 * math.exp(-20.0)))
    assert relation_loss(torch.ones(4, 3), torch.ones(4, 3), 0.05).item() == pytest.approx(math.log(4.0))
