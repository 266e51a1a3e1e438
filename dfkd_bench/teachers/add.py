"""Add teachers to the user's registry: train one, or import a file of weights; both are measured on the test split."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dfkd_bench import models
from dfkd_bench.data.base import Dataset
from dfkd_bench.data.find import dataset
from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.teachers.match_keys import layers, reconcile
from dfkd_bench.teachers.registry import Teacher, facts_for, freeze, register, teachers, weights_sha256, writable_home
from dfkd_bench.teachers.train import Report, Training, measure_top1, recipe_of, train_teacher
from dfkd_bench.teachers.weights import check_finite, fit_weights, normalisation_in, payload_of, read_weights
from dfkd_bench.utils.locks import folder_lock

if TYPE_CHECKING:
    from dfkd_bench.teachers.weights import Weights

NO_SEED = -1  # seed of an imported teacher


def check_name(name: str) -> str:
    """`name` if it is a valid file name on any system. Raises `UsageError` otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"a teacher's name may contain letters, digits, '.', '_' and '-'; got {name!r}")
    return name


def check_free(name: str) -> None:
    """Raise `UsageError` for an invalid name or one that is already registered."""
    if check_name(name) in teachers():
        raise UsageError(f"teacher {name!r} is already registered: choose another --name")


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedTeacher:
    """A trained teacher before it is registered."""

    state: Weights
    top1: float  # percent on the test split
    payload: bytes  # content of its safetensors file
    sha256: str  # of `payload`


def default_name(training: Training) -> str:
    """DATASET-MODEL-sSEED, followed by -noisePERCENT if labels are corrupted."""
    data = re.sub(r"[^A-Za-z0-9._]+", "-", training.dataset).strip("-.")[-60:]  # `folder:PATH` contains slashes
    noise = f"-noise{100 * training.label_noise:g}" if training.label_noise else ""
    return f"{data}-{training.arch}-s{training.seed}{noise}"


def recipe_text(training: Training, facts: Dataset) -> str:
    """A training recipe as text for the registry."""
    recipe, o = training.recipe, training.recipe.optimiser
    parts = [
        f"SGD {o.lr:g}{' Nesterov' if o.nesterov else ' momentum'} {o.momentum:g}",
        f"weight decay {o.weight_decay:g}",
        f"{o.schedule} over {recipe.epochs} epochs of batch {recipe.batch_size}",
        f"crop padding {facts.crop_padding}" if facts.crop_padding else "",
        "flip" if facts.flip else "",
        f"{100 * training.label_noise:g} % of the labels corrupted" if training.label_noise else "",
        training.precision if training.precision != "fp32" else "",
        "last epoch",
    ]
    return ", ".join(part for part in parts if part)


def command_of(training: Training, device: torch.device) -> str:
    """The command that trains this teacher, with the current number of threads."""
    default, recipe = recipe_of(training.dataset, training.arch), training.recipe
    noise = f"noise {training.dataset}/{training.arch} --rate {training.label_noise:g}"
    words = [noise if training.label_noise else f"train {training.dataset}/{training.arch}", f"--seed {training.seed}"]
    for option, value, usual in (
        ("--epochs", recipe.epochs, default.epochs),
        ("--batch", recipe.batch_size, default.batch_size),
        ("--lr", recipe.optimiser.lr, default.optimiser.lr),
        ("--weight-decay", recipe.optimiser.weight_decay, default.optimiser.weight_decay),
        ("--precision", training.precision, "fp32"),
        ("--device", device.type, "cpu"),
        ("--threads", torch.get_num_threads(), default.threads),
    ):
        if value != usual:
            words.append(f"{option} {value}")
    return f"dfkd-bench teacher {' '.join(words)}"


def train_new(
    training: Training, name: str, device: torch.device, report: Report, checkpoint_seconds: float = 15.0
) -> TrainedTeacher:
    """Train and measure; resumes an interrupted training of the same request and `name`.

    Raises `RunError` while another process trains a teacher of that name, and if the disk cannot be written.
    """
    folder = training_folder(name)
    busy = f"another process is training {name} ({folder}): wait for it, or choose another --name"
    try:
        with folder_lock(folder, busy=busy, remedy="free some space"):
            model = train_teacher(training, device, report, folder, checkpoint_seconds)
    except OSError as error:
        raise RunError(f"cannot write below {folder}: {error.strerror}; free some space") from error
    payload, sha256 = payload_of(model.state_dict())
    return TrainedTeacher(model.state_dict(), measure_top1(model, training.dataset, device), payload, sha256)


def training_folder(name: str) -> Path:
    """Folder of the checkpoint of an unfinished training."""
    return writable_home() / "training" / name


def drop_checkpoint(name: str) -> None:
    """Delete the checkpoint of a training that is stored or no longer needed."""
    shutil.rmtree(training_folder(name), ignore_errors=True)


