"""Fail points: kill this process at a chosen moment, to show that a run survives it.

`DFKD_BENCH_FAIL_AT=name:n` sends SIGKILL to the process at the n-th passing of point `name` (n from 1). Points:
synthesis, distillation, snapshot, checkpoint-rename, evaluation, record-rename. Off unless the variable is set.
"""

from __future__ import annotations

import os
import signal

POINTS = ("synthesis", "distillation", "snapshot", "checkpoint-rename", "evaluation", "record-rename")
_wanted, _, _count = os.environ.get("DFKD_BENCH_FAIL_AT", "").partition(":")
_left = int(_count or 1)


def fail_point(name: str) -> None:
    """Die here if the environment says so."""
    global _left
    if name == _wanted:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
