"""What a record says of where it came from: versions, commit, machine, teacher, data."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dfkd_bench._version import __version__
from dfkd_bench.errors import BenchError
from dfkd_bench.plugins.entry import Entry
from dfkd_bench.plugins.registry import card
from dfkd_bench.runs.loggers import Log, loggers
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.task_plugins import described
from dfkd_bench.teachers.registry import Teacher

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "safetensors")


def manifest(planned: PlannedRun, device: torch.device, logs: Sequence[Log] = ()) -> dict[str, Any]:
    """Everything a reader needs to know where a number was made; `logs` are the loggers that followed the run."""
    commit, dirty = git_state(Path(__file__).parents[1])
    around = [{"name": a.name, **about_plugin(a, "default")} for a in planned.addons]
    return {
        "dfkd_bench": __version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "plugin": about_plugin(planned.method, planned.spec.preset),
        **({"addons": around} if around else {}),
        **({"plugins": described(planned.spec.plugins)} if planned.spec.plugins else {}),
        **({"loggers": about_loggers(logs)} if logs else {}),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": device_name(device),
        "threads": planned.spec.threads,
        "teacher": about_teacher(planned.teacher),
    }


def about_plugin(entry: Entry, preset: str) -> dict[str, Any]:
    """Who brings a method or an add-on, and what it declares."""
    return {
        "owner": entry.owner,
        "version": entry.version,
        "target": entry.target.rpartition("/")[2],
        "privileges": privileges_of(entry, preset),
    }


def about_loggers(logs: Sequence[Log]) -> list[dict[str, str]]:
    """Who brings each logger; those that this machine does not have are left out, as they were at the run."""
    known = loggers()
    found = [known[name] for name in dict.fromkeys(log.name for log in logs) if name in known]
    return [{"name": e.name, "owner": e.owner, "version": e.version, "target": e.target} for e in found]


def about_teacher(teacher: Teacher) -> dict[str, Any]:
    """The registry's entry, as far as a reader of the record needs it."""
    said: dict[str, Any] = {k: getattr(teacher, k) for k in ("name", "sha256", "top1", "origin")}
    said |= {"mean": list(teacher.mean), "std": list(teacher.std)} if teacher.mean else {}
    return said | ({"label_noise": teacher.label_noise} if teacher.label_noise else {})


def privileges_of(entry: Entry, preset: str) -> list[str] | None:
    """What the plugin declares for `preset` at the time of the run; None if its card cannot be read."""
    try:
        return list(card(entry).privileges_of(preset))
    except BenchError:
        return None


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, uncommitted changes) of the checkout around `folder`, (None, None) where there is none."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if not (folder.parent / ".git").exists():
            return None, None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def device_name(device: torch.device) -> str:
    """What runs are told apart by when their seconds are compared: the GPU's or the processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
