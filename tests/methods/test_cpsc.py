"""CPSC against its specification: its acceptance checks, and a test for each finding on the official code.

`check N` is a line of the specification's list of acceptance checks; `finding N` is a row of its table of
disagreements. Losses and who gets gradient from them (checks 3, 4 and 6, findings 1, 2, 7, 8, 11, 16 and 17) are in
`blocks/test_losses.py`, what is computed at all (finding 12) in `training/test_work.py`, what a step may move (check 8)
in the conformance suite. Findings 19-25 and 30 are about the official scripts around the method (selection on test
data, crashing options, file names); they have no counterpart in a method here and are tested with the harness.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import buffers, cpsc, cpsc_job, fill, flat, make_job
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dfkd_bench import models
from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.contrastive import supervised_contrastive_loss
from dfkd_bench.blocks.generators import ConditionalBatchNorm2d, ConditionalGenerator, DeepConditionalGenerator
from dfkd_bench.blocks.losses import ikd_loss, kd_loss, pseudo_ce_loss
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.tapped import batch_moments
from dfkd_bench.models.wrn import WRN
from dfkd_bench.training.loop import distill, synthesise, train_student
from dfkd_methods.cpsc import CPSC, CPSCConfig, reset_adam_step


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tables(module: nn.Module) -> int:
    """Parameters of the class tables."""
    return sum(parameters(m) for m in module.modules() if isinstance(m, ConditionalBatchNorm2d))


# -- the acceptance checks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "classes", "total", "of_tables"),
    [(32, 10, 2_334_911, 6_460), (32, 100, 2_393_051, 64_600), (64, 200, 8_773_683, 129_200)],
)
def test_check_01_generator_size(side: int, classes: int, total: int, of_tables: int) -> None:
    generator = ConditionalGenerator((3, side, side), classes)
    assert parameters(generator) == total
    assert tables(generator) == of_tables
    assert generator(torch.randn(2, 256), torch.tensor([0, classes - 1])).shape == (2, 3, side, side)


def test_check_01_generator_work_and_structure() -> None:
    generator = ConditionalGenerator((3, 32, 32), 10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(torch.randn(2, 256), torch.tensor([0, 1]))
    assert counter.get_total_flops() / 2 / 2 / 1e6 == pytest.approx(117.1, abs=0.05)  # MMAC per image
    assert [m.bn.num_features for m in generator.modules() if isinstance(m, ConditionalBatchNorm2d)] == [
        128,
        128,
        64,
        3,
    ]
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in generator.modules())


def test_check_01_deep_generator() -> None:
    generator = DeepConditionalGenerator((3, 64, 64), 200)
    assert parameters(generator) == 5_334_723
    norms = [m for m in generator.modules() if isinstance(m, ConditionalBatchNorm2d)]
    assert [m.bn.eps for m in norms] == [1e-3, 0.8, 0.8, 0.8, 0.8]
    image = generator(torch.randn(2, 256), torch.tensor([0, 199]))
    assert image.shape == (2, 3, 64, 64)
    assert image.abs().max() <= 1.0  # tanh without a last normalisation


def test_check_01_a_fresh_label_changes_nothing() -> None:
    torch.manual_seed(0)
    generator = ConditionalGenerator((3, 16, 16), 10, 8, 4).eval()
    z = torch.randn(6, 8)
    zeros, other = torch.zeros(6).long(), torch.arange(6)
    assert torch.equal(generator(z, zeros), generator(z, other))
    nn.init.normal_(generator.cbn0.gain.weight)  # and once tables differ, it does
    assert not torch.equal(generator(z, zeros), generator(z, other))


def test_check_01_output_lives_in_normalised_space() -> None:
    torch.manual_seed(0)
    x = ConditionalGenerator((3, 32, 32), 10)(torch.randn(64, 256), torch.randint(0, 10, (64,)))
    assert x.std().item() == pytest.approx(0.995, abs=0.01)
    assert 2.0 < x.abs().max() < 5.0
    assert x.mean((0, 2, 3)).abs().max() < 1e-5


@pytest.mark.parametrize("train", [True, False])
def test_check_02_cbn_is_batch_norm_with_its_own_eps(train: bool) -> None:
    torch.manual_seed(0)
    conditional, plain = ConditionalBatchNorm2d(3, 5), nn.BatchNorm2d(3, eps=1e-3, momentum=0.1, affine=False)
    conditional.train(train)
    plain.train(train)
    for module in (conditional.bn, plain):
        assert module.running_mean is not None
        assert module.running_var is not None
        module.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
        module.running_var.copy_(torch.tensor([1.5, 0.01, 0.7]))
    x, y = 0.1 * torch.randn(8, 3, 4, 4), torch.randint(0, 5, (8,))
    assert torch.equal(conditional(x, y), plain(x))
    assert torch.equal(conditional.bn.running_var, plain.running_var)
    assert sum(1 for _ in conditional.bn.parameters()) == 0  # no shared affine beside the tables
    coarse = nn.BatchNorm2d(3, affine=False).train(train)
    coarse.load_state_dict(plain.state_dict())
    assert not torch.allclose(conditional(x, y), coarse(x))  # the default eps would be seen


def test_check_02_tables_scale_and_shift_by_row() -> None:
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(2, 3)
    fill(layer, 0)
    x, y = torch.randn(6, 2, 4, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)  # of the whole mixed-class batch
    for i in range(6):
        for c in range(2):
            normal = (x[i, c] - mean[c]) / (variance[c] + 1e-3).sqrt()
            expected = layer.gain.weight[y[i], c] * normal + layer.shift.weight[y[i], c]
            torch.testing.assert_close(layer(x, y)[i, c], expected, rtol=1e-5, atol=1e-6)


def test_check_03_kd_at_equal_and_at_extreme_logits() -> None:
    t = torch.randn(5, 7)
    assert kd_loss(t, t).item() == 0.0
    # 0 log 0 counts as nothing
    assert math.isfinite(kd_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[1e4, -1e4]])).item())


@pytest.mark.parametrize(
    ("classes", "least", "uniform", "most"),
    [(10, 1.4612, 2.3026, 2.4612), (100, 3.6222, 4.6052, 4.6222), (200, 4.3069, 5.2983, 5.3069)],
)
def test_check_05_cross_entropy_on_probabilities_is_bounded(
    classes: int, least: float, uniform: float, most: float
) -> None:
    y = torch.zeros(1).long()
    sure = 1e3 * F.one_hot(y, classes).float()
    wrong = 1e3 * F.one_hot(y + 1, classes).float()
    values = [pseudo_ce_loss(u, y, on="probs").item() for u in (sure, torch.zeros(1, classes), wrong)]
    assert values == pytest.approx([least, uniform, most], abs=1e-4)
    assert values[0] == pytest.approx(math.log(math.e + classes - 1) - 1, rel=1e-6)
    assert values[2] == pytest.approx(math.log(math.e + classes - 1), rel=1e-6)
    gradients = []
    for on in ("probs", "logits"):
        u = torch.zeros(4, classes, dtype=torch.float64, requires_grad=True)
        pseudo_ce_loss(u, torch.arange(4), on=on).backward()
        gradients.append(u.grad)
    torch.testing.assert_close(gradients[0] * classes, gradients[1], rtol=1e-9, atol=1e-14)


def test_check_06_contrast_of_equal_vectors() -> None:
    h = F.normalize(torch.ones(512, 8), dim=1)
    loss = supervised_contrastive_loss((h, h), torch.randint(0, 100, (512,)))
    assert loss.item() == pytest.approx(math.log(2 * 512 - 1), rel=1e-5)
    assert loss.item() == pytest.approx(6.9305, abs=1e-4)


def test_check_06_contrast_reference_values() -> None:
    """The specification's measured values at 512 samples, 100 classes, 512 features; labels are another draw here."""
    torch.manual_seed(0)
    y = torch.randint(0, 100, (512,))
    random = [F.normalize(torch.randn(512, 512), dim=1) for _ in range(2)]
    assert supervised_contrastive_loss((random[0], random[1]), y).item() == pytest.approx(7.131, abs=0.02)
    centres = F.normalize(torch.linalg.qr(torch.randn(512, 512))[0], dim=1)
    shared, unaligned = centres[:100][y], centres[100:200][y]
    assert supervised_contrastive_loss((shared, shared), y).item() == pytest.approx(2.336, abs=0.05)
    assert supervised_contrastive_loss((shared, unaligned), y).item() == pytest.approx(9.383, abs=0.05)


