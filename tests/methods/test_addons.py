"""The shipped add-ons, step by step against values worked out by hand, and how add-ons are put around a method."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contexts import BATCH, CLASSES, SHAPE, make_context, network, state
from tiny import make_job
from torch import Tensor, nn

from dfkd_bench.addon import AddOn, AddOnContext, Loss, Sample
from dfkd_bench.errors import PrivilegeError, RunError
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, setting
from dfkd_bench.models.cnn import CNN
from dfkd_bench.training.compose import Composed, method_and_addons, union_of, without_addons
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import labelled_batches, train_student
from dfkd_bench.training.storage import FileStorage
from dfkd_methods.addons.curriculum import Curriculum
from dfkd_methods.addons.ema import MeanTeacher
from dfkd_methods.addons.replay import Memory, Replay

NONE = Privileges()


def addon(kind: type[AddOn], context: RunContext, name: str = "it", **settings: Any) -> Any:
    """An add-on set up as a composition does it."""
    made = kind(kind.Config(**settings))
    made.setup(context.scoped(name, kind.privileges))
    return made


def out(logits: Tensor, **taps: Tensor) -> Outputs:
    return Outputs(logits, taps)


def batch(first: float, n: int = BATCH, **fields: Any) -> Batch:
    """Images whose rows hold first, first + 1, ..., so that each row says who it is."""
    values = first + torch.arange(float(n))
    return Batch(values.view(n, 1, 1, 1).expand(n, *SHAPE).contiguous(), **fields)


def who(found: Batch) -> list[float]:
    return found.images[:, 0, 0, 0].tolist()


# -- ema --------------------------------------------------------------------------------------------------------------


def test_the_mean_teacher_follows_with_a_momentum_that_rises_to_its_decay() -> None:
    student = network(2)
    context = make_context(student=student)
    ema = addon(MeanTeacher, context, decay=0.6)
    name = "head.weight" if "head.weight" in dict(student.named_parameters()) else next(iter(state(student)))
    values = [state(student)[name]]
    for t in (1, 2, 3):
        with torch.no_grad():
            for p in student.parameters():
                p.mul_(1.5).add_(0.1)
        values.append(state(student)[name])
        context.progress.student_step = t
        ema.after_distill_step(batch(0))
    # momentum 1/2, then 0.6 instead of 2/3
    slow = 0.5 * values[0] + 0.5 * values[1]
    slow = 0.6 * slow + 0.4 * values[2]
    slow = 0.6 * slow + 0.4 * values[3]
    held = context.registered["it/slow"].state_dict()
    torch.testing.assert_close(held[f"module.{name}"], slow)


def test_the_consistency_term_is_the_mean_square_between_probabilities() -> None:
    context = make_context()
    ema = addon(MeanTeacher, context, weight=2.0, ramp=0.5)
    images, s = batch(0.0), torch.tensor([[1.0, 0.0, -1.0]] * BATCH, requires_grad=True)
    with torch.no_grad():
        slow = context.registered["it/slow"].module(images.images)
    wanted = (F.softmax(s, 1) - F.softmax(slow, 1)).square().sum() / (BATCH * CLASSES)
    seen = []

    def inner(*given: Any) -> Tensor:
        seen.append(given)
        return s.sum() * 0.0 + 7.0

    weights = {}
    for round in (0, 2, 4, 7):  # of 8: before, within and after the rise
        context.progress.round = round
        loss = ema.distill_loss(images, out(s), out(s), inner)
        weights[round] = float(((loss - 7.0) / wanted).detach())
    assert weights == pytest.approx({0: 2 * math.exp(-5.0), 2: 2 * math.exp(-1.25), 4: 2.0, 7: 2.0}, rel=1e-3)
    assert seen[0][0] is images
    loss.backward()
    assert s.grad is not None
    assert s.grad.abs().sum() > 0
    assert context.meter.counts["student_forwards"] == 4 * BATCH


def test_the_slow_student_counts_as_no_generator_and_sees_its_own_statistics() -> None:
    student = network(2)
    context = make_context(student=student)
    ema = addon(MeanTeacher, context)
    assert context.slow_students == {"it/slow"}
    before = state(context.registered["it/slow"])
    context.student(batch(0.0).images)
    ema.slow.network(batch(0.0).images)
    assert all(torch.equal(v, before[k]) for k, v in state(context.registered["it/slow"]).items())


# -- replay -----------------------------------------------------------------------------------------------------------


def test_a_mixture_holds_rows_of_the_past_and_the_rows_put_aside_are_remembered() -> None:
    context = make_context()  # eight rounds
    replay = addon(Replay, context, share=0.5, capacity=8, span=0.5)  # two rows enter per round
    fresh = [batch(100.0 * k, labels=torch.arange(BATCH), weights=torch.full((BATCH,), float(k))) for k in range(6)]
    made, held = [], []
    for k, round in enumerate((0, 0, 1, 2, 3, 4)):
        context.progress.round = round
        made.append(replay.sample(BATCH, lambda n, k=k: fresh[k]))
        held.append(set(replay.memory.rows["images"][:, 0, 0, 0].tolist()))
    assert made[0] is fresh[0]  # nothing to replay yet
    assert [len(h) for h in held] == [2, 2, 4, 6, 8, 8]  # once per round; full after half of the run
    assert held[5] == (held[4] - held[0]) | (held[5] - held[4])  # the oldest went
    for k in (2, 3, 4, 5):
        old = [w for w in who(made[k]) if w < 100 * k]
        assert len(old) == len(set(old)) == 2
        assert set(old) <= held[k - 1]
        assert set(who(fresh[k])) - set(who(made[k])) == held[k] - held[k - 1]
        for place, value in enumerate(who(made[k])):  # labels and weights travel with their row
            assert made[k].labels is not None
            assert made[k].weights is not None
            assert int(made[k].labels[place]) == int(value % 100)  # type: ignore[index]
            assert float(made[k].weights[place]) == value // 100  # type: ignore[index]
    assert who(fresh[2]) == [200.0, 201.0, 202.0, 203.0]  # the method's own batch stays as it is
    assert context.meter.counts["images_stored"] == 8


def test_a_batch_handed_out_again_is_the_same_mixture_within_its_round() -> None:
    context = make_context()
    replay = addon(Replay, context, share=0.5)
    one, two = batch(0.0), batch(100.0)
    replay.sample(BATCH, lambda n: one)
    context.progress.round = 1
    first = replay.sample(BATCH, lambda n: two)
    assert replay.sample(BATCH, lambda n: two) is first
    assert first is not two
    assert replay.sample(BATCH, lambda n: one) is not first
    context.progress.round = 2
    assert replay.sample(BATCH, lambda n: two) is not first


def test_nothing_is_replayed_where_the_share_is_zero_and_all_where_it_is_one() -> None:
    for share, expected in ((0.0, [0] * 3), (1.0, [0, BATCH, BATCH])):
        context = make_context()
        replay = addon(Replay, context, share=share)
        found = []
        for k in range(3):
            context.progress.round = k
            made = replay.sample(BATCH, lambda n, k=k: batch(100.0 * k))
            found.append(sum(w < 100 * k for w in who(made)))
        assert found == expected


def test_a_memory_refuses_batches_that_carry_other_fields() -> None:
    memory, index = Memory(8), torch.arange(2)
    memory.push(batch(0.0, labels=torch.arange(BATCH)), index)
    with pytest.raises(RunError, match="batches of images cannot be mixed with rows of images, labels"):
        memory.push(batch(0.0), index)
    with pytest.raises(RunError, match="some batches have labels and some have none"):
        memory.into(batch(0.0), index, torch.Generator())
    other = Memory(8)
    other.load_state_dict(memory.state_dict())
    assert len(other) == 2
    assert len(Memory(8)) == 0
    with pytest.raises(ValueError, match="share must be"):
        addon(Replay, make_context(), share=1.5)


# -- curriculum -------------------------------------------------------------------------------------------------------


def test_the_admitted_share_rises_to_the_whole_batch() -> None:
    context = make_context()  # eight rounds
    curriculum = addon(Curriculum, context, start=0.25, full=0.5)
    found = []
    for round in range(6):
        context.progress.round = round
        found.append(curriculum.admitted(8))
    # q = 0.25 + 0.75 * 2 r: 0.25, 0.4375, 0.625, 0.8125, 1
    assert found == [2, 4, 5, 7, 8, 8]
    assert curriculum.admitted(1) == 1
    context.progress.round = 0
    assert addon(Curriculum, context, "b", full=0.0).admitted(8) == 8


def divergence(s: Tensor, t: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(s, 1), F.log_softmax(t, 1), log_target=True, reduction="batchmean")


@pytest.mark.parametrize("kind", ["disagreement", "entropy"])
def test_only_the_easiest_rows_send_a_gradient_as_in_the_mean_over_them(kind: str) -> None:
    context = make_context()
    curriculum = addon(Curriculum, context, start=0.5, difficulty=kind)
    t = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 0.1], [9.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    s = torch.tensor([[4.0, 0.1, 0.0], [3.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 1.9, 0.1]], requires_grad=True)
    easy = {"disagreement": [0, 3], "entropy": [0, 2]}[kind]  # row 2: a sure teacher, and a student that errs
    tap = torch.ones(4, 2, 1, 1, requires_grad=True)

    def inner(b: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        assert torch.equal(student.logits, s)  # values as they were
        return divergence(student.logits, t) + student.taps["map"].mean()

    curriculum.distill_loss(batch(0.0), out(s, map=tap), out(t), inner).backward()
    free = s.detach().clone().requires_grad_()
    divergence(free[easy], t[easy]).backward()
    torch.testing.assert_close(s.grad, free.grad)
    assert tap.grad is not None
    assert tap.grad.flatten(1).sum(1).tolist() == [0.5 if k in easy else 0.0 for k in range(4)]


def test_from_its_end_on_a_curriculum_passes_everything_on() -> None:
    context = make_context()
    curriculum = addon(Curriculum, context, full=0.5)
    context.progress.round = 4
    given: list[Any] = []
    s, t = out(torch.zeros(4, 3)), out(torch.zeros(4, 3))
    images = batch(0.0)
    curriculum.distill_loss(images, s, t, lambda *rest: given.extend(rest) or torch.zeros(()))
    assert given[0] is images
    assert given[1] is s
    assert given[2] is t


# -- composition ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PlainConfig:
    rows: bool = setting(True, "rows are independent")


class Plain(Method):
    """Images of a weight that it has, and a note of what it was asked."""

    Config = PlainConfig
    privileges = Privileges(gradients=True)

    @property
    def flags(self) -> Flags:
        return Flags(student_steps=2, rowwise=self.config.rows)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.weight = context.register("weight", nn.Linear(2, 2)).weight
        self.calls: list[str] = []

    def synthesize(self) -> Mapping[str, Tensor]:
        return {}

    def sample(self, n: int) -> Batch:
        self.calls.append(f"sample {n}")
        return Batch(torch.randn(n, 1, 8, 8, generator=self.context.stream("sample")))

    def after_distill_step(self, batch: Batch) -> None:
        self.calls.append("after")


class Noting(AddOn):
    """Writes down when it is asked, in a list that all share."""

    Config = PlainConfig
    log: list[str] = []

    def note(self, what: str) -> None:
        self.log.append(f"{what} {self.context._part}")  # type: ignore[attr-defined]

    def sample(self, n: int, inner: Sample) -> Batch:
        self.note("before")
        found = inner(n)
        self.note("sample")
        return found

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        self.note("loss")
        return inner(batch, student, teacher)

    def after_distill_step(self, batch: Batch) -> None:
        self.note("after")

    def on_epoch_start(self, epoch: int) -> None:
        self.note(f"start {epoch}")

    def on_epoch_end(self, epoch: int) -> None:
        self.note(f"end {epoch}")


def composed(*kinds: tuple[str, type[AddOn]], **settings: Any) -> Composed:
    return Composed(Plain(PlainConfig(**settings)), Plain.privileges, [(n, kind(kind.Config())) for n, kind in kinds])


def job_of(method: Method) -> Any:
    return make_job(method, CNN(2, 3, 1, 5), CNN(2, 3, 1, 5), filled=False)


def test_the_last_add_on_is_the_outermost() -> None:
    Noting.log.clear()
    method = composed(("a", Noting), ("b", Noting))
    job = job_of(method)
    train_student(job)
    step = ["before b", "before a", "sample a", "sample b", "loss b", "loss a", "after a", "after b"]
    assert Noting.log == step * 2
    assert without_addons(method).calls == ["sample 6", "after"] * 2  # type: ignore[attr-defined]
    Noting.log.clear()
    method.on_epoch_start(3)
    method.on_epoch_end(3)
    assert Noting.log == ["start 3 a", "start 3 b", "end 3 a", "end 3 b"]
    assert len(method_and_addons(method)) == 3


def test_rows_are_drawn_a_round_at_a_time_unless_an_add_on_samples() -> None:
    assert composed(("ema", MeanTeacher)).flags.rowwise
    assert composed(("curriculum", Curriculum)).flags.rowwise
    assert not composed(("ema", MeanTeacher), ("replay", Replay)).flags.rowwise
    method = composed(("ema", MeanTeacher))
    assert len(list(labelled_batches(job_of(method)))) == 2
    assert without_addons(method).calls == ["sample 12"]  # type: ignore[attr-defined]


def test_a_method_is_the_same_inside_its_add_ons() -> None:
    """Initial weights, streams and what is registered: so that runs with and without are paired."""
    alone, method = Plain(PlainConfig()), composed(("replay", Replay), ("ema", MeanTeacher))
    first, second = job_of(alone), job_of(method)
    assert torch.equal(alone.weight, without_addons(method).weight)  # type: ignore[attr-defined]
    assert [*second.context.registered] == ["weight", "replay/memory", "ema/slow"]
    assert torch.equal(alone.sample(6).images, method.sample(6).images)
    assert first.context.registered.keys() == {"weight"}


class Greedy(AddOn):
    """Looks at the teacher's statistics, which it does not declare."""

    Config = PlainConfig

    def setup(self, context: AddOnContext) -> None:
        super().setup(context)
        _ = context.teacher.bn_statistics


