"""NAYER: balanced batches, noisy layers, the generator's life, the class vectors; its loss: `test_pool_methods.py`."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import reference_pool as ref
import torch
from commands import dfkd
from contexts import CLASSES, state, stream
from hooks import array
from pool_jobs import BATCH, at, inner, make, watched
from safetensors.torch import save_file
from tiny import arithmetic
from torch import Tensor, nn

from dfkd_bench.errors import PrivilegeError, RunError
from dfkd_bench.plugins import registry
from dfkd_bench.runs.spec import with_digest
from dfkd_bench.training.loop import synthesise
from dfkd_bench.training.storage import load_state, plain, state_of
from dfkd_methods import nayer
from dfkd_methods.nayer import NAYER

LAYERS = -(-BATCH // CLASSES)


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


@pytest.mark.parametrize("batch", [6, 7, 8])
def test_every_class_is_in_a_batch_equally_often_and_the_rest_is_random(batch: int) -> None:
    job = make(NAYER, synthesis_batch=batch)
    for k in range(12):
        at(job, k)
        job.method.synthesize()
    labels = job.context.registered["pool"].labels.view(12, batch)
    for row in labels:
        assert row[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert all(set(column.tolist()) == {0, 1, 2} for column in labels.T[6:])


def test_each_noisy_layer_serves_every_class_once_and_labels_say_which() -> None:
    job = make(NAYER)
    at(job, 0)
    loop, G = inner(job.method), job.method.G
    seen: list[Tensor] = []
    handle = G.generator.register_forward_pre_hook(lambda _m, a: seen.append(a[0].detach()))
    loop.draw()
    handle.remove()
    y = loop.inside("y", "objective")
    rows = G.vectors[y]  # each once per noisy layer, as the layer's running statistics see them
    v = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt() * G.norm.weight + G.norm.bias
    assert len(G.noisy) == LAYERS
    for i, row in enumerate(seen[0]):
        torch.testing.assert_close(row, G.noisy[i // CLASSES](v[i]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "layers"), [(2, 1), (3, 1), (5, 2), (6, 2), (11, 4)])
def test_a_batch_has_its_size_and_as_many_layers_as_that_takes(batch: int, layers: int) -> None:
    job = make(NAYER, batch=4, synthesis_batch=batch)
    job.method.synthesize()
    assert len(job.method.G.noisy) == layers
    assert len(job.context.registered["pool"]) == batch
    assert job.method.preview(batch + 1, stream()).images.shape[0] == batch + 1


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


# -- several batches a round ------------------------------------------------------------------------------------------


def test_the_student_is_in_train_mode_from_the_second_batch_of_a_round_on() -> None:
    job = make(NAYER, synthesis_steps=3, warmup_synthesis_steps=4, g_steps=2)
    forward, modes = job.student.observe, []

    def watch(*arguments: Any, **more: Any) -> Any:
        modes.append(job.student.training)
        return forward(*arguments, **more)

    job.student.observe = watch
    for k in (-1, 0, 1):
        modes.clear()
        weights, statistics = [dict(getattr(job.student, f"named_{kind}")()) for kind in ("parameters", "buffers")]
        before = {name: v.detach().clone() for name, v in {**weights, **statistics}.items()}
        at(job, k)
        synthesise(job)
        assert modes == ([] if k < 0 else [False] * 2 + [True] * 4)
        moved = {name for name, v in {**weights, **statistics}.items() if not torch.equal(v, before[name])}
        assert moved == (set() if k < 0 else set(statistics))
    assert len(job.context.registered["pool"]) == (4 + 3 + 3) * BATCH


def test_the_lowest_loss_is_that_of_the_round() -> None:
    """A batch that is never below an earlier one of its round stores its first iterate."""
    job, first = make(NAYER, synthesis_steps=3, gen_lr=0.3, g_steps=4, bn_momentum=0.0), []
    for k in range(4):
        at(job, k)
        with watched(job.method) as calls:
            synthesise(job)
        lowest = float("inf")
        for call in calls:
            kept = 0
            for step, loss in enumerate(call.losses):
                if step and loss < lowest:
                    kept = step
                lowest = min(lowest, loss)
            assert torch.equal(call.best, call.images[kept])
            first.append(kept == 0 and min(call.losses) < call.losses[0])
    assert any(first), "a rate at which every batch is below the ones before shows nothing"


# -- the generator's life ---------------------------------------------------------------------------------------------


def redraws(job: Any, rounds: range) -> list[int]:
    """The rounds in which the generator, its class vectors' norm included, is drawn anew."""
    found: list[tuple[int, str]] = []
    real, now = nayer.reinitialise, 0

    def watch(module: nn.Module, std: float | None, stream: torch.Generator) -> None:
        (part,) = (name for name, m in job.method.G.named_children() if m is module)
        assert std == (1.0 if part == "noisy" else None)
        if part != "noisy":
            found.append((now, part))
        real(module, std, stream)

    with patch.object(nayer, "reinitialise", watch):
        for now in rounds:
            at(job, now)
            synthesise(job)
    assert [part for _, part in found] == ["norm", "generator"] * (len(found) // 2)
    return [k for k, part in found if part == "norm"]


def lived(warmup: int, filled: bool = True) -> Any:
    job = make(NAYER, g_steps=1, rounds=40, synthesis_steps=2, warmup_synthesis_steps=3, filled=filled)
    job.context.progress.warmup_rounds = warmup
    return job


def test_the_generator_is_drawn_anew_every_ten_rounds_also_across_a_resume() -> None:
    """Of two batches each, or of three in the warm-up."""
    assert redraws(lived(0), range(25)) == [0, 10, 20]
    assert redraws(lived(10), range(-10, 15)) == [-10, 0, 10]
    assert redraws(lived(4), range(-4, 20)) == [
        -4,
        0,
        6,
        10,
        16,
    ]  # tens from the first round, and from the warm-up's end
    for saved_after in (9, 10, 11):
        one, two = lived(0), lived(0, filled=False)
        redraws(one, range(saved_after + 1))
        load_state(two, copy.deepcopy(plain(state_of(one))))
        assert redraws(two, range(saved_after + 1, 22)) == [k for k in (10, 20) if k > saved_after]


def test_the_generator_is_drawn_as_torch_builds_it() -> None:
    job = make(NAYER, vector_dim=9, latent_dim=60, generator_width=8)
    inner(job.method)
    G = job.method.G
    for layer, fan_in in ((G.generator.fc, 60), (G.generator.convs[0], 16 * 9), (G.generator.out, 8 * 9)):
        assert layer.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1)
        assert layer.weight.abs().max().item() <= fan_in**-0.5
    assert 0 < G.generator.fc.bias.abs().max().item() <= 60**-0.5
    for norm in (G.norm, G.generator.bn0, *G.generator.norms):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))


