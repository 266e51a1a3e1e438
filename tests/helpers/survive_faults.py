"""Disturb the execution of a plan, let it end, and compare with an undisturbed one, byte for byte.

    python tests/helpers/survive_faults.py                       every fault, through worker processes of this machine
    python tests/helpers/survive_faults.py --fault killed --fault hang

Prints one line per fault; the exit status is 0 if every plan ended as it should, 1 otherwise. Compared are the
students, curves, predictions and results of all runs of correct methods. No run may be counted twice, and runs of
faulty methods must have a record that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kill_and_resume import differences
from smoke_runs import plan, start

from dfkd_bench.engines import engine
from dfkd_bench.engines.base import Engine, EngineOptions, Limits, Report, Work
from dfkd_bench.engines.scheduler import SchedulerOptions, Summary, run_plan
from dfkd_bench.engines.status import counts, states
from dfkd_bench.engines.worker import HEARTBEAT
from dfkd_bench.errors import RunError
from dfkd_bench.runs import records
from dfkd_bench.runs.planned import PlannedRun

FAULTY = Path(__file__).with_name("faulty.py")
SEEDS = (0, 1)
SLOW = f"{FAULTY}:Slow"
EVERY_ROUND = SchedulerOptions(checkpoint_seconds=-1.0, patience=0.5)


class Scene:
    """One results folder (`results`) for a plan of slow runs, and that of the undisturbed plan (`whole`)."""

    def __init__(self, whole: Path, results: Path) -> None:
        self.whole, self.results = whole, results
        self.told: list[tuple[str, int, str]] = []  # (method, seed, outcome) of each report

    def plan(self, *methods: str) -> list[PlannedRun]:
        """Slow runs, and those of `methods`."""
        return plan(self.results, SLOW, *methods, seeds=SEEDS)

    def execute(
        self,
        planned: list[PlannedRun],
        terms: SchedulerOptions = EVERY_ROUND,
        jobs: int = 2,
        where: Engine | None = None,
    ) -> Summary:
        """Execute the plan with worker processes, or another engine."""
        where = where or engine("local", EngineOptions(jobs=jobs))
        try:
            return run_plan(planned, self.results, where, terms, self.tell)
        finally:
            where.close()

    def tell(self, work: Work, report: Report) -> None:
        """Store a report."""
        self.told.append((work.spec.method.rpartition(":")[2], work.spec.seed, report.outcome))

    def wrong(self, planned: list[PlannedRun]) -> list[str]:
        """The differences of the slow runs from the undisturbed ones."""
        lines = []
        for item in planned:
            if item.spec.method.endswith("Slow"):
                folder, whole = self.results / item.spec.folder, self.whole / item.spec.folder
                lines += [f"seed {item.spec.seed}: {what}" for what in differences(folder, whole)]
        hashes = [r["hash"] for r in records.read_all(self.results)]
        return lines + ["a run was counted twice"] * (len(hashes) != len(set(hashes)))

    def status_of(self, method: str) -> list[tuple[str, str]]:
        """(status, error) of every record of a faulty method."""
        found = [r for r in records.read_all(self.results) if r["spec"]["method"].endswith(method)]
        return [(r["result"]["status"], r["result"].get("error", "")) for r in found]


def during_run(scene: Scene, do: Callable[[Path, int], None], after: int = 4) -> threading.Thread:
    """Call `do(folder, process id)` for the first run that has finished `after` rounds, in a thread."""

    def look() -> None:
        while True:
            for beat in scene.results.rglob(HEARTBEAT):
                try:
                    progress = json.loads(beat.read_text())
                except (OSError, ValueError):
                    continue
                if progress["round"] >= after and (beat.parent / records.CHECKPOINT).exists():
                    do(beat.parent, progress["pid"])
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread


def killed(scene: Scene) -> list[str]:
    """A worker is killed with SIGKILL during a run."""
    planned = scene.plan()
    thread = during_run(scene, lambda folder, pid: os.kill(pid, signal.SIGKILL))
    summary = scene.execute(planned)
    wrong = scene.wrong(planned) + ["no worker was killed"] * thread.is_alive()
    if "lost" not in [outcome for _, _, outcome in scene.told] or summary.failed:
        wrong.append(f"told {scene.told}")
    restarts = [records.read(scene.results / p.spec.folder)["measurement"]["restarts"] for p in planned]
    return wrong + ["it did not go on from a checkpoint"] * (sum(restarts) != 1)


def two_drivers(scene: Scene) -> list[str]:
    """Two drivers are started on one results folder at the same time."""
    planned, second = scene.plan(), Scene(scene.whole, scene.results)
    thread = threading.Thread(target=lambda: second.execute(second.plan(), jobs=1))
    thread.start()
    summary = scene.execute(planned, jobs=1)
    thread.join()
    done = [(seed) for _, seed, outcome in [*scene.told, *second.told] if outcome == "done"]
    return (
        scene.wrong(planned)
        + [f"done {done}"] * (sorted(done) != list(SEEDS))
        + [str(summary.failed)] * bool(summary.failed)
    )


def full_disk(scene: Scene) -> list[str]:
    """The results folder is full; later there is space, and the same command continues."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(scene.results)], capture_output=True
    )
    if mounted.returncode:
        return ["skipped: mounting a small file system needs root"]
    try:
        planned = scene.plan()
        first = scene.execute(planned)
        wrong = [] if first.failed and all("space" in error for _, error in first.failed) else [f"first {first.failed}"]
        if any(scene.status_of("Slow")):
            wrong.append("a full disk is not a failure of the method, but there is a failed record")
        subprocess.run(["mount", "-o", "remount,size=100m", str(scene.results)], check=True)
        scene.execute(scene.plan())
        return wrong + scene.wrong(planned)
    finally:
        subprocess.run(["umount", "-l", str(scene.results)], check=False)


