"""Disagreements against float64 NumPy sums: values, slopes on both sides, symmetry, masks, floors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import reference_blocks as ref
import torch
from formulas import check_gradient, check_value
from reference_numpy import Array, softmax
from torch import Tensor

from dfkd_bench.blocks.disagreement import DISAGREEMENTS, disagreement, js_divergence, kl_per_sample, l1_loss, masked_kl
from dfkd_bench.blocks.losses import kd_loss

DRAWS = np.random.RandomState(5)
N, C = 6, 4
S, T = ((2.0 * DRAWS.standard_normal((N, C))).astype(np.float32).astype(np.float64) for _ in range(2))
T[:2] = S[:2] + 0.3 * T[:2]  # some rows agree, some do not
T = T.astype(np.float32).astype(np.float64)
WIDE = [(8.0 * DRAWS.standard_normal((N, C))).astype(np.float32).astype(np.float64) for _ in range(2)]  # some clamped
WIDE[0][0] = [30.0, 0.0, 1.0, 2.0]

Pair = tuple[Array, Array]
CASES: dict[str, tuple[Pair, Callable[[Tensor, Tensor], Tensor], Callable[[Array, Array], float]]] = {
    "kl": ((S, T), partial(disagreement, form="kl"), ref.kl),
    "kl of rows at 4": (
        (S, T),
        lambda s, t: kl_per_sample(s, t, 4.0).sum(),
        lambda s, t: math.fsum(ref.kl_rows(s, t, 4.0)),
    ),
    "l1": ((S, T), l1_loss, ref.l1),
    "l1 by name": ((S, T), partial(disagreement, form="l1"), ref.l1),
    "masked kl": ((S, T), masked_kl, ref.masked_kl),
    "js by name": ((S, T), partial(disagreement, form="js"), ref.js),
    **{
        f"js, T {tau}, clamp {clamp}, mixture first {first}, spread {k}": (
            pair,
            partial(js_divergence, temperature=tau, clamp=clamp, mixture_first=first),
            partial(ref.js, temperature=tau, clamp=clamp, mixture_first=first),
        )
        for tau in (2.0, 3.0)
        for clamp in (True, False)
        for first in (True, False)
        for k, pair in enumerate([(S, T), (WIDE[0], WIDE[1])])
    },
}


def test_the_cases_have_something_to_clamp_and_to_mask() -> None:
    p = np.array([softmax(row / 3.0) for row in WIDE[0]])
    assert (p < 0.01).any()
    assert (p > 0.99).any()
    agree = S.argmax(1) == T.argmax(1)
    assert agree.any()
    assert not agree.all()


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    pair, loss, formula = CASES[name]
    check_value(loss, formula, pair, near=1.0)  # a divergence is a difference of numbers near one
    check_gradient(loss, formula, pair)


@pytest.mark.parametrize("form", DISAGREEMENTS)
def test_equal_logits_do_not_disagree(form: str) -> None:
    s, t = (torch.tensor(S, requires_grad=True) for _ in range(2))
    value = disagreement(s, t, form)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-15)
    assert s.grad is not None
    assert t.grad is not None
    # what reaches an image that both came from
    torch.testing.assert_close(s.grad + t.grad, torch.zeros_like(s.grad), rtol=0, atol=1e-16)


def test_kl_of_a_row_has_no_temperature_squared() -> None:
    s, t = torch.tensor(S), torch.tensor(T)
    torch.testing.assert_close(16.0 * kl_per_sample(s, t, 4.0).mean(), kd_loss(s, t, temperature=4.0))
    assert kl_per_sample(s, t).shape == (N,)


def test_kl_by_hand() -> None:
    # teacher (3/4, 1/4), student (1/2, 1/2): the teacher's probabilities are the weights
    t, s = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    assert kl_per_sample(s, t).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)


# -- the mask ---------------------------------------------------------------------------------------------------------


def test_masked_kl_is_zero_where_they_never_agree() -> None:
    s = torch.eye(3, dtype=torch.float64, requires_grad=True)
    t = torch.eye(3, dtype=torch.float64).roll(1, 1).requires_grad_()
    value = masked_kl(s, t)
    value.backward()
    assert value.item() == 0.0
    assert kl_per_sample(s, t).min() > 0.1
    for leaf in (s, t):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_masked_kl_pushes_only_where_they_agree_and_divides_by_all_rows() -> None:
    s, t = torch.tensor(S, requires_grad=True), torch.tensor(T)
    masked_kl(s, t).backward()
    agree = torch.tensor(S.argmax(1) == T.argmax(1))
    assert s.grad is not None
    assert torch.equal(s.grad.abs().sum(1) > 0, agree)
    value = masked_kl(s[agree], t[agree]).item()
    assert masked_kl(s, t).item() == pytest.approx(value * agree.double().mean().item(), rel=1e-12)
    assert value == pytest.approx(disagreement(s[agree], t[agree], "kl").item(), rel=1e-12)


# -- Jensen and Shannon -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("mixture_first", [True, False])
def test_js_is_symmetric_and_not_negative(clamp: bool, mixture_first: bool) -> None:
    s, t = torch.tensor(S), torch.tensor(T)
    there, back = (js_divergence(a, b, clamp=clamp, mixture_first=mixture_first) for a, b in ((s, t), (t, s)))
    assert there.item() == pytest.approx(back.item(), rel=1e-12)
    assert there.item() > 0


def test_js_in_textbook_order_is_ln_2_for_predictions_that_share_nothing() -> None:
    s, t = 1000.0 * torch.eye(2, dtype=torch.float64), 1000.0 * torch.eye(2, dtype=torch.float64).flip(0)
    assert js_divergence(s, t, clamp=False, mixture_first=False).item() == pytest.approx(math.log(2), rel=1e-12)
    # as published: m = 1/2 each, clamped predictions 0.99 and 0.01
    expected = 0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(0.5 / 0.01)
    assert js_divergence(s, t).item() == pytest.approx(expected, rel=1e-12)


def test_js_clamped_gives_no_gradient_below_the_floor() -> None:
    # 101 classes: one far ahead, the others at 0.002 in both predictions, mixture included
    s = torch.zeros(1, 101, dtype=torch.float64)
    s[0, 0] = 3.0 * math.log(400.0)
    t, s = s.clone().requires_grad_(), s.requires_grad_()
    with torch.no_grad():
        t[0, 0] -= 1.0
    p_s, p_t = (torch.softmax(v / 3.0, 1) for v in (s, t))
    js_divergence(s, t).backward()
    assert p_s[0, 1:].max() < 0.01
    assert p_t[0, 1:].max() < 0.01
    # only the first class is in the sum; the others feel it through its softmax alone, all alike
    for leaf in (s, t):
        assert leaf.grad is not None
        assert leaf.grad[0, 0] != 0
        torch.testing.assert_close(leaf.grad[0, 1:], (-leaf.grad[0, 0] / 100).expand(100), rtol=1e-9, atol=0)


def test_js_of_certainties_has_a_finite_gradient() -> None:
    for clamp in (True, False):
        s = (1000.0 * torch.eye(3)).requires_grad_()
        t = (1000.0 * torch.eye(3).roll(1, 1)).requires_grad_()
        js_divergence(s, t, clamp=clamp, mixture_first=clamp).backward()
        for leaf in (s, t):
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown disagreement 'kd': one of kl, l1, js"):
        disagreement(torch.zeros(1, 2), torch.zeros(1, 2), "kd")
