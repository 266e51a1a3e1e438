"""Every class of bad input: one clear line, the right exit status, nothing half-written."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command
from plugin_file import write_method
from safetensors.torch import save_file

from dfkd_bench import models
from dfkd_bench.data import catalog
from dfkd_bench.errors import UsageError
from dfkd_bench.runs import records
from dfkd_bench.teachers import registry as teachers
from dfkd_bench.utils.hashing import file_sha256

RUN = ["run", "--budget", "smoke", "--threads", "1", "--device", "cpu"]
CPSC = [*RUN, "--method", "cpsc"]
NOISE = [*RUN, "--method", "noise"]
PLAN = ["plan", "-m", "noise", "--budget", "smoke", "--device", "cpu"]
ESTIMATE = [*PLAN, "--estimate"]
PROFILE = ["profile", "-m", "cpsc", "--device", "cpu"]
IMPORT = ["teacher", "import", "{tmp}/weights.pt", "--dataset", "digits16", "--arch", "cnn32", "--name", "mine"]


def plugin(tmp: Path, **steps: str) -> None:
    write_method(tmp / "mine.py", **steps)


def write(name: str, text: str | bytes) -> Callable[[Path], None]:
    def make(tmp: Path) -> None:
        payload = text if isinstance(text, bytes) else text.encode()
        (tmp / name).write_bytes(payload)

    return make


def weights(classes: int = 10, arch: str = "cnn32") -> Callable[[Path], None]:
    return lambda tmp: torch.save(models.build(arch, classes, (1, 16, 16)).state_dict(), tmp / "weights.pt")


class Trap:
    """A pickle that would run code when loaded carelessly."""

    def __reduce__(self) -> Any:
        return (exec, ("open('trapped', 'w').close()",))


def registered(**changes: Any) -> Callable[[Path], None]:
    """A user's registry with one teacher that is wrong in some way."""

    def make(tmp: Path) -> None:
        home = teachers.user_home()
        home.mkdir(parents=True)
        shape = changes.get("classes", 10)
        save_file(models.build("cnn32", shape, (1, 16, 16)).state_dict(), home / "t.safetensors")
        sha = changes.get("sha256") or file_sha256(home / "t.safetensors")
        entry = teachers.Teacher(
            "other", "digits16", changes.get("arch", "cnn32"), 1, "t.safetensors", sha, 9.0, "", ""
        )
        (home / "registry.toml").write_text(changes.get("text") or teachers.entry_toml(entry))

    return make


def huge(name: str) -> Callable[[Path], None]:
    """A file of 1 GiB that takes no room."""

    def make(tmp: Path) -> None:
        with (tmp / name).open("wb") as file:
            file.truncate(2**30)

    return make


nothing = write("unused", "")
RECORD = ["samples", "{tmp}/record.json"]
DEEP = "[" * 10_000 + "]" * 10_000
WHOLE = '{"schema": 2, "hash": "", "spec": {}, "manifest": {}, "result": {"status": "failed"}, "measurement": {}}'
ENTRY = teachers.entry_toml(teachers.Teacher("x", "digits16", "cnn32", 1, "t.safetensors", "0", 9.0, "r", "o"))
MINE = [*RUN, "--method", "{tmp}/mine.py:Mine"]


def steps(**verbs: str) -> Callable[[Path], None]:
    """A plugin whose verbs are these lines."""
    return lambda tmp: plugin(tmp, **verbs)


