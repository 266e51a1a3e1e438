"""The registry of teachers: shipped ones and the user's. Each is a safetensors file with its SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.data.home import user_folder
from dfkd_bench.errors import RunError, UsageError, did_you_mean
from dfkd_bench.protocol import Task
from dfkd_bench.teachers.weights import Normalisation, normalisation_in, payload_of
from dfkd_bench.teachers.weights import fit_weights as fit_weights
from dfkd_bench.teachers.weights import read_weights as read_weights
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.hashing import file_sha256
from dfkd_bench.utils.parse import convert, read_toml, toml

if TYPE_CHECKING:
    import torch

    from dfkd_bench.data.base import Dataset
    from dfkd_bench.models.tapped import Tapped

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Teacher:
    """One registered teacher."""

    name: str
    dataset: str
    arch: str
    seed: int
    file: str  # relative to the registry file
    sha256: str
    top1: float  # percent on the test split
    recipe: str
    origin: str
    home: Path = SHIPPED  # folder of the registry file
    mean: tuple[float, ...] = ()  # its normalisation, if that is not the dataset's
    std: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)  # of its architecture, such as `shortcut`
    label_noise: float = 0.0  # fraction of its training labels that were corrupted

    @property
    def path(self) -> Path:
        """Its file of weights."""
        return self.home / self.file


KEYS = {one.name for one in fields(Teacher)} - {"name", "home"}  # of an entry of a registry file


def user_home() -> Path:
    """Folder of the user's teachers, in DFKD_BENCH_HOME or the per-user cache."""
    return user_folder() / "teachers"


def writable_home() -> Path:
    """`user_home`, created if missing. Raises `RunError` if that fails."""
    home = user_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {home}: {error.strerror}; set DFKD_BENCH_HOME to a writable folder") from error
    return home


def teachers() -> dict[str, Teacher]:
    """All registered teachers by name, the shipped ones first; these cannot be replaced by the user's.

    Raises `RunError` for a registry file that cannot be read.
    """
    found: dict[str, Teacher] = {}
    for home in (SHIPPED, user_home()):
        file = home / "registry.toml"
        if not file.exists():
            continue
        for name, entry in read_toml(file, "teacher registry", RunError).items():
            try:
                if unknown := entry.keys() - KEYS:
                    raise ValueError(f"unknown key {min(unknown)!r}")
                found.setdefault(name, convert({**entry, "name": name, "home": home}, Teacher))
            except (AttributeError, ValueError) as error:
                raise RunError(f"teacher registry {file} cannot be read: [{name}]: {error}") from error
    return found


def teacher(name: str) -> Teacher:
    """The teacher `name`; raises `UsageError` for an unknown one."""
    known = teachers()
    if name not in known:
        raise UsageError(f"unknown teacher {name!r}{did_you_mean(name, list(known))}")
    return known[name]


def teacher_for(task: Task, name: str | None = None) -> Teacher:
    """The teacher of a task: the named one, else the first registered one that was trained without label noise.

    Raises `UsageError` if none fits.
    """
    if name:
        found = teacher(name)
        if (found.dataset, found.arch) != (task.dataset.name, task.teacher):
            raise UsageError(
                f"teacher {name} is a {found.arch} for {found.dataset}; task {task.name} needs a {task.teacher} "
                f"for {task.dataset.name}"
            )
        return found
    fitting = [t for t in teachers().values() if (t.dataset, t.arch) == (task.dataset.name, task.teacher)]
    for found in fitting:
        if not found.label_noise:
            return found
    noisy = f", or name one with noisy labels, such as --teacher {fitting[0].name}" if fitting else ""
    wanted = f"{task.dataset.name}/{task.teacher}"
    raise UsageError(f"no teacher for {task.name}: make one with `dfkd-bench teacher train {wanted}`{noisy}")


def facts_for(entry: Teacher) -> Dataset:
    """The facts of its dataset, with the teacher's own normalisation if it has one."""
    from dfkd_bench.data.find import dataset

    facts = dataset(entry.dataset)
    return replace(facts, mean=entry.mean, std=entry.std) if entry.mean else facts


def normalisation_of(entry: Teacher) -> Normalisation | None:
    """Its own normalisation, None if it uses the dataset's."""
    return (entry.mean, entry.std) if entry.mean else None


def with_normalisation_of(task: Task, entry: Teacher) -> Task:
    """`task` with the normalisation of this teacher."""
    return replace(task, dataset=facts_for(entry))


def weights_sha256(path: Path) -> str:
    """SHA-256 of a teacher's file; raises `RunError` if it is missing."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise RunError(f"teacher file {path} cannot be read: {error.strerror}") from error


def load_teacher(entry: Teacher, device: torch.device) -> Tapped:
    """The teacher, frozen and in eval mode, on `device`.

    Raises `RunError` if SHA-256, normalisation or shapes differ from the registry entry.
    """
    from dfkd_bench import models
    from dfkd_bench.data.find import dataset

    actual = weights_sha256(entry.path)
    if actual != entry.sha256:
        raise RunError(
            f"teacher {entry.name}: file {entry.path.name} has SHA-256 {actual[:12]}, registered {entry.sha256[:12]}; "
            "restore the file or register it again"
        )
    if normalisation_in(entry.path) != normalisation_of(entry):
        raise RunError(
            f"teacher {entry.name}: the registry has another normalisation than the file; restore the entry "
            "or register the file again"
        )
    facts = dataset(entry.dataset)
    model = models.build(entry.arch, facts.classes, facts.image_shape, entry.options)
    fit_weights(model, read_weights(entry.path), entry.name)
    return freeze(model, device)


def freeze(model: Tapped, device: torch.device) -> Tapped:
    """`model` on `device`, in eval mode, with `requires_grad` off."""
    from dfkd_bench.models.tapped import place

    return place(model, device).eval().requires_grad_(False)


def register(entry: Teacher, weights: dict[str, torch.Tensor]) -> Teacher:
    """Store weights and entry in the user's registry. Raises `UsageError` for a name already registered."""
    from filelock import FileLock

    home = writable_home()
    with FileLock(home / ".lock"):  # the registry is read and written in one step
        if entry.name in teachers():
            raise UsageError(f"teacher {entry.name!r} is already registered: choose another --name")
        payload, sha256 = payload_of(weights, normalisation_of(entry))
        write_atomic(home / entry.file, payload)
        stored = Teacher(**{**asdict(entry), "home": home, "sha256": sha256})
        known = [t for t in teachers().values() if t.home == home]
        text = "\n".join(entry_toml(t) for t in [*known, stored])
        write_atomic(home / "registry.toml", text.encode())
    return stored


def entry_toml(entry: Teacher) -> str:
    """One registry entry as TOML text."""
    always = ("dataset", "arch", "seed", "file", "sha256", "top1", "recipe", "origin")
    values = {key: getattr(entry, key) for key in (*always, "mean", "std", "label_noise", "options")}
    lines = [f"{key} = {toml(value)}" for key, value in values.items() if value or key in always]
    return "\n".join([f"[{toml(entry.name)}]", *lines]) + "\n"
