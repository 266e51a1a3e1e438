"""The authors' own numbers (`official_values.json`): their inputs rebuilt, ours computed beside them, the two compared.

`official_values.json` holds facts alone: what the released code of the papers computes on inputs that anyone can make.
A module `official_<method>.py` says with `@computes(...)` which of our functions gives an entry's numbers;
`test_official.py` holds all of them against the file. Everything is in float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from tiny import CPU, Keepless
from torch import Tensor, nn

from dfkd_bench.method import Method, Moments, Outputs, StudentRecipe, TaskFacts
from dfkd_bench.models.tapped import Tapped, Trace
from dfkd_bench.plugins.registry import card, load, resolve
from dfkd_bench.protocol import task
from dfkd_bench.runs.spec import resolve_settings
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import Job, Schedule

FILE = Path(__file__).with_name("official_values.json")
DATA = json.loads(FILE.read_text())
ENTRIES: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in DATA["entries"]}
TOLERANCE = 1e-6  # relative; of a projection, relative to the norms of both vectors


# -- inputs -----------------------------------------------------------------------------------------------------------


def words(n: int, seed: int) -> np.ndarray:
    """`n` 32-bit words of `seed`, the same on every machine."""
    h = (np.arange(n, dtype=np.uint64) + np.uint64(0x9E3779B9 * (seed + 1) % 2**32)) % 2**32
    h ^= h >> np.uint64(16)
    h = h * np.uint64(0x85EBCA6B) % 2**32
    h ^= h >> np.uint64(13)
    h = h * np.uint64(0xC2B2AE35) % 2**32
    return np.asarray(h ^ (h >> np.uint64(16)))


def fill(shape: tuple[int, ...], seed: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Numbers between `low` and `high` that look uniform, float64."""
    w = words(math.prod(shape), seed).astype(np.float64)
    return torch.from_numpy(low + (high - low) * (w + 0.5) / 2**32).reshape(shape)


def tensor(spec: list[Any]) -> Tensor:
    """The input that a specification of the file describes."""
    kind, *rest = spec
    if kind == "fill":
        shape, seed, low, high = rest
        return fill(tuple(shape), seed, low, high)
    if kind == "labels":
        n, classes, seed = rest
        return torch.from_numpy((classes * words(n, seed) // np.uint64(2**32)).astype(np.int64))
    if kind == "unit_rows":
        return F.normalize(tensor(rest[0]), dim=1)
    if kind == "unit_columns":
        return F.normalize(tensor(rest[0]), dim=0)
    if kind == "sorted":
        return tensor(rest[0]).sort().values
    assert kind == "values", kind
    return torch.tensor(rest[0], dtype=torch.float64)


def inputs(entry: Mapping[str, Any], *free: str) -> dict[str, Tensor]:
    """All inputs of an entry by name; those named `free` want gradients."""
    made = {name: tensor(spec) for name, spec in entry["inputs"].items()}
    for name in free:
        made[name].requires_grad_()
    return made


# -- small networks ---------------------------------------------------------------------------------------------------


def fill_module(module: nn.Module, base: int) -> None:
    """Tensor number k of `module` (floating ones, in order) from seed `base` + k, at the published scales."""
    order = [
        (m, name, t)
        for m in module.modules()
        for name, t in [*m.named_parameters(recurse=False), *m.named_buffers(recurse=False)]
        if t.is_floating_point() and name != "vectors"
    ]
    with torch.no_grad():
        for k, (owner, name, t) in enumerate(order):
            if t.dim() > 1:
                bound = math.sqrt(3.0 / t[0].numel())
                low, high = -bound, bound
            elif name == "running_var" or (isinstance(owner, nn.modules.batchnorm._BatchNorm) and name == "weight"):
                low, high = 0.5, 1.5
            else:
                low, high = -0.3, 0.3
            t.copy_(fill(tuple(t.shape), base + k, low, high))


class TinyNet(Tapped):
    """Two convolutions with batch-norm; maps after each ReLU, features (n, width)."""

    tap_names = ("stage1", "stage2", "penultimate")

    def __init__(self, width: int, classes: int, base: int) -> None:
        super().__init__()
        self.feature_dim = width
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)
        self.double()
        fill_module(self, base)

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        x = t.tap("stage1", F.relu(t.bn(self.bn1, self.conv1(x))))
        x = t.tap("stage2", F.relu(t.bn(self.bn2, self.conv2(x))))
        logits: Tensor = self.fc(t.tap("penultimate", x.mean((2, 3))))
        return logits


class TinyGen(nn.Module):
    """Latents (n, nz), and one-hot labels beside them where `classes` > 0, to images (n, 3, 8, 8)."""

    def __init__(self, nz: int, classes: int, end: str, base: int) -> None:
        super().__init__()
        self.classes, self.latent_dim = classes, nz
        self.output_space = "image01" if end == "sigmoid" else "normalised"
        self.l1 = nn.Sequential(nn.Linear(nz + classes, 64))
        self.conv_blocks = nn.Sequential(nn.BatchNorm2d(4), nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, 1, 1))
        self.end = nn.Sigmoid() if end == "sigmoid" else nn.Tanh()
        self.double()
        fill_module(self, base)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.classes:
            assert y is not None
            z = torch.cat([z, F.one_hot(y, self.classes).to(z.dtype)], dim=1)
        image: Tensor = self.end(self.conv_blocks(self.l1(z).view(-1, 4, 4, 4)))
        return image


