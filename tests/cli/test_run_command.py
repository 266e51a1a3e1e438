"""`dfkd-bench run` as a user meets it."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command
from factory import make_record, write_record
from safetensors.torch import load_file

from dfkd_bench.cli.main import entry
from dfkd_bench.protocol import PROTOCOL
from dfkd_bench.runs import records

SMOKE = ["--budget", "smoke", "--threads", "1", "--device", "cpu"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dfkd-bench", *words])
        entry()
        captured = capsys.readouterr()
        assert captured.err == ""
        return str(captured.out)

    return call


def only_record(root: Path) -> dict[str, Any]:
    (path,) = records.find(root)
    return records.read(path)


def test_a_run_leaves_everything_and_says_so(bench: Any, tmp_path: Path) -> None:
    printed = bench("run", "--method", "cpsc", *SMOKE)
    record = only_record(tmp_path / "runs")
    result, folder = record["result"], Path(record["path"]).parent
    for word in ("round 6/6", "test top-1", "teacher", "last checkpoint", "oracle", "agreement", "cost", "record.json"):
        assert word in printed
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == [
        "curves.csv", "generator.safetensors", "predictions.safetensors", "record.json", "samples.safetensors",
        "student.safetensors",
    ]  # fmt: skip
    rows = list(csv.DictReader((folder / "curves.csv").open()))
    assert [float(r["student_images"]) for r in rows] == [1280, 2560, 3840]
    assert float(rows[-1]["top1"]) == result["accuracy"]["last"]
    assert result["accuracy"]["oracle"] == max(float(r["top1"]) for r in rows)
    predictions = load_file(folder / "predictions.safetensors")
    hits = (predictions["student"] == predictions["labels"]).double().mean()
    assert 100 * float(hits) == pytest.approx(result["accuracy"]["last"], abs=1e-9)
    agreed = (predictions["student"] == predictions["teacher"]).double().mean()
    assert 100 * float(agreed) == pytest.approx(result["fidelity"]["agreement"], abs=1e-9)
    # 6 rounds of 6 generator and 5 student steps at batch 128, by hand
    steps = record["manifest"]["settings"]["method"]["synthesis_steps"]
    assert result["counts"] == {
        "teacher_forwards": 6 * (steps + 5) * 128, "teacher_backwards": 6 * steps * 128,
        "student_forwards": 6 * (steps + 5) * 128, "student_steps": 30, "student_images": 3840,
        "images_synthesised": 6 * (steps + 5) * 128, "images_stored": 0,
    }  # fmt: skip
    assert result["status"] == "complete"
    assert set(record["measurement"]["seconds"]) == {"synthesis", "distillation", "evaluation"}


@pytest.mark.long
def test_a_finished_run_is_skipped_with_a_word(bench: Any) -> None:
    first = bench("run", "--method", "noise", *SMOKE)
    assert "skipped" not in first
    assert "finished already, skipped (--force to redo)" in bench("run", "--method", "noise", *SMOKE)
    assert "skipped" not in bench("run", "--method", "noise", *SMOKE, "--force")


@pytest.mark.long
def test_like_repeats_and_compares(bench: Any, tmp_path: Path) -> None:
    bench("run", "--method", "noise", "--set", "kind=uniform", "--seeds", "3", *SMOKE)
    record = only_record(tmp_path / "runs")
    printed = bench("run", "--like", record["path"], "--results", "again")
    assert "identical, byte for byte" in printed
    repeated = only_record(tmp_path / "again")
    assert repeated["spec"] == record["spec"]
    assert records.canonical(repeated["result"]) == records.canonical(record["result"])


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("1.1", f"the record is of protocol 1.1, this version runs {PROTOCOL}: repeat it with the code of git tag "
                "protocol-1.1 (git checkout protocol-1.1)"),
        ("1.0", f"the record is of protocol 1.0, this version runs {PROTOCOL}"),
        ("9.0", f"the record is of protocol 9.0, this version runs {PROTOCOL}"),
    ],
)  # fmt: skip
def test_like_refuses_a_record_of_another_protocol(command: Command, tmp_path: Path, version: str, says: str) -> None:
    path = write_record(tmp_path / "runs", make_record(method="gone", protocol=version))
    status, out, err = command("run", "--like", path, "--results", tmp_path / "again")
    assert (status, out, err) == (2, "", f"error: {says}\n")
    assert not (tmp_path / "again").exists()


def test_like_notices_a_difference(bench: Any, tmp_path: Path) -> None:
    from dfkd_bench.errors import RunError

    bench("run", "--method", "noise", *SMOKE)
    path = Path(only_record(tmp_path / "runs")["path"])
    record = json.loads(path.read_text())
    record["result"]["accuracy"]["last"] += 0.1
    path.write_text(json.dumps(record))
    with pytest.raises((RunError, SystemExit)):
        bench("run", "--like", str(path), "--results", "again")


def test_quiet_prints_nothing_and_a_dry_run_runs_nothing(bench: Any, tmp_path: Path) -> None:
    assert bench("run", "--method", "noise", *SMOKE, "--quiet") == ""
    printed = bench("run", "--method", "noise", "--method", "cpsc", "--seeds", "0-1", *SMOKE, "--dry-run")
    assert "4 runs, 1 done" in printed
    assert printed.count("missing") == 3
    only_record(tmp_path / "runs")


def test_a_run_file_and_options_over_it(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        'method = "noise"\nbudget = "smoke"\nthreads = 1\ndevice = "cpu"\nseeds = [4, 5]\n[set]\nkind = "uniform"\n'
    )
    assert "2 runs" in bench("run", "study.toml", "--dry-run")
    bench("run", "study.toml", "--seeds", "7")
    spec = only_record(tmp_path / "runs")["spec"]
    assert (spec["seed"], spec["overrides"]) == (7, {"kind": "uniform"})


def test_tensorboard_writes_the_same_curves(bench: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bench("run", "--method", "noise", *SMOKE, "--tensorboard", "board")
    record = only_record(tmp_path / "runs")
    folder = Path(record["path"]).parent
    events = EventAccumulator(str(tmp_path / "board" / folder.relative_to(tmp_path / "runs"))).Reload()
    rows = list(csv.DictReader((folder / "curves.csv").open()))
    for name in ("loss/student", "top1"):
        values = [e.value for e in events.Scalars(name)]
        assert values == pytest.approx([float(r[name]) for r in rows], rel=1e-6)


@pytest.mark.long
def test_bf16_runs_and_keeps_weights_in_fp32(bench: Any, tmp_path: Path) -> None:
    bench("run", "--method", "cpsc", *SMOKE, "--precision", "bf16")
    folder = Path(only_record(tmp_path / "runs")["path"]).parent
    weights = load_file(folder / "student.safetensors")
    assert all(w.dtype == torch.float32 for k, w in weights.items() if "num_batches" not in k)


@pytest.mark.slow
def test_compiled_steps_count_and_compute_the_same(tmp_path: Path) -> None:
    """A step once eager (the first call) and once compiled, from the same state on the same latents and images."""
    from dfkd_bench.plugins.registry import load
    from dfkd_bench.protocol import task
    from dfkd_bench.runs.plan import Request, make_plan
    from dfkd_bench.teachers.registry import load_teacher
    from dfkd_bench.training.build import assemble
    from dfkd_bench.utils.device import configure_device

    (planned,) = make_plan(Request(("cpsc",), budget="smoke", device="cpu", threads=1, compile=True), tmp_path)
    device, kind = configure_device("cpu", 1), load(planned.method)
    teacher = load_teacher(planned.teacher, device)
    job, _ = assemble(planned.spec, task(planned.spec.task), kind, frozenset(), teacher, device, storage=None)  # type: ignore[arg-type]
    method: Any = job.method
    job.student.train().requires_grad_(False)
    counts, losses, gradients = [], [], []
    z, y = method.draw(128, job.context.stream("synthesis"))
    for _ in range(2):
        before = job.context.meter.counts.copy()
        loss, _ = method.objective(z, y)
        method.G.zero_grad()
        loss.backward()
        counts.append({k: v - before[k] for k, v in job.context.meter.counts.items() if not k.startswith("_")})
        losses.append(float(loss))
        gradients.append(torch.cat([p.grad.flatten() for p in method.trained]))
    assert counts[0] == counts[1]
    assert counts[0]["teacher_backwards"] == 128
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-3

    images = method.sample(128).images
    eager, compiled = job.label(images), job.label(images)
    assert torch.allclose(eager.logits, compiled.logits, atol=1e-4)


@pytest.mark.long
def test_like_repeats_a_file_plugin_where_it_is_named(bench: Any, tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "conformance" / "good.py"
    (tmp_path / "mine.py").write_text(source.read_text())
    bench("run", "--method", "mine.py", *SMOKE)
    path = only_record(tmp_path / "runs")["path"]
    assert "identical" in bench("run", "--like", path, "--method", "mine.py", "--results", "again")


@pytest.mark.parametrize(
    "words",
    [
        ["--budget", "smoke", "--track", "recipe", "--device", "cpu", "--threads", "1"],
        ["--budget", "standard", "--precision", "bf16", "--compile", "--preset", "uniform"],
        ["--with", "replay", "--with", "ema", "--set", "ema.decay=0.5", "--set", "student_steps=3"],
        ["--seeds", "4,7", "--teacher", "digits16-cnn32-s0"],
    ],
)
def test_the_commands_of_a_dry_run_are_the_planned_runs(bench: Any, words: list[str], tmp_path: Path) -> None:
    """Each printed command plans the run whose line it is, by hash."""
    printed = bench("run", "--method", "noise", *words, "--results", "r s", "--dry-run")
    commands = [line for line in printed.splitlines() if line.startswith("dfkd-bench ")]
    hashes = re.findall(r"\b[0-9a-f]{12}\b", printed.partition("dfkd-bench run")[0])
    assert len(commands) == len(hashes) == (2 if "--seeds" in words else 1)
    for command, hash_ in zip(commands, hashes, strict=True):
        again = bench(*shlex.split(command)[1:], "--dry-run")
        assert re.findall(r"\b[0-9a-f]{12}\b", again.partition("dfkd-bench run")[0]) == [hash_]
        assert command in again