def test_check_07_a_reset_step_is_sign_descent() -> None:
    job = cpsc_job()
    method: Any = job.method
    before = {n: p.detach().clone() for n, p in method.G.named_parameters()}
    job.student.train().requires_grad_(False)
    labels = torch.zeros(6).long()
    method.draw = lambda n, stream: (torch.randn(n, 4, generator=stream), labels)  # class 0 alone
    method.synthesize()
    clear = 0
    for name, p in method.G.named_parameters():
        step, steep = p.detach() - before[name], p.grad.abs() > 1e-5
        clear += int(steep.sum())
        assert torch.equal(step[steep].sign(), -p.grad[steep].sign()), name
        assert ((step[steep].abs() - 1e-3).abs() < 1e-5).all(), name  # 1 %
        if "gain" in name or "shift" in name:
            assert torch.equal(p.detach()[1:], before[name][1:]), name  # rows of absent classes
            assert not torch.equal(p.detach()[:1], before[name][:1]), name
    assert clear > 100


def published_rate(epoch: int, epochs: int, ramp: int = 10, base: float = 0.1) -> float:
    """The closed form of the specification, with its third line from the first epoch after the ramp."""
    if epoch <= ramp:
        return base * epoch / ramp
    return base / 2 * (1 + math.cos(math.pi * (epoch - ramp) / epochs))


