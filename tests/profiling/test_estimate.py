"""What `plan --estimate` says, and from where."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command
from factory import MEASUREMENT, make_record, write_record
from shared import ROOT
from tiny import Keepless, cpsc_job

from dfkd_bench.cli import plan as plan_command
from dfkd_bench.engines import engines
from dfkd_bench.errors import UsageError
from dfkd_bench.method import Flags
from dfkd_bench.profiling.estimate import MEASURED, RECORDS, Cost, startup
from dfkd_bench.profiling.estimate import makespan as workers
from dfkd_bench.profiling.estimate import plan_cost as lines
from dfkd_bench.profiling.estimate.makespan import Site, makespan, wall
from dfkd_bench.profiling.estimate.plan_cost import Estimate, Estimator, estimate, to_do
from dfkd_bench.profiling.estimate.recorded import recorded
from dfkd_bench.profiling.estimate.seconds import Judging, judging, measured, passes, stretched, work_of
from dfkd_bench.profiling.estimate.startup import Start
from dfkd_bench.profiling.estimate.timing import Part, Timing
from dfkd_bench.protocol import task
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.training.dry_run import DryRun
from dfkd_bench.training.loop import Schedule, distill
from dfkd_bench.training.round_timing import time_rounds
from dfkd_bench.utils.flop import flop_of

START = Start(2.0, 3.0, {})
CIFAR = "cifar10/wrn40_2-wrn16_2"


def plan(method: str, *, budget: str = "quick", task: str = "", **more: Any) -> list[PlannedRun]:
    where = {"tasks": (task,)} if task else {}
    return make_plan(
        Request((method,), budget=budget, threads=1, device="cpu", **where, **more), Path("runs"), anywhere=True
    )


def rehearsal(method: str, settings: dict[str, Any] | None = None, **more: Any) -> DryRun:
    (item,) = plan(method, **more)
    spec = replace(item.spec, settings=tuple(sorted({**dict(item.spec.settings), **(settings or {})}.items())))
    return DryRun(spec, item.method, item.teacher if item.teacher.sha256 else None)


# -- records ----------------------------------------------------------------------------------------------------------


def seconds(total: float, *, wall: int = 0, restarts: int = 0) -> dict[str, Any]:
    began = "2026-01-02T03:00:00+00:00"
    ended = f"2026-01-02T03:{wall // 60:02d}:{wall % 60:02d}+00:00"
    return {"seconds_total": total, "started": began, "ended": ended, "restarts": restarts}


def test_records_of_the_same_terms_tell_the_median_and_no_others_do(tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [
        {"device_name": "Other CPU"}, {"threads": 1}, {"budget": "standard"}, {"track": "recipe"}, {"status": "failed"},
        {"precision": "bf16"}, {"compile": True}, {"preset": "textbook"}, {"settings": {"alpha": 4.0}},
        {"status": "diverged"}, {"method": "beta"}, {"task": "mnist/lenet5-lenet5_half"},
    ]  # fmt: skip
    for seed, total in enumerate((50.0, 70.0, 600.0)):
        write_record(tmp_path, make_record(seed=seed, measurement=seconds(total)))
    for seed, other in enumerate(others, 9):
        write_record(tmp_path, make_record(seed=seed, **other, measurement=seconds(1.0)))
    spec = RunSpec.from_json(make_record(seed=5, teacher="0" * 64, data="1" * 64, code="2" * 64)["spec"])
    found = recorded(spec, tmp_path, "Some CPU")
    assert found == Cost(70.0, RECORDS, 112640 + 61440, 51200, 3)
    assert recorded(replace(spec, threads=4), tmp_path, "Some CPU") is None
    assert recorded(spec, tmp_path, "A CPU") is None


def test_a_record_s_snapshots_count_and_a_restart_s_pause_does_not(tmp_path: Path) -> None:
    spec = RunSpec.from_json(make_record()["spec"])
    write_record(tmp_path / "a", make_record(measurement=seconds(60.0, wall=81)))
    write_record(tmp_path / "b", make_record(measurement=seconds(60.0, wall=1200, restarts=1)))
    assert [recorded(spec, tmp_path / k, "Some CPU").seconds for k in "ab"] == [81.0, 60.0]  # type: ignore[union-attr]
    assert MEASUREMENT["restarts"] == 0


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record(seed=0))
    write_record(tmp_path, make_record(seed=1, measurement=seconds(42.0)))
    path.write_text("{")
    found = recorded(RunSpec.from_json(make_record()["spec"]), tmp_path, "Some CPU")
    assert found is not None
    assert (found.seconds, found.found) == (42.0, 1)


# -- which source -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is timed; the list says what would have been."""
    asked: list[str] = []
    timing = Timing(Part(), Part(0.0, 256.0), Part(2.0, 128.0))
    monkeypatch.setattr(lines, "judging", lambda rehearsal: asked.append("judging") or Judging(0.0, 0.0, 0.0))
    monkeypatch.setattr(lines, "measured", lambda *rest: asked.append(MEASURED) or timing)
    return asked