def add_trained(name: str, training: Training, trained: TrainedTeacher, device: torch.device) -> Teacher:
    """Register a trained teacher. Raises `UsageError` for a name that is already registered."""
    recipe, command = recipe_text(training, dataset(training.dataset)), command_of(training, device)
    entry = Teacher(
        name, training.dataset, training.arch, training.seed, f"{name}.safetensors", "", round(trained.top1, 4),
        recipe, command, label_noise=training.label_noise,
    )  # fmt: skip
    return register(entry, trained.state)


# -- import -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddedTeacher:
    """An imported teacher, how its weights were matched to the model, and a warning if its accuracy is near chance."""

    teacher: Teacher
    matched: str  # by name, by synonymous names, by the order of their layers
    warning: str  # empty if there is none


@dataclass(frozen=True)
class TeacherFile:
    """A file of weights, as the user describes it."""

    path: Path
    dataset: str
    arch: str
    name: str
    mean: tuple[float, ...] = ()  # per channel, of pixels in 0..1; empty: the file's metadata, else the dataset's
    std: tuple[float, ...] = ()
    shortcut: str = "auto"  # A, B, or auto: the one that fits the weights
    origin: str = ""


def add_file(source: TeacherFile, device: torch.device) -> AddedTeacher:
    """Measure the weights of a file on the test split and register them.

    Raises `UsageError` for unknown names or a name already registered, `RunError` for a file that is no state dict or
    does not fit the architecture.
    """
    facts = dataset(source.dataset)
    models.architecture(source.arch)
    check_free(source.name)
    mean, std = check_normalisation(source.mean, source.std, facts)
    weights = read_weights(source.path)
    check_finite(weights, source.path.name)
    if not mean and (stored := normalisation_in(source.path)):
        mean, std = check_normalisation(*stored, facts)
    if (mean, std) == (facts.mean, facts.std):
        mean, std = (), ()
    model, options, matched = fitted(source, weights, facts)
    entry = Teacher(
        source.name, source.dataset, source.arch, NO_SEED, f"{source.name}.safetensors", "", 0.0, "not known here",
        origin_of(source), mean=mean, std=std, options=options,
    )  # fmt: skip
    top1 = measure_top1(freeze(model, device), facts_for(entry), device)
    entry = Teacher(**{**vars(entry), "top1": round(top1, 4)})
    return AddedTeacher(register(entry, model.state_dict()), matched, accuracy_warning(top1, facts.classes))


def origin_of(source: TeacherFile) -> str:
    """The origin of a teacher in one line: the user's text, or name and hash of the file."""
    origin = " ".join(source.origin.split())
    origin = origin or f"imported from {source.path.name}, SHA-256 {weights_sha256(source.path)}"
    return origin.encode("utf-8", "replace").decode()


def accuracy_warning(top1: float, classes: int) -> str:
    """A warning if the accuracy is close to chance; empty otherwise."""
    chance = 100.0 / classes
    if top1 >= min(3 * chance, (100 + chance) / 2):
        return ""
    return f"accuracy {top1:.2f} % (chance is {chance:.2f} %): wrong normalisation, dataset, or naming?"


def check_normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], facts: Dataset
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std as given, or empty; raises `UsageError` for a wrong number of values or a wrong range."""
    if not mean and not std:
        return (), ()
    channels = facts.image_shape[0]
    if len(mean) != channels or len(std) != channels:
        raise UsageError(
            f"--mean and --std must both be given, one number for each of the {channels} channels of {facts.name}; got "
            f"{len(mean)} and {len(std)}"
        )
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise UsageError("--mean and --std are for pixels in 0..1 (123.7 of 255 is 0.485), and std must be above 0")
    return mean, std


def fitted(source: TeacherFile, weights: Weights, facts: Dataset) -> tuple[Tapped, dict[str, Any], str]:
    """A model of the architecture with the file's weights, its options, and how the weights were matched."""
    allowed = models.architecture(source.arch).options
    kinds = ("A", "B")
    if source.shortcut not in (*kinds, "auto"):
        raise UsageError(f"unknown shortcut {source.shortcut!r}{did_you_mean(source.shortcut, [*kinds, 'auto'])}")
    if source.shortcut != "auto":
        tries: list[dict[str, Any]] = [{"shortcut": source.shortcut}]
    else:
        tries = [{"shortcut": kind} for kind in kinds] if "shortcut" in allowed else [{}]
    candidates = [(models.build(source.arch, facts.classes, facts.image_shape, options), options) for options in tries]
    count = convolutions(weights)
    model, options = next((c for c in candidates if convolutions(c[0].state_dict()) == count), candidates[0])
    renamed, how = reconcile(model.state_dict(), weights, source.path.name)
    fit_weights(model, renamed, source.path.name)
    return model, options, how


def convolutions(weights: Mapping[str, torch.Tensor]) -> int:
    """Number of convolutions; it tells the shortcuts apart: a projection has one, a padded identity none."""
    return sum(layer.kind == "conv" for layer in layers(weights))
