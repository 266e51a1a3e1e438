"""The device of a run or of a teacher's training, with all settings that affect the bits of the result."""

from __future__ import annotations

import torch

from dfkd_bench.errors import RunError
from dfkd_bench.utils import eager, memory


def configure_device(kind: str, threads: int) -> torch.device:
    """Device `kind` (cpu or cuda) with `threads` CPU threads, full fp32 and deterministic kernels.

    Raises `RunError` without a GPU.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise RunError("no CUDA device is available here: use --device cpu")
    torch.set_num_threads(threads)
    if kind == "cpu":
        memory.keep_freed_memory()
        eager.avoid_compiler_import()
    # Denormal numbers, of which collapsing networks have many, are slow on a CPU. Worker threads inherit this setting
    # when they are created, so it must be set before the first parallel operation.
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return torch.device(kind)
