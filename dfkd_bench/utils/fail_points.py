"""Fail points: kill this process at a given point, to test that a run can be resumed.

`DFKD_BENCH_FAIL_AT=name:n` sends SIGKILL when point `name` is reached for the n-th time (n from 1). Points: synthesis,
distillation, snapshot, checkpoint-rename, evaluation, record-rename. Without the variable nothing happens.
"""

from __future__ import annotations

import os
import signal

POINTS = ("synthesis", "distillation", "snapshot", "checkpoint-rename", "evaluation", "record-rename")
_selected, _, _count = os.environ.get("DFKD_BENCH_FAIL_AT", "").partition(":")
_left = int(_count or 1)


def fail_point(name: str) -> None:
    """Kill this process if the environment variable selects this point."""
    global _left
    if name == _selected:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
