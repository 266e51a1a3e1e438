"""Attention transfer against float64 NumPy sums: sizes, pairing, scale, edges; and the projection head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference_blocks as ref
import torch
from formulas import check_gradient, check_value
from reference_numpy import Array, unit
from torch import Tensor

from dfkd_bench.blocks.attention import attention_loss, attention_map
from dfkd_bench.blocks.heads import ProjectionHead
from dfkd_bench.errors import RunError

DRAWS = np.random.RandomState(7)


def maps(*shapes: tuple[int, int, int]) -> list[Array]:
    """Feature maps of three samples, rounded to fp32."""
    return [DRAWS.standard_normal((3, *shape)).astype(np.float32).astype(np.float64) for shape in shapes]


# name: the student's maps, the teacher's
CASES: dict[str, tuple[list[Array], list[Array]]] = {
    "one tap": (maps((2, 3, 4)), maps((2, 3, 4))),
    "other channels": (maps((2, 4, 4), (3, 2, 2)), maps((4, 4, 4), (5, 2, 2))),
    "a larger student map": (maps((2, 8, 8)), maps((3, 4, 4))),
    "a larger teacher map": (maps((2, 2, 4)), maps((3, 4, 8))),
    "sizes that do not divide": (maps((2, 5, 3)), maps((2, 3, 2))),
    "one higher, the other wider": (maps((2, 6, 2)), maps((2, 3, 4))),
    "more student taps": (maps((2, 8, 8), (2, 4, 4), (2, 2, 2)), maps((3, 2, 2))),
    "more teacher taps": (maps((2, 4, 4), (2, 2, 2)), maps((1, 8, 8), (3, 4, 4), (3, 2, 2))),
}


def tensors(arrays: list[Array], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(a, dtype=dtype) for a in arrays]


def sided(function: Callable[..., Any], n: int, positions: str) -> Callable[..., Any]:
    """`function` of lists of maps as one of maps in a row, of which the first `n` are the student's."""
    return lambda *maps: function(list(maps[:n]), list(maps[n:]), positions=positions)


@pytest.mark.parametrize("positions", ["sum", "mean"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name: str, positions: str) -> None:
    student, teacher = CASES[name]
    loss, formula = (sided(f, len(student), positions) for f in (attention_loss, ref.attention))
    check_value(loss, formula, (*student, *teacher))
    if name in ("other channels", "sizes that do not divide"):
        check_gradient(loss, formula, (*student, *teacher), least=1e-3)


def test_a_tap_without_a_partner_gets_no_gradient() -> None:
    student, teacher = CASES["more teacher taps"]
    leaves = [torch.tensor(a, requires_grad=True) for a in teacher]
    attention_loss(tensors(student), leaves).backward()
    assert leaves[0].grad is None
    assert all(leaf.grad is not None for leaf in leaves[1:])


# -- known answers ----------------------------------------------------------------------------------------------------


def test_identical_maps_and_scaled_ones() -> None:
    student, teacher = tensors(maps((2, 4, 4), (3, 2, 2))), tensors(maps((2, 4, 4), (3, 2, 2)))
    assert attention_loss(student, [s.clone() for s in student]).item() == 0.0
    value = attention_loss(student, teacher)
    assert value.item() > 0.01
    torch.testing.assert_close(attention_loss([7.0 * student[0], -student[1]], teacher), value)
    torch.testing.assert_close(attention_loss(student, [teacher[0], 0.1 * teacher[1]]), value)
    torch.testing.assert_close(attention_loss(teacher, student), value)


@pytest.mark.parametrize("taps", [1, 3])
def test_a_tap_is_worth_two_at_most(taps: int) -> None:
    # nothing in common: two orthogonal unit vectors
    a, b = torch.zeros(2, 3, 2, 2), torch.zeros(2, 5, 2, 2)
    a[..., 0, 0], b[..., 1, 1] = 4.0, 0.5
    assert attention_loss([a] * taps, [b] * taps).item() == pytest.approx(2.0, rel=1e-6)
    assert attention_loss([a] * taps, [b] * taps, positions="mean").item() == pytest.approx(taps * 2.0 / 4, rel=1e-6)


def test_published_weights_can_be_converted() -> None:
    """Of weight w in the sum form over P taps, each tap's share is w h_l w_l / P in the mean form."""
    student, teacher = (tensors(part) for part in CASES["other channels"])
    shares = [
        5.0 * s.shape[2] * s.shape[3] / 2 * attention_loss([s], [t], positions="mean")
        for s, t in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(sum(shares), 5.0 * attention_loss(student, teacher))


def test_an_attention_map_by_hand() -> None:
    a = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])  # two channels: mean squares 1 and 2
    torch.testing.assert_close(attention_map(a), torch.tensor([[1.0, 2.0]]) / 5.0**0.5)


@pytest.mark.parametrize("dead", ["student", "teacher", "both"])
def test_a_dead_map_stays_dead_and_harms_nobody(dead: str) -> None:
    s, t = (torch.tensor(a[0], requires_grad=True) for a in CASES["one tap"])
    with torch.no_grad():
        for name, leaf in (("student", s), ("teacher", t)):
            if dead in (name, "both"):
                leaf.zero_()
    value = attention_loss([s], [t])
    value.backward()
    assert value.item() == pytest.approx(0.0 if dead == "both" else 1.0)
    for leaf in (s, t):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_half_precision_maps_are_compared_in_fp32() -> None:
    student, teacher = ([m.bfloat16() for m in tensors(part)] for part in CASES["one tap"])
    value = attention_loss(student, teacher)
    assert value.dtype == torch.float32
    exact = ref.attention([m.double().numpy() for m in student], [m.double().numpy() for m in teacher])
    assert value.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(("student", "teacher"), [([], []), ([torch.ones(1, 1, 2, 2)], [])])
def test_a_network_without_maps_is_refused(student: list[Tensor], teacher: list[Tensor]) -> None:
    with pytest.raises(RunError, match="this network has none"):
        attention_loss(student, teacher)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown form 'max': sum or mean"):
        attention_loss(tensors(maps((1, 2, 2))), tensors(maps((1, 2, 2))), positions="max")


# -- the head of contrastive methods ----------------------------------------------------------------------------------


def test_the_projection_head_is_two_layers_and_unit_vectors() -> None:
    head, f = ProjectionHead(5, 7, 3).double(), maps((5, 1, 1))[0].reshape(3, 5)
    w1, b1, w2, b2 = (p.detach().numpy() for p in head.parameters())
    expected = unit(np.maximum(f @ w1.T + b1, 0.0) @ w2.T + b2)
    x = torch.tensor(f, requires_grad=True)
    out = head(x)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12)
    assert sum(p.numel() for p in head.parameters()) == 5 * 7 + 7 + 7 * 3 + 3
    assert torch.autograd.gradcheck(head, x)
