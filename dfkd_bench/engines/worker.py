"""What happens inside a worker, whichever engine started it: one run, watched, and never an exception.

A worker that ran into a failure should not be used again (`Report.outcome` failed): the method may have left anything
behind in its process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.engines.base import Limits, Report, Work
from dfkd_bench.errors import BenchError, BusyError

if TYPE_CHECKING:
    from dfkd_bench.keeper import Moment, Watcher

HEARTBEAT = "running.json"
HANG = "hang-{}.txt"  # by process: where a run that took too long was at the time
BEAT_SECONDS = 2.0
OUT_OF_MEMORY = 86  # exit status of a worker whose run took more memory than it may


def carry_out(work: Work) -> Report:
    """Do the run of `work`; a failure is a report and a failed record."""
    from dfkd_bench import registry
    from dfkd_bench.run import run
    from dfkd_bench.teachers.registry import teacher

    begun = time.monotonic()
    try:
        mentor = teacher(work.teacher)
        entry, *around = (registry.resolve(word, kind) for kind, word, _ in work.plugins)
        for plugin, (kind, word, code) in zip((entry, *around), work.plugins, strict=True):
            if (found := registry.code_digest(plugin)) != code:
                return Report("failed", 0.0, f"{kind.word} {word} is another one here (code {found[:8]}, planned "
                              f"{code[:8]}): install the same version on every worker")  # fmt: skip
        with limited(work), heartbeat(work.folder) as watch:
            outcome = run(
                work.spec, Path(work.results), method=entry, teacher=mentor, watch=watch, force=work.force,
                checkpoint_seconds=work.checkpoint_seconds, fresh=work.fresh, addons=around,
            )  # fmt: skip
    except BusyError as error:
        return Report("busy", time.monotonic() - begun, str(error))
    except BenchError as error:
        return Report("failed", time.monotonic() - begun, str(error))
    return Report("skipped" if outcome.skipped else "done", time.monotonic() - begun)


def lacking(works: Sequence[Work]) -> list[str]:
    """One line for each method or add-on that is not here, or not the one that was planned."""
    from dfkd_bench import registry

    found = []
    needed = dict.fromkeys(plugin for work in works for plugin in work.plugins)
    for kind, word, code in sorted(needed, key=lambda plugin: (plugin[0] != registry.METHOD, plugin[1:])):
        try:
            if registry.code_digest(registry.resolve(word, kind)) != code:
                found.append(f"{kind.word} {word} is another version on {socket.gethostname()}")
        except BenchError as error:
            found.append(f"{error} on {socket.gethostname()}")
    return found


def quiet_worker() -> None:
    """At a worker's start: Ctrl-C is the driver's business, and torch is loaded before the first run is timed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import dfkd_bench.run  # noqa: F401


# -- limits -----------------------------------------------------------------------------------------------------------


@contextmanager
def limited(work: Work) -> Iterator[None]:
    """End this process if the run takes more than it may.

    Time is watched by a thread of the interpreter's own that needs no lock, so that a method cannot hold it off.
    """
    limits, folder = work.limits, work.folder
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    hang = folder / HANG.format(os.getpid())
    with open(hang, "w") if limits.seconds else open(os.devnull, "w") as place:
        if limits.seconds:
            faulthandler.dump_traceback_later(limits.seconds, exit=True, file=place)
        if limits.memory_bytes:
            threading.Thread(target=watch_memory, args=(work, limits, stop), daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            if limits.seconds:
                faulthandler.cancel_dump_traceback_later()
                hang.unlink(missing_ok=True)


def watch_memory(work: Work, limits: Limits, stop: threading.Event) -> None:
    """Leave this process when its resident memory passes the limit."""
    import psutil

    me = psutil.Process()
    assert limits.memory_bytes is not None
    while not stop.wait(0.2):
        if me.memory_info().rss > limits.memory_bytes:
            os._exit(OUT_OF_MEMORY)


def timed_out(folder: Path) -> bool:
    """Whether the run in `folder` was ended because it took too long; what says so is taken away."""
    found = [path for path in folder.glob(HANG.format("*")) if path.stat().st_size > 0]
    for path in found:
        path.replace(folder / "hang.txt")  # for the reader: where every thread was
    return bool(found)


# -- heartbeat --------------------------------------------------------------------------------------------------------


@contextmanager
def heartbeat(folder: Path) -> Iterator[Watcher]:
    """A watcher that says in a small file beside the run who is at it and how far it is; gone when the run ends."""
    path, last, wrote = folder / HEARTBEAT, -BEAT_SECONDS, False
    who = {"host": socket.gethostname(), "pid": os.getpid()}

    def beat(moment: Moment) -> None:
        nonlocal last, wrote
        if time.monotonic() - last < BEAT_SECONDS:
            return
        last, wrote = time.monotonic(), True
        said = {
            "phase": moment.phase, "round": moment.round, "rounds": moment.rounds,
            "student_images": moment.student_images, "seconds": moment.seconds, "restarted_at": moment.restarted_at,
        }  # fmt: skip
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps({**who, **said}))
            os.replace(temporary, path)
        except OSError:
            pass  # a full disk stops the run soon enough, and with a better word

    try:
        yield beat
    finally:
        if wrote:  # only the process that has the run's lock gets to write: the file is no one else's
            path.unlink(missing_ok=True)
