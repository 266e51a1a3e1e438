"""Every loss of CPSC against float64 NumPy sums written from the formulas, values and slopes, and who gets a gradient.

Gradients are compared with central finite differences of the reference, with whatever is detached held where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import reference_numpy as ref
import torch
from formulas import Formula, Loss, check_gradient, check_value
from hooks import look, running
from reference_numpy import Array
from tiny import cpsc_job
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss, repeated
from dfkd_bench.blocks.contrastive import supervised_contrastive_loss
from dfkd_bench.blocks.losses import ikd_loss, kd_loss, pseudo_ce_loss
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Outputs
from dfkd_bench.models.tapped import batch_moments
from dfkd_bench.training.loop import Job, train_student

N, C, D = 5, 4, 3
DRAWS = np.random.RandomState(0)
# rounded to fp32, so that both precisions are given the same numbers
S = (2.0 * DRAWS.standard_normal((N, C))).astype(np.float32).astype(np.float64)
T = (2.0 * DRAWS.standard_normal((N, C))).astype(np.float32).astype(np.float64)
W = DRAWS.uniform(0.2, 2.0, N).astype(np.float32).astype(np.float64)
H_S, H_T = (ref.unit(DRAWS.standard_normal((N, D))).astype(np.float32).astype(np.float64) for _ in range(2))
Y = [0, 1, 1, 3, 0]  # one class twice in a view, one once, one never
LABELS = torch.tensor(Y)
LAYERS = [
    tuple(DRAWS.uniform(0.5, 2.0, width).astype(np.float32).astype(np.float64) for _ in range(4)) for width in (3, 2)
]


def moments_loss(norm: str, reduce: str) -> tuple[Loss, Formula]:
    """The BN loss as a function of the two layers' batch means and variances, laid out in a row."""

    def pairs(m0: Any, v0: Any, m1: Any, v1: Any) -> list[tuple[Any, Any]]:
        return [(m0, v0), (m1, v1)]

    def torch_loss(*batch: Tensor) -> Tensor:
        stored = [(batch[0].new_tensor(layer[2]), batch[0].new_tensor(layer[3])) for layer in LAYERS]
        return bn_statistics_loss(pairs(*batch), stored, norm=norm, reduce=reduce)

    def numpy_loss(*batch: Array) -> float:
        return ref.bn_statistics(pairs(*batch), [(layer[2], layer[3]) for layer in LAYERS], norm, reduce)

    return torch_loss, numpy_loss


BN_INPUTS = (LAYERS[0][0], LAYERS[0][1], LAYERS[1][0], LAYERS[1][1])
CASES: dict[str, tuple[tuple[Array, ...], Loss, Formula]] = {
    "kd": ((S, T), kd_loss, ref.kd),
    "kd at temperature 4": (
        (S, T),
        lambda s, t: kd_loss(s, t, temperature=4.0),
        lambda s, t: ref.kd(s, t, temperature=4.0),
    ),
    "kd weighted": ((S, T, W), lambda s, t, w: kd_loss(s, t, weights=w), lambda s, t, w: ref.kd(s, t, weights=w)),
    "kd weighted at temperature 2": (
        (S, T, W),
        lambda s, t, w: kd_loss(s, t, temperature=2.0, weights=w),
        lambda s, t, w: ref.kd(s, t, 2.0, w),
    ),
    **{
        f"ikd {form}": ((S, T), lambda s, t, f=form: ikd_loss(s, t, f), lambda s, t, f=form: ref.ikd(s, t, f))
        for form in ("mse", "log_mse", "log_norm")
    },
    **{
        f"cross-entropy on {on}": (
            (S,),
            lambda s, on=on: pseudo_ce_loss(s, LABELS, on=on),
            lambda s, on=on: ref.cross_entropy(s, Y, on),
        )
        for on in ("logits", "probs")
    },
    **{
        f"contrast, tau {tau}, base {base}": (
            (H_S, H_T),
            lambda s, t, a=tau, b=base: supervised_contrastive_loss((s, t), LABELS, temperature=a, base_temperature=b),
            lambda s, t, a=tau, b=base: ref.supervised_contrast(s, t, Y, a, b),
        )
        for tau, base in ((0.07, 0.07), (0.5, 0.07), (0.5, 0.5))
    },
    **{
        f"BN statistics, {norm}, {reduce}": (BN_INPUTS, *moments_loss(norm, reduce))
        for norm in ("l2", "mse")
        for reduce in ("sum", "mean")
    },
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    inputs, loss, formula = CASES[name]
    check_value(loss, formula, inputs)
    check_gradient(loss, formula, inputs)


def test_batch_moments_are_those_of_the_formula() -> None:
    x = DRAWS.standard_normal((4, 3, 2, 5)) + 2.0
    mean, variance = ref.moments(x)
    found = batch_moments(torch.tensor(x))
    np.testing.assert_allclose(found[0].numpy(), mean, rtol=1e-13)
    np.testing.assert_allclose(found[1].numpy(), variance, rtol=1e-13)
    low = batch_moments(torch.tensor(x).bfloat16())
    assert low[0].dtype == low[1].dtype == torch.float32


def test_bn_gradient_is_zero_and_not_nan_where_moments_are_equal() -> None:
    mean, variance = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = bn_statistics_loss([(mean, variance)], [(torch.ones(3).double(), torch.ones(3).double())])
    loss.backward()
    assert loss.item() == 0.0
    assert mean.grad is not None
    assert torch.equal(mean.grad, torch.zeros(3).double())


def test_bn_loss_by_hand() -> None:
    # one layer: variances differ by (3, 4), means by (0, 2): 5 + 2
    batch = [(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 5.0]))]
    stored = [(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]))]
    assert bn_statistics_loss(batch, stored).item() == pytest.approx(7.0)
    assert bn_statistics_loss(batch * 2, stored * 2, reduce="mean").item() == pytest.approx(7.0)
    assert bn_statistics_loss(batch, stored, norm="mse").item() == pytest.approx(12.5 + 2.0)


