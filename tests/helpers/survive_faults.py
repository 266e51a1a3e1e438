"""Disturb a sweep in every way we know, let it end, and compare with one that nobody disturbed, byte for byte.

    python tests/helpers/survive_faults.py                       every fault, through worker processes of this machine
    python tests/helpers/survive_faults.py --fault killed --fault hang

Prints one line per fault; the exit status is 0 if every sweep ended as it should, 1 otherwise. What is compared: the
students, curves, predictions and results of all runs that were not themselves at fault; that no run was counted twice;
and that those at fault left a row that says so.
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
    """One results folder, a plan of slow runs and the same plan done without disturbance."""

    def __init__(self, whole: Path, results: Path) -> None:
        self.whole, self.results = whole, results
        self.told: list[tuple[str, int, str]] = []

    def plan(self, *methods: str) -> list[PlannedRun]:
        """Slow runs, and those of `methods`."""
        return plan(self.results, SLOW, *methods, seeds=SEEDS)

    def sweep(
        self,
        planned: list[PlannedRun],
        terms: SchedulerOptions = EVERY_ROUND,
        jobs: int = 2,
        where: Engine | None = None,
    ) -> Summary:
        """Through worker processes, or another engine."""
        where = where or engine("local", EngineOptions(jobs=jobs))
        try:
            return run_plan(planned, self.results, where, terms, self.tell)
        finally:
            where.close()

    def tell(self, work: Work, report: Report) -> None:
        """What became of each run, in order."""
        self.told.append((work.spec.method.rpartition(":")[2], work.spec.seed, report.outcome))

    def wrong(self, planned: list[PlannedRun]) -> list[str]:
        """What of the slow runs is not as it is without disturbance."""
        found = []
        for item in planned:
            if item.spec.method.endswith("Slow"):
                folder, whole = self.results / item.spec.folder, self.whole / item.spec.folder
                found += [f"seed {item.spec.seed}: {what}" for what in differences(folder, whole)]
        held = [r["hash"] for r in records.read_all(self.results)]
        return found + ["a run was counted twice"] * (len(held) != len(set(held)))

    def status_of(self, method: str) -> list[tuple[str, str]]:
        """(status, error) of every record of a method at fault."""
        found = [r for r in records.read_all(self.results) if r["spec"]["method"].endswith(method)]
        return [(r["result"]["status"], r["result"].get("error", "")) for r in found]


def in_the_midst(scene: Scene, do: Callable[[Path, int], None], after: int = 4) -> threading.Thread:
    """Do something to the first run that is `after` rounds far: it gets the run's folder and its process."""

    def look() -> None:
        while True:
            for beat in scene.results.rglob(HEARTBEAT):
                try:
                    said = json.loads(beat.read_text())
                except (OSError, ValueError):
                    continue
                if said["round"] >= after and (beat.parent / records.CHECKPOINT).exists():
                    do(beat.parent, said["pid"])
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread


def killed(scene: Scene) -> list[str]:
    """A worker is killed with SIGKILL in the midst of a run."""
    planned = scene.plan()
    thread = in_the_midst(scene, lambda folder, pid: os.kill(pid, signal.SIGKILL))
    summary = scene.sweep(planned)
    wrong = scene.wrong(planned) + ["nobody was killed"] * thread.is_alive()
    if "lost" not in [outcome for _, _, outcome in scene.told] or summary.failed:
        wrong.append(f"told {scene.told}")
    restarts = [records.read(scene.results / p.spec.folder)["measurement"]["restarts"] for p in planned]
    return wrong + ["it did not go on from a checkpoint"] * (sum(restarts) != 1)


def two_drivers(scene: Scene) -> list[str]:
    """Two drivers are started on one results folder at once."""
    planned, second = scene.plan(), Scene(scene.whole, scene.results)
    thread = threading.Thread(target=lambda: second.sweep(second.plan(), jobs=1))
    thread.start()
    summary = scene.sweep(planned, jobs=1)
    thread.join()
    done = [(seed) for _, seed, outcome in [*scene.told, *second.told] if outcome == "done"]
    return (
        scene.wrong(planned)
        + [f"done {done}"] * (sorted(done) != list(SEEDS))
        + [str(summary.failed)] * bool(summary.failed)
    )


