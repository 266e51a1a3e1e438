"""A distillation request of a user, and the run that is planned for it."""

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
from dfkd_bench.runs.plan import pick_device, preset_of, suggest_methods
from dfkd_bench.runs.settings import DEFAULT_THREADS, SETTINGS
from dfkd_bench.runs.spec import RunSpec, check_overrides, make_spec
from dfkd_bench.utils.hashing import sha256

SMALL = 16  # pixels: images up to this size use the recipe of digits16, larger ones that of the common benchmarks
EXPORTS = ("pt2", "onnx")
FACTS = (  # fields of a dataset that enter the identity
    "name", "classes", "image_shape", "mean", "std", "train_size", "test_size", "crop_padding", "flip", "files",
    "sha256", "about", "source", "needs", "aliases", "home", "made_of",
)  # fmt: skip


@dataclass(frozen=True)
class DistillRequest:
    """A distillation request. `mean` and `std` are per channel, of images in [0, 1]."""

    teacher: user_models.UserTeacher
    mean: tuple[float, ...]
    std: tuple[float, ...]
    student: str
    method: str
    preset: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    budget: str = "quick"
    images: int | None = None  # number of student images, instead of the budget's
    seed: int = 0
    flip: bool = False  # True if a mirrored image keeps its class
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    threads: int = DEFAULT_THREADS
    exports: tuple[str, ...] = ()
    evaluate: str | None = None  # dataset to test the student on after the run


@dataclass(frozen=True)
class Plan:
    """The run of a request."""

    spec: RunSpec
    task: Task
    entry: Entry
    card: Card
    identity: str  # 12 hexadecimal digits of a SHA-256 over everything that the student depends on
    test: Dataset | None  # of `evaluate`, with the teacher's normalisation


def make_plan(request: DistillRequest) -> Plan:
    """The run of a request. Builds no network. Raises `UsageError` for an impossible request."""
    if seconds_of(request.budget) is not None:
        raise UsageError("budgets of seconds are for comparing methods: give a budget of images, or --images N")
    check_word("budget", request.budget, BUDGETS)
    SETTINGS["precision"].check(request.precision)
    for form in request.exports:
        check_word("export", form, EXPORTS)
    check_facts(request)
    entry = registry.resolve(request.method)
    card = registry.card(entry)
    preset = preset_of(card, request.preset, entry.name)
    if "real_data" in card.privileges_of(preset):
        raise UsageError(f"method {entry.name} needs real images, and there are none: {suggest_methods('real_data')}")
    overrides = check_overrides(card, request.overrides, entry.name)
    student = user_models.register_student(request.student)
    facts = dataset_of(request)
    pinned = digits16.DATASET.pinned if max(facts.image_shape[1:]) <= SMALL else USUAL
    if request.images is not None:
        pinned = dataclasses.replace(pinned, student_images={**pinned.student_images, request.budget: request.images})
    name = f"own/{safe_name(request.teacher.file.stem)}-{safe_name(request.student)}"
    task = Task(name, facts, request.teacher.arch or request.teacher.file.name, student, pinned)
    spec = make_spec(
        entry.name, card, task, preset=preset, overrides=overrides, track="pinned", budget=request.budget,
        seed=request.seed, device=pick_device(request.device), precision=request.precision, compile=request.compile,
        threads=request.threads, teacher=request.teacher.sha256, code=registry.code_digest(entry),
        plugins=plugin_digests(task.plugins),
    )  # fmt: skip
    not_in_spec = {
        "facts": {**{name: getattr(facts, name) for name in FACTS}, "loader": ""},  # same form as in earlier versions
        "teacher": [request.teacher.arch, request.teacher.taps, request.teacher.head],
        "student": [request.student, user_models.factory_digest(request.student) if ":" in request.student else ""],
        "images": request.images,
    }
    text = json.dumps([spec.to_json(), not_in_spec], sort_keys=True)
    identity = sha256(text)[:12]
    test = None if request.evaluate is None else evaluation_dataset(request, facts)
    return Plan(spec, task, entry, card, identity, test)


def check_facts(request: DistillRequest) -> None:
    """Raise `UsageError` unless classes, shape, mean, std and counts are valid and fit together."""
    channels, height, width = request.teacher.image_shape
    if request.teacher.classes < 2:
        raise UsageError(f"--classes takes a whole number from 2 on, got {request.teacher.classes}")
    if min(channels, height, width) < 1:
        raise UsageError(f"--shape takes channels x height x width, got {channels}x{height}x{width}")
    for name, values in (("mean", request.mean), ("std", request.std)):
        if len(values) != channels:
            raise UsageError(f"--{name} takes {channels} numbers, one per channel; got {len(values)}")
        if not all(map(math.isfinite, values)):
            raise UsageError(f"--{name} takes finite numbers")
    if min(request.std) <= 0:
        raise UsageError("--std takes positive numbers")
    if request.threads < 1 or (request.images is not None and request.images < 1):
        raise UsageError("--threads and --images take whole numbers from 1 on")


def dataset_of(request: DistillRequest) -> Dataset:
    """A dataset without images, made from the request.

    Random crops shift by an eighth of the image, which keeps the class of natural images and symbols. Mirroring may
    change the class, so the user decides (`flip`).
    """
    shape = request.teacher.image_shape
    return Dataset(
        name="own", classes=request.teacher.classes, image_shape=shape, mean=request.mean, std=request.std,
        train_size=0, test_size=0, crop_padding=max(shape[1:]) // 8, flip=request.flip, about="no data",
    )  # fmt: skip


def evaluation_dataset(request: DistillRequest, facts: Dataset) -> Dataset:
    """The dataset to evaluate on, with the teacher's normalisation; images of a folder are resized to its shape.

    Raises `UsageError` if it does not fit or is not on this machine.
    """
    assert request.evaluate is not None
    if request.evaluate.startswith(FOLDER):
        from dfkd_bench.data.folder import facts as folder_facts

        test = folder_facts(request.evaluate.removeprefix(FOLDER), facts.image_shape)
    else:
        test = dataset(request.evaluate)
        if test.needs:
            require_folder(test)
    if test.classes != facts.classes:
        raise UsageError(f"--eval: {request.evaluate} has {test.classes} classes, the teacher {facts.classes}")
    if test.image_shape != facts.image_shape:
        shapes = ("x".join(map(str, s)) for s in (test.image_shape, facts.image_shape))
        raise UsageError("--eval: {} has images of {}, the teacher takes {}".format(request.evaluate, *shapes))
    return dataclasses.replace(test, mean=facts.mean, std=facts.std)


def safe_name(word: str) -> str:
    """The last part of `word`, with characters that a task's name cannot contain replaced by `_`."""
    return re.sub(r"[^\w.]+", "_", word.rpartition("/")[2])