def test_one_forward_moves_statistics_as_far_as_several() -> None:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    once, often = (nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=0.3)).double() for _ in range(2))
    with repeated(once, 10):
        y = once(x)
    outputs = [often(x) for _ in range(10)]
    assert all(torch.equal(y, other) for other in outputs)
    for mine, theirs in zip(once, often, strict=True):
        torch.testing.assert_close(mine.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(mine.running_var, theirs.running_var, rtol=1e-12, atol=1e-14)
    assert [layer.momentum for layer in once] == [0.1, 0.3]


def test_bn_loss_refuses_a_teacher_without_layers() -> None:
    with pytest.raises(RunError, match="no BatchNorm"):
        bn_statistics_loss([], [])
    with pytest.raises(RunError, match="0 layers of batch moments against 1"):
        bn_statistics_loss([], [(torch.ones(1), torch.ones(1))])


def test_unknown_forms_are_refused() -> None:
    s = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="log_mse"):
        ikd_loss(s, s, "kl")
    with pytest.raises(ValueError, match="probs"):
        pseudo_ce_loss(s, torch.zeros(2).long(), on="softmax")


def test_contrast_in_half_precision_regions_stays_fp32() -> None:
    # at 1/0.07 bf16 resolves 0.06 only: under autocast the product has to be made in fp32 nonetheless
    views = (torch.tensor(H_S, dtype=torch.float32), torch.tensor(H_T, dtype=torch.float32))
    plain = supervised_contrastive_loss(views, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(supervised_contrastive_loss(views, LABELS), plain)


# -- the two composite objectives, through real networks in fp64 ---------------------------------------------------

Variants = dict[str, tuple[str, int, dict[str, Any]]]  # name: preset, width of the student's features, settings
VARIANTS: Variants = {
    "official": ("official", 5, {}),
    "official, logarithms": ("official", 5, {"ikd_generator": "log_mse", "ikd_student": "log_norm"}),
    "official, detached": ("official", 5, {"detach_teacher_in_kd": True}),
    "official, adapter": ("official", 3, {}),
    "official, unit adapter": ("official", 3, {"adapter_normalise": True}),
    "textbook": ("textbook", 5, {}),
    "textbook, adapter": ("textbook", 3, {"tau": 0.2}),
}
SWITCHES: Variants = {  # by the number of a finding of CPSC's specification; of values alone
    "1": ("official", 5, {"ce_input_generator": "logits"}),
    "2": ("official", 5, {"ce_input_student": "logits"}),
    "11, form": ("official", 5, {"bn_norm": "mse"}),
    "11, layers": ("official", 5, {"bn_reduce": "mean"}),
    "16": ("official", 3, {"scl_on_student": 0.3}),
    "17": ("official", 5, {"tau": 0.14, "scl_base_temperature": 0.14}),
}


class Fp64:
    """CPSC between tiny networks, all in fp64, and what they put out as NumPy arrays."""

    def __init__(self, variant: str) -> None:
        preset, features, settings = {**VARIANTS, **SWITCHES}[variant]
        self.job: Job = cpsc_job(preset, student_features=features, **settings)
        self.method: Any = self.job.method
        self.teacher: nn.Module = self.job.context.teacher._module.double()
        self.student = self.job.student.double()
        for module in self.job.context.registered.values():
            if isinstance(module, nn.Module):
                module.double()
        self.method.bn_running = self.job.context.teacher.bn_statistics
        self.student.train(self.method.flags.student_mode != "eval").requires_grad_(False)
        z, self.y = self.method.draw(6, self.job.context.stream("synthesis"))
        self.z = z.double()
        self.settings = self.method.config

    def j_g(self, fixed_t: Array | None = None) -> tuple[float, dict[str, float], Array]:
        """J_G and its terms by the reference, and the teacher's logits."""
        with torch.no_grad():
            x = self.method.G(self.z, self.y)
        (s, _, h_s), (t, inputs, h_t) = look(self.student, x), look(self.teacher, x)
        c = self.settings
        terms = ref.generator_terms(
            s, t, t if fixed_t is None else fixed_t, inputs, running(self.teacher), *self.compared(h_s, h_t),
            self.y.tolist(), ce_input=c.ce_input_generator, ikd_form=c.ikd_generator,
            detach_teacher_in_kd=c.detach_teacher_in_kd, tau=c.tau, tau_base=c.scl_base_temperature,
            bn_norm=c.bn_norm, bn_reduce=c.bn_reduce,
        )  # fmt: skip
        return ref.generator_total(terms), terms, t

    def compared(self, h_s: Array, h_t: Array) -> tuple[Array, Array]:
        """What the contrast compares: features at unit length, the student's through the adapter."""
        h_s = ref.unit(h_s)
        if not isinstance(self.method.adapter, nn.Identity):
            h_s = ref.adapter(h_s, *(p.detach().numpy() for p in self.method.adapter.parameters()))
            h_s = ref.unit(h_s) if self.settings.adapter_normalise else h_s
        return h_s, ref.unit(h_t)

    def student_loss(self) -> tuple[Tensor, Tensor]:
        """Images, and J_S on them with its graph."""
        self.student.train().requires_grad_(True)
        with torch.no_grad():
            batch = Batch(self.method.G(self.z, self.y), labels=self.y)
            teacher = self.job.teacher_outputs(batch.images)
        return batch.images, self.method.distill_loss(batch, self.job.student_outputs(batch.images), teacher)

    def j_s(self, x: Tensor) -> float:
        """J_S by the reference."""
        (s, _, h_s), (t, _, h_t) = look(self.student, x), look(self.teacher, x)
        c, y = self.settings, self.y.tolist()
        total = ref.student_total(s, t, y, ikd_form=c.ikd_student, ce_input=c.ce_input_student)
        if c.scl_on_student:
            h_s, h_t = self.compared(h_s, h_t)
            total += c.scl_on_student * ref.supervised_contrast(h_s, h_t, y, c.tau, c.scl_base_temperature)
        return total


@pytest.mark.parametrize("variant", [*VARIANTS, *SWITCHES])
def test_both_objectives_are_the_sums_of_the_reference(variant: str) -> None:
    case = Fp64(variant)
    value, terms = case.method.generator_objective(case.z, case.y)
    expected, expected_terms, _ = case.j_g()
    assert value.dtype == torch.float64
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected_terms, rel=1e-11)
    assert value.item() == pytest.approx(expected, rel=1e-11)
    x, loss = case.student_loss()
    assert loss.item() == pytest.approx(case.j_s(x), rel=1e-11)


