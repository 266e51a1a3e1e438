"""Priors against float64 NumPy sums written from their definitions: values, slopes, known answers, signs, edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import reference_blocks as ref
import torch
from formulas import check_gradient, check_value
from reference_numpy import Array
from torch import Tensor

from dfkd_bench.blocks import priors
from dfkd_bench.blocks.priors import (
    activation_loss,
    balance_loss,
    one_hot_loss,
    total_variation,
    unit_moments,
)

DRAWS = np.random.RandomState(3)


def drawn(*shape: int, scale: float = 1.0) -> Array:
    """Rounded to fp32, so that both precisions are given the same numbers."""
    return (scale * DRAWS.standard_normal(shape)).astype(np.float32).astype(np.float64)


T, X, F = drawn(5, 4, scale=2.0), drawn(2, 3, 4, 5), drawn(3, 6)
CASES: dict[str, tuple[Array, Callable[[Tensor], Tensor], Callable[[Array], float]]] = {
    "one-hot": (T, one_hot_loss, ref.one_hot),
    "balance": (T, balance_loss, ref.balance),
    "balance, base 10": (T, partial(balance_loss, base=10.0), partial(ref.balance, base=10.0)),
    "balance, softened": (T, partial(balance_loss, temperature=4.0), partial(ref.balance, temperature=4.0)),
    "activation": (F, activation_loss, ref.activation),
    "TV, l2": (X, total_variation, partial(ref.total_variation, norm="l2")),
    "TV, l1": (X, partial(total_variation, norm="l1"), partial(ref.total_variation, norm="l1")),
    "unit moments": (F + 0.5, unit_moments, ref.unit_moments),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    x, loss, formula = CASES[name]
    check_value(loss, formula, (x,))
    check_gradient(loss, formula, (x,), least=1e-3)


# -- known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_uniform_predictions(classes: int) -> None:
    t = torch.full((6, classes), 0.3, dtype=torch.float64)
    assert balance_loss(t).item() == pytest.approx(-math.log(classes), rel=1e-12)
    assert balance_loss(t, base=10.0).item() == pytest.approx(-math.log10(classes), rel=1e-12)
    assert one_hot_loss(t).item() == pytest.approx(math.log(classes), rel=1e-12)


def test_balance_tells_a_batch_of_one_class_from_one_of_all() -> None:
    sure = 1000.0 * torch.eye(4)
    assert balance_loss(sure).item() == pytest.approx(-math.log(4), rel=1e-6)
    assert balance_loss(sure[:1].expand(4, 4)).item() == 0.0
    # every image is sure of itself in both
    assert one_hot_loss(sure).item() == 0.0


def test_five_at_base_ten_is_two_at_base_e() -> None:
    t = torch.tensor(T)
    assert 5.0 * balance_loss(t, base=10.0).item() == pytest.approx(5.0 / math.log(10) * balance_loss(t).item())
    assert 5.0 / math.log(10) == pytest.approx(2.17, abs=0.005)


def test_total_variation_by_hand() -> None:
    # one bright pixel in the middle of 3x3: two neighbours in each of the four directions, which are 6, 6, 4, 4 pairs
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 3.0
    assert total_variation(x).item() == pytest.approx(4 * math.sqrt(18), rel=1e-6)
    assert total_variation(x, norm="l1").item() == pytest.approx(6 / 6 + 6 / 6 + 6 / 4 + 6 / 4, rel=1e-6)
    # a step from left to right is felt by all directions but the one along it
    step = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert total_variation(step).item() == pytest.approx(math.sqrt(2) + 0 + 1 + 1, rel=1e-6)
    assert total_variation(step.mT).item() == pytest.approx(total_variation(step).item())


def test_activation_and_moments_by_hand() -> None:
    assert activation_loss(torch.tensor([[1.0, -3.0]])).item() == -2.0  # lower for larger features
    assert unit_moments(torch.tensor([[-1.0, 1.0], [1.0, 5.0]])).item() == pytest.approx((0 + (9 + 1)) / 2)


# -- signs and edges --------------------------------------------------------------------------------------------------

# what a step down the loss must do


def test_one_hot_pulls_at_the_largest_logit_alone() -> None:
    t = torch.tensor(T, requires_grad=True)
    one_hot_loss(t).backward()
    assert t.grad is not None
    assert torch.equal(t.grad < 0, torch.nn.functional.one_hot(t.argmax(1), 4).bool())


EDGES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "balance of sure predictions": (balance_loss, 1000.0 * torch.eye(3)),
    "TV of a flat image": (total_variation, torch.ones(1, 1, 4, 4)),
    "activation of dead features": (activation_loss, torch.zeros(2, 3)),
}


@pytest.mark.parametrize("name", EDGES)
def test_gradients_stay_finite_where_formulas_have_none(name: str) -> None:
    loss, x = EDGES[name]
    leaf = x.clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()


def test_features_of_half_precision_are_averaged_in_fp32() -> None:
    f = torch.tensor(F).bfloat16()
    assert activation_loss(f).item() == pytest.approx(ref.activation(f.double().numpy()), rel=1e-6)


def test_unknown_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown norm 'tv': l2 or l1"):
        total_variation(torch.zeros(1, 1, 2, 2), norm="tv")


def test_everything_here_is_tested() -> None:
    covered = {getattr(loss, "func", loss).__name__ for _, loss, _ in CASES.values()}
    assert covered == {n for n, f in vars(priors).items() if getattr(f, "__module__", "") == priors.__name__}