def full_disk(scene: Scene) -> list[str]:
    """The results folder is full; later there is room, and the same command goes on."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(scene.results)], capture_output=True
    )
    if mounted.returncode:
        return ["skipped: mounting a small file system needs root"]
    try:
        planned = scene.plan()
        first = scene.sweep(planned)
        wrong = [] if first.failed and all("space" in error for _, error in first.failed) else [f"first {first.failed}"]
        if any(scene.status_of("Slow")):
            wrong.append("a full disk is no fault of the method, yet there is a record")
        subprocess.run(["mount", "-o", "remount,size=100m", str(scene.results)], check=True)
        scene.sweep(scene.plan())
        return wrong + scene.wrong(planned)
    finally:
        subprocess.run(["umount", "-l", str(scene.results)], check=False)


def clock_jump(scene: Scene) -> list[str]:
    """The machine's clock jumps by a day forth and back while the runs are at it."""
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
        thread = in_the_midst(scene, jump)
        summary = scene.sweep(planned)
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
    """A method hangs, holding the interpreter; --run-timeout ends it."""
    planned = scene.plan(f"{FAULTY}:Hangs")
    scene.sweep(planned, SchedulerOptions(Limits(seconds=40.0), checkpoint_seconds=-1.0))
    said = scene.status_of("Hangs")
    wanted = ("failed", "it took longer than 40 s (--run-timeout)")
    return scene.wrong(planned) + [f"left {said}"] * (said != [wanted] * len(SEEDS))


def not_a_number(scene: Scene) -> list[str]:
    """A method returns NaN: its runs have diverged, a row and not an absence."""
    planned = scene.plan(f"{FAULTY}:NaN")
    scene.sweep(planned)
    said = [status for status, _ in scene.status_of("NaN")]
    return scene.wrong(planned) + [f"left {said}"] * (said != ["diverged"] * len(SEEDS))


def leaves(scene: Scene) -> list[str]:
    """A method calls sys.exit: its runs have failed; asked again they stay so, until they are to be retried."""
    planned = scene.plan(f"{FAULTY}:Leaves")
    scene.sweep(planned)
    said = scene.status_of("Leaves")
    wrong = [f"left {said}"] * (said != [("failed", "SystemExit: 3")] * len(SEEDS))
    scene.told.clear()
    scene.sweep(scene.plan(f"{FAULTY}:Leaves"))
    wrong += [f"tried again: {scene.told}"] * bool(scene.told)
    scene.sweep(scene.plan(f"{FAULTY}:Leaves"), SchedulerOptions(retry_failed=True))
    wrong += [f"not tried again: {scene.told}"] * ([outcome for *_, outcome in scene.told] != ["failed"] * len(SEEDS))
    return wrong + scene.wrong(planned)


def leaks(scene: Scene) -> list[str]:
    """A method leaks memory until the limit ends it."""
    planned = scene.plan(f"{FAULTY}:Leaks")
    scene.sweep(planned, SchedulerOptions(Limits(memory_bytes=1_400_000_000), checkpoint_seconds=-1.0))
    said = scene.status_of("Leaks")
    wanted = ("failed", "it took more memory than --memory-limit allows")
    return scene.wrong(planned) + [f"left {said}"] * (said != [wanted] * len(SEEDS))


def half_written(scene: Scene) -> list[str]:
    """A checkpoint and a record on disk are cut in half, as after a power cut."""
    planned = scene.plan()
    folder = scene.results / planned[0].spec.folder

    class Stop(Exception):  # noqa: N818
        pass

    def stop(moment: object) -> None:
        if getattr(moment, "round", 0) > 5:
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
    scene.sweep(planned)
    return wrong + scene.wrong(planned)


def interrupted(scene: Scene) -> list[str]:
    """Ctrl-C in the midst of a sweep; the same command goes on from the checkpoints."""
    # one at a time, so that there is a second run to come, however late the interrupt is
    words = [sys.executable, "-m", "dfkd_bench", "run", "--method", SLOW, "--seeds", "0-1", "--budget", "smoke"]
    words += ["--threads", "1", "--device", "cpu", "--jobs", "1", "--results", str(scene.results)]
    # what a shell starts in the background has this signal ignored, and so have its children
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    thread = in_the_midst(scene, lambda folder, pid: driver.send_signal(signal.SIGINT), after=10)
    _, said = driver.communicate(timeout=240)
    wrong = ["it was not interrupted"] * thread.is_alive()
    wrong += [f"exit {driver.returncode}: {said}"] * (driver.returncode != 130 or "Traceback" in said)
    left = counts(states(scene.results))
    wrong += [f"left {left}"] * (left["running"] > 0 or left["done"] == len(SEEDS))
    planned = scene.plan()
    scene.sweep(planned)
    return wrong + scene.wrong(planned)


FAULTS: dict[str, Callable[[Scene], list[str]]] = {
    f.__name__: f
    for f in (killed, two_drivers, full_disk, clock_jump, hang, not_a_number, leaves, leaks, half_written, interrupted)
}


def undisturbed(whole: Path) -> None:
    """The plan of slow runs, one after the other in this process."""
    for item in Scene(whole, whole).plan():
        start(item, whole)


def survive(fault: Callable[[Scene], list[str]], whole: Path, root: Path) -> list[str]:
    """What is wrong after one fault; nothing, if all is well."""
    results = root / fault.__name__
    results.mkdir()
    return fault(Scene(whole, results))


def disturb(about: str | None, faults: dict[str, Callable[[Scene], list[str]]]) -> int:
    """The command of a script: parse, disturb, report; its exit status."""
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
