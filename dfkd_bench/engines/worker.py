"""The code inside a worker of any engine: it executes one run under limits and returns a `Report`; it never raises.

After a failure (`Report.outcome` failed) a worker should not be used again: the method may have changed global state of
the process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_bench.engines.base import Limits, Report, Work
from dfkd_bench.errors import BenchError, BusyError

if TYPE_CHECKING:
    from dfkd_bench.runs.progress import Callback, ProgressEvent

HEARTBEAT = "running.json"
HANG = "hang-{}.txt"  # by process id: stack traces of a run that exceeded its time limit
FULL = "memory-{}.txt"  # by process id: memory of a run that exceeded its memory limit
BEAT_SECONDS = 2.0
OUT_OF_MEMORY = 86  # exit status of a worker whose run exceeded its memory limit
MEMORY_EXCEEDED = "it took more memory than --memory-limit allows"


def carry_out(work: Work) -> Report:
    """Execute the run of `work`. A failure becomes a report, and a failed record if the method failed."""
    from dfkd_bench.plugins import registry
    from dfkd_bench.training.runner import run

    begun = time.monotonic()
    try:
        here = work.run.here()
        for kind, word, code in work.run.plugins:
            if (actual := registry.code_digest(registry.resolve(word, kind))) != code:
                return Report("failed", 0.0, f"{kind.word} {word} differs here (code {actual[:8]}, planned "
                              f"{code[:8]}): install the same version on every worker")  # fmt: skip
        with with_limits(work), heartbeat(work.folder) as callback:
            outcome = run(here, replace(work.options, callback=callback))
    except BusyError as error:
        return Report("busy", time.monotonic() - begun, str(error))
    except BenchError as error:
        return Report("failed", time.monotonic() - begun, str(error))
    except OSError as error:  # from the run's folder, before the run starts
        why = (
            f"cannot write below {work.options.results}: {error.strerror}; free some space or choose another --results"
        )
        return Report("failed", time.monotonic() - begun, why)
    return Report("skipped" if outcome.skipped else "done", time.monotonic() - begun)


def missing_here(works: Sequence[Work]) -> list[str]:
    """One line for each plug-in, logger, teacher or dataset that is missing here or differs from the planned one."""
    from dfkd_bench.data.home import is_present, require_folder
    from dfkd_bench.plugins import registry
    from dfkd_bench.protocol import task
    from dfkd_bench.runs.loggers import check
    from dfkd_bench.teachers.registry import teacher

    here, lines = socket.gethostname(), []
    needed = dict.fromkeys(plugin for work in works for plugin in work.run.plugins)
    for kind, word, code in sorted(needed, key=lambda plugin: (plugin[0] != registry.METHOD, plugin[1:])):
        try:
            if registry.code_digest(registry.resolve(word, kind)) != code:
                lines.append(f"{kind.word} {word} is another version on {here}")
        except BenchError as error:
            lines.append(f"{error} on {here}")
    for name, sha256 in sorted({(w.run.teacher.name, w.spec.teacher) for w in works}):
        try:
            if teacher(name).sha256 != sha256:
                lines.append(f"teacher {name} has another file on {here}")
        except BenchError as error:
            lines.append(f"{error} on {here}")
    for name in sorted({w.spec.task for w in works}):
        try:
            if not is_present(facts := task(name).dataset):
                require_folder(facts)
        except BenchError as error:
            lines.append(f"{error} on {here}")
    for log in dict.fromkeys(log for work in works for log in work.options.logs):
        try:
            check(log)
        except BenchError as error:
            lines.append(f"{error} on {here}")
    return list(dict.fromkeys(lines))


def one_per_requirement(works: Iterable[Work]) -> list[Work]:
    """One of the works for each set of requirements, which is enough for `missing_here`."""
    return list({(w.run.plugins, w.run.teacher.name, w.spec.teacher, w.spec.task): w for w in works}.values())


def quiet_worker() -> None:
    """At a worker's start: ignore Ctrl-C, which the driver handles, and import torch before the first run is timed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import dfkd_bench.training.runner  # noqa: F401


# -- limits -----------------------------------------------------------------------------------------------------------


@contextmanager
def with_limits(work: Work) -> Iterator[None]:
    """End this process if the run inside exceeds its limits.

    faulthandler's thread watches the time: it does not need the interpreter's lock, so no method can block it.
    """
    limits, folder = work.limits, work.folder
    folder.mkdir(parents=True, exist_ok=True)
    over_limit(work)  # remove the files of an earlier process
    stop = threading.Event()
    hang = folder / HANG.format(os.getpid())
    with open(hang, "w") if limits.seconds else open(os.devnull, "w") as traces:
        if limits.seconds:
            faulthandler.dump_traceback_later(limits.seconds, exit=True, file=traces)
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
    """End this process when its resident memory exceeds the limit."""
    import psutil

    me = psutil.Process()
    assert limits.memory_bytes is not None
    while not stop.wait(0.2):
        if (taken := me.memory_info().rss) > limits.memory_bytes:
            with suppress(OSError):  # for engines that do not report the exit status
                (work.folder / FULL.format(os.getpid())).write_text(f"{taken} bytes\n")
            os._exit(OUT_OF_MEMORY)


def over_limit(work: Work) -> str:
    """The message if a process ended because `work` exceeded a limit, else ""; removes the files that say so."""
    hung = [path for path in work.folder.glob(HANG.format("*")) if path.stat().st_size > 0]
    full = list(work.folder.glob(FULL.format("*")))
    for path in hung:
        path.replace(work.folder / "hang.txt")  # kept for the user: the stack traces of all threads
    for path in full:
        path.unlink(missing_ok=True)
    if hung and work.limits.seconds:
        return f"it took longer than {work.limits.seconds:g} s (--run-timeout)"
    return MEMORY_EXCEEDED if full else ""


def resumed(work: Work) -> Work:
    """`work` for another try after its process was lost: --force must not remove the new checkpoint."""
    force = work.options.force and (work.folder / "record.json").exists()
    return replace(work, options=replace(work.options, force=force))


# -- heartbeat --------------------------------------------------------------------------------------------------------


@contextmanager
def heartbeat(folder: Path) -> Iterator[Callback]:
    """A callback that writes host, process and progress to a small file in the run's folder, removed at the end."""
    path, last, wrote = folder / HEARTBEAT, -BEAT_SECONDS, False
    who = {"host": socket.gethostname(), "pid": os.getpid()}

    def beat(event: ProgressEvent) -> None:
        nonlocal last, wrote
        if time.monotonic() - last < BEAT_SECONDS:
            return
        last, wrote = time.monotonic(), True
        progress = {
            "phase": event.phase, "round": event.round, "rounds": event.rounds,
            "student_images": event.student_images, "seconds": event.seconds, "restarted_at": event.restarted_at,
        }  # fmt: skip
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps({**who, **progress}))
            os.replace(temporary, path)
        except OSError:
            pass  # a full disk stops the run itself, with a better message

    try:
        yield beat
    finally:
        if wrote:  # only the process with the run's lock writes the file, so it belongs to this process
            path.unlink(missing_ok=True)
