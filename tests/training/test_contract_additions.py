"""What the contract offers beside its verbs: taps by kind, means of BN inputs, looking without a trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from contexts import make_context, same, state, stream
from tiny import fill, make_job
from torch import Tensor, nn

from dfkd_bench.conformance.card import check_flags
from dfkd_bench.conformance.report import Report
from dfkd_bench.errors import PrivilegeError, RunError
from dfkd_bench.method import Batch, Flags, Method, Outputs, Privileges, StudentRecipe
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.tapped import Hooked, Tapped, Trace
from dfkd_bench.models.wrn import WRN
from dfkd_bench.training.loop import synthesise, taps_of, train_student
from dfkd_bench.training.storage import preview

# -- taps -------------------------------------------------------------------------------------------------------------


@dataclass
class Named:
    tap_names: tuple[str, ...]
    raw_taps: Mapping[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (("a", "b", "penultimate"), (), ()),
        (("a", "b", "penultimate"), ("stages",), ("a", "b")),
        (("a", "b", "c", "d", "penultimate"), ("stages",), ("a", "b", "c", "d")),
        (("a", "b", "penultimate"), ("penultimate", "stages", "penultimate"), ("a", "b", "penultimate")),
        (("a", "b", "penultimate"), ("b", "b", "a"), ("a", "b")),
        (("a", "b", "penultimate"), ("stages", "b", "bn_means"), ("a", "b", "bn_means")),
        (("penultimate",), ("stages",), ()),
        (("a", "penultimate"), ("typo", "penultimate"), ("penultimate", "typo")),  # the network refuses it
    ],
)
def test_taps_of(names: tuple[str, ...], wanted: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert taps_of(Named(names), wanted) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("stages",), ("a", "b")),
        (("stages_raw",), ("a", "b_raw")),
        (("penultimate", "stages_raw", "stages"), ("a", "b_raw", "b", "penultimate")),
        (("b_raw", "a"), ("a", "b_raw")),
    ],
)
def test_taps_of_a_network_with_a_raw_map(wanted: tuple[str, ...], expected: tuple[str, ...]) -> None:
    network = Named(("a", "b", "penultimate"), {"b": "b_raw"})
    assert taps_of(network, wanted) == expected  # type: ignore[arg-type]
    plain = tuple(tap.removesuffix("_raw") for tap in expected)
    if "b_raw" not in wanted:  # a name of its own is refused by a network without it, all maps are what there is
        assert taps_of(Named(network.tap_names), wanted) == tuple(dict.fromkeys(plain))  # type: ignore[arg-type]


@pytest.mark.parametrize(("tap", "known"), [("stages_raw", True), ("b_raw", True), ("a_raw", False)])
def test_conformance_knows_the_raw_taps_that_both_networks_have(tap: str, known: bool) -> None:
    both: Any = Named(("a", "b", "penultimate"), {"b": "b_raw"})
    bare: Any = Named(both.tap_names)
    for student, there in ((both, known), (bare, tap == "stages_raw")):
        report = Report()
        check_flags(Flags(distill_taps=(tap,)), StudentRecipe(), both, student, report)
        assert [seen for _, _, seen in report.failures()] == ([] if there else [f"distill_taps name {tap!r}"])


@pytest.mark.parametrize("train", [True, False])
def test_the_raw_map_of_a_wide_resnet_is_what_its_last_norm_is_given(train: bool) -> None:
    model = WRN(10, 1, 3, 2)
    fill(model, 1)
    model.train(train)
    given: list[Tensor] = []
    model.bn.register_forward_pre_hook(lambda _m, a: given.append(a[0].detach()))
    x = torch.randn(3, 2, 8, 8, generator=stream())
    taps = model.observe(x, (*model.tap_names, "stage3_raw")).taps
    assert torch.equal(taps["stage3_raw"], given[0])
    torch.testing.assert_close(taps["stage3"], model.bn(given[0]).relu())
    assert taps["stage3_raw"].min() < 0.0
    assert "stage3_raw" not in model.observe(x, model.tap_names).taps
    context = make_context()
    context.student._module = model  # type: ignore[attr-defined]
    assert dict(context.student.raw_taps) == {"stage3": "stage3_raw"}
    assert tuple(context.student.tap_shapes) == model.tap_names
    assert dict(context.teacher.raw_taps) == {}
    with pytest.raises(RunError, match="no tap 'stage2_raw' in WRN; did you mean 'stage3_raw'"):
        model.observe(x, ("stage2_raw",))


@dataclass(frozen=True)
class Config:
    pass


class Plain(Method):
    """Draws noise; looks at all feature maps when it distils."""

    Config = Config
    privileges = Privileges(stage_maps=True)
    flags = Flags(student_steps=1, distill_taps=("stages",), student_mode="train")  # type: ignore[assignment]
    seen: tuple[Outputs, Outputs]

    def synthesize(self) -> Mapping[str, Tensor]:
        return {"loss": self.context.student(self.sample(4).images).logits.mean()}

    def sample(self, n: int) -> Batch:
        return Batch(torch.randn(n, *self.context.task.image_shape, generator=self.context.stream("sample")))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        self.seen = student, teacher
        return super().distill_loss(batch, student, teacher)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        x = torch.randn(n, *self.context.task.image_shape, generator=stream)
        worth = self.context.student(x).logits.sum() + self.context.teacher(x).logits.sum()
        self.context.count(synthesised=n, stored=n)
        self.differentiable = torch.is_grad_enabled()
        return Batch(x + worth)


def plain_job(teacher: Tapped | None = None) -> Any:
    return make_job(Plain(Config()), teacher or CNN(2, 3, 1, 5), CNN(2, 3, 1, 5))


def test_stages_are_each_networks_own() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.body(x).mean((2, 3)))
            return out

    job = plain_job(Hooked(Wrapped(), taps=("body",)))
    train_student(job)
    student, teacher = job.method.seen
    assert tuple(student.taps) == ("stage1", "stage2", "stage3", "penultimate")
    assert tuple(teacher.taps) == ("body",)


def test_tap_shapes_are_free_and_change_nothing() -> None:
    context = make_context()
    module = context.student._module  # type: ignore[attr-defined]
    before = state(module.train())
    taps = module.observe(torch.zeros(2, 2, 8, 8), module.tap_names).taps
    module.load_state_dict(before)
    assert dict(context.student.tap_shapes) == {name: tuple(tap.shape[1:]) for name, tap in taps.items()}
    assert tuple(context.student.tap_shapes) == module.tap_names
    assert same(state(module), before)
    assert module.training
    assert sum(context.meter.counts.values()) == 0


class Foreign(nn.Module):
    """Layers out of order of construction, and a 1x1 space before the last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.last, self.pool, self.final = nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.final(self.pool(self.last(self.norm(self.conv(x)).relu()))).flatten(1))
        return out