def test_check_09_learning_rates() -> None:
    recipe = cpsc().recipe
    assert (recipe.optimiser, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert recipe.nesterov is False
    assert recipe.unit == "epoch"
    rates = {e: recipe.rate(e - 1, 600) for e in range(1, 601)}
    expected = {1: 0.01, 10: 0.1, 20: 0.0999, 300: 0.0526, 600: 6.9e-5}
    for epoch, rate in expected.items():
        assert rates[epoch] == pytest.approx(rate, rel=0.01 if epoch == 600 else 1e-3), epoch
    for epoch, rate in rates.items():
        assert rate == pytest.approx(published_rate(epoch, 600), rel=1e-12), epoch
    glitch = 0.1 * (1 + math.cos(11 * math.pi / 600)) / (1 + math.cos(10 * math.pi / 600))
    assert rates[11] == pytest.approx(glitch, rel=5e-3)
    # held within an epoch of 250 steps
    assert recipe.rate(249, 600 * 250) == rates[1]
    assert recipe.rate(250, 600 * 250) == rates[2]


@pytest.mark.parametrize("classes", [3, 10, 200])
def test_check_10_labels_cover_the_task(classes: int) -> None:
    teacher, student = CNN(2, classes, 1, 5), CNN(2, classes, 1, 5)
    job = make_job(cpsc(), teacher, student, classes=classes)
    _, y = job.method.draw(20 * classes, job.context.stream("x"))
    assert sorted(set(y.tolist())) == list(range(classes))
    counts = torch.bincount(y).float()
    assert counts.mean().item() == 20
    assert counts.std() < 2 * 20**0.5  # uniform


def test_check_11_bn_loss_vanishes_on_the_batch_s_own_statistics() -> None:
    torch.manual_seed(0)
    teacher, x = CNN(4, 3, 1, 5).eval(), torch.randn(8, 1, 8, 8)
    fill(teacher, 0)
    assert bn_statistics_loss(teacher.observe(x, moments=True).moments, teacher.running_moments()).item() > 1.0
    # layer by layer: what is stored in one layer changes what the next is given
    for layer in teacher.bn_layers():
        seen: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _m, a, seen=seen: seen.append(a[0]))
        teacher(x)
        handle.remove()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean, variance = batch_moments(seen[0])
        layer.running_mean.copy_(mean.detach())
        layer.running_var.copy_(variance.detach())
    assert bn_statistics_loss(teacher.observe(x, moments=True).moments, teacher.running_moments()).item() < 1e-5