def clock_jump(scene: Scene) -> list[str]:
    """The machine's clock jumps by a day forward and back during the runs."""
    planned = scene.plan()
    library = next(iter(sorted(Path("/usr/lib").rglob("libfaketime.so.1"))), None)
    if library is None:
        return ["skipped: needs libfaketime (Debian's package faketime)"]
    moved = scene.results / ".clock"
    moved.write_text("+0")
    os.environ.update(LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(moved), FAKETIME_NO_CACHE="1",
                      FAKETIME_DONT_FAKE_MONOTONIC="1")  # fmt: skip

    def jump(folder: Path, pid: int) -> None:
        for shift in ("+1d", "-1d", "+0"):
            moved.write_text(shift)
            time.sleep(0.3)

    try:
        thread = during_run(scene, jump)
        summary = scene.execute(planned)
        thread.join(5)
    finally:
        for name in ("LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC"):
            os.environ.pop(name)
    return (
        scene.wrong(planned)
        + ["the clock did not jump"] * thread.is_alive()
        + [str(summary.failed)] * bool(summary.failed)
    )


def hang(scene: Scene) -> list[str]:
    """A method hangs in Python code; --run-timeout ends it."""
    planned = scene.plan(f"{FAULTY}:Hangs")
    scene.execute(planned, SchedulerOptions(Limits(seconds=40.0), checkpoint_seconds=-1.0))
    status = scene.status_of("Hangs")
    expected = ("failed", "it took longer than 40 s (--run-timeout)")
    return scene.wrong(planned) + [f"left {status}"] * (status != [expected] * len(SEEDS))


def not_a_number(scene: Scene) -> list[str]:
    """A method returns NaN: its runs have records of status diverged."""
    planned = scene.plan(f"{FAULTY}:NaN")
    scene.execute(planned)
    status = [status for status, _ in scene.status_of("NaN")]
    return scene.wrong(planned) + [f"left {status}"] * (status != ["diverged"] * len(SEEDS))


def leaves(scene: Scene) -> list[str]:
    """A method calls sys.exit: its runs have failed, and are executed again only with --retry-failed."""
    planned = scene.plan(f"{FAULTY}:Leaves")
    scene.execute(planned)
    status = scene.status_of("Leaves")
    wrong = [f"left {status}"] * (status != [("failed", "SystemExit: 3")] * len(SEEDS))
    scene.told.clear()
    scene.execute(scene.plan(f"{FAULTY}:Leaves"))
    wrong += [f"tried again: {scene.told}"] * bool(scene.told)
    scene.execute(scene.plan(f"{FAULTY}:Leaves"), SchedulerOptions(retry_failed=True))
    wrong += [f"not tried again: {scene.told}"] * ([outcome for *_, outcome in scene.told] != ["failed"] * len(SEEDS))
    return wrong + scene.wrong(planned)