def assert_slopes(parameters: Iterable[tuple[str, nn.Parameter]], function: Callable[[], float]) -> None:
    """The gradient of two entries of every parameter is the slope of `function`, and not all of them are zero."""
    draws, largest, step = np.random.RandomState(1), 0.0, 1e-6
    for name, p in parameters:
        assert p.grad is not None, name
        for flat_index in draws.choice(p.numel(), min(2, p.numel()), replace=False):
            index, values = np.unravel_index(int(flat_index), tuple(p.shape)), []
            before = p.detach()[index].item()
            for moved in (before + step, before - step, before):
                p.detach()[index] = moved
                values.append(function())
            slope = (values[0] - values[1]) / (2 * step)
            assert p.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=2e-7), f"{name}{index}"
            largest = max(largest, abs(slope))
    assert largest > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_generator_gradient_is_the_slope_of_the_reference(variant: str) -> None:
    case = Fp64(variant)
    case.method.generator_objective(case.z, case.y)[0].backward()
    fixed_t = case.j_g()[2]
    assert_slopes(case.method.G.named_parameters(), lambda: case.j_g(fixed_t)[0])
    if case.settings.adapter == "frozen":
        assert all(p.grad is None for p in case.method.adapter.parameters())
    elif not isinstance(case.method.adapter, nn.Identity):
        assert_slopes(case.method.adapter.named_parameters(), lambda: case.j_g(fixed_t)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_student_gradient_is_the_slope_of_the_reference(variant: str) -> None:
    case = Fp64(variant)
    x, loss = case.student_loss()
    loss.backward()
    assert_slopes(case.student.named_parameters(), lambda: case.j_s(x))


# -- where gradients may go, and where they must not ---------------------------------------------------------------


class Spy:
    """A network's view that keeps its last outputs, with the gradients that reach them."""

    def __init__(self, view: Any) -> None:
        self._view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def __call__(self, images: Tensor, **asked: Any) -> Outputs:
        self.seen: Outputs = self._view(images, **asked)
        for tensor in (self.seen.logits, *self.seen.taps.values(), *(m for pair in self.seen.moments for m in pair)):
            if tensor.requires_grad:
                tensor.retain_grad()
        return self.seen


OFF = {"alpha": 0.0, "beta_bn": 0.0, "gamma": 0.0, "eta": 0.0}


def routed(**settings: Any) -> tuple[Outputs, Outputs]:
    """Outputs of teacher and student after the backward of J_G with the given terms alone."""
    job = cpsc_job(**{**OFF, **settings})
    job.student.train().requires_grad_(False)
    context: Any = job.context
    context.teacher, context.student = Spy(context.teacher), Spy(context.student)
    z, y = job.method.draw(6, context.stream("synthesis"))
    job.method.generator_objective(z, y)[0].backward()
    return context.teacher.seen, context.student.seen


def test_kd_reaches_images_through_both_networks() -> None:
    teacher, student = routed()
    assert teacher.logits.grad is not None
    assert teacher.logits.grad.abs().max() > 0
    assert student.logits.grad is not None
    assert student.logits.grad.abs().max() > 0


def test_kd_detached_reaches_the_student_alone() -> None:
    teacher, student = routed(detach_teacher_in_kd=True)
    assert teacher.logits.grad is None
    assert student.logits.grad is not None
    through_both = routed()[1].logits.grad
    assert through_both is not None
    assert torch.equal(student.logits.grad, through_both)


def test_ikd_sends_exactly_nothing_through_the_teacher() -> None:
    teacher, _ = routed(detach_teacher_in_kd=True, alpha=5.0)
    assert teacher.logits.grad is None
    # and where KD does go through the teacher, IKD adds not one bit to it
    alone, student_alone = routed()
    with_ikd, student_with = routed(alpha=5.0)
    assert alone.logits.grad is not None
    assert with_ikd.logits.grad is not None
    assert torch.equal(alone.logits.grad, with_ikd.logits.grad)
    assert student_with.logits.grad is not None
    assert student_alone.logits.grad is not None
    assert not torch.equal(student_with.logits.grad, student_alone.logits.grad)


@pytest.mark.parametrize(
    ("term", "teacher_sees", "student_sees"),
    [("eta", {"logits"}, set()), ("gamma", {"features"}, {"features"}), ("beta_bn", {"moments"}, set())],
)
def test_other_terms_go_where_they_should(term: str, teacher_sees: set[str], student_sees: set[str]) -> None:
    teacher, student = routed(**{term: 1.0})
    base_teacher, base_student = routed()
    for seen, base, expected in ((teacher, base_teacher, teacher_sees), (student, base_student, student_sees)):
        assert seen.logits.grad is not None
        assert base.logits.grad is not None
        # KD is always on: a term that reaches the logits changes their gradient, one that does not leaves every bit
        assert torch.equal(seen.logits.grad, base.logits.grad) is ("logits" not in expected)
        if "features" in expected:
            # the classifier's share of the gradient must be exceeded: KD alone already reaches the features
            twin = routed(gamma=1e-30)[0 if seen is teacher else 1].features.grad
            assert seen.features.grad is not None
            assert twin is not None
            assert not torch.allclose(seen.features.grad, twin)
        if "moments" in expected:
            assert all(m.grad is not None for pair in seen.moments for m in pair)
        else:
            assert seen.moments == ()


@pytest.mark.parametrize("preset", ["official", "textbook"])
def test_a_student_step_gives_generator_and_teacher_none(preset: str) -> None:
    job = cpsc_job(preset)
    train_student(job)
    teacher = job.context.teacher._module
    assert all(p.grad is None for p in (*teacher.parameters(), *job.method.G.parameters()))
    assert all(p.grad is not None for p in job.student.parameters())