# -- the findings --------------------------------------------------------------------------------------------------

QUIRKS = {
    # setting: (official, textbook), in the order of the findings
    "ce_input_generator": ("probs", "logits"),  # 1
    "ce_input_student": ("probs", "logits"),  # 2
    "gen_opt_state": ("reset", "persistent"),  # 3
    "gen_lr_schedule": ("constant", "constant"),  # 4
    "ikd_generator": ("mse", "mse"),  # 6, 7
    "ikd_student": ("mse", "mse"),
    "detach_teacher_in_kd": (False, False),  # 8
    "bn_norm": ("l2", "l2"),  # 11
    "bn_reduce": ("sum", "sum"),
    "student_mode": ("train", "train_keep_stats"),  # 13
    "adapter_normalise": (False, True),  # 14
    "adapter": ("frozen", "train_with_generator_loss"),  # 15
    "scl_on_student": (0.0, 0.0),  # 16
    "scl_base_temperature": (0.07, 0.07),  # 17
    "generator": ("shallow_cbn", "shallow_cbn"),  # 27
    "cosine_to_zero": (False, True),  # 29
}
PUBLISHED = {
    # the command of the official README (finding 31)
    "alpha": 5.0, "beta_bn": 1.0, "gamma": 0.7, "eta": 0.7, "tau": 0.07, "synthesis_steps": 6, "student_steps": 5,
    "latent_dim": 256, "generator_width": 64, "gen_lr": 1e-3, "gen_beta1": 0.5, "gen_beta2": 0.999,
}  # fmt: skip


@pytest.mark.parametrize("name", QUIRKS)
def test_findings_defaults_and_what_textbook_switches(name: str) -> None:
    assert CPSC.default_preset == "official"
    for preset, expected in zip(("official", "textbook"), QUIRKS[name], strict=True):
        assert getattr(CPSCConfig(**CPSC.presets[preset]), name) == expected


def test_finding_31_published_numbers_in_both_presets() -> None:
    for preset in CPSC.presets.values():
        config = dataclasses.asdict(CPSCConfig(**preset))
        assert {k: config[k] for k in PUBLISHED} == PUBLISHED
    assert set(QUIRKS) | set(PUBLISHED) == {f.name for f in dataclasses.fields(CPSCConfig)}  # every setting is listed
    flags = CPSC(CPSCConfig()).flags
    assert (flags.synthesis_steps, flags.student_steps, flags.rounds_per_epoch) == (6, 5, 50)
    assert flags.order == "synthesise_first"
    recipe = CPSC(CPSCConfig()).recipe
    assert (recipe.epochs, recipe.batch_size) == (600, 512)


def test_finding_3_reset_adam_is_a_new_adam_at_every_step() -> None:
    torch.manual_seed(0)
    ours = [torch.randn(40, requires_grad=True), torch.randn(3, 4, requires_grad=True)]
    idle = torch.randn(3, requires_grad=True)
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    for scale in (1.0, 1e-4, 1e-7, 1e-9):  # down to where the epsilon of 1e-8 counts
        for a, b in zip(ours, theirs, strict=True):
            a.grad = scale * torch.randn(a.shape)
            a.grad.view(-1)[0] = 0.0
            b.grad = a.grad.clone()
        reset_adam_step([*ours, idle], 1e-3)
        torch.optim.Adam(theirs, 1e-3, (0.5, 0.999)).step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
            assert a.view(-1)[0] == b.view(-1)[0]
    reset_adam_step([idle], 1e-3)  # nothing to do is no error