def leaks(scene: Scene) -> list[str]:
    """A method leaks memory until the limit ends it."""
    planned = scene.plan(f"{FAULTY}:Leaks")
    scene.execute(planned, SchedulerOptions(Limits(memory_bytes=1_400_000_000), checkpoint_seconds=-1.0))
    status = scene.status_of("Leaks")
    expected = ("failed", "it took more memory than --memory-limit allows")
    return scene.wrong(planned) + [f"left {status}"] * (status != [expected] * len(SEEDS))


def half_written(scene: Scene) -> list[str]:
    """A checkpoint and a record on disk are incomplete, as after a power cut."""
    planned = scene.plan()
    folder = scene.results / planned[0].spec.folder

    class Stop(Exception):  # noqa: N818
        pass

    def stop(event: object) -> None:
        if getattr(event, "round", 0) > 5:
            raise Stop

    try:
        start(planned[0], scene.results, callback=stop, checkpoint_seconds=-1.0)
    except RunError:  # as which a run ends whatever comes out of its midst
        (folder / records.FILE).unlink()
    checkpoint = folder / records.CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    other = scene.results / planned[1].spec.folder
    shutil.copytree(scene.whole / planned[1].spec.folder, other)
    (other / records.FILE).write_bytes((other / records.FILE).read_bytes()[:700])
    planned = scene.plan()
    wrong = [f"planned as {[p.state for p in planned]}"] * any(p.state != "interrupted" for p in planned)
    scene.execute(planned)
    return wrong + scene.wrong(planned)


def interrupted(scene: Scene) -> list[str]:
    """Ctrl-C during a plan; the same command resumes the runs from their checkpoints."""
    # one run at a time, so that a second run is still open when the interrupt comes
    words = [sys.executable, "-m", "dfkd_bench", "run", "--method", SLOW, "--seeds", "0-1", "--budget", "smoke"]
    words += ["--threads", "1", "--device", "cpu", "--jobs", "1", "--results", str(scene.results)]
    # processes that a shell starts in the background ignore SIGINT, and their children inherit that
    restore = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore)
    thread = during_run(scene, lambda folder, pid: driver.send_signal(signal.SIGINT), after=10)
    _, errors = driver.communicate(timeout=240)
    wrong = ["it was not interrupted"] * thread.is_alive()
    wrong += [f"exit {driver.returncode}: {errors}"] * (driver.returncode != 130 or "Traceback" in errors)
    left = counts(states(scene.results))
    wrong += [f"left {left}"] * (left["running"] > 0 or left["done"] == len(SEEDS))
    planned = scene.plan()
    scene.execute(planned)
    return wrong + scene.wrong(planned)


FAULTS: dict[str, Callable[[Scene], list[str]]] = {
    f.__name__: f
    for f in (killed, two_drivers, full_disk, clock_jump, hang, not_a_number, leaves, leaks, half_written, interrupted)
}


def undisturbed(whole: Path) -> None:
    """Execute the slow runs one after the other in this process."""
    for item in Scene(whole, whole).plan():
        start(item, whole)


def survive(fault: Callable[[Scene], list[str]], whole: Path, root: Path) -> list[str]:
    """The errors after one fault."""
    results = root / fault.__name__
    results.mkdir()
    return fault(Scene(whole, results))


def disturb(about: str | None, faults: dict[str, Callable[[Scene], list[str]]]) -> int:
    """The command line of both scripts; returns the exit status."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", default=[], choices=list(faults), help="only these; repeatable")
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        undisturbed(root / "whole")
        for name in options.fault or faults:
            begun = time.monotonic()
            wrong = survive(faults[name], root / "whole", root)
            skipped = bool(wrong) and wrong[0].startswith("skipped")
            verdict = wrong[0] if skipped else "FAILED " + "; ".join(wrong) if wrong else "ends as if undisturbed"
            print(f"{name} ({time.monotonic() - begun:.0f} s): {faults[name].__doc__} {verdict}", flush=True)
            good = good and (not wrong or skipped)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(disturb(__doc__, FAULTS))