def test_records_come_first_then_a_measurement(tmp_path: Path, sources: list[str]) -> None:
    planned, here = plan("cpsc", seeds=(0, 1, 2)), Estimator(tmp_path, "Some CPU", START)

    def cost() -> Cost:
        return estimate(planned[:1], here).lines[0].cost

    # 300 steps of 5 a round are 60 rounds of 2 s, and of 256 and 128 images
    assert cost() == Cost(120.0, MEASURED, 60 * 384, 38400)
    spec = planned[1].spec.to_json()
    write_record(tmp_path, make_record(**{**spec, "seed": 8}, device_name="NVIDIA H200", measurement=seconds(7.0)))
    assert cost().source == MEASURED
    write_record(tmp_path, make_record(**{**spec, "seed": 9}, device_name="Some CPU", measurement=seconds(77.0)))
    assert (cost().source, cost().seconds) == (RECORDS, 77.0)
    assert sources == ["judging", MEASURED, MEASURED]


def test_a_line_stands_for_all_seeds_that_are_to_be_done(tmp_path: Path, sources: list[str]) -> None:
    results = Path("runs")
    first = make_plan(Request(("noise", "cpsc"), seeds=(0, 1, 2), threads=1), results)
    for item, status in ((first[0], "complete"), (first[4], "failed")):
        write_record(results, make_record(**item.spec.to_json(), status=status, device_name="elsewhere"))
    planned = make_plan(Request(("noise", "cpsc"), seeds=(0, 1, 2), threads=1), results)
    found = estimate(to_do(planned, results), Estimator(results, "here", START))
    assert [(line.spec.method, line.runs, line.cost.source) for line in found.lines] == [
        ("noise", 2, MEASURED), ("cpsc", 2, MEASURED),
    ]  # fmt: skip
    assert found.seconds == (120.0,) * 4
    assert found.lines[0].hours == 240.0 / 3600
    assert sources == ["judging", MEASURED, MEASURED]  # evaluation is the task's


def test_the_time_left_is_told_before_each_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = [*plan("noise"), *plan("dafl"), *plan("zskt"), *plan("cpsc")]
    write_record(tmp_path, make_record(**planned[1].spec.to_json(), device_name="here", measurement=seconds(5.0)))
    now = [0.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: now[0])

    def taken(estimator: Estimator, item: PlannedRun) -> Cost:
        now[0] += {"noise": 4.0, "zskt": 8.0, "cpsc": 1.0}[item.spec.method]
        return Cost(1.0, MEASURED, 0.0, 1.0)

    monkeypatch.setattr(Estimator, "measured", taken)
    told: list[tuple[int, int, str, float]] = []
    found = estimate(
        planned, Estimator(tmp_path, "here", START, seconds_each=3.0),
        lambda number, of, run, left: told.append((number, of, run.spec.method, left)),
    )  # fmt: skip
    assert told == [(1, 3, "noise", 9.0), (2, 3, "zskt", 8.0), (3, 3, "cpsc", 6.0)]
    assert [line.cost.source for line in found.lines] == [MEASURED, RECORDS, MEASURED, MEASURED]


def test_a_budget_of_seconds_takes_them_and_what_comes_after(tmp_path: Path, sources: list[str]) -> None:
    (item,) = plan("cpsc")
    item = replace(item, spec=replace(item.spec, budget="seconds:90"))
    assert Estimator(tmp_path, "here", START).measured(item) == Cost(90.0, MEASURED, 45 * 384, 45 * 5 * 128)


# -- passes -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("method", ["zskt", "fastdfkd", "noise"])
def test_passes_are_those_that_real_runs_recorded(method: str) -> None:
    """One reuses a batch, one has a warm-up and an inner loop, one has no synthesis."""
    *_, path = sorted(ROOT.glob(f"results/*/digits16_cnn32-cnn16/{method}/pinned-standard-s0-*/record.json"))
    record = records.read(path)
    tried = rehearsal(method, dict(RunSpec.from_json(record["spec"]).settings), budget="standard")  # as it was made
    counts = record["result"]["counts"]
    found = measured(tried, Judging(0.0, 0.0, 0.0), 0.0, 0.0)
    assert found.training(tried.schedule).passes == counts["teacher_forwards"] + counts["teacher_backwards"]
    assert tried.schedule.total_steps * tried.schedule.batch_size == counts["student_images"]


