"""New teachers: trained here or brought from elsewhere, measured, and entered in the user's registry."""

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

NO_SEED = -1  # of a teacher that was not trained here


def check_name(name: str) -> str:
    """`name` if it can name a file on any system. Raises `UsageError` otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"a teacher's name is made of letters, digits, '.', '_' and '-'; got {name!r}")
    return name


def check_free(name: str) -> None:
    """Raise `UsageError` for a name that cannot be, or is taken."""
    if check_name(name) in teachers():
        raise UsageError(f"a teacher called {name!r} is registered already: choose another --name")


# -- trained here -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher fresh from its training: not registered yet."""

    state: Weights
    top1: float  # percent on the test split
    payload: bytes  # the file that holds it
    sha256: str


def default_name(training: Training) -> str:
    """DATASET-MODEL-sSEED, and -noisePERCENT where labels are corrupted."""
    data = re.sub(r"[^A-Za-z0-9._]+", "-", training.dataset).strip("-.")[-60:]  # a folder's name holds slashes
    noise = f"-noise{100 * training.label_noise:g}" if training.label_noise else ""
    return f"{data}-{training.arch}-s{training.seed}{noise}"


def recipe_text(training: Training, facts: Dataset) -> str:
    """A training recipe as the registry states it."""
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
    """The command that trains this teacher, with as many threads as are set now."""
    usual, recipe = recipe_of(training.dataset, training.arch), training.recipe
    verb = f"noise {training.dataset}/{training.arch} --rate {training.label_noise:g}"
    words = [verb if training.label_noise else f"train {training.dataset}/{training.arch}", f"--seed {training.seed}"]
    for option, mine, theirs in (
        ("--epochs", recipe.epochs, usual.epochs),
        ("--batch", recipe.batch_size, usual.batch_size),
        ("--lr", recipe.optimiser.lr, usual.optimiser.lr),
        ("--weight-decay", recipe.optimiser.weight_decay, usual.optimiser.weight_decay),
        ("--precision", training.precision, "fp32"),
        ("--device", device.type, "cpu"),
        ("--threads", torch.get_num_threads(), usual.threads),
    ):
        if mine != theirs:
            words.append(f"{option} {mine}")
    return f"dfkd-bench teacher {' '.join(words)}"


def train_new(
    training: Training, name: str, device: torch.device, report: Report, checkpoint_seconds: float = 15.0
) -> TrainedTeacher:
    """Train and measure; goes on from where an interrupted training of the same request and `name` stood.

    Raises `RunError` while another process trains a teacher of that name.
    """
    folder = training_folder(name)
    busy = f"another process trains {name} ({folder}): wait for it, or choose another --name"
    try:
        with folder_lock(folder, busy=busy, remedy="free some space"):
            model = train_teacher(training, device, report, folder, checkpoint_seconds)
    except OSError as error:
        raise RunError(f"cannot write below {folder}: {error.strerror}; free some space") from error
    payload, sha256 = payload_of(model.state_dict())
    return TrainedTeacher(model.state_dict(), measure_top1(model, training.dataset, device), payload, sha256)


def training_folder(name: str) -> Path:
    """Where a teacher's training rests while it is not done."""
    return writable_home() / "training" / name


def drop_checkpoint(name: str) -> None:
    """Drop the checkpoint of a training whose outcome is stored or no longer wanted."""
    shutil.rmtree(training_folder(name), ignore_errors=True)


def add_trained(name: str, training: Training, taught: TrainedTeacher, device: torch.device) -> Teacher:
    """Register a teacher that was trained here. Raises `UsageError` for a name taken."""
    entry = Teacher(
        name, training.dataset, training.arch, training.seed, f"{name}.safetensors", "", round(taught.top1, 4),
        recipe_text(training, dataset(training.dataset)), command_of(training, device), label_noise=training.label_noise,
    )  # fmt: skip
    return register(entry, taught.state)


# -- brought from elsewhere -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddedTeacher:
    """An imported teacher, how its weights found their places, and what is doubtful about it."""

    teacher: Teacher
    matched: str  # by name, by synonymous names, by the order of their layers
    warning: str