@pytest.mark.parametrize(("state", "momentum"), [("reset", False), ("persistent", True)])
def test_finding_3_only_a_persistent_adam_moves_rows_of_absent_classes(state: str, momentum: bool) -> None:
    job = cpsc_job(gen_opt_state=state)
    method: Any = job.method
    job.student.train().requires_grad_(False)
    assert ("generator_adam" in job.context.registered) is momentum
    labels = [torch.tensor([0, 1, 2, 0, 1, 2]), torch.zeros(6).long()]
    method.draw = lambda n, stream: (torch.randn(n, 4, generator=stream), labels.pop(0))
    method.synthesize()
    rows = method.G.cbn0.gain.weight[1:].detach().clone()
    method.synthesize()  # class 0 alone
    assert torch.equal(method.G.cbn0.gain.weight[1:], rows) is not momentum


@pytest.mark.parametrize("state", ["reset", "persistent"])
@pytest.mark.parametrize(("schedule", "rates"), [("constant", [1e-3] * 4), ("multistep", [1e-3, 1e-4, 1e-4, 1e-5])])
def test_finding_4_generator_rate(state: str, schedule: str, rates: list[float]) -> None:
    job = cpsc_job(gen_opt_state=state, gen_lr_schedule=schedule, gen_beta1=0.0, gen_beta2=0.0)
    method: Any = job.method
    job.student.train().requires_grad_(False)
    job.context.progress.rounds = 600
    for round, rate in zip((49, 50, 149, 150), rates, strict=True):
        job.context.progress.round = round
        before = flat(method.G)
        method.synthesize()
        # with betas of 0 the persistent Adam descends by signs, too
        assert (flat(method.G) - before).abs().max().item() == pytest.approx(rate, rel=1e-2)


@pytest.mark.parametrize("state", ["reset", "persistent"])
def test_finding_5_the_latent_is_not_optimised(state: str) -> None:
    job = cpsc_job(gen_opt_state=state)
    method: Any = job.method
    z, _ = method.draw(6, job.context.stream("synthesis"))
    assert not z.requires_grad
    assert {id(p) for p in method.trained} == {id(p) for p in method.G.parameters()}
    batch = method.sample(6)
    assert batch.latents is not None
    assert not batch.latents.requires_grad


def test_finding_6_both_forms_on_cifar10_under_the_official_preset_only() -> None:
    forms = [entry for entry in CPSC.task_settings if any(name.startswith("ikd") for name in entry[2])]
    assert forms == [("official", "cifar10/*", {"ikd_generator": "log_mse", "ikd_student": "log_norm"})]


def test_finding_6_the_logarithms_are_finite_at_equal_logits() -> None:
    s = torch.zeros(4, 3, requires_grad=True)
    for form in ("log_mse", "log_norm"):
        loss = ikd_loss(s, torch.zeros(4, 3), form)
        assert loss.item() == pytest.approx(math.log(1e-8))
        (gradient,) = torch.autograd.grad(loss, s)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("preset", ["official", "textbook"])
def test_findings_9_10_bf16_needs_no_scaler_and_losses_stay_fp32(preset: str) -> None:
    job = cpsc_job(preset, precision="bf16", student_features=3)
    method: Any = job.method
    seen: list[torch.dtype] = []
    method.G.conv1.register_forward_hook(lambda _m, _a, out: seen.append(out.dtype))
    job.student.train().requires_grad_(False)
    z, y = method.draw(6, job.context.stream("synthesis"))
    J_G, terms = method.generator_objective(z, y)
    assert seen == [torch.bfloat16]
    assert J_G.dtype == torch.float32
    assert all(v.dtype == torch.float32 for v in terms.values())
    J_G.backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in method.G.parameters())
    moments = job.context.teacher(method.generate(z, y), moments=True).moments
    assert all(m.dtype == torch.float32 for pair in moments for m in pair)
    exact = cpsc_job(preset, student_features=3)
    exact.student.train().requires_grad_(False)
    assert J_G.item() == pytest.approx(exact.method.generator_objective(z, y)[0].item(), rel=0.05)
    train_student(job)
    assert all(math.isfinite(v) for v in job.tally.take().values())
    assert all(p.dtype == torch.float32 for p in job.student.parameters())