class Open(Greedy):
    """Declares it."""

    privileges = Privileges(bn_statistics=True, stage_maps=True)
    distill_taps = ("stages",)


def test_each_part_has_its_own_privileges_and_the_card_is_their_union() -> None:
    with pytest.raises(PrivilegeError, match="bn_statistics without declaring"):
        job_of(composed(("greedy", Greedy)))
    method = composed(("open", Open), ("b", Noting))
    assert method.privileges == Privileges(gradients=True, bn_statistics=True, stage_maps=True)
    assert method.flags.distill_taps == ("stages",)
    job = job_of(method)
    assert job.context.privileges.gradients  # `make_job` opens what the composition declares
    with pytest.raises(PrivilegeError, match="bn_statistics"):
        _ = without_addons(method).context.teacher.bn_statistics  # the method itself gets no more than it has alone
    with pytest.raises(PrivilegeError, match="stage_maps"):
        method.addons[1][1].context.teacher(torch.zeros(1, 1, 8, 8), taps=("stage1",))
    with pytest.raises(PrivilegeError):
        method.addons[0][1].context.grant("real_data")
    assert union_of() == NONE


class Looking(AddOn):
    """Writes down the taps that it gets, and asks for the teacher's feature maps."""

    Config = PlainConfig
    privileges = Privileges(stage_maps=True)
    distill_taps = ("stages",)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs, inner: Loss) -> Tensor:
        self.seen = tuple(student.taps), tuple(teacher.taps)
        return inner(batch, student, teacher)


