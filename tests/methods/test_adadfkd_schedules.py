"""AdaDFKD's curricula: window, hardness, alpha and threshold, against the tables and check values of its specification.

Sections 3.3 (window), 4.2 (alpha), 4.4 (threshold), 5.2 and 5.3 (the plateaus of the authors' scripts), 7.B10 and B11.
"""

from __future__ import annotations

from typing import Any

import pytest
import reference_streaming as ref
import torch
from hooks import array
from stream_jobs import BATCH, enter_synthesis, expected_student, make, student_batch, synthesis
from tiny import make_job
from torch import nn

from dfkd_bench.models.cnn import CNN
from dfkd_bench.training.loop import Job, distill
from dfkd_methods.adadfkd import AdaDFKD, AdaDFKDConfig, window

pytestmark = pytest.mark.usefixtures("double")


def bare(**settings: Any) -> AdaDFKD:
    """For what needs no networks."""
    return AdaDFKD(AdaDFKDConfig(**settings))


def at(job: Job, share: float, rounds: int = 1000) -> None:
    """Put a run at `share` of its rounds and student steps."""
    progress = job.context.progress
    progress.rounds, progress.round = rounds, round(share * rounds)
    progress.student_steps, progress.student_step = 10 * rounds, 10 * progress.round


# -- the window -------------------------------------------------------------------------------------------------------

CHECK = {"epochs": 300, "f_b": 0.25, "f_e": 0.75, "k": 0.9}
K = 4096


@pytest.mark.parametrize(
    ("epochs", "ranks"), [(range(76), (0, 3686)), ([150], (204, 3891)), (range(225, 300), (409, 4096))]
)
def test_ranks_of_the_specification_s_check_value(epochs: Any, ranks: tuple[int, int]) -> None:
    method = bare(**CHECK)
    for e in epochs:
        assert window(method.hardness(e), 0.9, K) == ranks


def test_the_window_ends_with_the_hardest_negative_and_never_leaves_the_queue() -> None:
    for size in (8, 40, 768 * 8, 1024 * 12):
        for k in (0.1, 0.3, 0.62, 0.7, 0.71, 0.78, 0.8, 0.85, 0.9, 0.95, 1.0):
            method = bare(k=k)
            windows = [window(method.hardness(e), k, size) for e in range(300)]
            assert windows == sorted(windows)
            assert windows[0] == (0, int(k * size))
            assert windows[-1][1] == size
            assert all(abs(stop - start - k * size) <= 1.0 + 1e-9 for start, stop in windows)


def test_the_window_is_truncated_as_published() -> None:
    """B10: (1 - .9) * 40 is a little less than 4, and 0.29 * 100 a little less than 29."""
    assert window(1.0 - 0.9, 0.9, 40) == (3, 40)
    assert window(0.0, 0.29, 100) == (0, 28)


@pytest.mark.parametrize("settings", [CHECK, {}, {"epochs": 500, "f_b": 0.2, "f_e": 0.79, "k": 0.8}, {"k": 1.0}])
def test_d7_hardness_over_a_run(settings: dict[str, Any]) -> None:
    method = bare(**settings)
    c = method.config
    expected = [ref.hardness(e, c.epochs, c.f_b, c.f_e, c.k) for e in range(c.epochs)]
    assert [method.hardness(e) for e in range(c.epochs)] == pytest.approx(expected, abs=1e-12)
    assert expected[0] == 0.0
    assert expected[-1] == pytest.approx(1.0 - c.k)
    assert expected == sorted(expected)


def test_d7_hardness_by_hand() -> None:
    method = bare(**CHECK)
    known = {0: 0.0, 75: 0.0, 76: 0.1 / 150, 150: 0.05, 225: 0.1, 299: 0.1}
    assert {e: method.hardness(e) for e in known} == pytest.approx(known)


@pytest.mark.parametrize(("share", "picked"), [(0.0, slice(0, 24)), (0.5, slice(2, 27)), (0.999, slice(5, 30))])
def test_d5_the_negatives_of_the_loss(share: float, picked: slice) -> None:
    """From the least similar 80 % of the queue at first, to the most similar at the end, truncated as published."""
    job = make("adadfkd", queue_size=30)
    at(job, share)
    step = synthesis(job)
    tau = job.method.config.tau  # type: ignore[attr-defined]
    expected = ref.r2m(step.seen.f_t, step.seen.f_s, step.queue, picked, tau)
    assert step.losses["L_R2M"] == pytest.approx(expected, rel=1e-9)
    assert step.losses["h"] == pytest.approx({0.0: 0.0, 0.5: 0.1, 0.999: 0.2}[share], abs=1e-9)
    near = [slice(picked.start + 1, picked.stop), slice(picked.start, picked.stop - 1)]
    others = [ref.r2m(step.seen.f_t, step.seen.f_s, step.queue, ranks, tau) for ranks in near]
    assert all(abs(x - expected) > 1e-9 for x in others)


