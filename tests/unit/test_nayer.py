"""NAYER: its loss against the formulas, balanced batches, noisy layers, the generator's life, and the class vectors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import reference_pool as ref
import torch
from commands import dfkd
from contexts import CLASSES, state, stream
from factory import make_record
from pool_jobs import BATCH, Spy, array, at, inner, look, make, running
from reference_numpy import moments
from safetensors.torch import save_file
from tiny import CPU, arithmetic
from torch import Tensor, nn

from dfkd_bench import registry
from dfkd_bench.errors import PrivilegeError, RunError
from dfkd_bench.keeper import load_state, plain, state_of
from dfkd_bench.manifest import manifest
from dfkd_bench.plan import Planned, Request, make_plan
from dfkd_bench.report import leaderboard, privileges, table
from dfkd_bench.report.board import markdown
from dfkd_bench.spec import sealed
from dfkd_methods import nayer
from dfkd_methods.nayer import NAYER

WEIGHTS = {"L_oh": "w_oh", "L_bn": "w_bn", "D_agree": "w_adv"}
SIGN = {"L_oh": 1.0, "L_bn": 1.0, "D_agree": -1.0}
LAYERS, ROWS = BATCH // CLASSES, BATCH - BATCH % CLASSES

# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("settings", [{}, {"w_oh": 0.3, "w_bn": 2.0, "w_adv": 1.5, "bn_momentum": 0.6}])
def test_loss_and_terms_are_those_of_the_formulas(rounds: int, settings: dict[str, float]) -> None:
    with arithmetic(torch.float64):
        job = make(NAYER, dtype=torch.float64, crop_padding=1, flip=True, **settings)
        for k in range(rounds):
            at(job, k)
            job.method.synthesize()
        at(job, rounds)
        job.context.teacher, job.context.student = Spy(job.context.teacher), Spy(job.context.student)
        loop = inner(job.method)
        loss, terms = loop.objective(torch.randn(ROWS, 2, 8, 8, generator=stream(3)))
        y = loop.inside("y", "objective").tolist()
        (view,) = job.context.teacher.images
        assert job.context.student.images[0] is view
        teacher = job.context.teacher._module
        (t, inputs), (s, _) = look(teacher, view.detach()), look(job.student, view.detach())
    c, average = job.method.config, [(array(m), array(v)) for m, v in job.method.moments.average]
    assert len(average) == (len(inputs) if rounds else 0)
    expected = ref.noisy(s, t, y, [moments(a) for a in inputs], running(teacher), average, c.bn_momentum)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert expected["D_agree"] > 0
    total = sum(SIGN[k] * getattr(c, WEIGHTS[k]) * v for k, v in expected.items())
    assert loss.item() == pytest.approx(total, rel=1e-6)


def test_the_adversarial_term_enters_after_the_warm_up() -> None:
    job = make(NAYER)
    for k in (-2, -1, 0, 1):
        at(job, k)
        terms = job.method.synthesize()
        assert ("D_agree" in terms) == (k >= 0)
        assert job.context.meter.counts.get("student_forwards", 0) == max(0, k + 1) * 3 * ROWS
    assert len(job.context.registered["pool"]) == 4 * ROWS  # warm-up batches are kept
    assert job.method.flags.warmup_fraction == 0.35


def test_noisy_layers_and_generator_are_trained_and_nothing_else() -> None:
    with arithmetic(torch.float64):
        job = make(NAYER, dtype=torch.float64, gen_lr=0.03, gen_beta1=0.4)
        at(job, 0)
        loop, G = inner(job.method), job.method.G
        names = [n for n, _ in G.named_parameters()]
        assert {n.split(".")[0] for n in names} == {"norm", "noisy", "generator"}
        vectors, starts, gradients = G.vectors.clone(), [array(p) for p in G.parameters()], []
        frozen = [state(job.context.teacher._module), state(job.student)]
        for _ in range(2):
            loop.update(loop.objective(loop.draw())[0])
            gradients.append([array(p.grad) for p in G.parameters()])
    assert loop.steps == 3
    for i, (name, p) in enumerate(G.named_parameters()):
        assert array(p) == pytest.approx(ref.adam(starts[i], [g[i] for g in gradients], 0.03, 0.4), rel=1e-9), name
    for layer in G.noisy:
        assert layer.weight.grad.abs().max() > 0
    assert G.generator.out.weight.grad.abs().max() > 0
    assert torch.equal(G.vectors, vectors)
    assert not G.vectors.requires_grad
    for network, old in zip((job.context.teacher._module, job.student), frozen, strict=True):
        assert all(p.grad is None for p in network.parameters())
        assert all(torch.equal(v, old[k]) for k, v in network.state_dict().items())


# -- a batch ----------------------------------------------------------------------------------------------------------


def test_every_class_is_in_a_batch_equally_often() -> None:
    job = make(NAYER)
    for k in range(3):
        at(job, k)
        job.method.synthesize()
    labels = job.context.registered["pool"].labels.view(3, ROWS)
    for row in labels:
        assert torch.bincount(row, minlength=CLASSES).tolist() == [LAYERS] * CLASSES


def test_each_noisy_layer_serves_every_class_once_and_labels_say_which() -> None:
    job = make(NAYER)
    at(job, 0)
    loop, G = inner(job.method), job.method.G
    seen: list[Tensor] = []
    handle = G.generator.register_forward_pre_hook(lambda _m, a: seen.append(a[0].detach()))
    loop.draw()
    handle.remove()
    v = (G.vectors - G.vectors.mean(0)) / (G.vectors.var(0, correction=0) + 1e-5).sqrt() * G.norm.weight + G.norm.bias
    y = loop.inside("y", "objective")
    assert len(G.noisy) == LAYERS
    for i, row in enumerate(seen[0]):
        layer = G.noisy[i // CLASSES]
        torch.testing.assert_close(row, layer(v)[y[i]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "layers"), [(2, 1), (3, 1), (5, 1), (6, 2), (11, 3)])
def test_a_batch_has_as_many_images_as_fit_and_one_per_class_at_least(batch: int, layers: int) -> None:
    job = make(NAYER, batch=batch)
    job.method.synthesize()
    assert len(job.method.G.noisy) == layers
    assert len(job.context.registered["pool"]) == layers * CLASSES
    assert job.method.preview(layers * CLASSES + 1, stream()).images.shape[0] == layers * CLASSES + 1


def test_noisy_layers_are_drawn_anew_from_a_standard_normal_for_each_batch() -> None:
    job, drawn = make(NAYER, vector_dim=60, latent_dim=70, gen_life=100, g_steps=1), []
    for k in range(3):
        at(job, k)
        inner(job.method)
        for layer in job.method.G.noisy:
            assert layer.weight.mean().item() == pytest.approx(0.0, abs=0.05)
            assert layer.weight.std().item() == pytest.approx(1.0, abs=0.05)
            assert torch.equal(layer.bias, torch.zeros_like(layer.bias))
            drawn.append(layer.weight.detach().clone())
        at(job, k)
        job.method.synthesize()
    assert len({w.flatten()[0].item() for w in drawn}) == len(drawn)
    narrow = make(NAYER, vector_dim=60, latent_dim=70, noise_std=0.1)
    at(narrow, 0)
    inner(narrow.method)
    assert narrow.method.G.noisy[0].weight.std().item() == pytest.approx(0.1, abs=0.005)


# -- the generator's life ---------------------------------------------------------------------------------------------


def redraws(job: Any, rounds: range) -> list[int]:
    """The rounds in which the generator (not its noisy layers) is drawn anew."""
    found: list[int] = []
    real, now = nayer.reinitialise, 0

    def watch(module: nn.Module, std: float, stream: torch.Generator) -> None:
        if module is job.method.G.generator:
            assert std == 0.02
            found.append(now)
        else:
            assert module is job.method.G.noisy
        real(module, std, stream)

    with patch.object(nayer, "reinitialise", watch):
        for now in rounds:
            at(job, now)
            job.method.synthesize()
    return found


def test_the_generator_is_drawn_anew_every_ten_batches_also_across_a_resume() -> None:
    job = make(NAYER, g_steps=1, rounds=40)
    assert redraws(job, range(-4, 30)) == [-4, 6, 16, 26]
    for saved_after, expected in ((3, [6, 16]), (6, [16]), (5, [6, 16]), (7, [16])):
        one, two = make(NAYER, g_steps=1, rounds=40), make(NAYER, g_steps=1, rounds=40, filled=False)
        redraws(one, range(-4, saved_after + 1))
        load_state(two, copy.deepcopy(plain(state_of(one))))
        assert redraws(two, range(saved_after + 1, 20)) == [k for k in expected if k > saved_after]


def test_in_between_the_generator_goes_on() -> None:
    job = make(NAYER, gen_life=2)
    for k in range(4):
        at(job, k)
        before = state(job.method.G.generator)
        inner(job.method)
        same = all(torch.equal(v, before[name]) for name, v in job.method.G.generator.state_dict().items())
        assert same == bool(k % 2)
        at(job, k)
        job.method.synthesize()


def test_presets_are_the_published_settings() -> None:
    c = NAYER.Config()
    found = (c.w_oh, c.w_bn, c.w_adv, c.bn_momentum, c.g_steps, c.gen_lr, c.gen_life, c.temperature, c.latent_dim)
    assert found == (0.5, 10.0, 1.33, 0.9, 40, 4e-3, 10, 20.0, 1000)
    assert (NAYER.default_preset, NAYER.presets) == ("no-text", {"no-text": {}, "text": {"vectors": "file"}})


# -- class vectors ----------------------------------------------------------------------------------------------------


def file_of(path: Path, rows: int = CLASSES, value: float = 1.0) -> Path:
    save_file({"vectors": value * torch.arange(rows * 6.0).view(rows, 6)}, path)
    return path


def plan(tmp: Path, preset: str, **overrides: Any) -> Planned:
    request = Request(("nayer",), preset=preset, budget="smoke", threads=1, device="cpu", overrides=overrides)
    return make_plan(request, tmp / "runs")[0]


@pytest.mark.parametrize("words", [["--preset", "text"], ["--set", "vectors=file"]])
def test_vectors_from_a_file_without_the_file_is_one_clear_line(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["run", "--method", "nayer", "--budget", "smoke", "--device", "cpu", "--threads", "1", *words]
    line += ["--results", str(tmp_path)]
    status, _, said = dfkd(monkeypatch, capsys, *line, columns=200)
    assert status == 1
    assert said.count("error:") == 1
    assert "needs the class vectors: --set class_vectors=FILE.safetensors" in said
    assert "Traceback" not in said


def test_vectors_from_a_file_are_what_the_generator_sees(tmp_path: Path) -> None:
    path = file_of(tmp_path / "v.safetensors")
    job = make(NAYER, "text", class_vectors=sealed(str(path), "test"), filled=False)
    assert torch.equal(job.method.G.vectors, torch.arange(18.0).view(3, 6))
    path.unlink()  # read once
    for k in range(2):
        at(job, k)
        job.method.synthesize()
    assert len(job.context.registered["pool"]) == 2 * ROWS
    assert job.method.G.noisy[0].in_features == 6


@pytest.mark.parametrize(
    "tensors", [{"vectors": torch.ones(4, 6)}, {"vectors": torch.ones(3)}, {"v": torch.ones(3, 6)}]
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "v.safetensors"
    save_file(tensors, path)
    with pytest.raises(RunError, match=r"class_vectors needs a tensor `vectors` \(3, d\), got \("):
        make(NAYER, "text", class_vectors=sealed(str(path), "test"))


def test_without_text_a_file_is_refused_for_lack_of_privilege(tmp_path: Path) -> None:
    path = sealed(str(file_of(tmp_path / "v.safetensors")), "test")
    for settings in ({"class_vectors": path}, {"class_vectors": path, "vectors": "file"}):
        with pytest.raises(PrivilegeError, match="without declaring external_model"):
            make(NAYER, "no-text", **settings)


def test_a_run_is_known_by_the_content_of_the_file(tmp_path: Path) -> None:
    path = file_of(tmp_path / "v.safetensors")
    first = plan(tmp_path, "text", class_vectors=str(path)).spec.hash
    assert plan(tmp_path, "text", class_vectors=str(path)).spec.hash == first
    file_of(path, value=2.0)
    assert plan(tmp_path, "text", class_vectors=str(path)).spec.hash != first


def test_random_vectors_are_drawn_once_and_differ_by_seed() -> None:
    one, same, other = (make(NAYER, seed=k, filled=False).method.G.vectors.clone() for k in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    job = make(NAYER, filled=False)
    for k in range(2):
        at(job, k)
        job.method.synthesize()
    assert torch.equal(job.method.G.vectors, one)


# -- the privilege card -----------------------------------------------------------------------------------------------

CARDS = {
    "no-text": (["gradients", "bn_statistics"], "GB"),
    "text": (["gradients", "bn_statistics", "class_names", "external_model"], "GBNE"),
}


@pytest.mark.parametrize("preset", CARDS)
def test_the_privilege_card_reaches_manifest_and_leaderboard(tmp_path: Path, preset: str) -> None:
    expected, marks = CARDS[preset]
    planned = plan(tmp_path, preset)
    assert list(registry.card(planned.entry).privileges_of(preset)) == expected
    assert set(NAYER.privileges_of(preset).declared()) == set(expected)
    found = manifest(planned.spec, planned.entry, planned.teacher, CPU)["plugin"]["privileges"]
    assert found == expected
    record = make_record(method="nayer", preset=preset, privileges=tuple(found))
    board = leaderboard.leaderboard(table.long_table([record]))
    assert privileges.marks(board["privileges"].iloc[0]) == marks
    assert f" {marks} " in markdown(board)


@pytest.mark.parametrize("words", [("show", "nayer"), ("list", "presets")])
def test_the_privilege_card_is_shown(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, _ = dfkd(monkeypatch, capsys, *words, columns=160)
    assert status == 0
    if words[0] == "show":
        assert "class names" in said
        assert "external model" in said
    else:
        assert "GBNE" in said
