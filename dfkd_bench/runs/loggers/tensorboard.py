"""Writes the numbers of every snapshot as TensorBoard scalars; the step is the number of student images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_bench.errors import UsageError
from dfkd_bench.runs.progress import Callback, Logger, ProgressEvent

if TYPE_CHECKING:
    from dfkd_bench.runs.spec import RunSpec


@contextmanager
def opened(folder: Path, spec: RunSpec) -> Iterator[Callback]:
    """The callback; it writes an event file into `folder`."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder))

    def write(event: ProgressEvent) -> None:
        for name, value in (event.row or {}).items():
            if name not in ("round", "student_images"):
                writer.add_scalar(name, value, event.student_images)

    try:
        yield write
    finally:
        writer.close()


def check() -> None:
    """Raise `UsageError` unless TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        raise UsageError("logger tensorboard needs the extra: pip install 'dfkd-bench[tensorboard]'")


LOGGER = Logger("tensorboard", "scalars of every snapshot for TensorBoard", opened, check)