NETWORKS = {"cnn": lambda: CNN(2, 3, 2, 5), "wrn": lambda: WRN(10, 1, 3, 2), "hooked": lambda: Hooked(Foreign())}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_bn_means_are_the_means_over_space_of_what_each_layer_is_given(name: str, train: bool) -> None:
    model: Tapped = NETWORKS[name]()
    fill(model, 1)
    model.train(train)
    x, found = torch.randn(3, 2, 8, 8, generator=stream(), requires_grad=True), []
    handles = [
        m.register_forward_pre_hook(lambda _m, a: found.append(a[0].detach().double().mean((2, 3))))
        for m in model.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    outputs = model.observe(x, taps=("penultimate", "bn_means"))
    for handle in handles:
        handle.remove()
    assert set(outputs.taps) == {"penultimate", "bn_means"}
    means = outputs.taps["bn_means"]
    torch.testing.assert_close(means.double(), torch.cat(found, 1), rtol=1e-5, atol=1e-6)
    assert means.shape == (3, sum(layer.num_features for layer in model.bn_layers()))
    means[0].square().sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().max() > 0
    if not train:
        assert torch.equal(x.grad[1:], torch.zeros_like(x.grad[1:]))  # of each row alone
    assert "bn_means" not in model.observe(x).taps
    both = model.observe(x, taps=("bn_means",), moments=True)
    torch.testing.assert_close(
        both.taps["bn_means"].mean(0), torch.cat([m for m, _ in both.moments]), rtol=1e-4, atol=1e-5
    )


def test_bn_means_of_a_network_without_and_without_the_privilege() -> None:
    bare = Hooked(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))
    assert bare.observe(torch.randn(4, 2, 2, 2), taps=("bn_means",)).taps["bn_means"].shape == (4, 0)
    assert Trace().means is None
    closed = make_context(privileges=Privileges(penultimate=True))
    with pytest.raises(PrivilegeError, match="stage_maps without declaring it"):
        closed.teacher(torch.zeros(1, 2, 8, 8), taps=("bn_means",))
    assert closed.student(torch.zeros(1, 2, 8, 8), taps=("bn_means",)).taps["bn_means"].shape[0] == 1


# -- looking at a run -------------------------------------------------------------------------------------------------


def test_nothing_is_counted_while_the_meter_is_paused() -> None:
    context = make_context()
    x = torch.zeros(3, 2, 8, 8)
    context.teacher(x)
    before = dict(context.meter.counts)
    with context.meter.paused():
        context.teacher(x.clone().requires_grad_()).logits.sum().backward()
        context.student(x)
        context.count(synthesised=7, stored=2)
        context.meter.add("something new", 1)
    assert dict(context.meter.counts) == before
    context.student(x)
    assert context.meter.counts["student_forwards"] == 3
    assert context.meter.counts["teacher_forwards"] == 3


def test_a_preview_leaves_the_students_statistics_and_the_counts_alone() -> None:
    job = plain_job()
    before, counts = state(job.student), dict(job.context.meter.counts)
    shown = preview(job, 5, stream())
    assert same(state(job.student), before)
    assert dict(job.context.meter.counts) == counts
    assert not job.method.differentiable
    assert torch.equal(preview(job, 5, stream()).images, shown.images)
    synthesise(job)  # the same networks do move where it is not a preview
    assert not same(state(job.student), before)
    assert job.context.meter.counts["student_forwards"] == 4