@dataclass(frozen=True)
class TeacherFile:
    """What the user says of a file of weights."""

    path: Path
    dataset: str
    arch: str
    name: str
    mean: tuple[float, ...] = ()  # of brightness 0..1, per channel; none: what the file says, else the dataset's
    std: tuple[float, ...] = ()
    shortcut: str = "auto"  # A, B, or by the weights that the file has
    origin: str = ""


def add_file(offer: TeacherFile, device: torch.device) -> AddedTeacher:
    """Register the weights of a file after measuring them on the test split.

    Raises `UsageError` for unknown or taken names, `RunError` for a file that is no state dict or does not fit.
    """
    facts = dataset(offer.dataset)
    models.architecture(offer.arch)
    check_free(offer.name)
    mean, std = check_normalisation(offer.mean, offer.std, facts)
    weights = read_weights(offer.path)
    check_finite(weights, offer.path.name)
    if not mean and (said := normalisation_in(offer.path)):
        mean, std = check_normalisation(*said, facts)
    if (mean, std) == (facts.mean, facts.std):
        mean, std = (), ()
    model, options, matched = fitted(offer, weights, facts)
    entry = Teacher(
        offer.name, offer.dataset, offer.arch, NO_SEED, f"{offer.name}.safetensors", "", 0.0, "not known here",
        origin_of(offer), mean=mean, std=std, options=options,
    )  # fmt: skip
    top1 = measure_top1(freeze(model, device), facts_for(entry), device)
    entry = Teacher(**{**vars(entry), "top1": round(top1, 4)})
    return AddedTeacher(register(entry, model.state_dict()), matched, accuracy_warning(top1, facts.classes))


def origin_of(offer: TeacherFile) -> str:
    """Where a teacher comes from, in one line: as said, or the name and hash of its file."""
    said = " ".join(offer.origin.split())
    said = said or f"imported from {offer.path.name}, SHA-256 {weights_sha256(offer.path)}"
    return said.encode("utf-8", "replace").decode()


def accuracy_warning(top1: float, classes: int) -> str:
    """A warning where accuracy is so near to chance that something must be wrong; empty otherwise."""
    chance = 100.0 / classes
    if top1 >= min(3 * chance, (100 + chance) / 2):
        return ""
    return f"accuracy {top1:.2f} % (chance is {chance:.2f} %): wrong normalisation, dataset, or naming?"


def check_normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], facts: Dataset
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same, or nothing where nothing is said; raises `UsageError` where it cannot be meant."""
    if not mean and not std:
        return (), ()
    channels = facts.image_shape[0]
    if len(mean) != channels or len(std) != channels:
        raise UsageError(
            f"--mean and --std go together, with one number for each of the {channels} channels of {facts.name}; got "
            f"{len(mean)} and {len(std)}"
        )
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise UsageError("--mean and --std are of brightness 0..1 (a mean of 123.7 of 255 is 0.485); std is not 0")
    return mean, std


def fitted(offer: TeacherFile, weights: Weights, facts: Dataset) -> tuple[Tapped, dict[str, Any], str]:
    """A model of the architecture with the file's weights, its options, and how the weights were matched."""
    takes = models.architecture(offer.arch).options
    kinds = ("A", "B")
    if offer.shortcut not in (*kinds, "auto"):
        raise UsageError(f"unknown shortcut {offer.shortcut!r}{did_you_mean(offer.shortcut, [*kinds, 'auto'])}")
    if offer.shortcut != "auto":
        tries: list[dict[str, Any]] = [{"shortcut": offer.shortcut}]
    else:
        tries = [{"shortcut": kind} for kind in kinds] if "shortcut" in takes else [{}]
    candidates = [(models.build(offer.arch, facts.classes, facts.image_shape, options), options) for options in tries]
    count = convolutions(weights)
    model, options = next((c for c in candidates if convolutions(c[0].state_dict()) == count), candidates[0])
    found, how = reconcile(model.state_dict(), weights, offer.path.name)
    fit_weights(model, found, offer.path.name)
    return model, options, how


def convolutions(weights: Mapping[str, torch.Tensor]) -> int:
    """How many convolutions there are: a projection shortcut has one where a padded one has none."""
    return sum(layer.kind == "conv" for layer in layers(weights))