def test_no_ring_uses_the_whole_queue_throughout() -> None:
    for share in (0.0, 0.5, 0.999):
        job = make("adadfkd", "no-ring")
        at(job, share)
        step = synthesis(job)
        expected = ref.r2m(step.seen.f_t, step.seen.f_s, step.queue, slice(0, 2 * BATCH), 0.07)
        assert step.losses["L_R2M"] == pytest.approx(expected, rel=1e-9)
        assert step.losses["h"] == 0.0


@pytest.mark.parametrize(
    "settings", [{"k": 0.0}, {"k": 0.08}, {"k": 1.1}, {"f_b": 0.9, "f_e": 0.8}, {"f_b": -0.1}, {"f_e": 1.1}]
)
def test_a_window_that_cannot_be_is_refused(settings: dict[str, float]) -> None:
    """0.08 of the 12 images of the queue are less than one."""
    with pytest.raises(ValueError, match="the window needs 0 < k <= 1, at least one negative, and 0 <="):
        make("adadfkd", **settings)


@pytest.mark.long
def test_one_graph_serves_every_place_and_size_of_the_window() -> None:
    """Under --compile with fixed shapes, ranks that were plain numbers would make a graph per value."""
    job = make("adadfkd", queue_size=30)
    method: Any = job.method
    graphs: list[int] = []
    enter_synthesis(job)
    torch._dynamo.reset()
    z, _ = method.stream.draw(BATCH, job.context.stream("synthesis"))
    method.stream.G.train()

    def backend(graph: Any, _example: Any) -> Any:
        graphs.append(1)
        return graph.forward

    fast = torch.compile(method.L_G, backend=backend, fullgraph=True, dynamic=False)
    for k in range(7):
        inputs = (z, torch.tensor(0.3 * k), torch.tensor((k, 24 + k - k % 2)), None)
        assert fast(*inputs)[0].item() == pytest.approx(method.L_G(*inputs)[0].item(), rel=1e-12)
    assert len(graphs) == 1


# -- alpha ------------------------------------------------------------------------------------------------------------

# epochs, alpha_0, slope, f_b, f_e and the plateau, from the tables of 5.2 and 5.3
SCRIPTS = [
    (250, 1.0, 0.0, 0.25, 0.75, 1.0),
    (400, 0.0, 0.15, 0.2, 0.8, 36.0),
    (1000, 0.0, 0.05, 0.2, 0.8, 30.0),
    (460, 0.0, 0.1, 0.2, 0.8, 27.6),
    (500, 0.0, 0.1, 0.2, 0.8, 30.0),
    (500, 0.0, 0.09, 0.2, 0.8, 27.0),
    (250, 0.0, 0.3, 0.25, 0.75, 37.5),
    (250, 0.0, 0.5, 0.25, 0.75, 62.5),
    (250, 0.1, 0.2, 0.25, 0.75, 25.1),
    (400, 0.1, 0.06, 0.2, 0.75, 13.3),
    (400, 0.1, 0.15, 0.2, 0.75, 33.1),
    (300, 0.0, 0.15, 0.2, 0.75, 24.75),
    (250, 0.0, 0.03, 0.25, 0.75, 3.75),
    (400, 1.0, 0.1, 0.2, 0.75, 23.0),
]


@pytest.mark.parametrize(("epochs", "alpha_0", "slope", "f_b", "f_e", "plateau"), SCRIPTS)
def test_d7_alpha_reaches_the_plateau_of_the_script(
    epochs: int, alpha_0: float, slope: float, f_b: float, f_e: float, plateau: float
) -> None:
    method = bare(epochs=epochs, alpha_0=alpha_0, grad_adv=slope, f_b=f_b, f_e=f_e)
    found = [method.alpha(e) for e in range(epochs)]
    assert found == pytest.approx([ref.alpha(e, epochs, f_b, f_e, alpha_0, slope) for e in range(epochs)])
    assert found[0] == alpha_0
    assert found[-1] == pytest.approx(plateau)
    e_b, e_e = int(f_b * epochs), int(f_e * epochs)
    # B11: what is due at the end of epoch e counts from epoch e + 1 on
    assert found[e_b + 1] == alpha_0
    assert found[e_b + 2] == pytest.approx(alpha_0 + slope)
    assert found[e_e + 1] == pytest.approx(plateau)
    assert slope == 0.0 or found[e_e] < found[e_e + 1]


