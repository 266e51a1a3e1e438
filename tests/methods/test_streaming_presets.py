"""What the presets of DAFL, DFAD, ZSKT and DFQ-gen change in behaviour: batches, modes, order, forms, rates."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import reference_blocks as ref
import torch
from hooks import array
from stream_jobs import BATCH, CLASSES, METHODS, build, enter_synthesis, make, network, synthesis
from tiny import buffers, make_job
from torch import Tensor, nn

from dfkd_bench.blocks.generators import Generator
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.method import Batch, Outputs
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.wrn import WRN
from dfkd_bench.plugins.registry import card, load, resolve
from dfkd_bench.protocol import task
from dfkd_bench.runs.spec import matches, resolve_settings
from dfkd_bench.training.loop import Job, distill, synthesise, train_student

pytestmark = pytest.mark.usefixtures("double")


def settings(name: str, preset: str, task: str = "") -> dict[str, Any]:
    """Those of a preset, and with a task those of the published tasks on top."""
    kind = METHODS[name]
    found: dict[str, Any] = dict(kind.presets[preset])
    for of_preset, of_task, changes in kind.task_settings:
        if task and matches(preset, of_preset) and matches(task, of_task):
            found |= changes
    return dataclasses.asdict(kind.Config(**found))


def drawn(job: Job) -> list[Batch]:
    """Every object that `sample` returns from now on."""
    method: Any = job.method
    kept: list[Batch] = []
    sample = method.sample
    method.sample = lambda n: kept.append(sample(n)) or kept[-1]
    return kept


def generator(job: Job) -> Any:
    method: Any = job.method
    return method.stream.G


# -- DAFL -------------------------------------------------------------------------------------------------------------

DAFL_WEIGHTS = [
    ("official", "cifar10/a-b", 0.05, 0.01, 5.0, "10"),
    ("official", "cifar100/a-b", 0.5, 0.1, 20.0, "10"),
    ("official", "mnist/a-b", 1.0, 0.1, 5.0, "10"),
    ("datafree", "cifar10/a-b", 1.0, 0.001, 20.0, "e"),
    ("datafree", "cifar100/a-b", 1.0, 0.001, 20.0, "e"),
]


@pytest.mark.parametrize(("preset", "task", "w_oh", "alpha", "beta", "base"), DAFL_WEIGHTS)
def test_dafl_has_the_published_weights(
    preset: str, task: str, w_oh: float, alpha: float, beta: float, base: str
) -> None:
    c = settings("dafl", preset, task)
    assert (c["w_oh"], c["alpha"], c["beta"], c["log_base"]) == (w_oh, alpha, beta, base)


def on_task(name: str, preset: str, on: str, track: str = "recipe") -> Any:
    """The method as a run on a task has it."""
    kind = load(resolve(name))
    return kind(kind.Config(**dict(resolve_settings(card(resolve(name)), name, preset, task(on), track, "full", {}))))


MNIST, FASHION = "mnist/lenet5-lenet5_half", "fashion-mnist/lenet5-lenet5_half"
CIFAR10, CIFAR100 = "cifar10/resnet34-resnet18", "cifar100/resnet34-resnet18"


@pytest.mark.parametrize("on", [MNIST, FASHION])
def test_dafl_and_dfad_have_their_own_settings_on_mnist(on: str) -> None:
    dafl, dfad = on_task("dafl", "official", on), on_task("dfad", "official", on)
    c, r = dafl.config, dafl.recipe
    assert (c.w_oh, c.alpha, c.beta, c.latent_dim, c.gen_lr) == (1.0, 0.1, 5.0, 100, 0.2)
    assert (r.optimiser, r.lr, r.weight_decay, r.schedule, r.batch_size, r.epochs) == (
        "adam", 2e-3, 0.0, "constant", 512, 200
    )  # fmt: skip
    assert (dafl.flags.rounds_per_epoch, dafl.flags.student_steps) == (120, 1)
    r = dfad.recipe
    assert dfad.config.latent_dim == 100
    assert (r.optimiser, r.lr, r.momentum, r.weight_decay, r.schedule, r.batch_size, r.epochs) == (
        "sgd", 0.01, 0.9, 1e-4, "constant", 512, 40
    )  # fmt: skip
    assert (dfad.flags.rounds_per_epoch, dfad.flags.student_steps) == (50, 5)
    assert on_task("dafl", "datafree", on).recipe.optimiser == "sgd"


def test_dafl_s_and_dfad_s_settings_on_cifar_are_their_defaults() -> None:
    for on in (CIFAR10, CIFAR100):
        dafl, dfad = on_task("dafl", "official", on), on_task("dfad", "official", on)
        assert (dafl.config.latent_dim, dafl.config.gen_lr, dfad.config.latent_dim) == (1000, 0.02, 256)
        assert (dafl.recipe.optimiser, dafl.recipe.epochs, dafl.recipe.batch_size) == ("sgd", 2000, 1024)
        assert (dfad.recipe.lr, dfad.recipe.epochs, dfad.recipe.batch_size) == (0.1, 500, 256)


def test_dafl_official_teaches_on_the_very_batch_of_the_generator_step() -> None:
    job = make("dafl", student_steps=3)
    kept = drawn(job)
    step = synthesis(job)
    train_student(job)
    assert len(kept) == 3
    assert kept[0] is kept[1] is kept[2]
    assert torch.equal(kept[0].images, step.x)  # rendered before the update, not after it
    assert job.context.meter.counts["teacher_forwards"] == 2 * BATCH  # labelled once
    synthesise(job)
    assert job.method.sample(BATCH) is not kept[0]


@pytest.mark.parametrize(
    ("name", "preset", "steps"), [("dafl", "datafree", 5), ("zskt", "datafree", 5), ("dfq-gen", "datafree", 10)]
)
def test_datafree_batches_are_fresh_and_rows_independent(name: str, preset: str, steps: int) -> None:
    job = make(name, preset)
    synthesise(job)
    statistics = buffers(generator(job))
    with torch.no_grad():
        whole = job.method.sample(steps * BATCH).images
    assert not generator(job).training
    assert torch.equal(buffers(generator(job)), statistics)
    assert len(torch.unique(whole.flatten(1), dim=0)) == steps * BATCH
    z, _ = (twin := make(name, preset)).method.stream.draw(steps * BATCH, twin.context.stream("sample"))  # type: ignore[attr-defined]
    with torch.no_grad():
        rows = torch.cat([(generator(job)(part) - 0.5) / 0.5 for part in z.split(7)])
    torch.testing.assert_close(whole, rows)
    assert job.method.flags.student_steps == steps
    assert job.method.flags.rowwise


# first width, end of the network, latent, bias of inner convolutions, and Adam's first decay and rate
BUILT = {
    ("dafl", "official"): (2, nn.Sequential, 1000, True, 0.9, 0.02),
    ("dafl", "datafree"): (4, nn.Sigmoid, 512, False, 0.5, 1e-3),
    ("dfad", "official"): (2, nn.Sequential, 256, True, 0.9, 1e-3),
    ("zskt", "official"): (2, nn.BatchNorm2d, 100, True, 0.9, 1e-3),
    ("zskt", "datafree"): (4, nn.Sigmoid, 256, False, 0.5, 1e-3),
    ("dfq-gen", "datafree"): (4, nn.Sigmoid, 256, False, 0.5, 1e-3),
}


@pytest.mark.parametrize(("name", "preset"), BUILT)
def test_what_a_preset_builds(name: str, preset: str) -> None:
    first, end, latent, bias, beta1, rate = BUILT[name, preset]
    published = {"latent_dim": METHODS[name].Config(**METHODS[name].presets[preset]).latent_dim}
    job = make(name, preset, **published)
    G = generator(job)
    assert isinstance(G, Generator)
    assert G.start == (first * 2, 8 // 4, 8 // 4)
    assert isinstance(G.end, end)
    assert G.latent_dim == latent
    assert all((c.bias is not None) is bias for c in G.convs)
    assert G.output_space == ("image01" if end is nn.Sigmoid else "normalised")
    adam = job.context.registered["generator_adam"]
    assert adam.defaults["betas"] == (beta1, 0.999)
    assert adam.param_groups[0]["lr"] == rate
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in G.parameters()}
    assert [n.eps for n in (G.bn0, *G.norms)] == [1e-5, *[0.8 if (name, preset) == ("dafl", "official") else 1e-5] * 2]
    if end is nn.Sequential:  # tanh, then a batch-norm that learns nothing
        assert isinstance(G.end[0], nn.Tanh)
        assert not list(G.end.parameters())


SIZES = {  # parameters for three channels of 32x32
    ("dafl", "official"): 8_423_939, ("dafl", "datafree"): 8_776_259, ("dfad", "official"): 2_329_091,
    ("zskt", "official"): 1_051_145, ("zskt", "datafree"): 4_581_955, ("dfq-gen", "datafree"): 4_581_955,
}  # fmt: skip


@pytest.mark.parametrize(("name", "preset"), BUILT)
def test_sizes_are_the_published_ones_at_full_width(name: str, preset: str) -> None:
    job = make_job(on_task(name, preset, CIFAR10), CNN(2, 10, 3, 5), CNN(2, 10, 3, 5), image_shape=(3, 32, 32))
    assert sum(p.numel() for p in generator(job).parameters()) == SIZES[name, preset]


# -- DFAD -------------------------------------------------------------------------------------------------------------


def verbs(job: Job) -> list[str]:
    """The order in which the loop calls a method, and G's and the student's mode there."""
    method: Any = job.method
    calls: list[str] = []

    def noted(verb: str, call: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            calls.append(f"{verb}, student {'trains' if job.student.training else 'evaluates'}")
            return call(*arguments)

        return wrapped

    method.synthesize, method.sample = noted("G", method.synthesize), noted("S", method.sample)
    return calls


def test_dfad_s_student_goes_first_and_trains_throughout() -> None:
    job = make("dfad", rounds=1)
    calls = verbs(job)
    statistics = buffers(job.student)
    distill(job)
    assert calls == ["S, student trains"] * 5 + ["G, student trains"]
    assert not torch.equal(buffers(job.student), statistics)


def test_dfad_s_batches_are_fresh_and_of_a_training_generator() -> None:
    job = make("dfad")
    kept = drawn(job)
    statistics = buffers(generator(job))
    train_student(job)
    assert generator(job).training
    assert not torch.equal(buffers(generator(job)), statistics)
    assert len(torch.unique(torch.cat([b.images for b in kept]).flatten(1), dim=0)) == 5 * BATCH


@pytest.mark.parametrize("on", [MNIST, CIFAR10])
def test_noise_with_dfad_s_recipe_differs_from_dfad_in_its_images_alone(on: str) -> None:
    noise, dfad = on_task("noise", "dfad-recipe", on), on_task("dfad", "official", on)
    assert noise.recipe == dfad.recipe
    lengths = [(m.flags.rounds_per_epoch, m.flags.student_steps) for m in (noise, dfad)]
    assert lengths[0] == lengths[1]
    s, t = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    said = Outputs(s, {}), Outputs(t, {})
    batch = Batch(torch.zeros(1, 1, 8, 8))
    assert noise.distill_loss(batch, *said).item() == dfad.distill_loss(batch, *said).item() == 2.0
    usual = on_task("noise", "normal", on)
    assert usual.recipe.epochs == 200
    assert usual.distill_loss(batch, *said).item() == pytest.approx(kd_loss(s, t).item())


# -- ZSKT -------------------------------------------------------------------------------------------------------------


def test_zskt_official_renders_the_latents_of_its_generator_step_once() -> None:
    job = make("zskt")
    method: Any = job.method
    kept = drawn(job)
    passes: list[tuple[Tensor, bool]] = []
    generator(job).register_forward_pre_hook(lambda m, a: passes.append((a[0], m.training)))
    step = synthesis(job)
    train_student(job)
    assert len(kept) == 10
    assert all(b is kept[0] for b in kept)
    assert [mode for _, mode in passes] == [True, True]  # once to learn, once for ten student steps
    assert torch.equal(passes[0][0], passes[1][0])
    assert torch.equal(kept[0].latents, passes[0][0])  # type: ignore[arg-type]
    assert not torch.equal(kept[0].images, step.x)  # by the updated generator
    with torch.no_grad():
        torch.testing.assert_close(kept[0].images, method.stream.G.train()(passes[0][0]))
    assert job.context.meter.counts["teacher_forwards"] == 2 * BATCH
    synthesise(job)
    again = method.sample(BATCH)
    assert again is not kept[0]
    assert not torch.equal(again.latents, kept[0].latents)


def test_zskt_s_generator_keeps_the_statistics_of_a_render_for_each_student_step() -> None:
    job, twin = make("zskt", student_steps=4), make("zskt", student_steps=4)
    for each in (job, twin):
        synthesise(each)
    train_student(job)
    method: Any = twin.method
    with torch.no_grad():
        for _ in range(4):
            method.stream.images(method.z, None)
    rendered, kept = ([m for m in generator(j).modules() if isinstance(m, nn.BatchNorm2d)] for j in (twin, job))
    for theirs, ours in zip(rendered, kept, strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("maps", ["raw", "activated"])
def test_zskt_s_maps_of_a_wide_resnet_are_the_outputs_of_its_groups(maps: str) -> None:
    method: Any = build("zskt", maps=maps)
    job = make_job(method, WRN(10, 2, CLASSES, 1), WRN(10, 1, CLASSES, 1), classes=CLASSES, batch_size=BATCH)
    synthesise(job)
    batch = method.sample(BATCH)
    wanted = ("stage1", "stage2", "stage3_raw" if maps == "raw" else "stage3")
    student, teacher = (network(job, role).observe(batch.images, wanted) for role in ("student", "teacher"))
    taken = job.student_outputs(batch.images), job.teacher_outputs(batch.images)
    attention = method.distill_loss(batch, *taken) - method.D_KL(taken[0].logits, taken[1].logits)
    expected = ref.attention(*([array(out.taps[name]) for name in wanted] for out in (student, teacher)), "mean")
    assert attention.item() == pytest.approx(250.0 * expected, rel=1e-9)


@pytest.mark.parametrize(("preset", "mode"), [("official", "train"), ("datafree", "eval")])
def test_zskt_s_student_in_generator_steps(preset: str, mode: str) -> None:
    job = make("zskt", preset)
    calls = verbs(job)
    statistics = buffers(job.student)
    synthesise(job)
    assert calls == [f"G, student {'trains' if mode == 'train' else 'evaluates'}"]
    assert torch.equal(buffers(job.student), statistics) is (mode == "eval")


def test_zskt_clips_both_gradients_at_five() -> None:
    clips = [
        (settings("zskt", preset)["gen_clip"], build("zskt", preset).recipe.clip) for preset in ("official", "datafree")
    ]
    assert clips == [(5.0, 5.0), (0.0, 0.0)]


# -- the generators' rates --------------------------------------------------------------------------------------------


def cosine(rounds: int) -> list[float]:
    return [0.5 * (1.0 + math.cos(math.pi * k / rounds)) for k in range(rounds)]


@pytest.mark.parametrize(
    ("name", "preset", "chosen", "shares"),
    [
        ("dfad", "official", {}, [1.0] * 10 + [0.1] * 10 + [0.01] * 30),  # falls at one and two fifths
        ("dfad", "official", {"student_recipe": "mnist"}, [1.0] * 50),
        ("zskt", "official", {}, cosine(8)),
        ("zskt", "datafree", {}, [1.0] * 8),
        ("cgdd", "v4", {}, cosine(4)),
    ],
)
def test_the_generator_s_rate_over_a_run(name: str, preset: str, chosen: dict[str, str], shares: list[float]) -> None:
    job = make(name, preset, **chosen)
    job.context.progress.rounds = len(shares)
    rates = []
    for job.context.progress.round in range(len(shares)):
        enter_synthesis(job)
        job.method.synthesize()
        rates.append(job.context.registered["generator_adam"].param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3 * share for share in shares])


# -- DFQ-gen ----------------------------------------------------------------------------------------------------------


def test_dfq_gen_has_the_published_weights() -> None:
    published = settings("dfq-gen", "datafree")
    assert [published[w] for w in ("w_oh", "w_bn", "w_bal", "w_adv")] == [1.0, 1.0, 20.0, 1.0]


def test_dfq_gen_starts_at_half_the_rate_on_the_pair_whose_script_does() -> None:
    rates = {on: on_task("dfq-gen", "datafree", on).recipe.lr for on in (CIFAR10, CIFAR100)}
    assert rates == {CIFAR10: 0.1, CIFAR100: 0.05}