def test_presets_are_the_published_settings() -> None:
    c = NAYER.Config()
    found = (c.w_oh, c.w_bn, c.w_adv, c.bn_momentum, c.g_steps, c.gen_lr, c.gen_life, c.temperature, c.latent_dim)
    assert found == (0.5, 10.0, 1.33, 0.9, 40, 4e-3, 10, 20.0, 1000)
    assert NAYER.default_preset == "no-text"
    for preset, values in NAYER.presets.items():
        method = NAYER(NAYER.Config(**values))
        epochs = int(preset.rpartition("-")[2]) if preset[-1] == "0" else 300
        flags, recipe = method.flags, method.recipe
        assert (recipe.epochs, recipe.lr, recipe.batch_size) == (epochs, 0.2, 512)
        assert math.ceil(flags.warmup_fraction * epochs) == 20
        assert (flags.synthesis_steps, flags.warmup_synthesis_steps, flags.student_mode) == (2, 10, ("eval", "train"))
        assert method.config.pool_size == (20 * 10 + epochs * 2) * 400
        assert method.config.vectors == ("file" if preset.startswith("text") else "random")


# -- class vectors ----------------------------------------------------------------------------------------------------


def file_of(path: Path, rows: int = CLASSES, value: float = 1.0) -> Path:
    save_file({"vectors": value * torch.arange(rows * 6.0).view(rows, 6)}, path)
    return path


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
    job = make(NAYER, "text", class_vectors=with_digest(str(path), "test"), filled=False)
    assert torch.equal(job.method.G.vectors, torch.arange(18.0).view(3, 6))
    path.unlink()  # read once
    for k in range(2):
        at(job, k)
        job.method.synthesize()
    assert len(job.context.registered["pool"]) == 2 * BATCH
    assert job.method.G.noisy[0].in_features == 6


@pytest.mark.parametrize(
    "tensors", [{"vectors": torch.ones(4, 6)}, {"vectors": torch.ones(3)}, {"v": torch.ones(3, 6)}]
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "v.safetensors"
    save_file(tensors, path)
    with pytest.raises(RunError, match=r"class_vectors needs a tensor `vectors` \(3, d\), got \("):
        make(NAYER, "text", class_vectors=with_digest(str(path), "test"))


def test_without_text_a_file_is_refused_for_lack_of_privilege(tmp_path: Path) -> None:
    path = with_digest(str(file_of(tmp_path / "v.safetensors")), "test")
    for settings in ({"class_vectors": path}, {"class_vectors": path, "vectors": "file"}):
        with pytest.raises(PrivilegeError, match="without declaring external_model"):
            make(NAYER, "no-text", **settings)


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


def test_presets_with_text_use_class_names_and_another_model() -> None:
    always, card = ["gradients", "bn_statistics"], registry.card(registry.resolve("nayer"))
    for preset in NAYER.presets:
        text = ["class_names", "external_model"] * preset.startswith("text")
        assert list(card.privileges_of(preset)) == [*always, *text]
        assert set(NAYER.privileges_of(preset).declared()) == {*always, *text}


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
