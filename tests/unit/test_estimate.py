"""What `plan --estimate` says, and from where."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import dfkd, snoop
from factory import MEASUREMENT, make_record, write_record
from shared import ROOT
from tiny import Keepless, cpsc_job

from dfkd_bench.engines import engines
from dfkd_bench.errors import BenchError, UsageError
from dfkd_bench.method import Flags
from dfkd_bench.profiling.estimate import COMPUTED, MEASURED, RECORDS, Cost, arithmetic, startup
from dfkd_bench.profiling.estimate import makespan as workers
from dfkd_bench.profiling.estimate import plan_cost as lines
from dfkd_bench.profiling.estimate.arithmetic import Counted, Work, model_of, of_job
from dfkd_bench.profiling.estimate.computed import Device
from dfkd_bench.profiling.estimate.makespan import Site, makespan, wall
from dfkd_bench.profiling.estimate.plan_cost import Estimator, estimate, to_do
from dfkd_bench.profiling.estimate.recorded import recorded
from dfkd_bench.profiling.estimate.seconds import Judging
from dfkd_bench.profiling.estimate.startup import Start
from dfkd_bench.profiling.estimate.timing import Timing
from dfkd_bench.protocol import task
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.training.dry_run import Rehearsal
from dfkd_bench.training.loop import Schedule, distill
from dfkd_bench.training.round_timing import pace
from dfkd_bench.utils.flop import flop_of

START = Start(2.0, 3.0, {})
CIFAR = "cifar10/wrn40_2-wrn16_2"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dataset but those of the package, no teacher of the user's, no records."""
    monkeypatch.setenv("DFKD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DFKD_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def plan(method: str, *, budget: str = "quick", task: str = "", **more: Any) -> list[PlannedRun]:
    where = {"tasks": (task,)} if task else {}
    return make_plan(
        Request((method,), budget=budget, threads=1, device="cpu", **where, **more), Path("runs"), anywhere=True
    )


def rehearsal(method: str, settings: dict[str, Any] | None = None, **more: Any) -> Rehearsal:
    (item,) = plan(method, **more)
    spec = replace(item.spec, settings=tuple(sorted({**dict(item.spec.settings), **(settings or {})}.items())))
    return Rehearsal(spec, item.method, item.teacher if item.teacher.sha256 else None)


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
    found = recorded(spec, tmp_path, lambda name: name == "Some CPU")
    assert found == Cost(70.0, RECORDS, 112640 + 61440, 51200, 3)
    assert recorded(replace(spec, threads=4), tmp_path, lambda name: True) is None
    assert recorded(spec, tmp_path, lambda name: False) is None


def test_a_record_s_snapshots_count_and_a_restart_s_pause_does_not(tmp_path: Path) -> None:
    spec = RunSpec.from_json(make_record()["spec"])
    write_record(tmp_path / "a", make_record(measurement=seconds(60.0, wall=81)))
    write_record(tmp_path / "b", make_record(measurement=seconds(60.0, wall=1200, restarts=1)))
    assert [recorded(spec, tmp_path / k, lambda name: True).seconds for k in "ab"] == [81.0, 60.0]  # type: ignore[union-attr]
    assert MEASUREMENT["restarts"] == 0


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record(seed=0))
    write_record(tmp_path, make_record(seed=1, measurement=seconds(42.0)))
    path.write_text("{")
    found = recorded(RunSpec.from_json(make_record()["spec"]), tmp_path, lambda name: True)
    assert found is not None
    assert (found.seconds, found.found) == (42.0, 1)


# -- which source -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is counted or timed; the list says which source was asked."""
    asked: list[str] = []

    class Known:
        def at(self, settings: Any) -> Counted:
            return Counted(Work(), Work(1.0, 256.0), Work(1.0, 128.0), Work())

    def source(name: str, seconds: float) -> Callable[..., Timing]:
        return lambda *rest: asked.append(name) or Timing(0.0, 0.0, seconds)

    monkeypatch.setattr(lines, "model_of", lambda rehearsal: Known())
    monkeypatch.setattr(lines, "judging", lambda rehearsal: asked.append("judging") or Judging(0.0, 0.0, 0.0))
    monkeypatch.setattr(lines, "measured", source(MEASURED, 2.0))
    monkeypatch.setattr(lines, "computed", source(COMPUTED, 0.5))
    return asked