class Blind(Looking):
    """Asks for nothing."""

    privileges = Privileges()
    distill_taps = ()


class Watched(Plain):
    """Writes down the taps that it gets."""

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        self.seen = tuple(student.taps), tuple(teacher.taps)
        return super().distill_loss(batch, student, teacher)


def test_inside_nothing_is_seen_that_only_the_outside_asked_for() -> None:
    parts = [("inner", Blind(PlainConfig())), ("maps", Looking(PlainConfig())), ("outer", Blind(PlainConfig()))]
    method = Composed(Watched(PlainConfig()), NONE, parts)  # type: ignore[arg-type]
    alone = job_of(Watched(PlainConfig()))
    train_student(alone)
    train_student(job_of(method))
    maps = tuple(f"stage{k}" for k in (1, 2, 3))
    assert method.method.seen == alone.method.seen == (("penultimate",), ())  # type: ignore[attr-defined]
    assert [addon.seen for _, addon in parts] == [
        (("penultimate",), ()), ((*maps, "penultimate"), maps), ((*maps, "penultimate"), maps),
    ]  # fmt: skip


def test_an_add_on_that_asks_for_taps_without_declaring_them_is_refused() -> None:
    class Sly(Looking):
        privileges = Privileges()

    with pytest.raises(PrivilegeError, match="stage_maps without declaring"):
        job_of(composed(("maps", Looking), ("sly", Sly)))


def test_an_add_on_that_cannot_go_around_a_method_says_why() -> None:
    class Alone(Plain):
        @property
        def flags(self) -> Flags:
            return Flags(teacher_in_distillation=False)

    with pytest.raises(RunError, match="add-on slow cannot go around this method: it does not use the teacher"):
        Composed(Alone(PlainConfig()), NONE, [("slow", Curriculum(Curriculum.Config()))])


def test_a_method_that_shows_no_images_shows_none_inside_its_add_ons(tmp_path: Path) -> None:
    job = job_of(composed(("ema", MeanTeacher)))
    storage = FileStorage(tmp_path, 0, CNN(2, 3, 1, 5), lambda event: None)
    storage.restore(job)
    row: dict[str, float] = {}
    storage.snapshot(job, 1, row)
    assert row == {}
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["student-00000001.safetensors"]