@pytest.mark.long
def test_passes_are_those_of_a_run_whose_warm_up_has_longer_rounds() -> None:
    small = {"g_steps": 2, "synthesis_steps": 2, "warmup_synthesis_steps": 4, "latent_dim": 8, "student_steps": 3}
    tried = rehearsal("nayer", small, budget="smoke")
    assert (tried.schedule.warmup_rounds, tried.schedule.rounds) == (1, 10)
    job = tried.job(tried.settings)
    job.storage = Keepless()
    distill(job)
    found = measured(tried, Judging(0.0, 0.0, 0.0), 0.0, 0.0)
    assert found.training(tried.schedule).passes == pytest.approx(passes(job))
    assert 2.0 * found.synthesis.passes == found.warmup.passes > 0.0
    assert 0.5 * found.synthesis.seconds < found.warmup.seconds < 4.0 * found.synthesis.seconds


@pytest.mark.long
@pytest.mark.parametrize(("method", "loop", "n"), [("nayer", "g_steps", 6), ("deepinversion", "iterations", 30)])
def test_long_loops_are_stretched_from_short_ones(method: str, loop: str, n: int) -> None:
    """As many passes as with the whole loop; seconds in proportion to the arithmetic, previews too where they loop."""
    tried = rehearsal(method, {loop: n, "student_steps": 10})
    short = tried.shorter()
    assert (tried.loops(2), short["student_steps"]) == ([loop], 5)
    once, whole = work_of(tried, {**tried.settings, **short}), work_of(tried, tried.settings)
    ratio = whole / once
    found = stretched(Timing(Part(1.0, once[1]), Part(2.0, once[1]), Part(3.0, 640.0), 1.0), tried, short)
    assert found.synthesis == Part(pytest.approx(2.0 * ratio[0]), pytest.approx(whole[1]))
    assert found.warmup == Part(pytest.approx(ratio[0]), pytest.approx(whole[1]))
    assert found.distillation == Part(6.0, 1280.0)
    assert found.snapshot == pytest.approx(ratio[2])
    assert n / short[loop] >= ratio.max() >= ratio.min() > 0.8 * n / short[loop]  # what is not in the loop


def test_steps_with_gradients_of_their_own_are_counted() -> None:
    """torch's counter refuses `autograd.grad` of a leaf, and with it a profile of methods that use it."""
    x, w = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5)
    assert flop_of(lambda: torch.autograd.grad((x @ w).sum(), x)) == 2 * (2 * 4 * 3 * 5)


# -- seconds ----------------------------------------------------------------------------------------------------------


def test_parts_of_a_run_add_up() -> None:
    timing = Timing(Part(1.0, 7.0), Part(2.0, 5.0), Part(4.0, 3.0), 0.5, last=3.0, checkpoint=0.25, around=10.0)
    schedule = Schedule(4, 1, 5, 8, 3, (1, 2, 4))
    training = 3 * 1.0 + 4 * 2.0 + 4 * 4.0
    rest = 2 * 0.5 + 3.0 + 10.0
    assert timing.training(schedule) == Part(training, 3 * 7.0 + 4 * 5.0 + 4 * 3.0)
    assert timing.run(schedule, "quick") == pytest.approx(training + rest + 0.25 * (3 + training / 30))
    assert timing.run(schedule, "seconds:60") == pytest.approx(60.0 + rest + 0.25 * (3 + 2))
    # a round is 2 + 4 s, and half a round of synthesis goes before it as warm-up, after one whole: (100 - 2) / 7
    fitted = timing.fitted(schedule, Flags(warmup_rounds=1, warmup_fraction=0.5), "seconds:100")
    assert (fitted.rounds, fitted.warmup_rounds) == (14, 8)
    assert timing.fitted(schedule, Flags(), "quick") is schedule


def test_evaluation_of_all_snapshots() -> None:
    judged = Judging(teacher=0.1, student=0.01, once=5.0)
    assert judged.seconds(100, 4, shows=False) == pytest.approx(10.0 + 4.0 + 5.0)
    assert judged.seconds(100, 4, shows=True) == pytest.approx(0.1 * 356 + 0.04 * 356 + 5.0)