def test_records_come_first_then_a_measurement_and_for_another_device_arithmetic(
    tmp_path: Path, sources: list[str]
) -> None:
    planned = plan("cpsc", seeds=(0, 1, 2))
    here, there = (Estimator(tmp_path, "Some CPU", START), Estimator(tmp_path, "H200", START, Device("H200", 0.3)))
    # 300 steps of 5 a round are 60 rounds of 2 s, and of 256 and 128 images
    assert here.cost(planned[0]) == Cost(120.0, MEASURED, 60 * 384, 38400)
    assert there.cost(planned[0]) == Cost(30.0, COMPUTED, 60 * 384, 38400)
    assert sources == ["judging", MEASURED, COMPUTED]
    for name in ("Some CPU", "NVIDIA H200 141GB"):
        spec = planned[1].spec.to_json()
        write_record(tmp_path, make_record(**{**spec, "seed": len(name)}, device_name=name, measurement=seconds(77.0)))
        estimator = here if name == "Some CPU" else there
        assert (estimator.cost(planned[0]).source, estimator.cost(planned[0]).seconds) == (RECORDS, 77.0)
    assert sources == ["judging", MEASURED, COMPUTED]


def test_a_line_stands_for_all_seeds_that_are_to_be_done(tmp_path: Path, sources: list[str]) -> None:
    results = Path("runs")
    first = make_plan(Request(("noise", "cpsc"), seeds=(0, 1, 2), threads=1), results)
    for item, status in ((first[0], "complete"), (first[4], "failed")):
        write_record(results, make_record(**item.spec.to_json(), status=status, device_name="elsewhere"))
    planned = make_plan(Request(("noise", "cpsc"), seeds=(0, 1, 2), threads=1), results)
    told: list[str] = []
    found = estimate(to_do(planned, results), Estimator(results, "here", START), told.append)
    assert [(line.spec.method, line.runs, line.cost.source) for line in found.lines] == [
        ("noise", 2, MEASURED), ("cpsc", 2, MEASURED),
    ]  # fmt: skip
    assert found.seconds == (120.0,) * 4
    assert found.lines[0].hours == 240.0 / 3600
    assert told == ["1 of 2: noise on digits16/cnn32-cnn16", "2 of 2: cpsc on digits16/cnn32-cnn16"]
    assert sources == ["judging", MEASURED, MEASURED]  # evaluation is the task's


def test_many_processes_find_what_one_does(tmp_path: Path) -> None:
    planned = [*plan("noise", seeds=(0, 1)), *plan("dafl"), *plan("zskt")]
    estimator = Estimator(tmp_path, "H200", START, Device("H200", 0.3))
    told: list[str] = []
    found = estimate(planned, estimator, told.append, processes=2)
    assert [line.cost for line in found.lines] == [estimator.cost(item) for item in planned[1:]]
    assert [(line.spec.method, line.runs) for line in found.lines] == [("noise", 2), ("dafl", 1), ("zskt", 1)]
    assert len({line.cost.seconds for line in found.lines}) == 3
    assert told[-1] == "3 of 3: zskt on digits16/cnn32-cnn16"


def test_what_fails_in_one_of_many_processes_is_said(tmp_path: Path) -> None:
    planned = [*plan("noise"), *plan("dafl")]
    broken = replace(planned[1], method=replace(planned[1].method, target="dfkd_methods.dafl:Nobody"))
    with pytest.raises(BenchError, match="Nobody"):
        estimate([planned[0], broken], Estimator(tmp_path, "H200", START, Device("H200", 0.3)), processes=2)


def test_a_budget_of_seconds_takes_them_and_what_comes_after(tmp_path: Path, sources: list[str]) -> None:
    (item,) = plan("cpsc")
    item = replace(item, spec=replace(item.spec, budget="seconds:90"))
    assert Estimator(tmp_path, "here", START).cost(item) == Cost(90.0, MEASURED, 45 * 384, 45 * 5 * 128)


# -- arithmetic -------------------------------------------------------------------------------------------------------


def test_known_arithmetic_of_wide_resnets() -> None:
    """shared/specs: WRN-40-2 to WRN-16-2 at 32x32, GFLOP per image of a generator and of a student step."""
    one = {"synthesis_steps": 1, "student_steps": 1}
    found = of_job(lambda: rehearsal("cpsc", task=CIFAR).job({**rehearsal("cpsc", task=CIFAR).settings, **one}))
    assert found.synthesis.flop / 256 / 1e9 == pytest.approx(2.41, abs=0.01)
    assert found.distillation.flop / 256 / 1e9 == pytest.approx(1.50, abs=0.01)
    assert (found.synthesis.passes, found.distillation.passes, found.growth) == (2 * 256, 256, (1.0,))