@pytest.mark.parametrize(("mode", "moves"), [("train", True), ("train_keep_stats", False), ("eval", False)])
def test_finding_13_the_student_s_statistics_in_generator_steps(mode: str, moves: bool) -> None:
    job = cpsc_job(student_mode=mode)
    before, modes = buffers(job.student), []
    job.student.head.register_forward_hook(lambda _m, _a, _o: modes.append(job.student.training))
    synthesise(job)
    assert torch.equal(buffers(job.student), before) is not moves
    assert set(modes) == {mode != "eval"}
    train_student(job)
    assert modes[-1] is True
    assert not torch.equal(buffers(job.student), before)


@pytest.mark.parametrize("normalise", [True, False])
def test_finding_14_the_adapter_s_output_has_unit_length(normalise: bool) -> None:
    job = cpsc_job(student_features=3, adapter_normalise=normalise)
    method: Any = job.method
    x, y = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    teacher, student = (v(x, taps=("penultimate",)) for v in (job.context.teacher, job.context.student))
    before = method.contrast(student, teacher, y).item()
    with torch.no_grad():
        method.adapter[2].weight.mul_(3.0)
        method.adapter[2].bias.mul_(3.0)
    after = method.contrast(student, teacher, y).item()
    assert (after == pytest.approx(before, rel=1e-5)) is normalise


def test_finding_14_there_is_an_adapter_only_where_widths_differ() -> None:
    assert "adapter" not in cpsc_job().context.registered
    adapter = cpsc_job(student_features=3).context.registered["adapter"]
    assert [tuple(m.weight.shape) for m in adapter if isinstance(m, nn.Linear)] == [(3, 3), (5, 3)]
    assert isinstance(adapter[1], nn.ReLU)


@pytest.mark.parametrize(("adapter", "learns"), [("frozen", False), ("train_with_generator_loss", True)])
@pytest.mark.parametrize("state", ["reset", "persistent"])
def test_finding_15_the_adapter_is_no_business_of_the_student_s_optimiser(
    adapter: str, learns: bool, state: str
) -> None:
    # with the contrast on the student, too, its backward reaches the adapter: still nothing may move it
    job = cpsc_job(student_features=3, adapter=adapter, gen_opt_state=state, scl_on_student=1.0)
    module = job.context.registered["adapter"]
    owned = {id(p) for group in job.optimiser.param_groups for p in group["params"]}
    assert owned == {id(p) for p in job.student.parameters()}
    before = flat(module)
    synthesise(job)
    assert torch.equal(flat(module), before) is not learns
    after = flat(module)
    train_student(job)
    assert torch.equal(flat(module), after)
    # gradients that a student step left in the adapter are not counted in the next generator step
    if learns and state == "reset":
        method: Any = job.method
        job.student.train().requires_grad_(False)
        method.synthesize()
        gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
        for p in module.parameters():
            p.grad = None
        twin = cpsc_job(student_features=3, adapter=adapter, gen_opt_state=state, scl_on_student=1.0)
        synthesise(twin)
        train_student(twin)
        for p in twin.context.registered["adapter"].parameters():
            p.grad = None
        twin.student.train().requires_grad_(False)
        twin.method.synthesize()
        clean = torch.cat([p.grad.flatten() for p in twin.context.registered["adapter"].parameters()])
        assert torch.equal(gradient, clean)

    # the ranges themselves: check 10


@pytest.mark.parametrize(("teacher", "student"), [("wrn40_2", "wrn16_1"), ("wrn16_2", "wrn40_2"), ("cnn32", "wrn16_1")])
def test_finding_26_every_pair_works(teacher: str, student: str) -> None:
    pair = (models.build(teacher, 3, (1, 16, 16)), models.build(student, 3, (1, 16, 16)))
    job = make_job(cpsc(synthesis_steps=1, student_steps=1), *pair, batch_size=4, image_shape=(1, 8, 8), filled=False)
    synthesise(job)
    train_student(job)
    assert all(math.isfinite(v) for v in job.tally.take().values())


