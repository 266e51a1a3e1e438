"""Small networks and jobs for tests, built as by `training.runner`, without files or data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_bench.method import Method, StudentRecipe, TaskFacts
from dfkd_bench.models.cnn import CNN
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import Job, Schedule
from dfkd_bench.utils.seeding import seed_global
from dfkd_methods.cpsc import CPSC

CPU = torch.device("cpu")
RECIPE = StudentRecipe(lr=0.1, weight_decay=5e-4, schedule="cosine", warmup=0.05)


def fill(module: nn.Module, seed: int) -> None:
    """Set every weight and buffer from NumPy's legacy stream, so that they do not depend on torch's initialisers.

    Scales are those of usual initialisers. Norms, tables and running statistics get random values too, because an error
    would not be visible with ones and zeros.
    """
    draws = np.random.RandomState(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            normal = torch.from_numpy(draws.standard_normal(tuple(tensor.shape))).to(tensor.dtype)
            if name.endswith("running_var"):
                tensor.copy_(1.0 + 0.2 * normal.abs())
            elif tensor.dim() > 1 and "gain" not in name and "shift" not in name:
                tensor.copy_(normal * (2.0 / tensor[0].numel()) ** 0.5)
            else:
                ones = name.endswith("weight") and "shift" not in name
                tensor.copy_(float(ones) + 0.1 * normal)


@contextmanager
def arithmetic(dtype: torch.dtype) -> Iterator[None]:
    """Build and run everything inside in `dtype`, with the random numbers of fp32."""

    def cast(draw: Any) -> Any:
        return lambda *size, **more: draw(*size, **{"dtype": torch.float32, **more}).to(dtype)

    torch.set_default_dtype(dtype)
    try:
        with patch.object(torch, "randn", cast(torch.randn)), patch.object(torch, "rand", cast(torch.rand)):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


class Keepless:
    """A storage that stores only the mean losses of every round."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def restore(self, job: Job) -> int:
        return -job.schedule.warmup_rounds

    def checkpoint(self, job: Job, rounds: int) -> None:
        pass

    def snapshot(self, job: Job, rounds: int, row: dict[str, float]) -> None:
        pass

    def progress(self, job: Job, rounds: int) -> None:
        self.rows.append(job.tally.take())


def make_job(
    method: Method,
    teacher: Tapped,
    student: Tapped,
    *,
    classes: int = 3,
    image_shape: tuple[int, int, int] = (1, 8, 8),
    batch_size: int = 6,
    rounds: int = 2,
    seed: int = 0,
    recipe: StudentRecipe = RECIPE,
    precision: str = "fp32",
    filled: bool = True,
) -> Job:
    """`method` set up on frozen `teacher` and `student`, ready for the loop."""
    if filled:
        fill(teacher, seed + 1)
        fill(student, seed + 2)
    teacher = place(teacher, CPU).eval().requires_grad_(False)
    student = place(student, CPU)
    channels = image_shape[0]
    facts = TaskFacts("tiny", classes, image_shape, (0.5,) * channels, (0.5,) * channels, batch_size, 2)
    context = RunContext(teacher, student, facts, CPU, seed, method.privileges, precision=precision)
    seed_global(seed, "setup")
    method.setup(context)
    if filled:
        modules = [m for m in context.registered.values() if isinstance(m, nn.Module)]
        for k, module in enumerate([*modules, *context.companions.values()]):
            fill(module, seed + 3 + k)
    plan = Schedule(rounds, rounds, method.flags.student_steps, batch_size, 0, ())
    job = Job(method, context, student, recipe, plan, Keepless())
    context.progress.rounds = rounds
    context.streams.reseed(0)
    return job


def cpsc(preset: str = "official", **settings: Any) -> CPSC:
    """CPSC with a tiny generator."""
    small = {"latent_dim": 4, "generator_width": 2}
    return CPSC(CPSC.Config(**{**small, **CPSC.presets[preset], **settings}))


def cpsc_job(preset: str = "official", *, student_features: int = 5, precision: str = "fp32", **settings: Any) -> Job:
    """CPSC with two tiny CNNs on 8x8 images of three classes; other `student_features` than 5 need the adapter."""
    teacher = CNN(2, classes=3, channels=1, feature_dim=5)
    student = CNN(2, classes=3, channels=1, feature_dim=student_features)
    return make_job(cpsc(preset, **settings), teacher, student, precision=precision)


def flat(module: nn.Module) -> Tensor:
    """A copy of all parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def buffers(module: nn.Module) -> Tensor:
    """A copy of all buffers in one vector."""
    return torch.cat([b.detach().double().flatten() for b in module.buffers()]).clone()