def test_a_first_round_that_takes_long_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 100000, 7))
    monkeypatch.setattr(
        "dfkd_bench.training.round_timing.timed", lambda function, device: function() or 1000.0 * next(ticks) / 7
    )
    found = time_rounds(cpsc_job(), 0.5, least=0)  # 0 s and 1 s
    assert (found.synthesis, found.distillation, found.rounds) == (0.0, 1.0, 1)
    found = time_rounds(cpsc_job(), 9.0, least=0)  # 2 s and 3 s do not count; 4 s and 5 s do
    assert (found.synthesis, found.distillation, found.rounds) == (4.0, 5.0, 1)


def test_measured_seconds_are_those_of_the_clock_scaled_to_the_run() -> None:
    """A method without synthesis, timed: 60 rounds of what it takes for one, and whatever comes on top."""
    tried = rehearsal("noise", budget="smoke")
    timing = measured(tried, judging(tried), 1.5, 0.0)
    assert timing.synthesis == timing.warmup == Part()
    assert 0.01 < timing.distillation.seconds < 60.0
    assert timing.around > 1.5
    assert min(timing.snapshot, timing.checkpoint) > 0.0
    assert timing.last > timing.snapshot


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "number", "expected"),
    [
        ([3.0, 3.0, 3.0], 2, 6.0), ([5.0, 1.0, 1.0, 1.0], 2, 5.0), ([1.0, 1.0, 1.0, 5.0], 2, 6.0),
        ([4.0, 2.0, 2.0, 4.0], 2, 8.0), ([1.0, 2.0], 5, 2.0), ([1.0, 2.0, 3.0], 1, 6.0),
    ],
)  # fmt: skip
def test_each_run_goes_to_the_worker_that_is_free_first(runs: list[float], number: int, expected: float) -> None:
    assert makespan(runs, number) == expected


def test_engines_by_hand() -> None:
    runs, site = [10.0, 10.0, 20.0], Site(START, queue=60.0)
    local, ray, slurm = engines().values()
    assert wall(local, runs, 1, site) == workers.Wall(3 + 40, 43)  # the command's own process
    two = 3 + 30 + 2 * 0.066  # a worker starts, and one of both has two runs
    assert wall(local, runs, 2, site) == workers.Wall(2 + two, 2 * two)
    assert wall(local, runs, 2, replace(site, held=1)) == workers.Wall(2 + 3 + 40 + 3 * 0.066, 3 + 40 + 3 * 0.066)
    assert wall(ray, runs, 2, replace(site, held=1)) == workers.Wall(5 + 30 + 2 * 0.06, 2 * (3 + 30 + 2 * 0.06))
    assert wall(slurm, runs, 2, site) == workers.Wall(2 + 2 * 63 + 30, 3 * 3 + 40)  # nobody pays for the queue
    assert wall(slurm, [], 2, site) == workers.Wall(0.0, 0.0)


# -- nothing need be here ---------------------------------------------------------------------------------------------


def test_a_plan_that_is_only_looked_at_needs_no_data_and_no_teacher() -> None:
    asked = Request(("noise",), tasks=(CIFAR,), device="cpu")
    with pytest.raises(UsageError, match="no teacher for"):
        make_plan(asked, Path("runs"))
    (item,) = make_plan(asked, Path("runs"), anywhere=True)
    assert (item.spec.data, item.spec.teacher, item.state) == ("", "", "missing")
    with pytest.raises(UsageError, match="unknown teacher"):
        make_plan(replace(asked, teacher="nobody"), Path("runs"), anywhere=True)
    usual, looked = (make_plan(Request(("noise",)), Path("runs"), anywhere=how)[0] for how in (False, True))
    assert looked == usual  # what is here is known


def test_bounds_are_rehearsed_on_noise() -> None:
    assert not (Path("data")).exists()
    tried = rehearsal("real-kd", task=CIFAR)
    batch = tried.job(tried.settings).method.sample(8)
    assert batch.images.shape == (8, 3, 32, 32)
    assert batch.labels is not None
    assert batch.labels.max() < task(CIFAR).dataset.classes


# -- the command ------------------------------------------------------------------------------------------------------

NOISE = ("plan", "-m", "noise", "--budget", "smoke", "--threads", "1", "--device", "cpu")
QUICKLY = ("--estimate", "--seconds-each", "0")


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "start_of", lambda datasets: START)


def test_a_plan_tells_its_states(command: Command) -> None:
    status, out, _ = command("plan", "-m", "noise", "-m", "cpsc", "-s", "0-2")
    assert (status, out.splitlines()[0]) == (0, "6 runs: 6 missing")
    item = make_plan(Request(("noise",)), Path("runs"))[0]
    write_record(Path("runs"), make_record(**item.spec.to_json()))
    _, out, _ = command("plan", "-m", "noise", "-m", "cpsc", "-s", "0-2")
    assert out.splitlines()[0] == "6 runs: 1 done, 5 missing"
    assert "not here" not in out


