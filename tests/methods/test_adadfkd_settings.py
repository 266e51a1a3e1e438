"""AdaDFKD's settings on a task are those of the authors' script for it, and a preset keeps what it changes."""

from __future__ import annotations

from typing import Any

import pytest

from dfkd_bench.plugins.registry import card, resolve
from dfkd_bench.protocol import TASKS, task
from dfkd_bench.runs.spec import resolve_settings
from dfkd_methods.adadfkd import AdaDFKD

NAMES = ("epochs", "batch_size", "kd_loss", "T_kd", "alpha_0", "grad_adv", "f_b", "f_e", "gamma", "eta", "k",
         "queue_size", "lambda_0", "lambda_slope", "latent_dim")  # fmt: skip
CIFAR10, ELSEWHERE = 1e-4, 2e-5  # slopes of the threshold
# the authors' scripts, the first where a pair has two
SCRIPTS: dict[str, tuple[Any, ...]] = {
    "cifar10/resnet34-resnet18": (300, 768, "kl", 20.0, 1.0, 0.0, 0.25, 0.75, 0.1, 0.1, 0.9, 4096, 2.2, CIFAR10, 512),
    "cifar10/resnet34-wrn40_1": (1000, 256, "kl", 10.0, 0.1, 0.01, 0.2, 0.8, 0.1, 0.1, 0.78, 4096, 1.2, CIFAR10, 512),
    "cifar10/wrn40_2-wrn16_2": (500, 1024, "kl", 20.0, 1.0, 0.0, 0.0, 0.75, 0.1, 0.1, 0.8, 8192, 1.5, CIFAR10, 512),
    "cifar100/vgg11-resnet18": (400, 1024, "l1", 5.0, 1.0, 0.0, 0.2, 0.8, 0.1, 0.1, 0.8, 12288, 1.0, ELSEWHERE, 512),
    "cifar100/resnet34-wrn40_1": (700, 768, "kl", 2.0, 1.0, 0.0, 0.2, 0.8, 0.1, 0.1, 0.7, 12288, 1.2, ELSEWHERE, 512),
    "cifar100/wrn40_2-wrn16_2": (500, 1024, "kl", 2.0, 1.0, 0.0, 0.2, 0.79, 0.1, 0.15, 0.8, 16384, 1.2, ELSEWHERE, 512),
    "tiny-imagenet/resnet50-resnet18": (
        500, 256, "l1", 5.0, 1.0, 0.0, 0.2, 0.75, 0.05, 0.02, 0.81, 16384, 1.3, ELSEWHERE, 1024,
    ),
}  # fmt: skip


def settings(on: str, preset: str = "official", track: str = "recipe") -> dict[str, Any]:
    return dict(resolve_settings(card(resolve("adadfkd")), "adadfkd", preset, task(on), track, "full", {}))


@pytest.mark.parametrize("on", SCRIPTS)
def test_the_settings_of_the_scripts(on: str) -> None:
    found = settings(on)
    assert tuple(found[name] for name in NAMES) == SCRIPTS[on]
    recipe = AdaDFKD(AdaDFKD.Config(**found)).recipe
    assert (recipe.epochs, recipe.batch_size) == SCRIPTS[on][:2]


@pytest.mark.parametrize(
    ("on", "slope", "latent"),
    [("cifar10/resnet20-resnet8", CIFAR10, 512), ("cifar100/resnet34-resnet18", ELSEWHERE, 512),
     ("svhn/wrn40_2-wrn16_1", ELSEWHERE, 1024), ("digits16/cnn32-cnn16", ELSEWHERE, 1024),
     ("caltech101/tv_resnet34-tv_resnet18", ELSEWHERE, 1024)],
)  # fmt: skip
def test_slope_and_latent_of_a_dataset(on: str, slope: float, latent: int) -> None:
    found = settings(on)
    assert (found["lambda_slope"], found["latent_dim"]) == (slope, latent)


@pytest.mark.long
@pytest.mark.parametrize("preset", AdaDFKD.presets)
def test_what_a_preset_sets_holds_on_every_task(preset: str) -> None:
    for on in (*TASKS, *SCRIPTS):
        found = settings(on, preset)
        assert {name: found[name] for name in AdaDFKD.presets[preset]} == AdaDFKD.presets[preset], on


@pytest.mark.parametrize("preset", AdaDFKD.presets)
def test_all_else_is_that_of_the_scripts_in_every_preset(preset: str) -> None:
    for on in SCRIPTS:
        assert {**settings(on, preset), **AdaDFKD.presets[preset]} == {**settings(on), **AdaDFKD.presets[preset]}, on


def test_the_pinned_track_fixes_the_batch() -> None:
    for on in ("digits16/cnn32-cnn16", "cifar10/wrn40_2-wrn16_2"):
        assert settings(on, track="pinned")["batch_size"] == task(on).pinned.batch_size