# name: (arguments, what to prepare, exit status, what the line must say)
CASES: dict[str, tuple[list[str], Callable[[Path], None], int, str]] = {
    # unknown names
    "method": ([*RUN, "--method", "cspc"], nothing, 2, "did you mean 'cpsc'"),
    "no method": (RUN, nothing, 2, "--method NAME"),
    "command": (["rnu"], nothing, 2, "did you mean 'run'"),
    "task form": ([*CPSC, "--task", "digits16"], nothing, 2, "dataset/teacher-student"),
    "architecture": ([*CPSC, "--task", "digits16/cnn32-cnn61"], nothing, 2, "did you mean 'cnn16'"),
    "preset": ([*CPSC, "--preset", "offical"], nothing, 2, "did you mean 'official'"),
    "track": ([*CPSC, "--track", "pined"], nothing, 2, "did you mean 'pinned'"),
    "budget": (["run", "--method", "cpsc", "--budget", "quik"], nothing, 2, "did you mean 'quick'"),
    "teacher": ([*CPSC, "--teacher", "digits16-cnn32-s1"], nothing, 2, "unknown teacher"),
    "check": (["check", "cpcs"], nothing, 2, "did you mean 'cpsc'"),
    "show": (["show", "nosie"], nothing, 2, "did you mean 'noise'"),
    "show a file": (["show", "nowhere.py:X"], nothing, 2, "no such file"),
    "list": (["list", "teacher"], nothing, 2, "error: cannot list 'teacher'; did you mean 'teachers'?"),
    "leaderboard of a track": (["leaderboard", "--track", "pined"], nothing, 2, "did you mean 'pinned'"),
    "leaderboard of a budget": (["leaderboard", "--budget", "huge"], nothing, 2, "unknown budget"),
    "leaderboard of a task": (["leaderboard", "--task", "digits"], nothing, 2, "a task is dataset/teacher-student"),
    "plan of a budget": ([*PLAN, "--budget", "huge"], nothing, 2, "unknown budget"),
    "plan of a task": ([*PLAN, "--task", "cifar11/cnn32-cnn16"], nothing, 2, "unknown dataset"),
    "profile of an architecture": ([*PROFILE, "--task", "digits16/cnn17-cnn16"], nothing, 2,
                                   "unknown architecture 'cnn17'"),
    "profile of a precision": ([*PROFILE, "--precision", "bf61"], nothing, 2, "unknown precision"),
    "profile of a bound": (["profile", "-m", "real-kd", "--networks", "cnn16-cnn16"], nothing, 2, "needs real data"),
    # misspelt options and keys, values out of range
    "option": (["run", "--methd", "cpsc"], nothing, 2, "--method"),
    "setting": ([*CPSC, "--set", "alhpa=1"], nothing, 2, "did you mean 'alpha'"),
    "setting form": ([*CPSC, "--set", "alpha"], nothing, 2, "KEY=VALUE"),
    "setting type": ([*CPSC, "--set", "alpha=five"], nothing, 2, "takes float"),
    "setting choice": ([*CPSC, "--set", "ikd_student=l3"], nothing, 2, "one of mse"),
    "pinned setting": ([*CPSC, "--set", "generator_width=8"], nothing, 2, "track pinned fixes generator_width"),
    "seeds": ([*CPSC, "--seeds", "one"], nothing, 2, "whole numbers"),
    "threads": (["run", "--method", "cpsc", "--threads", "0"], nothing, 2, "from 1 on"),
    "precision": ([*CPSC, "--precision", "fp16"], nothing, 2, "unknown precision"),
    "threads of a profile": ([*PROFILE, "--threads", "0"], nothing, 2, "Invalid value for '--threads'"),
    "batch of a profile": ([*PROFILE, "--batch", "0"], nothing, 2, "Invalid value for '--batch'"),
    "rounds of a profile": ([*PROFILE, "--rounds", "0"], nothing, 2, "Invalid value for '--rounds'"),
    "price of a plan": ([*PLAN, "--price", "1"], nothing, 2, "--price belongs to --estimate"),
    "workers of a plan": ([*PLAN, "--workers", "8"], nothing, 2, "--workers belongs to --estimate"),
    "format of a plan": ([*PLAN, "--format", "csv"], nothing, 2, "--format csv belongs to --estimate"),
    "format of an estimate": ([*ESTIMATE, "--format", "xml"], nothing, 2, "unknown format 'xml'"),
    "workers": ([*ESTIMATE, "--workers", "1,none"], nothing, 2, "--workers takes whole numbers from 1 on"),
    "no worker": ([*ESTIMATE, "--workers", "0"], nothing, 2, "--workers takes whole numbers from 1 on"),
    "price": ([*ESTIMATE, "--price", "-1"], nothing, 2, "Invalid value for '--price'"),
    "estimate for a GPU": ([*ESTIMATE, "--on", "H200"], nothing, 2, "No such option"),
    "TOML key": (["run", "{tmp}/a.toml"], write("a.toml", 'methd = "cpsc"'), 2, "did you mean 'method'"),
    "TOML type": (["run", "{tmp}/a.toml"], write("a.toml", 'method = "cpsc"\nthreads = "2"'), 2, "threads takes int"),
    "TOML syntax": (["run", "{tmp}/a.toml"], write("a.toml", "method = "), 2, "is not TOML"),
    "TOML missing": (["run", "{tmp}/a.toml"], nothing, 2, "cannot read run file"),
    "TOML too deep": (["run", "{tmp}/a.toml"], write("a.toml", f"seeds = {DEEP}"), 2, "more than 64 levels deep"),
    "TOML too large": (["run", "{tmp}/a.toml"], huge("a.toml"), 2, "it has more than 1 MiB"),
    "TOML setting": (["run", "{tmp}/a.toml"], write("a.toml", 'method = "cpsc"\n[set]\nx = 1'), 2, "no setting 'x'"),
    # a teacher that does not fit
    "teacher of another task": ([*CPSC, "--task", "digits16/cnn16-cnn16", "--teacher", "digits16-cnn32-s0"], nothing, 2,
                                "needs a cnn16"),
    "no teacher": ([*CPSC, "--task", "digits16/wrn16_1-cnn16"], nothing, 2, "teacher train digits16/wrn16_1"),
    "teacher bytes": ([*CPSC, "--teacher", "other"], registered(sha256="0" * 64), 1, "SHA-256"),
    "import of another architecture": (IMPORT, weights(arch="cnn16"), 1, "in the file"),
    "import of a page": (IMPORT, write("weights.pt", "<html>not found</html>"), 1, "looks like an HTML page"),
    "import of a pointer": (IMPORT, write("weights.pt", "version https://git-lfs.github.com/spec/v1\n"), 1,
                            "git lfs pull"),
    "import of an empty file": (IMPORT, write("weights.pt", ""), 1, "is empty"),
    "import of code": (IMPORT, write("weights.pt", pickle.dumps(Trap())), 1, "never run"),
    "import with half a normalisation": ([*IMPORT, "--mean", "0.5"], weights(), 2, "--mean and --std go together"),
    "import with an unknown shortcut": ([*IMPORT, "--shortcut", "C"], weights(), 2, "unknown shortcut 'C'"),
    "rate of noise": (["teacher", "noise", "digits16/cnn32", "--rate", "1"], nothing, 2, "--rate"),
    "epochs of a teacher": (["teacher", "train", "digits16/cnn32", "--epochs", "0"], nothing, 2, "--epochs"),
    "import of nothing": (IMPORT, nothing, 2, "no such file"),
    "teacher registry": ([*CPSC], registered(text="[x]\nname = 1"), 1, "registry.toml cannot be read"),
    "teacher registry type": (CPSC, registered(text=ENTRY.replace("9.0", '"9"')), 1,
                              "cannot be read: [x]: Expected `float`, got `str` - at `$.top1`"),
    "teacher registry part": (CPSC, registered(text=ENTRY.replace("origin", "orgin")), 1, "[x]: unknown key 'orgin'"),
    "teacher registry syntax": (CPSC, registered(text="[x"), 1, "registry.toml is not TOML"),
    # another class count
    "import with seven classes": (IMPORT, weights(classes=7), 1, "class count is 7, not 10"),
    "teacher with seven classes": ([*CPSC, "--teacher", "other"], registered(classes=7), 1, "class count"),
    # missing datasets and results
    "results below a file": ([*NOISE, "--results", "{tmp}/a/b"], write("a", ""), 1, "choose another --results"),
    "dataset": ([*CPSC, "--task", "cifar11/cnn32-cnn16"], nothing, 2, "unknown dataset"),
    "dataset for a teacher": (["teacher", "train", "digits61/cnn32"], nothing, 2, "did you mean 'digits16'"),
    "results": (["leaderboard", "--results", "nowhere"], nothing, 2, "no results folder at nowhere"),
    "no results": (["leaderboard", "--results", "."], nothing, 2, "no records below ."),
    "results to verify": (["verify", "--results", "nowhere"], nothing, 2, "no results folder or archive at nowhere"),
    "nothing to verify": (["verify", "--results", "."], nothing, 2, "no records below ."),
    "no archive": (["verify", "text.zip"], write("text.zip", "no zip"), 2,
                   "text.zip is neither a folder nor a zip archive"),
    "no archive, named": (["verify", "--results", "text.zip"], write("text.zip", "no zip"), 2,
                   "text.zip is neither a folder nor a zip archive"),
    "device to verify on": (["verify", "--results", ".", "--device", "gpu"], nothing, 2, "unknown device 'gpu'"),
    "documents without results": (["verify", "--results", ".", "--docs", "x"], write("x", ""), 2, "no records below ."),
    "samples of nothing": (["samples", "{tmp}/none"], nothing, 2, "no record"),
    "record to repeat": (["run", "--like", "{tmp}/none"], nothing, 2, "no record"),
    "damaged record": (["samples", "{tmp}/record.json"], write("record.json", '{"schema": 1'), 1, "not a record"),
    "record without parts": (RECORD, write("record.json", '{"schema": 2}'), 1, "missing required field `hash`"),
    "record of another type": (RECORD, write("record.json", '{"schema": "2"}'), 1, "Expected `int`, got `str`"),
    "record of no run": (RECORD, write("record.json", WHOLE), 1, "not a record of dfkd-bench: not a run specification"),
    "record too deep": (RECORD, write("record.json", f'{{"schema": {DEEP}}}'), 1, "more than 64 levels deep"),
    "record too large": (RECORD, huge("record.json"), 1, "it has more than 256 MiB"),
    "record of the future": (["samples", "{tmp}/record.json"], write("record.json", '{"schema": 99}'), 1, "update"),
    # no GPU
    "run on a GPU": (["run", "--method", "cpsc", "--device", "cuda"], nothing, 2, "no CUDA device"),
    "profile on a GPU": (["profile", "--method", "cpsc", "--device", "cuda"], nothing, 2, "no CUDA device"),
    "estimate on a GPU": ([*ESTIMATE, "--device", "cuda"], nothing, 2, "no CUDA device is available here"),
    "device": (["run", "--method", "cpsc", "--device", "tpu"], nothing, 2, "unknown device"),
    # foreign plugins that misbehave
    "plugin missing": ([*RUN, "--method", "{tmp}/mine.py"], nothing, 2, "no such file"),
    "plugin syntax": (MINE, write("mine.py", "class Mine("), 2, "not valid Python"),
    "plugin class": ([*RUN, "--method", "{tmp}/mine.py:Mien"], plugin, 2, "did you mean 'Mine'"),
    "plugin raises": (MINE, write("mine.py", "class Mine: pass\n1 / 0"), 1, "ZeroDivisionError"),
    "plugin leaves": (MINE, write("mine.py", "import sys\nclass Mine: x\nsys.exit(3)"), 1, "cannot be imported"),
    "plugin of no method": (MINE, write("mine.py", "class Mine:\n  x = 1"), 1, "not a subclass"),
    "plugin raises in a step": (MINE, steps(synthesize="raise KeyError('z')"), 1, "KeyError: 'z'"),
    "plugin leaves in a step": (MINE, steps(synthesize="raise SystemExit(0)"), 1, "SystemExit"),
    "plugin of other shapes": (MINE, steps(sample="return Batch(torch.zeros(n, 3, 32, 32))"), 1, "(128, 1, 16, 16)"),
    "plugin peeks": (MINE, steps(synthesize="self.context.teacher(torch.zeros(1, 1, 16, 16), moments=True)"), 1,
                     "without declaring it"),
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Callable[[list[str]], tuple[int, str]]:
    """Exit status and standard error of a command in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def call(words: list[str]) -> tuple[int, str]:
        status, _, err = command(*(word.replace("{tmp}", str(tmp_path)) for word in words))
        return status, err

    return call


def nothing_half_written(tmp: Path) -> None:
    assert not list(tmp.rglob("*.tmp")), "a temporary file was left"
    for path in (tmp / "runs").rglob(records.FILE) if (tmp / "runs").exists() else []:
        assert records.read(path)["result"]["status"] == "failed"


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    arguments, prepare, wanted, says = CASES[name]
    prepare(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, err = run(arguments)
    assert status == wanted, err
    assert says in err
    assert len(err.strip().splitlines()) == 1, f"more than one line: {err}"
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert not (tmp_path / "trapped").exists(), "code in a file was run"
    nothing_half_written(tmp_path)


def test_debug_shows_the_traceback(run: Any) -> None:
    with pytest.raises(UsageError, match="unknown method"):
        run([*RUN, "--method", "cspc", "--debug"])


def test_a_changed_dataset_is_refused(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    facts = replace(catalog.DATASETS["digits16"], sha256="1" * 64)
    monkeypatch.setitem(catalog.DATASETS, "digits16", facts)
    status, err = run(NOISE)
    assert status == 1
    assert "numbers would not be comparable" in err


CODE = f"from dfkd_bench.cli import main; import sys; sys.argv[1:] = {[*NOISE, '--quiet']!r}; main()"
PROCESS = [sys.executable, "-B", "-c", CODE]


def interrupted(tmp: Path) -> Path:
    """The checkpoint of a run that was killed in its evaluation."""
    environment = {**os.environ, "DFKD_BENCH_FAIL_AT": "evaluation:1"}
    done = subprocess.run(PROCESS, cwd=tmp, env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    (path,) = tmp.rglob("checkpoint.pt")
    return path


@pytest.mark.long
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint(damage: str, tmp_path: Path, run: Any) -> None:
    path = interrupted(tmp_path)
    payload = bytearray(path.read_bytes())
    if damage == "truncated":
        payload = payload[: len(payload) // 2]
    else:
        payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)
    status, err = run(NOISE)
    assert status == 1
    assert "is damaged" in err
    assert "--force" in err
    assert len(err.strip().splitlines()) == 1
    nothing_half_written(tmp_path)
    assert run([*NOISE, "--force"]) == (0, "")


@pytest.mark.parametrize("limit", [4096, 400_000], ids=["first file", "checkpoint"])
def test_a_full_disk(limit: int, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writes fail in the same place, with an OSError."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(PROCESS, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    nothing_half_written(tmp_path)


def test_one_failed_run_does_not_stop_the_others(tmp_path: Path, run: Any) -> None:
    plugin(tmp_path, synthesize="raise KeyError('z')")
    status, err = run([*MINE, "--method", "noise"])
    assert status == 1
    assert "1 of 2 runs failed" in err
    states = [records.read(p)["result"]["status"] for p in (tmp_path / "runs").rglob(records.FILE)]
    assert sorted(states) == ["complete", "failed"]