def test_a_plan_tells_what_is_not_here(command: Command) -> None:
    words = ("-t", CIFAR, "-t", "mnist/lenet5-lenet5_half", "-t", "cifar10/wrn40_2-wrn16_1")
    status, out, _ = command("plan", "-m", "noise", *words)
    assert (status, out.splitlines()[0]) == (0, "3 runs: 3 missing")
    assert "not here: dataset cifar10, dataset mnist, a teacher cifar10/wrn40_2\n" in out


@pytest.mark.usefixtures("quick_start")
def test_csv_is_two_tables_of_plain_numbers(command: Command) -> None:
    words = ("-s", "0-1", "--workers", "1,2", "--price", "3600", "--queue-seconds", "10", "--format", "csv")
    status, out, err = command(*NOISE, *QUICKLY, *words)
    assert (status, err) == (0, "")
    costs, walls = (list(csv.DictReader(part.splitlines())) for part in out.strip().split("\n\n"))
    (row,) = costs
    assert (row["task"], row["method"], row["runs"], row["source"]) == ("digits16/cnn32-cnn16", "noise", "2", MEASURED)
    assert float(row["passes"]) == 3840
    one = float(row["seconds"])
    assert float(row["images_per_second"]) == pytest.approx(3840 / one, rel=1e-3)
    assert float(row["hours"]) == pytest.approx(2 * one / 3600, rel=1e-3)
    assert [w["workers"] for w in walls] == ["1", "2"]
    assert float(walls[0]["local_hours"]) * 3600 == pytest.approx(3 + 2 * one, rel=1e-3)
    assert float(walls[0]["slurm_hours"]) * 3600 == pytest.approx(2 + 2 * (13 + one), rel=1e-3)
    assert float(walls[1]["ray_cost"]) == pytest.approx(2 * (3 + one + 0.06), rel=1e-3)


@pytest.mark.usefixtures("quick_start")
def test_markdown_names_the_source(command: Command) -> None:
    words = (*NOISE, "-t", "digits16/cnn32-cnn16", "-t", "mnist/lenet5-lenet5_half", *QUICKLY)
    status, out, err = command(*words, "--format", "markdown")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("2 of 2 runs to do, pinned/smoke, ")
    assert lines[2] == "| task | method | runs | s a run | images/s | from | hours | passes |"
    assert lines[3] == "| :-- | :-- | --: | --: | --: | :-- | --: | --: |"
    assert sum("| measured |" in line for line in lines) == 2
    assert "timed here and now" in out
    assert "| workers | local, h | ray, h | slurm, h |" in lines


@pytest.mark.usefixtures("quick_start")
def test_progress_is_told_in_lines_where_there_is_no_terminal(command: Command, monkeypatch: Any) -> None:
    item = plan("noise", budget="smoke")[0]

    def slowly(todo: Any, estimator: Estimator, tell: Any) -> Estimate:
        for number, now in enumerate((5.0, 11.0, 12.0), start=1):
            monkeypatch.setattr(plan_command.time, "monotonic", lambda now=now: now)
            tell(number, 3, item, 150.0)
        return estimate(todo, estimator)

    monkeypatch.setattr(plan_command.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(lines, "estimate", slowly)
    status, _, err = command(*NOISE, *QUICKLY)
    assert (status, err) == (0, "measuring 2 of 3: noise on digits16/cnn32-cnn16, about 2 min left\n")


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("columns", [80, 120])
def test_the_tables_fit(command: Command, columns: int) -> None:
    words = (*NOISE, "-m", "scratch", *QUICKLY, "--workers", "1,8,64", "--price", "2")
    _, out, _ = command(*words, columns=columns)
    assert all(len(line) <= columns for line in out.splitlines())
    for head in ("s a run", "images/s", "passes", "local, cost", "slurm, h"):
        assert head in out, head
    assert "…" not in out


@pytest.mark.usefixtures("quick_start")
def test_where_all_is_done_nothing_is_estimated(command: Command) -> None:
    item = plan("noise", budget="smoke")[0]
    write_record(Path("runs"), make_record(**item.spec.to_json()))
    for form, stream in (("table", 0), ("csv", 1)):
        status, *said = command(*NOISE, *QUICKLY, "--format", form)
        assert status == 0
        assert "nothing is left to do" in said[stream]