def network(spec: list[Any]) -> Any:
    """The network of a specification such as ["TinyNet", 6, 5, 100]."""
    kind, *rest = spec
    return {"TinyNet": TinyNet, "TinyGen": TinyGen}[kind](*rest)


class Says:
    """A network that answers every image with the outputs it was given, as leaves of a gradient."""

    def __init__(self, logits: Tensor, features: Tensor | None = None, moments: tuple[Moments, ...] = ()) -> None:
        self.outputs = Outputs(logits, {} if features is None else {"penultimate": features}, moments)

    def __call__(self, images: Tensor, *, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        return self.outputs


# -- methods ----------------------------------------------------------------------------------------------------------


def settings_of(name: str, preset: str, on: str, **changes: Any) -> dict[str, Any]:
    """The settings that a run of the recipe track resolves for method `name` on task `on`, with `changes`."""
    about = card(resolve(name))
    return {**dict(resolve_settings(about, name, preset, task(on), "recipe", "full", {})), **changes}


def build(name: str, preset: str, on: str, **changes: Any) -> Any:
    """The method `name` with those settings, before its `setup`."""
    kind = load(resolve(name))
    return kind(kind.Config(**settings_of(name, preset, on, **changes)))


# -- whole steps ------------------------------------------------------------------------------------------------------


@contextmanager
def float64() -> Iterator[None]:
    """Everything built inside is in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def tiny_job(
    method: Method,
    params: Mapping[str, Any],
    *,
    replaced: Mapping[str, Any] | None = None,
    recipe: StudentRecipe | None = None,
    rounds: int = 1,
    batch: int = 0,
) -> Job:
    """`method` set up on the networks of an entry, ready for `synthesise` and `teach` of the loop. Inside `float64`.

    `replaced`: names in the method's module and what to put there during `setup`, such as its generator's class by a
    function that returns the entry's network.
    """
    teacher = network(params["teacher"]).eval().requires_grad_(False)
    student = network(params["student"])
    mean, std = (tuple(params.get(k, [0.5] * 3)) for k in ("mean", "std"))
    size = 32 if "x0" in params and params["x0"][1][-1] == 32 else 8
    n = batch or params["batch"]
    facts = TaskFacts("tiny", params["classes"], (3, size, size), mean, std, n, 2)
    context = RunContext(teacher, student, facts, CPU, 0, type(method).privileges)
    module = __import__(type(method).__module__, fromlist=["_"])
    with patch.multiple(module, **replaced) if replaced else patch.dict({}):
        method.setup(context)
    plan = Schedule(rounds, rounds, method.flags.student_steps, n, 0, ())
    job = Job(method, context, student, recipe or StudentRecipe(schedule="constant"), plan, Keepless())
    context.progress.rounds, context.progress.student_steps = rounds, plan.total_steps
    context.streams.reseed(0)
    return job


@contextmanager
def steps_of(job: Job, *names: str) -> Iterator[list[tuple[str, float]]]:
    """Note the losses `names` of every step in order; the loop's log keeps means."""
    seen: list[tuple[str, float]] = []
    usual = job.tally.add

    def add(terms: Mapping[str, Tensor]) -> None:
        seen.extend((name, value.item()) for name, value in terms.items() if name in names)
        usual(terms)

    with patch.object(job.tally, "add", add):
        yield seen


def of(seen: list[tuple[str, float]], name: str) -> list[float]:
    """Those of one name."""
    return [value for kind, value in seen if kind == name]


# -- comparing --------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What ours gives for one entry, in the form of the file.

    gradients: name -> tensor, or None where there is none; of the student's parameters in `gradient_student`. after:
    name -> name -> tensor; lists of tensors, and plain values, where the file has them. tolerance: of values, where the
    file's note asks for a looser one.
    """

    value: Any = None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    gradient_student: dict[str, Tensor | None] = field(default_factory=dict)
    tolerance: float = TOLERANCE


def pulled(loss: Tensor, x: Mapping[str, Tensor], *names: str) -> Found:
    """A loss and its gradients for the inputs `names` of `x`, or all."""
    loss.backward()
    return Found(loss, {name: x[name].grad for name in names or x})


Compute = Callable[[dict[str, Any]], Found]
COMPUTED: dict[str, Compute] = {}


def computes(*ids: str) -> Callable[[Compute], Compute]:
    """Say that the function gives ours for the entries `ids`; it is handed the entry."""

    def register(function: Compute) -> Compute:
        for entry in ids:
            assert entry in ENTRIES, f"the file has no entry {entry!r}"
            assert entry not in COMPUTED, f"{entry!r} is computed twice"
            COMPUTED[entry] = function
        return function

    return register


def starting(prefix: str) -> list[str]:
    """Identifiers of the file that begin with `prefix`."""
    return [name for name in ENTRIES if name.startswith(prefix)]


def state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and running statistics by name."""
    return {k: v for k, v in module.state_dict().items() if v.is_floating_point()}


def differences(entry: Mapping[str, Any], found: Found) -> list[str]:
    """Where ours differs from the file by more than the tolerance: `value.J_G[1]`, `gradients.s.norm`, ..."""
    wrong = [] if entry.get("value") is None else list(unequal("value", entry["value"], found.value, found.tolerance))
    for kind in ("gradients", "gradient_student"):
        for name, theirs in entry.get(kind, {}).items():
            if name not in (all_ours := getattr(found, kind)):
                wrong.append(f"{kind}.{name} (not computed)")
                continue
            ours = all_ours[name]
            wrong += projected(f"{kind}.{name}", theirs, torch.zeros(1) if ours is None else ours, ours is None)
    for name, theirs in entry.get("after", {}).items():
        if name not in found.after:
            wrong.append(f"after.{name} (not computed)")
            continue
        wrong += unequal(f"after.{name}", theirs, found.after[name])
    return wrong


def unequal(at: str, theirs: Any, ours: Any, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Leaves at which two nested values differ; a tensor of ours stands beside its sum and projection in theirs."""
    if isinstance(ours, Tensor) and isinstance(theirs, dict):
        yield from projected(at, theirs, ours)
    elif isinstance(theirs, dict):
        for key, value in theirs.items():
            if not isinstance(ours, Mapping) or key not in ours:
                yield f"{at}.{key} (not computed)"
            else:
                yield from unequal(f"{at}.{key}", value, ours[key], tolerance)
    elif isinstance(theirs, list):
        values = ours.tolist() if isinstance(ours, Tensor) else ours
        if not isinstance(values, list | tuple) or len(values) != len(theirs):
            yield f"{at} (another length)"
        else:
            for k, pair in enumerate(zip(theirs, values, strict=True)):
                yield from unequal(f"{at}[{k}]", *pair, tolerance)
    elif isinstance(theirs, int | float) and not isinstance(theirs, bool):
        ours = float(ours.detach()) if isinstance(ours, Tensor) else ours
        if not abs(float(ours) - theirs) <= tolerance * max(abs(theirs), 1e-12):
            yield f"{at} (theirs {theirs:.9g}, ours {float(ours):.9g})"
    elif ours != theirs:
        yield f"{at} (theirs {theirs!r}, ours {ours!r})"


def projected(at: str, theirs: Mapping[str, float], ours: Tensor, nothing: bool = False) -> Iterator[str]:
    """Norm, sum and inner product with the projection vector, each where the file gives it."""
    ours = ours.detach().double()
    vector = torch.zeros(1) if nothing else fill(tuple(ours.shape), DATA["projection_seed"])
    size = float(torch.linalg.vector_norm(ours))
    found = {"norm": size, "sum": float(ours.sum()), "dot": float((ours * vector).sum())}
    room = {
        "norm": TOLERANCE * abs(theirs.get("norm", 0.0)),
        "sum": TOLERANCE * size * math.sqrt(ours.numel()),
        "dot": TOLERANCE * size * float(torch.linalg.vector_norm(vector)),
    }
    for key, value in theirs.items():
        if not abs(found[key] - value) <= room[key] + 1e-12:
            yield f"{at}.{key} (theirs {value:.9g}, ours {found[key]:.9g})"
