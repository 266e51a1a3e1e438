"""Kill a run at given points, start it again, and compare with an uninterrupted run, byte for byte.

    python tests/helpers/kill_and_resume.py                    all fail points, with the first method that synthesises
    python tests/helpers/kill_and_resume.py --method all       every installed method
    python tests/helpers/kill_and_resume.py --method all --quick   each killed in synthesis and then at a checkpoint
    python tests/helpers/kill_and_resume.py --method NAME --set KEY=VALUE --point synthesis --point snapshot
    python tests/helpers/kill_and_resume.py --method NAME --with replay --with ema --set replay.capacity=300

`--set NAME.KEY=VALUE` is for the method or add-on NAME alone. `--quick` also shortens inner loops, with the settings of
`small.py`, which `--set` overrides. Prints one line per fail point; the exit status is 0 if every resumed run ended
with the same bytes, 1 otherwise. Each run is a process forked from this one, killed by SIGKILL.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small import SMALL
from smoke_runs import plan_one, start

from dfkd_bench.plugins.registry import entries, load, resolve
from dfkd_bench.protocol import BOUNDS
from dfkd_bench.runs import records
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.utils import fail_points
from dfkd_bench.utils.text import method_label

FILES = (
    "student.safetensors", "curves.csv", "predictions.safetensors", "samples.safetensors", "generator.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """One scenario: kill the process at the n-th passing of each point in turn, then let the run finish."""

    moments: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return ", then ".join(f"{point} {n}" for point, n in self.moments)


def in_child(planned: PlannedRun, results: Path, fail_at: str = "", every_round: bool = False) -> int:
    """Run in a forked process; returns its wait status (negative: the signal that ended it)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.environ["DFKD_BENCH_FAIL_AT"] = fail_at
            importlib.reload(fail_points)  # reads the variable at import
            seconds = -1.0 if every_round else 30.0
            start(planned, results, checkpoint_seconds=seconds)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def passings(record: dict[str, Any], planned: PlannedRun) -> dict[str, int]:
    """How often an uninterrupted run with a checkpoint after each round passes each fail point."""
    settings = record["manifest"]["settings"]
    plan = settings["schedule"]
    kind = load(planned.method)
    flags = kind(kind.Config(**settings["method"])).flags
    return {
        "synthesis": plan["rounds"] * flags.calls(warmup=False) + plan["warmup_rounds"] * flags.calls(warmup=True),
        "distillation": plan["rounds"] * plan["student_steps"],
        "snapshot": len(plan["snapshots"]),
        "checkpoint-rename": plan["rounds"] + plan["warmup_rounds"],
        "evaluation": len(plan["snapshots"]),
        "record-rename": 1,
    }


def scenarios(counts: dict[str, int]) -> list[Kill]:
    """Kills in the middle of each kind of work; at the start, before any checkpoint; and twice in one run."""
    middle = {point: n // 2 + 1 for point, n in counts.items() if n}
    kills = [Kill((moment,)) for moment in middle.items()]
    kills.append(Kill((("distillation", 1),)))
    kills.append(Kill((("checkpoint-rename", 1),)))
    kills.append(Kill((("distillation", middle["distillation"]), ("evaluation", counts["evaluation"]))))
    return [k for i, k in enumerate(kills) if k not in kills[:i]]


def quick(counts: dict[str, int]) -> list[Kill]:
    """A kill in the middle of synthesis (or distillation if there is none), then at the next checkpoint."""
    point = "synthesis" if counts["synthesis"] else "distillation"
    return [Kill(((point, counts[point] // 2 + 1), ("checkpoint-rename", 1)))]


def settings_of(method: str, texts: list[str], small: bool, addons: tuple[str, ...] = ()) -> dict[str, str]:
    """The settings of `--set` for one method: of `KEY=VALUE`, and of `NAME.KEY=VALUE` for this method or an add-on."""
    settings = {key: str(value) for key, value in SMALL.get(method, {}).items()} if small else {}
    for text in texts:
        key, _, value = text.partition("=")
        name, _, key = key.rpartition(".")
        if name in ("", method):
            settings[key] = value
        elif name in addons:
            settings[f"{name}.{key}"] = value
    return settings


def differences(folder: Path, whole: Path) -> list[str]:
    """The files and parts of the result that differ, byte for byte, from those in the folder `whole`."""
    if not (folder / records.FILE).exists():
        return ["no record"]
    found = [name for name in FILES if content(folder / name) != content(whole / name)]
    mine, theirs = records.read(folder), records.read(whole)
    if records.canonical(mine["result"]) != records.canonical(theirs["result"]):
        found += [f"result[{k!r}]" for k in theirs["result"] if mine["result"].get(k) != theirs["result"][k]]
    found += [f"left over: {p.name}" for p in folder.iterdir() if p.name not in {q.name for q in whole.iterdir()}]
    return found


def content(path: Path) -> bytes | None:
    """The bytes of a file, None if it is missing."""
    return path.read_bytes() if path.exists() else None


def check(planned: PlannedRun, root: Path, points: list[str], few: bool = False) -> bool:
    """Run the scenarios (or the quick one) of a method, print a line for each; True if all bytes are the same."""
    name = method_label(planned.spec.to_json())
    if in_child(planned, root / "whole") != 0:
        print(f"{name}: FAILED the uninterrupted run failed")
        return False
    whole = root / "whole" / planned.spec.folder
    good = True
    for number, kill in enumerate((quick if few else scenarios)(passings(records.read(whole), planned))):
        if points and not {point for point, _ in kill.moments} & set(points):
            continue
        results = root / str(number)
        wrong = []
        for point, n in kill.moments:
            status = in_child(planned, results, f"{point}:{n}", every_round=True)
            if status != -signal.SIGKILL:
                wrong.append(f"was not killed at {point} {n} (exit status {status})")
            elif (results / planned.spec.folder / records.FILE).exists():
                wrong.append("a record was there before the run was over")
        if not wrong and in_child(planned, results, every_round=True) != 0:
            wrong.append("the restarted run failed")
        wrong = wrong or differences(results / planned.spec.folder, whole)
        restarts = "" if wrong else records.read(results / planned.spec.folder)["measurement"]["restarts"]
        verdict = f"FAILED {'; '.join(wrong)}" if wrong else f"identical, resumed from a checkpoint: {restarts} x"
        print(f"{name}: killed at {kill}: {verdict}", flush=True)
        good = good and not wrong
    return good


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", default=[], help="a name, file.py:Class, or all; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="[NAME.]KEY=VALUE", help="a setting; repeatable")
    parser.add_argument("--with", action="append", default=[], dest="addons", metavar="ADDON", help="repeatable")
    parser.add_argument(
        "--point", action="append", default=[], choices=fail_points.POINTS, help="only these; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="two kills in one run, short inner loops")
    options = parser.parse_args()
    known = list(entries())
    names = options.method or [next(n for n in known if n not in BOUNDS)]
    names = [n for name in names for n in (known if name == "all" else [name])]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(names):
            method = resolve(name).name
            addons = tuple(options.addons)
            overrides = settings_of(method, options.set, options.quick, addons)
            root = Path(folder) / method.replace("/", "_")
            planned = plan_one(root, name, overrides=overrides, addons=addons)
            good = check(planned, root, options.point, options.quick) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
