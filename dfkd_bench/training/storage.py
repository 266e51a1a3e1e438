"""The storage of a run on disk: checkpoints and snapshots."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from dfkd_bench.blocks.bn_stats import kept_statistics
from dfkd_bench.method import Batch, Method
from dfkd_bench.metrics.logits import agreement
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.runs.progress import Callback, ProgressEvent
from dfkd_bench.training.compose import without_addons
from dfkd_bench.training.loop import Job
from dfkd_bench.utils import checkpoint, guard
from dfkd_bench.utils.fail_points import fail_point
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.seeding import derive

PROBE = 64  # synthetic images that each snapshot adds to the held-out probe
FINAL = 512  # synthetic images that are stored at the end of the run, for the sample metrics


class FileStorage:
    """A `RunStorage` in one folder."""

    def __init__(self, folder: Path, seed: int, teacher: Tapped, callback: Callback) -> None:
        self.folder, self.seed, self.teacher, self.callback = folder, seed, teacher, callback
        self.snapshots = folder / "snapshots"
        self.restarts = 0
        self._begun, self._first = time.monotonic(), 0
        self._shows = True

    # -- what the loop calls --------------------------------------------------------------------------------------

    def restore(self, job: Job) -> int:
        """See `RunStorage`. Without a checkpoint, the first round is that of the warm-up."""
        self._shows = type(without_addons(job.method)).preview is not Method.preview
        first = -job.schedule.warmup_rounds
        state = checkpoint.load(self.folder, job.context.device)
        if state is not None:
            first = state["rounds"]
            load_state(job, state)
            self.restarts = state["restarts"] + 1
        self._begun, self._first = time.monotonic(), first
        return first

    def checkpoint(self, job: Job, rounds: int) -> None:
        """Save `state_of` the job and the number of rounds. Raises `PrivilegeError` after a violation of the guard."""
        guard.check_clean()
        checkpoint.save(self.folder, {**state_of(job), "rounds": rounds, "restarts": self.restarts})

    def snapshot(self, job: Job, rounds: int, row: dict[str, float]) -> None:
        """Store the student and some previewed images, and add the agreement on these images to `row`."""
        self.snapshots.mkdir(exist_ok=True)
        if self._shows and not job.diverged:
            last = rounds == job.schedule.rounds
            batch = self._preview(job, FINAL if last else PROBE, f"preview/{rounds}")
            row["synthetic_agreement"] = self._agreement(job, batch.images)
            write_atomic(self.snapshots / f"images-{rounds:08d}.safetensors", images_file(batch))
        write_atomic(self.snapshots / f"student-{rounds:08d}.safetensors", student_file(job.student))
        fail_point("snapshot")
        self._report(job, rounds, row)

    def progress(self, job: Job, rounds: int) -> None:
        """Call the callback. Raises `PrivilegeError` after a violation of the guard, even if the method caught it."""
        guard.check_clean()
        self._report(job, rounds, None)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _report(self, job: Job, rounds: int, row: Mapping[str, float] | None) -> None:
        plan = job.schedule
        phase = "warm-up" if rounds <= 0 and plan.warmup_rounds else "training"
        images = max(0, rounds) * plan.student_steps * plan.batch_size
        seconds = time.monotonic() - self._begun
        self.callback(ProgressEvent(phase, rounds, plan.rounds, images, seconds, self._first, row))

    def _preview(self, job: Job, n: int, purpose: str) -> Batch:
        stream = torch.Generator(job.context.device)
        stream.manual_seed(derive(self.seed, purpose))
        return preview(job, n, stream)

    @torch.no_grad()
    def _agreement(self, job: Job, images: Tensor) -> float:
        job.student.eval()
        teacher = self.teacher(images)
        return agreement(job.student(images), teacher)


def preview(job: Job, n: int, stream: torch.Generator) -> Batch:
    """`n` images of `Method.preview`, with the student in the mode of synthesis; nothing is counted or changed."""
    job.student.train(job.method.flags.mode(0) != "eval").requires_grad_(False)
    with torch.no_grad(), job.context.meter.paused(), kept_statistics(job.student):
        return job.method.preview(n, stream)


def state_of(job: Job) -> dict[str, Any]:
    """The part of a checkpoint that belongs to the job."""
    context = job.context
    return {
        "student": job.student.state_dict(),
        "optimiser": job.optimiser.state_dict(),
        "companions": {k: m.state_dict() for k, m in context.companions.items()},
        "registered": {k: plain(o.state_dict()) for k, o in context.registered.items()},
        "states": {k: s.value for k, s in context.states.items()},
        "meter": context.meter.state_dict(),
        "tally": job.tally.state_dict(),
        "curves": job.curves,
        "student_step": context.progress.student_step,
        "diverged": job.diverged,
    }


def load_state(job: Job, state: dict[str, Any]) -> None:
    """The inverse of `state_of`."""
    context = job.context
    job.student.load_state_dict(state["student"])
    job.optimiser.load_state_dict(state["optimiser"])
    for name, module in context.companions.items():
        module.load_state_dict(state["companions"][name])
    for name, obj in context.registered.items():
        obj.load_state_dict(state["registered"][name])
    for name, cell in context.states.items():
        cell.value = copy.deepcopy(state["states"][name])
    context.meter.load_state_dict(state["meter"])
    job.tally.load_state_dict(state["tally"])
    job.curves = list(state["curves"])
    context.progress.student_step = state["student_step"]
    job.diverged = state["diverged"]


def plain(state: Any) -> Any:
    """A state dict with plain dicts, lists and tuples, as `torch.load` with `weights_only` needs them."""
    if isinstance(state, Mapping):
        return {k: plain(v) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(plain(v) for v in state)
    return state


def student_file(student: Tapped) -> bytes:
    """The student's weights and buffers as safetensors bytes."""
    return to_bytes({k: v.detach().contiguous().cpu() for k, v in student.state_dict().items()})


def generator_file(registered: Mapping[str, Any]) -> bytes | None:
    """The registered networks as safetensors bytes, tensors named `name.key`; None if there are none."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().clone(memory_format=torch.contiguous_format)  # copies of tied weights
        for name, module in registered.items()
        if isinstance(module, torch.nn.Module)
        for key, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }
    return to_bytes(tensors) if tensors else None


def images_file(batch: Batch) -> bytes:
    """Images and labels as safetensors bytes."""
    tensors = {"images": batch.images.detach().float().contiguous().cpu()}
    if batch.labels is not None:
        tensors["labels"] = batch.labels.to(torch.int32).contiguous().cpu()
    return to_bytes(tensors)


def read_images(paths: Sequence[Path], device: torch.device, most: int) -> tuple[Tensor, Tensor | None] | None:
    """The first `most` images of each file, concatenated, and the labels if all files have them; None for no files."""
    if not paths:
        return None
    files = [load_file(p, device=str(device)) for p in paths]
    images = torch.cat([f["images"][:most] for f in files])
    if not all("labels" in f for f in files):
        return images, None
    return images, torch.cat([f["labels"][:most] for f in files]).long()
