"""New teachers: trained here or brought from elsewhere, measured, and entered in the user's registry."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from dfkd_bench import models
from dfkd_bench.data.catalog import dataset
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.teachers.registry import Teacher, fit_weights, freeze, read_weights, register, teachers
from dfkd_bench.teachers.train import TeacherRecipe, measure_top1

NO_SEED = -1  # of a teacher that was not trained here


def check_name(name: str) -> str:
    """`name` if it can name a file on any system. Raises `UsageError` otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"a teacher's name is made of letters, digits, '.', '_' and '-'; got {name!r}")
    return name


def in_words(recipe: TeacherRecipe, padding: int, flip: bool) -> str:
    """A training recipe as the registry states it."""
    o = recipe.optimiser
    parts = [
        f"SGD {o.lr:g}{' Nesterov' if o.nesterov else ' momentum'} {o.momentum:g}",
        f"weight decay {o.weight_decay:g}",
        f"{o.schedule} over {recipe.epochs} epochs of batch {recipe.batch_size}",
        f"crop padding {padding}" if padding else "",
        "flip" if flip else "",
        "last epoch",
    ]
    return ", ".join(part for part in parts if part)


def add_trained(
    name: str, arch: str, data: str, seed: int, model: Tapped, top1: float, recipe: TeacherRecipe
) -> Teacher:
    """Register a teacher that was trained here. Raises `UsageError` for a name taken."""
    facts = dataset(data)
    words = in_words(recipe, facts.crop_padding, facts.flip)
    origin = f"dfkd-bench teacher train {data}/{arch} --seed {seed}"
    entry = Teacher(name, data, arch, seed, f"{name}.safetensors", "", round(top1, 4), words, origin)
    return register(entry, model.state_dict())


def add_file(path: Path, data: str, arch: str, name: str, origin: str, device: torch.device) -> Teacher:
    """Register the weights in `path` after measuring them on the test split.

    Raises `UsageError` for unknown or taken names, `RunError` for a file that is no state dict or does not fit.
    """
    facts = dataset(data)
    models.architecture(arch)
    if check_name(name) in teachers():
        raise UsageError(f"a teacher called {name!r} is registered already: choose another --name")
    weights = read_weights(path)
    model = models.build(arch, facts.classes, facts.image_shape)
    fit_weights(model, weights, path.name)
    if not all(bool(v.isfinite().all()) for v in model.state_dict().values()):
        raise RunError(f"{path.name} holds weights that are infinite or not a number")
    top1 = measure_top1(freeze(model, device), data, device)
    said = " ".join(origin.split()) or f"imported from {path.name}"
    plain = said.encode("utf-8", "replace").decode()
    entry = Teacher(name, data, arch, NO_SEED, f"{name}.safetensors", "", round(top1, 4), "not known here", plain)
    return register(entry, model.state_dict())
