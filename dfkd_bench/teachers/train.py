"""Train a teacher by its recipe: supervised, on the whole training set; the last epoch is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench import __version__, models
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.data import catalog
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.find import dataset
from dfkd_bench.data.loading import TrainingBatches, digest, load, load_test
from dfkd_bench.data.terms import TeacherRecipe
from dfkd_bench.errors import RunError
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.plugins.objects import plugin_digests
from dfkd_bench.teachers.training_checkpoint import Stateful, TrainingCheckpoint
from dfkd_bench.utils.seeding import Streams, derive, seed_global

Report = Callable[[int, int, float], None]


def recipe_of(name: str, arch: str) -> TeacherRecipe:
    """The recipe for a teacher `arch` on dataset `name`. Raises `UsageError` for an unknown name."""
    return dataset(name).teacher_recipe.changed(None, None, models.architecture(arch).teacher_lr, None)


@dataclass(frozen=True)
class Training:
    """Everything that determines a teacher's weights, except device, threads and libraries."""

    dataset: str
    arch: str
    seed: int
    recipe: TeacherRecipe
    label_noise: float = 0.0  # fraction of the training labels that are replaced by another class
    precision: Literal["fp32", "bf16"] = "fp32"


def train_teacher(
    training: Training,
    device: torch.device,
    report: Report = lambda epoch, epochs, loss: None,
    folder: Path | None = None,
    checkpoint_seconds: float = 15.0,
) -> Tapped:
    """A trained classifier in eval mode; `report(epoch, epochs, mean loss)` is called after each epoch.

    With a `folder`, a checkpoint is written there after an epoch, at most every `checkpoint_seconds` and after the last
    epoch. A training of the same request resumes from it and first calls `report` for the epoch already done. On CPU
    the resulting weights are bitwise those of an uninterrupted training. Raises `RunError` if the loss is not finite.
    """
    recipe = training.recipe
    train, _ = load(training.dataset, device)
    facts = train.facts
    if training.label_noise:
        noisy = corrupted(train.labels, facts.classes, training.label_noise, training.seed)
        train = replace(train, labels=noisy)
    seed_global(training.seed, "teacher-init")
    model = place(models.build(training.arch, facts.classes, facts.image_shape), device)
    model.train()
    optimiser = recipe.optimiser.build(model.parameters())
    batches, streams = TrainingBatches(train), Streams(training.seed, device)
    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser, "batches": batches}
    checkpoint = TrainingCheckpoint(folder, request_of(training, facts, device), checkpoint_seconds)
    first, last_loss = checkpoint.restore(parts, device)
    if first:
        report(first, recipe.epochs, last_loss)
    per_epoch = max(1, facts.train_size // recipe.batch_size)
    total = per_epoch * recipe.epochs
    for epoch in range(first, recipe.epochs):
        streams.reseed(epoch)
        losses = torch.zeros((), device=device)
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            for group in optimiser.param_groups:
                group["lr"] = recipe.optimiser.rate(step, total)
            batch = batches.batch(recipe.batch_size, streams.get("teacher-batches"))
            assert batch.labels is not None
            with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
                logits = model(batch.images)
            loss = F.cross_entropy(at_least_fp32(logits), batch.labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses += loss.detach()
        mean = float(losses) / per_epoch
        if not abs(mean) < float("inf"):
            checkpoint.clear()
            raise RunError(f"the training diverged in epoch {epoch + 1} (loss {mean}): try a lower --lr")
        checkpoint.save(parts, epoch + 1, mean, last=epoch + 1 == recipe.epochs)
        report(epoch + 1, recipe.epochs, mean)
    model.eval()
    return model


def request_of(training: Training, facts: Dataset, device: torch.device) -> str:
    """Everything that determines the bits of a teacher, as text; a checkpoint is used only for an equal text."""
    codes = plugin_digests((catalog.TABLE.entry(facts.name), models.TABLE.entry(training.arch)))
    return repr(
        {
            **asdict(training),
            "data": facts.sha256 or digest(facts),
            "device": device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "dfkd-bench": __version__,
            **({"plugins": codes} if codes else {}),
        }
    )


def corrupted(labels: Tensor, classes: int, rate: float, seed: int) -> Tensor:
    """`labels` (n,) with round(rate * n) of them replaced by another class, drawn uniformly.

    The result depends only on the seed, not on the device. It is drawn once, while published code draws again at each
    access.
    """
    stream = torch.Generator().manual_seed(derive(seed, "label-noise"))
    count = len(labels)
    rows = torch.randperm(count, generator=stream)[: round(rate * count)]
    shift = torch.randint(1, classes, (len(rows),), generator=stream)
    noisy = labels.cpu().clone()
    noisy[rows] = (noisy[rows] + shift) % classes
    return noisy.to(labels.device)


@torch.no_grad()
def measure_top1(model: Tapped, dataset: str | Dataset, device: torch.device, batch_size: int = 512) -> float:
    """Top-1 in percent on the test split of `dataset`, with the normalisation of its facts."""
    test = load_test(dataset, device)
    hits = 0
    for start in range(0, len(test.labels), batch_size):
        rows = slice(start, start + batch_size)
        hits += int((model(test.normalised(rows)).argmax(1) == test.labels[rows]).sum())
    return 100.0 * hits / len(test.labels)
