"""What a user asks `distill` for, and the run that follows from it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from dfkd_bench.data.base import FOLDER, Dataset
from dfkd_bench.data.datasets import digits16
from dfkd_bench.data.find import dataset
from dfkd_bench.data.home import require_folder
from dfkd_bench.data.terms import USUAL
from dfkd_bench.distill import user_models
from dfkd_bench.errors import UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.plugins.objects import plugin_digests
from dfkd_bench.plugins.registry import Card
from dfkd_bench.protocol import BUDGETS, Task, check_word, seconds_of
from dfkd_bench.runs.plan import pick_device, preset_of, without
from dfkd_bench.runs.settings import DEFAULT_THREADS, SETTINGS
from dfkd_bench.runs.spec import RunSpec, check_overrides, make_spec
from dfkd_bench.utils.hashing import sha256

SMALL = 16  # pixels: up to here the terms of the small datasets hold, above them those of the usual benchmarks
EXPORTS = ("pt2", "onnx")
FACTS = (  # of a dataset: what an identity is made of
    "name", "classes", "image_shape", "mean", "std", "train_size", "test_size", "crop_padding", "flip", "files",
    "sha256", "about", "source", "needs", "aliases", "home", "made_of",
)  # fmt: skip


@dataclass(frozen=True)
class DistillRequest:
    """One wish: this teacher, for images seen like this, into that student."""

    teacher: user_models.UserTeacher
    mean: tuple[float, ...]
    std: tuple[float, ...]
    student: str
    method: str
    preset: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    budget: str = "quick"
    images: int | None = None  # that the student is trained on, instead of the budget's
    seed: int = 0
    flip: bool = False  # whether a mirrored image keeps its class
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    threads: int = DEFAULT_THREADS
    exports: tuple[str, ...] = ()
    evaluate: str | None = None  # a dataset whose test images the student meets after the method is gone


@dataclass(frozen=True)
class Plan:
    """The run of a wish."""

    spec: RunSpec
    task: Task
    entry: Entry
    card: Card
    identity: str  # twelve hexadecimal digits over all that the student depends on
    test: Dataset | None  # of `evaluate`, seen as the teacher sees images


def make_plan(own: DistillRequest) -> Plan:
    """The run that `own` asks for. Raises `UsageError` for whatever cannot be; no network is built for it."""
    if seconds_of(own.budget) is not None:
        raise UsageError("budgets of seconds are for comparing methods: choose one of images here, or --images N")
    check_word("budget", own.budget, BUDGETS)
    SETTINGS["precision"].check(own.precision)
    for form in own.exports:
        check_word("export", form, EXPORTS)
    check_facts(own)
    entry = registry.resolve(own.method)
    card = registry.card(entry)
    preset = preset_of(card, own.preset, entry.name)
    if "real_data" in card.privileges_of(preset):
        raise UsageError(f"method {entry.name} learns from real images, and here are none: {without('real_data')}")
    overrides = check_overrides(card, own.overrides, entry.name)
    student = user_models.register_student(own.student)
    facts = facts_of(own)
    pinned = digits16.DATASET.pinned if max(facts.image_shape[1:]) <= SMALL else USUAL
    if own.images is not None:
        pinned = dataclasses.replace(pinned, student_images={**pinned.student_images, own.budget: own.images})
    name = f"own/{plain(own.teacher.file.stem)}-{plain(own.student)}"
    chosen = Task(name, facts, own.teacher.arch or own.teacher.file.name, student, pinned)
    spec = make_spec(
        entry.name, card, chosen, preset=preset, overrides=overrides, track="pinned", budget=own.budget, seed=own.seed,
        device=pick_device(own.device), precision=own.precision, compile=own.compile, threads=own.threads,
        teacher=own.teacher.sha256, code=registry.code_digest(entry), plugins=plugin_digests(chosen.plugins),
    )  # fmt: skip
    beyond = {
        "facts": {**{name: getattr(facts, name) for name in FACTS}, "loader": ""},  # the form of earlier identities
        "teacher": [own.teacher.arch, own.teacher.taps, own.teacher.head],
        "student": [own.student, user_models.factory_digest(own.student) if ":" in own.student else ""],
        "images": own.images,
    }
    text = json.dumps([spec.to_json(), beyond], sort_keys=True)
    identity = sha256(text)[:12]
    return Plan(spec, chosen, entry, card, identity, None if own.evaluate is None else test_facts(own, facts))


def check_facts(own: DistillRequest) -> None:
    """Raise `UsageError` unless classes, shape, mean, std and numbers make sense together."""
    channels, height, width = own.teacher.image_shape
    if own.teacher.classes < 2:
        raise UsageError(f"--classes takes a whole number from 2 on, got {own.teacher.classes}")
    if min(channels, height, width) < 1:
        raise UsageError(f"--shape takes channels x height x width, got {channels}x{height}x{width}")
    for name, values in (("mean", own.mean), ("std", own.std)):
        if len(values) != channels:
            raise UsageError(f"--{name} takes {channels} numbers, one per channel; got {len(values)}")
        if not all(map(math.isfinite, values)):
            raise UsageError(f"--{name} takes finite numbers")
    if min(own.std) <= 0:
        raise UsageError("--std takes positive numbers")
    if own.threads < 1 or (own.images is not None and own.images < 1):
        raise UsageError("--threads and --images take whole numbers from 1 on")


def facts_of(own: DistillRequest) -> Dataset:
    """The facts that a dataset would state, from the command line; there are no images behind them.

    A shift by an eighth of the image keeps a class in any classification task of natural images or symbols; a
    mirrored image need not, hence the user says so.
    """
    shape = own.teacher.image_shape
    return Dataset(
        name="own", classes=own.teacher.classes, image_shape=shape, mean=own.mean, std=own.std, train_size=0,
        test_size=0, crop_padding=max(shape[1:]) // 8, flip=own.flip, about="no data",
    )  # fmt: skip


def test_facts(own: DistillRequest, facts: Dataset) -> Dataset:
    """The dataset to evaluate on, normalised as the teacher wants it; a folder's images are brought to its shape.

    Raises `UsageError` where it does not fit or is not here.
    """
    assert own.evaluate is not None
    if own.evaluate.startswith(FOLDER):
        from dfkd_bench.data.folder import facts as folder_facts

        found = folder_facts(own.evaluate.removeprefix(FOLDER), facts.image_shape)
    else:
        found = dataset(own.evaluate)
        if found.needs:
            require_folder(found)
    if found.classes != facts.classes:
        raise UsageError(f"--eval: {own.evaluate} has {found.classes} classes, the teacher {facts.classes}")
    if found.image_shape != facts.image_shape:
        shapes = ("x".join(map(str, s)) for s in (found.image_shape, facts.image_shape))
        raise UsageError("--eval: {} has images of {}, the teacher takes {}".format(own.evaluate, *shapes))
    return dataclasses.replace(found, mean=facts.mean, std=facts.std)


def plain(word: str) -> str:
    """`word` with what a task's name cannot hold replaced."""
    return re.sub(r"[^\w.]+", "_", word.rpartition("/")[2])