@pytest.mark.parametrize(("preset", "shown"), [("official", [1.0] * 4), ("readme", [0.0, 0.0, 13.35, 27.0])])
def test_alpha_in_the_loss_of_a_run(preset: str, shown: list[float]) -> None:
    values = []
    for share in (0.0, 0.2, 0.5, 0.9):
        job = make("adadfkd", preset)
        at(job, share)
        losses = synthesis(job).losses
        values.append(losses["alpha"])
        c: Any = job.method.config  # type: ignore[attr-defined]
        rest = c.w_ent * losses["H"] + losses["L_oh"] + losses["L_bn"] + c.gamma * losses["L_R2M"]
        assert losses["L_G"] == pytest.approx(rest + losses["alpha"] * losses["L_adv"], rel=1e-9)
    assert values == pytest.approx(shown)


def test_only_the_readme_preset_masks() -> None:
    presets = {name: AdaDFKDConfig(**changes) for name, changes in AdaDFKD.presets.items()}
    assert {name for name, c in presets.items() if c.adv_mask == "agree"} == {"readme"}
    assert {name for name, c in presets.items() if c.spl_granularity == "sample"} == {"textbook"}
    assert (presets["textbook"].proj, presets["official"].proj) == ("learned", "fresh")
    assert [(presets[n].gamma, presets[n].eta) for n in ("official", "student-only", "cudfkd")] == [
        (0.1, 0.1),
        (0.0, 0.1),
        (0.0, 0.0),
    ]
    assert presets["no-ring"].k == 1.0


# -- the threshold ----------------------------------------------------------------------------------------------------


def test_the_threshold_grows_from_2_2_to_14_2_in_the_published_300_epochs_on_cifar10() -> None:
    method = bare(epochs=300, lambda_slope=1e-4)
    assert method.threshold(0) == pytest.approx(2.2)
    assert method.threshold(60_000) == pytest.approx(8.2)
    assert method.threshold(120_000) == pytest.approx(14.2)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.999])
def test_a_short_run_passes_through_all_of_the_threshold(share: float) -> None:
    # small thresholds, so that the weight is far from one
    job = make("adadfkd", epochs=300, lambda_0=-3.0, lambda_slope=5e-5, T_kd=3.0)
    synthesis(job)
    at(job, share)
    _, seen, loss = student_batch(job)
    lam = -3.0 + 6.0 * share
    assert loss.item() == pytest.approx(ref.adadfkd_student(job.method.config, seen, lam), rel=1e-9)  # type: ignore[attr-defined]
    assert share == 0.0 or loss.item() > expected_student(job, None, seen)  # type: ignore[arg-type]
    assert synthesis(job).losses["lambda"] == pytest.approx(lam)


def test_the_threshold_moves_at_every_student_step_the_window_at_every_epoch() -> None:
    job = make("adadfkd", rounds=4, student_steps=3, epochs=8)
    method: Any = job.method
    thresholds, epochs = [], []
    threshold, hardness = method.threshold, method.hardness
    method.threshold = lambda t: thresholds.append(t) or threshold(t)
    method.hardness = lambda e: epochs.append(e) or hardness(e)
    distill(job)
    assert epochs == [0, 2, 4, 6]
    steps = sorted(set(thresholds))
    assert steps == pytest.approx([k * 8 * 400 / 12 for k in range(12)])


@pytest.mark.parametrize("epochs", [300, 400, 460, 500])
@pytest.mark.parametrize("per_epoch", [1, 40])
def test_a_run_of_published_length_is_in_the_epoch_it_is_in(epochs: int, per_epoch: int) -> None:
    job = make("adadfkd", epochs=epochs)
    method: Any = job.method
    progress = job.context.progress
    progress.rounds = epochs * per_epoch
    for number in range(progress.rounds):
        progress.round = number
        assert method.epoch == number // per_epoch


@pytest.mark.parametrize(("side", "plan"), [(32, (256, 128, 64)), (64, (512, 256, 128, 64))])
def test_the_generator_starts_small_and_its_adam_forgets_sooner(side: int, plan: tuple[int, ...]) -> None:
    method = AdaDFKD(AdaDFKDConfig(queue_size=1))
    make_job(method, CNN(2, 3, 3, 5), CNN(2, 3, 3, 5), image_shape=(3, side, side), filled=False)
    G: Any = method.stream.G
    assert G.start == (plan[0], 8, 8)
    assert [c.out_channels for c in G.convs] == list(plan[1:])
    assert isinstance(G.end, nn.Sigmoid)
    assert array(G.fc.weight).std() == pytest.approx(0.02, rel=0.02)
    assert not G.fc.bias.detach().any()
    assert sum(p.numel() for p in G.parameters()) == {32: 17_164_867, 64: 35_139_139}[side]
    assert method.stream.adam.defaults["betas"] == (0.9, 0.99)
    assert method.stream.adam.param_groups[0]["lr"] == 1e-3
