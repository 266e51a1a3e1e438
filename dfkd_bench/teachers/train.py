"""Train a teacher by its recipe: supervised, the whole training set, last epoch kept (the test set selects nothing)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dfkd_bench import models
from dfkd_bench.data.catalog import DatasetFacts
from dfkd_bench.data.door import TrainingBatches, load
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.randomness import Streams, seed_global
from dfkd_bench.recipe import StudentRecipe


@dataclass(frozen=True)
class TeacherRecipe:
    """How long and with what: plain cross-entropy, the task's augmentation."""

    epochs: int
    batch_size: int
    optimiser: StudentRecipe


# the recipe published with several methods for 32 px and more; a short one for the default task
RECIPES: dict[str, TeacherRecipe] = {
    "digits16": TeacherRecipe(60, 64, StudentRecipe(lr=0.1, weight_decay=5e-4, nesterov=True)),
    "default": TeacherRecipe(100, 64, StudentRecipe(lr=0.1, weight_decay=5e-4)),
}


def recipe_of(dataset: str) -> TeacherRecipe:
    """The recipe for teachers of `dataset`."""
    return RECIPES.get(dataset, RECIPES["default"])


def train_teacher(
    dataset: str,
    arch: str,
    seed: int,
    device: torch.device,
    recipe: TeacherRecipe,
    report: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> Tapped:
    """A trained classifier in eval mode; `report(epoch, epochs, mean loss)` is called after each epoch."""
    train, _ = load(dataset, device)
    facts = train.facts
    seed_global(seed, "teacher-init")
    model = place(models.build(arch, facts.classes, facts.image_shape), device)
    model.train()
    optimiser = recipe.optimiser.build(model.parameters())
    batches, streams = TrainingBatches(train), Streams(seed, device)
    per_epoch = max(1, facts.train_size // recipe.batch_size)
    total = per_epoch * recipe.epochs
    for epoch in range(recipe.epochs):
        streams.reseed(epoch)
        losses = torch.zeros((), device=device)
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            for group in optimiser.param_groups:
                group["lr"] = recipe.optimiser.rate(step, total, per_epoch)
            batch = batches.batch(recipe.batch_size, streams.get("teacher-batches"))
            assert batch.labels is not None
            loss = F.cross_entropy(model(batch.images), batch.labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses += loss.detach()
        report(epoch + 1, recipe.epochs, float(losses) / per_epoch)
    model.eval()
    return model


@torch.no_grad()
def measure_top1(model: Tapped, dataset: str | DatasetFacts, device: torch.device, batch_size: int = 512) -> float:
    """Top-1 in percent on the test split of `dataset`, normalised as its facts say."""
    _, test = load(dataset, device)
    hits = 0
    for start in range(0, len(test.labels), batch_size):
        rows = slice(start, start + batch_size)
        hits += int((model(test.normalised(rows)).argmax(1) == test.labels[rows]).sum())
    return 100.0 * hits / len(test.labels)
