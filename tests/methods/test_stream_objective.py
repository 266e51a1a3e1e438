"""The shared objective: every term with its weight against NumPy, and what is not computed where a weight is zero."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference_blocks as ref
import reference_numpy
import torch
from contexts import SHAPE, make_context, network, stream
from hooks import Spy, look, running
from torch import Tensor

from dfkd_bench.blocks import streaming
from dfkd_bench.blocks.streaming import Priors, Weights, weighted
from dfkd_bench.errors import RunError
from dfkd_bench.method import Privileges
from dfkd_bench.training.context import RunContext

FULL = Weights(oh=0.5, bn=2.0, bal=3.0, act=0.25, adv=1.5)


def expected_terms(context: RunContext, x: Tensor, base: float, form: str) -> dict[str, float]:
    teacher: Any = context.teacher
    student: Any = context.student
    t, inputs, f = look(teacher._module, x)
    s = look(student._module, x).logits
    return {
        "L_oh": ref.one_hot(t),
        "L_bn": reference_numpy.bn_statistics([reference_numpy.moments(a) for a in inputs], running(teacher._module)),
        "L_bal": ref.balance(t, base),
        "L_act": ref.activation(f),
        "D": {"kl": ref.kl, "l1": ref.l1, "js": ref.js}[form](s, t),
    }


SIGNED = {"L_oh": 0.5, "L_bn": 2.0, "L_bal": 3.0, "L_act": 0.25, "D": -1.5}


def double() -> RunContext:
    return make_context(teacher=network(1, double=True), student=network(2, double=True))


def images(n: int = 4) -> Tensor:
    return torch.randn(n, *SHAPE, generator=stream(), dtype=torch.float64)


@pytest.mark.parametrize(("base", "form"), [(math.e, "kl"), (10.0, "l1"), (math.e, "js")])
def test_the_objective_is_the_weighted_sum_of_the_formulas(base: float, form: str) -> None:
    context, x = double(), images()
    value, terms = Priors(context, FULL, log_base=base, form=form)(x)
    expected = expected_terms(context, x, base, form)
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected[name], rel=1e-10), name
    assert value.item() == pytest.approx(math.fsum(SIGNED[k] * expected[k] for k in SIGNED), rel=1e-10)


@pytest.mark.parametrize(
    ("weight", "term"), [("oh", "L_oh"), ("bn", "L_bn"), ("bal", "L_bal"), ("act", "L_act"), ("adv", "D")]
)
def test_terms_of_weight_zero_are_not_computed(weight: str, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context, x = double(), images()
    expected = expected_terms(context, x, math.e, "kl")[term]
    functions = {"L_oh": "one_hot_loss", "L_bn": "bn_statistics_loss", "L_bal": "balance_loss",
                 "L_act": "activation_loss", "D": "disagreement"}  # fmt: skip
    for other, function in functions.items():
        if other != term:
            monkeypatch.setattr(streaming, function, lambda *_a, **_k: pytest.fail("not asked for"))
    teacher, student = context.teacher, context.student = Spy(context.teacher), Spy(context.student)  # type: ignore[assignment]
    value, terms = Priors(context, Weights(**{weight: 2.0}))(x)
    assert list(terms) == [term]
    assert value.item() == pytest.approx((-2.0 if term == "D" else 2.0) * expected, rel=1e-10)
    assert teacher.asked == [{"taps": ("penultimate",) * (term == "L_act"), "moments": term == "L_bn"}]
    assert [(a.get("taps", ()), a.get("moments", False)) for a in student.asked] == [((), False)] * (term == "D")


def test_only_what_is_used_must_be_declared() -> None:
    plain = make_context(privileges=Privileges(gradients=True))
    Priors(plain, Weights(oh=1.0, bal=1.0, adv=1.0))(images().float().requires_grad_())
    for weights in (Weights(bn=1.0), Weights(act=1.0)):
        with pytest.raises(RunError, match="without declaring it"):
            Priors(plain, weights)(images().float())


def test_weighted_adds_up_and_logs_without_a_graph() -> None:
    a, b = (torch.tensor(v, requires_grad=True) for v in (2.0, 3.0))
    total, terms = weighted({"a": (5.0, a), "b": (-0.5, b)})
    total.backward()
    assert total.item() == 8.5
    assert {k: v.item() for k, v in terms.items()} == {"a": 2.0, "b": 3.0}
    assert not any(v.requires_grad for v in terms.values())
    assert (a.grad, b.grad) == (torch.tensor(5.0), torch.tensor(-0.5))


def test_running_moments_are_asked_for_once() -> None:
    context = make_context()
    priors = Priors(context, Weights(bn=1.0))
    expected = [v for pair in context.teacher.bn_statistics for v in pair]
    assert all(torch.equal(a, b) for a, b in zip([v for p in priors.running for v in p], expected, strict=True))
    assert Priors(context, Weights(oh=1.0)).running == ()
    assert len(expected) == 10


def test_an_objective_of_nothing_is_refused() -> None:
    with pytest.raises(RunError, match="all weights of the loss are zero"):
        weighted({})