def test_finding_27_the_deep_generator_is_a_setting() -> None:
    small = {"latent_dim": 4, "generator_width": 2, "synthesis_steps": 1}
    job = make_job(
        CPSC(CPSCConfig(**small, generator="deep_cbn")), CNN(2, 3, 3, 5), CNN(2, 3, 3, 5), image_shape=(3, 16, 16)
    )
    assert isinstance(job.method.G, DeepConditionalGenerator)
    synthesise(job)
    assert isinstance(cpsc_job().method.G, ConditionalGenerator)


def test_finding_28_no_graph_for_the_student_s_images_but_batch_statistics() -> None:
    job = cpsc_job()
    method: Any = job.method
    modes: list[tuple[bool, bool]] = []
    method.G.conv1.register_forward_hook(lambda m, _a, _o: modes.append((m.training, torch.is_grad_enabled())))
    statistics = buffers(method.G)
    drawn: list[Any] = []
    sample = method.sample
    method.sample = lambda n: drawn.append(sample(n)) or drawn[-1]
    train_student(job)
    assert modes == [(True, False)] * 5
    assert not any(b.images.requires_grad for b in drawn)
    assert not torch.equal(buffers(method.G), statistics)
    assert len({b.images.sum().item() for b in drawn}) == 5  # fresh at every step
    # and no loss keeps its graph until the round's end
    assert all(not v.requires_grad for v in job.tally._sums.values())


@pytest.mark.parametrize(("preset", "last"), [("official", 6.852e-5), ("textbook", 7.088e-7)])
def test_finding_29_where_the_cosine_ends(preset: str, last: float) -> None:
    recipe = cpsc(preset).recipe
    assert recipe.rate(599, 600) == pytest.approx(last, rel=1e-3)
    assert recipe.rate(9, 600) == pytest.approx(0.1)
    assert recipe.rate(304, 600) == pytest.approx(
        0.05 * (1 + math.cos(math.pi * 294 / 590)) if preset == "textbook" else published_rate(305, 600), rel=1e-6
    )


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_shape", [(1, 16, 16), (3, 32, 32), (3, 64, 64)])
@pytest.mark.parametrize("classes", [3, 10, 200])
@pytest.mark.parametrize("preset", ["official", "textbook"])
def test_any_size(image_shape: tuple[int, int, int], classes: int, preset: str) -> None:
    torch.manual_seed(0)
    teacher, student = WRN(10, 2, classes, image_shape[0]), WRN(10, 1, classes, image_shape[0])
    method = cpsc(preset, synthesis_steps=1, student_steps=1)
    job = make_job(method, teacher, student, classes=classes, image_shape=image_shape, batch_size=4, filled=False)
    synthesise(job)
    train_student(job)
    losses = job.tally.take()
    assert set(losses) == {"J_G", "L_KD", "R_G", "L_BN", "L_SCL", "L_CE", "student"}
    assert all(math.isfinite(v) for v in losses.values())
    with torch.no_grad():
        assert method.sample(5).images.shape == (5, *image_shape)
    assert "adapter" in job.context.registered  # 64 features against 128


def test_what_is_counted() -> None:
    job = cpsc_job()
    distill(job)
    counts = job.context.meter.counts
    rounds, n = 2, 6
    assert counts["images_synthesised"] == rounds * n * (6 + 5)
    assert counts["teacher_forwards"] == rounds * n * (6 + 5)
    assert counts["teacher_backwards"] == rounds * n * 6
    assert counts["student_forwards"] == rounds * n * (6 + 5)
    assert counts["student_steps"] == rounds * 5
    assert counts["student_images"] == rounds * n * 5
    assert counts["images_stored"] == 0