@pytest.mark.parametrize("method", ["cpsc", "pre-dfkd", "cmi", "real-kd", "adadfkd", "mad", "fastdfkd"])
def test_pretending_counts_what_computing_does(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"synthesis_steps": 1, "student_steps": 2, "iterations": 2, "bank_draw": 100}
    tried = rehearsal(method)
    settings = {**tried.settings, **{k: v for k, v in small.items() if k in tried.settings}}
    computed = of_job(lambda: tried.job(settings))
    monkeypatch.setattr(arithmetic, "SMALL", 0.0)
    assert of_job(lambda: tried.job(settings)) == computed
    assert computed.distillation.flop > 0.0
    assert len(computed.growth) == (2 if method == "cmi" else 1)  # whose bank is full after a batch
    assert computed.growth[-1] == (pytest.approx(1.024, abs=0.001) if method == "cmi" else 1.0)


def test_long_loops_are_extrapolated_from_short_ones() -> None:
    tried = rehearsal("nayer", {"g_steps": 6, "student_steps": 11})
    assert tried.loops(2) == ["g_steps"]
    assert tried.shorter() == {"g_steps": 2, "student_steps": 5}
    counted, whole = model_of(tried).at(tried.settings), of_job(lambda: tried.job(tried.settings))
    for part in ("warmup", "synthesis", "distillation", "preview"):
        mine, usual = getattr(counted, part), getattr(whole, part)
        assert (mine.flop, mine.passes) == pytest.approx((usual.flop, usual.passes)), part
    assert counted.warmup.flop < 0.95 * 5 * counted.synthesis.flop  # five batches, no adversarial term yet


@pytest.mark.parametrize("method", ["zskt", "fastdfkd", "noise"])
def test_passes_are_those_that_real_runs_recorded(method: str) -> None:
    """One reuses a batch, one has a warm-up and an inner loop, one has no synthesis."""
    *_, path = sorted(ROOT.glob(f"results/*/digits16_cnn32-cnn16/{method}/pinned-standard-s0-*/record.json"))
    record = records.read(path)
    tried = rehearsal(method, dict(RunSpec.from_json(record["spec"]).settings), budget="standard")  # as it was made
    counts = record["result"]["counts"]
    passes = counts["teacher_forwards"] + counts["teacher_backwards"]
    assert model_of(tried).at(tried.settings).training(tried.schedule).passes == passes
    assert tried.schedule.total_steps * tried.schedule.batch_size == counts["student_images"]


def test_passes_are_those_of_a_run_whose_warm_up_has_longer_rounds() -> None:
    small = {"g_steps": 3, "synthesis_steps": 2, "warmup_synthesis_steps": 4, "latent_dim": 8, "student_steps": 15}
    tried = rehearsal("nayer", small)
    assert (tried.schedule.warmup_rounds, tried.schedule.rounds) == (2, 20)
    job = tried.job(tried.settings)
    job.keeper = Keepless()
    distill(job)
    assert model_of(tried).at(tried.settings).training(tried.schedule).passes == arithmetic.passes(job)


def test_a_plugin_that_looks_at_its_numbers_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = rehearsal("noise", {"student_steps": 1})
    usual, job = of_job(lambda: tried.job(tried.settings)), tried.job

    def looking(settings: Any) -> Any:
        made = job(settings)
        sample = made.method.sample

        def nosy(n: int) -> Any:
            batch = sample(n)
            assert float(batch.images.sum()) != 0.0
            return batch

        made.method.sample = nosy  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(arithmetic, "SMALL", 0.0)
    assert of_job(lambda: looking(tried.settings)) == usual


def test_steps_with_gradients_of_their_own_are_counted() -> None:
    """torch's counter refuses `autograd.grad` of a leaf, and with it a profile of methods that use it."""
    x, w = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5)
    assert flop_of(lambda: torch.autograd.grad((x @ w).sum(), x)) == 2 * (2 * 4 * 3 * 5)


def test_rounds_that_grow() -> None:
    counted = Counted(Work(5.0, 1.0), Work(10.0, 2.0), Work(3.0, 4.0), Work(), growth=(1.0, 1.5, 2.0))
    assert [counted.grown(n) for n in (1, 2, 3, 5)] == [1.0, 2.5, 4.5, 8.5]
    assert [counted.growth_in(k) for k in (0, 2, 9)] == [1.0, 2.0, 2.0]
    schedule = Schedule(5, 1, 4, 8, 2, (5,))
    assert counted.training(schedule) == Work(2 * 5.0 + 85.0 + 5 * 3.0, 2 * 1.0 + 5 * 2.0 + 5 * 4.0)


# -- seconds ----------------------------------------------------------------------------------------------------------


def test_parts_of_a_run_add_up() -> None:
    counted = Counted(Work(), Work(1.0), Work(1.0), Work(1.0), growth=(1.0, 2.0))
    timing = Timing(1.0, 2.0, 4.0, snapshot=0.5, last=3.0, checkpoint=0.25, around=10.0)
    schedule = Schedule(4, 1, 5, 8, 3, (1, 2, 4))
    training = 3 * 1.0 + 2.0 * (1 + 2 + 2 + 2) + 4 * 4.0
    rest = 2 * 0.5 + 3.0 + 10.0
    assert timing.training(schedule, counted) == training
    assert timing.run(schedule, counted, "quick") == pytest.approx(training + rest + 0.25 * (3 + training / 30))
    assert timing.run(schedule, counted, "seconds:60") == pytest.approx(60.0 + rest + 0.25 * (3 + 2))
    # a round is 2 * 2 + 4 s, and half a round of synthesis goes before it as warm-up, after one whole: (100 - 4) / 10
    fitted = timing.fitted(schedule, counted, Flags(warmup_rounds=1, warmup_fraction=0.5), "seconds:100")
    assert (fitted.rounds, fitted.warmup_rounds) == (10, 6)
    assert timing.fitted(schedule, counted, Flags(), "quick") is schedule


def test_evaluation_of_all_snapshots() -> None:
    judged = Judging(teacher=0.1, student=0.01, once=5.0)
    assert judged.seconds(100, 4, shows=False) == pytest.approx(10.0 + 4.0 + 5.0)
    assert judged.seconds(100, 4, shows=True) == pytest.approx(0.1 * 356 + 0.04 * 356 + 5.0)


def test_a_first_round_that_takes_long_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 100000, 7))
    monkeypatch.setattr(
        "dfkd_bench.training.round_timing.timed", lambda function, device: function() or 1000.0 * next(ticks) / 7
    )
    found = pace(cpsc_job(), 0.5, least=0)  # 0 s and 1 s
    assert (found.synthesis, found.distillation, found.rounds) == (0.0, 1.0, 1)
    found = pace(cpsc_job(), 9.0, least=0)  # 2 s and 3 s do not count; 4 s and 5 s do
    assert (found.synthesis, found.distillation, found.rounds) == (4.0, 5.0, 1)


def test_measured_seconds_are_those_of_the_clock_scaled_to_the_run() -> None:
    """A method without synthesis, timed: 60 rounds of what it takes for one, and whatever comes on top."""
    from dfkd_bench.profiling.estimate.seconds import judging, measured

    tried = rehearsal("noise", budget="smoke")
    model = model_of(tried)
    timing = measured(tried, model, judging(tried), 1.5, 0.0)
    assert timing.synthesis == timing.warmup == 0.0
    assert 0.01 < timing.distillation < 60.0
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
    asked = Request(("noise",), tasks=(CIFAR,), device="cuda")
    with pytest.raises(UsageError, match="no CUDA device"):
        make_plan(asked, Path("runs"))
    with pytest.raises(UsageError, match="no teacher for"):
        make_plan(replace(asked, device="cpu"), Path("runs"))
    (item,) = make_plan(asked, Path("runs"), anywhere=True)
    assert (item.spec.device, item.spec.data, item.spec.teacher, item.state) == ("cuda", "", "", "missing")
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


def test_a_plan_tells_its_states(monkeypatch: Any, capsys: Any) -> None:
    status, out, _ = dfkd(monkeypatch, capsys, "plan", "-m", "noise", "-m", "cpsc", "-s", "0-2")
    assert (status, out.splitlines()[0]) == (0, "6 runs: 6 missing")
    item = make_plan(Request(("noise",)), Path("runs"))[0]
    write_record(Path("runs"), make_record(**item.spec.to_json()))
    _, out, _ = dfkd(monkeypatch, capsys, "plan", "-m", "noise", "-m", "cpsc", "-s", "0-2")
    assert out.splitlines()[0] == "6 runs: 1 done, 5 missing"
    assert "not here" not in out


def test_a_plan_tells_what_is_not_here(monkeypatch: Any, capsys: Any) -> None:
    words = ("-t", CIFAR, "-t", "mnist/lenet5-lenet5_half", "-t", "cifar10/wrn40_2-wrn16_1")
    status, out, _ = dfkd(monkeypatch, capsys, "plan", "-m", "noise", *words)
    assert (status, out.splitlines()[0]) == (0, "3 runs: 3 missing")
    assert "not here: dataset cifar10, dataset mnist, a teacher cifar10/wrn40_2\n" in out


@pytest.mark.usefixtures("quick_start")
def test_csv_is_two_tables_of_plain_numbers(monkeypatch: Any, capsys: Any) -> None:
    words = ("-s", "0-1", "--workers", "1,2", "--price", "3600", "--queue-seconds", "10", "--format", "csv")
    status, out, err = dfkd(monkeypatch, capsys, *NOISE, *QUICKLY, *words)
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
def test_markdown_names_sources_and_assumptions(monkeypatch: Any, capsys: Any) -> None:
    words = ("plan", "-m", "noise", "-m", "scratch", "-t", "digits16/cnn32-cnn16", "-t", "mnist/lenet5-lenet5_half",
             "--budget", "smoke", "--threads", "1", "--estimate", "--on", "H200", "--utilisation", "0.5")  # fmt: skip
    status, out, err = dfkd(monkeypatch, capsys, *words, "--format", "markdown")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "4 of 4 runs to do, pinned/smoke, H200, fp32, 1 thread"
    assert lines[2] == "| task | method | runs | s a run | images/s | from | hours | passes |"
    assert lines[3] == "| :-- | :-- | --: | --: | --: | :-- | --: | --: |"
    assert sum("| computed |" in line for line in lines) == 4
    assert "measured here" not in out
    assert "computed, not measured: arithmetic counted, over 50% of the peak of H200 (67 TFLOP/s fp32" in out
    assert "that share is an assumption" in out
    assert "| workers | local, h | ray, h | slurm, h |" in lines


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("columns", [80, 120])
def test_the_tables_fit(monkeypatch: Any, capsys: Any, columns: int) -> None:
    words = (*NOISE, "-m", "scratch", *QUICKLY, "--workers", "1,8,64", "--price", "2")
    _, out, _ = dfkd(monkeypatch, capsys, *words, columns=columns)
    assert all(len(line) <= columns for line in out.splitlines())
    for head in ("s a run", "images/s", "passes", "local, cost", "slurm, h"):
        assert head in out, head
    assert "…" not in out


@pytest.mark.usefixtures("quick_start")
def test_where_all_is_done_nothing_is_estimated(monkeypatch: Any, capsys: Any) -> None:
    item = plan("noise", budget="smoke")[0]
    write_record(Path("runs"), make_record(**item.spec.to_json()))
    for form, stream in (("table", 0), ("csv", 1)):
        status, *said = dfkd(monkeypatch, capsys, *NOISE, *QUICKLY, "--format", form)
        assert status == 0
        assert "nothing is left to do" in said[stream]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--price", "1"), "--price belongs to --estimate"),
        (("--workers", "8"), "--workers belongs to --estimate"),
        (("--format", "csv"), "--format csv belongs to --estimate"),
        (("--estimate", "--format", "xml"), "unknown format 'xml'"),
        (("--estimate", "--workers", "1,none"), "--workers takes whole numbers from 1 on"),
        (("--estimate", "--workers", "0"), "--workers takes whole numbers from 1 on"),
        (("--estimate", "--utilisation", "0.5"), "name it with --on"),
        (("--estimate", "--on", "H200"), "--on names a GPU: leave out --device cpu"),
        (("--estimate", "--price", "-1"), "Invalid value for '--price'"),
        (("--budget", "huge"), "unknown budget"),
        (("--task", "cifar11/cnn32-cnn16"), "unknown dataset"),
    ],
)
def test_the_command_refuses_in_one_line(monkeypatch: Any, capsys: Any, words: tuple[str, ...], says: str) -> None:
    status, out, err = dfkd(monkeypatch, capsys, *NOISE, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert says in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--on", "H20"), "unknown device 'H20'; did you mean 'H200'?"),
        (("--on", "H200", "--utilisation", "1.5"), "--utilisation takes a share of the peak"),
    ],
)
def test_a_device_that_cannot_be_computed_is_refused(
    monkeypatch: Any, capsys: Any, words: tuple[str, ...], says: str
) -> None:
    status, _, err = dfkd(monkeypatch, capsys, "plan", "-m", "noise", "--estimate", *words)
    assert (status, err.count("\n")) == (2, 1)
    assert says in err


def test_help_waits_for_nothing() -> None:
    out, loaded = snoop("plan", "--help")
    assert loaded == "[]"
    assert "--queue-seconds" in out
