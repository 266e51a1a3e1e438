"""`dfkd-bench tune`: equal budgets, the choice rule, no look at test accuracies, the table, and that it resumes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, Printed, Refused
from factory import make_record
from rich.console import Console
from safetensors.torch import load_file, save_file

from dfkd_bench import models
from dfkd_bench.cli.tune import TrialPrinter
from dfkd_bench.errors import RunError
from dfkd_bench.protocol import DEFAULT_TASK, PROTOCOL, task
from dfkd_bench.runs import records
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.progress import ProgressEvent
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.studies import probe, tuning, tuning_table
from dfkd_bench.studies.tuning_table import Row
from dfkd_bench.training import runner as running

PLUGIN = '''
"""Noise of some strength, which can be told to fail."""
from dataclasses import dataclass
import torch
from dfkd_bench.method import Batch, Flags, Method, setting

@dataclass(frozen=True)
class Config:
    scale: float = setting(1.0, "strength")
    mode: str = setting("fine", "what it does", choices=("fine", "raise", "nan"))
    width: int = setting(4, "pinned")

class {name}(Method):
    """Noise."""
    Config = Config
    presets = {presets}
    pinned = {{"width": "generator_width"}}
    search = {search}

    @property
    def flags(self):
        return Flags(synthesis_steps=0)

    def synthesize(self):
        return {{}}

    def draw(self, n, stream):
        if self.config.mode == "raise":
            raise ValueError("told to")
        x = self.config.scale * torch.randn((n, *self.context.task.image_shape), generator=stream)
        return Batch(x * float("nan") if self.config.mode == "nan" else x)

    def sample(self, n):
        return self.draw(n, self.context.stream("noise"))

    def preview(self, n, stream):
        return self.draw(n, stream)
'''
TUNE = ("tune", "--budget", "smoke", "--device", "cpu")
ANY = ("--coverage", "0")  # noise shows few classes
SCALES = '{"scale": (1, 2.0, 3.0)}'


def plugin(name: str, search: str = SCALES, presets: str = '{"default": {}}') -> str:
    """A method in a file of the current folder, as `--method` takes it."""
    Path(f"{name.lower()}.py").write_text(PLUGIN.format(name=name, search=search, presets=presets))
    return f"{name.lower()}.py"


@pytest.fixture
def tune(printed: Printed) -> Printed:
    """What a quick `dfkd-bench tune` prints."""
    return lambda *words: printed(*TUNE, *words, columns=160)


def trials_of(method: str, preset: str | None = None, runs: int = 12) -> list[tuning.Trial]:
    """The trials of one method, none of them run."""
    terms = (DEFAULT_TASK, preset, runs, "smoke", 100, 1, "cpu", 1.0, Path("tuning"), Path("out"))
    return tuning.plan_trials(tuning.TuneOptions((method,), *terms))


def table(path: str | Path = "tuning/tuning.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def executions(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """A list that grows with every run that is really executed."""
    begun: list[RunSpec] = []
    execute = running.execute

    def counted(planned: PlannedRun, *rest: Any) -> dict[str, Any]:
        begun.append(planned.spec)
        return execute(planned, *rest)

    monkeypatch.setattr(running, "execute", counted)
    return begun


# -- which trials -----------------------------------------------------------------------------------------------------

SEARCH = {"a": [1, 2, 3, 4], "b": ["x", "y", "z"], "c": [False, True]}
RESOLVED = {"a": 2, "b": "z", "c": True, "other": 5}


def test_trials_are_distinct_begin_with_the_method_as_it_stands_and_never_repeat_it() -> None:
    for seed in range(20):
        found = tuning.trials(SEARCH, RESOLVED, 100, seed, "m")
        assert found[0] == {}
        assert len(found) == 24  # the product holds trial 0's settings
        assert len({json.dumps(t, sort_keys=True) for t in found}) == 24
        assert all(set(t) == set(SEARCH) for t in found[1:])
        assert {"a": 2, "b": "z", "c": True} not in found
    assert len(tuning.trials(SEARCH, {**RESOLVED, "a": 9}, 100, 0, "m")) == 25


def test_trials_are_capped_and_a_larger_budget_goes_on_from_a_smaller() -> None:
    most = tuning.trials(SEARCH, RESOLVED, 12, 100, "m")
    assert len(most) == 12
    for runs in range(1, 12):
        assert tuning.trials(SEARCH, RESOLVED, runs, 100, "m") == most[:runs]
    assert tuning.trials({}, RESOLVED, 12, 100, "m") == [{}]
    huge = {name: list(range(50)) for name in "abcdefghijklmno"}  # 50^15 does not fit into 64 bits
    assert len(tuning.trials(huge, dict.fromkeys(huge, 0), 12, 100, "m")) == 12


def test_trials_depend_on_seed_and_method_alone() -> None:
    said = [tuning.trials(SEARCH, RESOLVED, 8, s, m) for s, m in ((100, "m"), (101, "m"), (100, "n"), (100, "m"))]
    assert said[0] == said[3]
    assert said[0] != said[1]
    assert said[0] != said[2]
    backwards = dict(reversed(SEARCH.items()))
    assert tuning.trials(backwards, RESOLVED, 8, 100, "m") == said[0]
    np.random.seed(1)
    assert tuning.trials(SEARCH, RESOLVED, 8, 100, "m") == said[0]
    # written down: tables in the repository are made of these
    assert tuning.trials({"a": [1, 2, 3, 4]}, {"a": 9}, 5, 100, "m")[1:] == [{"a": k} for k in (2, 1, 4, 3)]


# -- which trial wins -------------------------------------------------------------------------------------------------

ROW = Row(
    DEFAULT_TASK, "pinned", "quick", 100, "alpha", "default", 0, "{}", "complete", 1.0, None, 80.0, False, False,
    "r" * 12, "c" * 12, 10, 1.0, "p" * 12, PROTOCOL,
)  # fmt: skip


def rows(*tried: tuple[float | None, float | None, str]) -> list[Row]:
    return [
        replace(ROW, trial=k, run=str(k), probe_agreement=score, coverage=coverage, status=status)
        for k, (score, coverage, status) in enumerate(tried)
    ]


@pytest.mark.parametrize(
    ("tried", "coverage", "eligible", "wins"),
    [
        ([(80.0, 1.0, "complete"), (90.0, 1.0, "complete"), (85.0, 1.0, "complete")], 1.0, [0, 1, 2], 1),
        ([(80.0, 1.0, "complete"), (90.0, 0.9, "complete"), (85.0, 1.0, "complete")], 1.0, [0, 2], 2),
        ([(80.0, 1.0, "complete"), (90.0, 0.9, "complete"), (85.0, 1.0, "complete")], 0.9, [0, 1, 2], 1),
        ([(80.0, 1.0, "complete"), (85.0, 1.0, "complete"), (85.0, 1.0, "complete")], 1.0, [0, 1, 2], 1),
        ([(85.0, 1.0, "complete"), (85.0, 1.0, "complete")], 1.0, [0, 1], 0),
        ([(80.0, 0.9, "complete"), (90.0, 0.9, "complete")], 1.0, [], 0),
        ([(None, None, "failed"), (60.0, 1.0, "complete")], 1.0, [1], 1),
        ([(80.0, 0.5, "complete"), (60.0, 1.0, "complete")], 1.0, [1], 1),
        ([(80.0, 1.0, "complete"), (90.0, 1.0, "diverged"), (90.0, None, "complete")], 1.0, [0], 0),
        ([(80.0, 1.0, "complete"), (90.0, None, "complete")], 0.0, [0, 1], 1),
        ([(0.0, 0.5, "complete"), (0.0, 1.0, "complete")], 1.0, [1], 1),
    ],
)
def test_the_choice_rule(tried: list[Any], coverage: float, eligible: list[int], wins: int) -> None:
    for order in (1, -1):  # the order of the rows says nothing
        judged = tuning_table.choose(rows(*tried)[::order], coverage, {})
        assert sorted(row.trial for row in judged if row.eligible) == eligible
        assert [row.trial for row in judged if row.chosen] == [wins]
        assert [row.trial for row in judged] == [*range(len(tried))][::order]


def test_every_method_has_its_own_winner() -> None:
    other = [replace(row, method="beta", run="b" + row.run) for row in rows((10.0, 1.0, "complete"))]
    judged = tuning_table.choose([*rows((80.0, 1.0, "complete"), (90.0, 1.0, "complete")), *other], 1.0, {})
    assert [(row.method, row.trial) for row in judged if row.chosen] == [("alpha", 1), ("beta", 0)]


@pytest.mark.parametrize(
    ("least", "eligible", "wins"), [(0.0, [0, 1, 2, 3], 3), (50.0, [0, 1, 2], 2), (90.0, [1, 2], 2), (99.0, [1], 1)]
)
def test_a_method_may_ask_for_a_label_agreement(least: float, eligible: list[int], wins: int) -> None:
    tried = [(80.0, 89.9), (81.0, 100.0), (82.0, 90.0), (83.0, None)]  # score, label agreement; None: no labels
    made = [replace(ROW, trial=k, probe_agreement=s, label_consistency=labels) for k, (s, labels) in enumerate(tried)]
    other = replace(ROW, method="beta", label_consistency=1.0)
    judged = tuning_table.choose([*made, other], 1.0, {"alpha": least})
    assert [row.trial for row in judged[:-1] if row.eligible] == eligible
    assert [row.trial for row in judged[:-1] if row.chosen] == [wins]
    assert judged[-1].eligible  # which asks for none


def test_score_is_the_share_of_equal_answers() -> None:
    teacher, student = models.build("cnn32", 10, (1, 16, 16)), models.build("cnn16", 10, (1, 16, 16))
    images = torch.randn(200, 1, 16, 16)
    with torch.no_grad():
        same = (teacher.eval()(images).argmax(1) == student.eval()(images).argmax(1)).sum().item()
    assert tuning.score(teacher, student, images) == pytest.approx(same / 2.0)
    assert tuning.score(teacher, teacher, images) == 100.0


def test_a_row_is_made_without_test_images() -> None:
    whole = make_record()
    bare = {**whole, "result": {name: whole["result"][name] for name in ("status", "samples", "counts")}}
    spec = RunSpec.from_json(whole["spec"])
    made = [tuning_table.row_of(spec, 3, record, 81.23456, "ab" * 32) for record in (whole, bare)]
    assert made[0] == made[1]
    assert (made[0].coverage, made[0].probe_agreement, made[0].teacher_passes) == (1.0, 81.235, 112640 + 61440)
    assert made[0].label_consistency == 99.0
    assert (made[0].probe, made[0].code, made[0].trial) == ("ab" * 6, "5a" * 6, 3)


@pytest.mark.long
def test_other_test_accuracies_choose_the_same(tune: Printed) -> None:
    tune("-m", plugin("Mine"), *ANY, "--runs", "2")
    before = Path("tuning/tuning.csv").read_bytes()
    for k, path in enumerate(records.find(Path("tuning"))):
        record = json.loads(path.read_text())
        record["result"]["accuracy"].update(last=90.0 - 10 * k, oracle=90.0 - 10 * k, selected=1.0)
        record["result"]["fidelity"]["agreement"] = 90.0 - 10 * k
        path.write_text(json.dumps(record))
    tune("-m", "mine.py", *ANY, "--runs", "2")
    assert Path("tuning/tuning.csv").read_bytes() == before


# -- the probe --------------------------------------------------------------------------------------------------------


def leave_samples(name: str, images: torch.Tensor, **changes: Any) -> dict[str, Any]:
    """A record beside images."""
    Path(name).mkdir()
    save_file({"images": images}, Path(name) / "samples.safetensors")
    result = {"files": {"samples.safetensors": "0" * 64}, **changes}
    return {**make_record(method=name, result=result), "path": f"{name}/record.json"}


def test_the_probe_pools_the_first_images_of_those_that_have_any() -> None:
    chosen, draws = task(DEFAULT_TASK), torch.Generator().manual_seed(0)
    images = [torch.randn(n, 1, 16, 16, generator=draws) for n in (100, 20, 80, 80)]
    images[3][0, 0, 0, 0] = 1e6  # more than float16 holds
    names = ("a", "b", "diverged", "huge")
    found = [leave_samples(n, x) for n, x in zip(names, images, strict=True)]
    found[2]["result"]["status"] = "diverged"
    none = {**make_record(method="none", result={"files": {}}), "path": "none/record.json"}
    failed = make_record(method="failed", status="failed")
    made = probe.pool([*found, none, failed], chosen)
    assert made.methods == ("a", "b")
    assert made.images.dtype == torch.float32
    assert torch.equal(made.images, torch.cat([images[0][:64], images[1]]).half().float())
    assert made.sha256 == hashlib.sha256(made.payload).hexdigest()
    assert {probe.pool(found, chosen).sha256 for _ in range(20)} == {made.sha256}  # no random order in the file
    Path("probe.safetensors").write_bytes(made.payload)
    assert load_file("probe.safetensors")["images"].dtype == torch.float16
    again = probe.read(Path("probe.safetensors"), chosen)
    assert (again.sha256, again.methods) == (made.sha256, made.methods)
    assert torch.equal(again.images, made.images)
    with pytest.raises(RunError, match="no untuned run left images"):
        probe.pool([none, failed], chosen)


def test_what_is_no_probe_is_refused(refused: Refused) -> None:
    mine = plugin("Mine")
    half, wrong = torch.zeros(2, 1, 16, 16).half(), torch.zeros(2, 3, 8, 8).half()
    about = {"probe": json.dumps({"methods": ["a"], "task": DEFAULT_TASK})}
    Path("text").write_text("no")
    save_file({"images": half}, "bare")
    save_file({"other": half}, "unnamed", about)
    save_file({"images": half.float()}, "float", about)
    save_file({"images": wrong}, "shape", about)
    save_file({"images": half[:0]}, "empty", about)
    save_file({"images": half}, "foreign", {"probe": json.dumps({"methods": [], "task": "cifar10/a-b"})})
    for name, says in {
        "gone": "cannot read probe", "text": "no probe of", "bare": "no probe of", "unnamed": "no probe of",
        "float": "not those of a probe", "shape": "not those of a probe", "empty": "not those of a probe",
        "foreign": "a probe of task cifar10/a-b",
    }.items():  # fmt: skip
        assert says in refused(*TUNE, "-m", mine, "--probe", name)
    assert not Path("runs").exists()


# -- the command ------------------------------------------------------------------------------------------------------


COLUMNS = [
    "task", "track", "budget", "seed", "method", "preset", "trial", "settings", "status", "coverage",
    "label_consistency", "probe_agreement", "eligible", "chosen", "run", "code", "teacher_passes", "seconds", "probe",
    "protocol",
]  # fmt: skip


@pytest.mark.long
def test_a_table_with_every_column(tune: Printed) -> None:
    printed = tune("-m", plugin("Mine"), *ANY)
    found = table()
    assert list(found[0]) == COLUMNS
    assert [row["trial"] for row in found] == ["0", "1", "2"]  # the default, 1, is among the candidates
    assert found[0]["settings"] == "{}"
    assert {row["settings"] for row in found[1:]} == {'{"scale":2.0}', '{"scale":3.0}'}
    held = Path("tuning/probe.safetensors")
    sha = hashlib.sha256(held.read_bytes()).hexdigest()
    for row in found:
        (folder,) = Path("tuning", PROTOCOL).rglob(f"*-s100-{row['run']}")
        record = records.read(folder)
        assert record["spec"]["overrides"] == json.loads(row["settings"])
        assert record["spec"]["threads"] == 1
        assert (row["task"], row["track"], row["budget"], row["seed"]) == (DEFAULT_TASK, "pinned", "smoke", "100")
        assert (row["method"], row["preset"], row["status"]) == ("mine:Mine", "default", "complete")
        assert float(row["coverage"]) == record["result"]["samples"]["coverage"]
        assert row["label_consistency"] == ""  # noise has no labels
        assert int(row["teacher_passes"]) == 30 * 128
        assert row["code"] == record["spec"]["code"][:12]
        assert (row["probe"], row["protocol"], row["eligible"]) == (sha[:12], PROTOCOL, "true")
        assert float(row["seconds"]) == pytest.approx(record["measurement"]["seconds_total"], abs=0.051)
        assert len(row["probe_agreement"].partition(".")[2]) == 3
    first = load_file(next(Path("tuning").rglob(f"*-{found[0]['run']}")) / "samples.safetensors")["images"]
    assert torch.equal(load_file(held)["images"], first[:64].half())
    best = max(found, key=lambda row: float(row["probe_agreement"]))
    assert [row["chosen"] for row in found] == ["true" if row is best else "false" for row in found]
    assert f"{float(best['probe_agreement']):.2f}" in printed
    line = f'("*", "digits16/*", {{"scale": {json.loads(best["settings"]).get("scale")}}})'
    assert (line in printed) == (best is not found[0])
    assert "test top-1" not in printed


@pytest.mark.parametrize(("phase", "seen"), [("training", True), ("evaluation", False)])
def test_a_terminal_shows_the_run_but_no_test_accuracy(phase: str, seen: bool) -> None:
    screen = io.StringIO()
    plan = trials_of(plugin("Mine"), runs=2)
    teller = TrialPrinter(Console(file=screen, force_terminal=True, width=160, color_system=None), len(plan))
    with teller.follow(plan[1]) as watch:
        watch(
            ProgressEvent(phase, 3, 6, 1920, 1.0, 0, {"top1": 55.55, "loss/student": 55.55, "synthetic_agreement": 1.0})
        )
    assert "1/2 mine:Mine · trial 1 · scale=" in screen.getvalue()
    assert phase in screen.getvalue()
    assert ("55." in screen.getvalue()) == seen


@pytest.mark.long
def test_a_second_call_runs_nothing(tune: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = executions(monkeypatch)
    mine = plugin("Mine")
    tune("-m", mine, "--runs", "2")
    assert [dict(spec.overrides) == {} for spec in begun] == [True, False]
    printed = tune("-m", mine)
    assert len(begun) == 3
    assert printed.count("finished already") == 2
    files = {p: p.read_bytes() for p in Path("runs").rglob("*") if p.is_file()}
    tune("-m", mine)
    assert len(begun) == 3
    assert {p: p.read_bytes() for p in Path("runs").rglob("*") if p.is_file()} == files


def test_failing_and_diverging_trials_are_rows(tune: Printed) -> None:
    printed = tune("-m", plugin("Mine", '{"mode": ("fine", "raise", "nan")}'), *ANY)
    found = {json.loads(row["settings"]).get("mode", "fine"): row for row in table()}
    assert {mode: row["status"] for mode, row in found.items()} == {
        "fine": "complete", "raise": "failed", "nan": "diverged",
    }  # fmt: skip
    for mode in ("raise", "nan"):
        assert [found[mode][name] for name in ("probe_agreement", "eligible", "chosen")] == ["", "false", "false"]
    assert found["fine"]["chosen"] == "true"
    assert "ValueError: told to" in printed
    assert "trial 0 is kept" in printed


LABELLED = PLUGIN.replace('"raise", "nan")', '"raise", "nan", "wrong")').replace(
    'return Batch(x * float("nan") if self.config.mode == "nan" else x)',
    "y = self.context.teacher(x).logits.argmax(1)\n"
    '        return Batch(x, labels=(y + 1) % 10 if self.config.mode == "wrong" else y)',
)
LABELLED = LABELLED.replace("    search =", "    least_label_consistency = {least}\n    search =")


@pytest.mark.long
@pytest.mark.parametrize(("least", "eligible"), [("0.0", "true"), ("90.0", "false")])
def test_only_trials_with_the_label_agreement_that_the_method_asks_for(
    tune: Printed, least: str, eligible: str
) -> None:
    modes = '{"mode": ("fine", "wrong")}'
    Path("mine.py").write_text(LABELLED.format(name="Mine", search=modes, presets='{"default": {}}', least=least))
    printed = tune("-m", "mine.py", *ANY)
    assert [row["label_consistency"] for row in table()] == ["100.0000", "0.0000"]
    assert [row["eligible"] for row in table()] == ["true", eligible]
    assert "coverage" in printed
    assert "label agreement 100 %" in printed
    assert "label agreement 0 %" in printed
    (line,) = [line.split() for line in printed.splitlines() if line.split()[:2] == ["mine:Mine", "default"]]
    assert line[2:4] == ["2", "2" if eligible == "true" else "1"]
    chosen = next(row for row in table() if row["chosen"] == "true")
    assert line[6] == f"{float(chosen['label_consistency']):.2f}"


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_full_disk_or_a_busy_run_is_no_row(
    command: Command, monkeypatch: pytest.MonkeyPatch, failed_before: bool
) -> None:
    mine = plugin("Mine")
    if failed_before:  # an old failure is not what became of this call
        folder = Path("tuning") / trials_of(mine)[0].planned.spec.folder
        folder.mkdir(parents=True)
        failed = make_record(method="mine:Mine", status="failed")
        records.write(folder, {k: v for k, v in failed.items() if k not in ("path", "schema")})

    def busy(*_: Any, **__: Any) -> Any:
        raise RunError("another process is working on this run")

    monkeypatch.setattr(tuning, "run", busy)
    status, _, err = command(*TUNE, "-m", mine)
    assert (status, err) == (1, "error: another process is working on this run\n")
    assert not Path("tuning/tuning.csv").exists()


def test_no_eligible_trial_is_said(tune: Printed) -> None:
    printed = tune("-m", plugin("Mine"), "--runs", "2")
    assert "no trial is eligible: trial 0 is kept" in printed
    assert "task_settings" not in printed
    assert [(row["eligible"], row["chosen"]) for row in table()] == [("false", "true"), ("false", "false")]


@pytest.mark.long
def test_methods_one_at_a_time_share_a_table_on_one_probe(tune: Printed, command: Command) -> None:
    beta = plugin("Beta", '{"scale": (2.0,)}')
    alpha = plugin("Alpha", "{}", '{"default": {}, "strong": {"scale": 3.0}}')
    tune("-m", beta, "--out", "out", *ANY)
    alone = table("out/tuning.csv")
    status, _, err = command(*TUNE, "-m", alpha, "--out", "out")
    assert (status, err.count("\n")) == (2, 1)
    assert "choose another --out, or give its probe with --probe out/probe.safetensors" in err
    assert table("out/tuning.csv") == alone
    held = Path("out/probe.safetensors").read_bytes()
    tune("-m", alpha, "--out", "out", "--probe", "out/probe.safetensors", *ANY)
    both = table("out/tuning.csv")
    assert [row["method"] + row["trial"] for row in both] == ["alpha:Alpha0", "beta:Beta0", "beta:Beta1"]
    assert both[1:] == alone
    assert Path("out/probe.safetensors").read_bytes() == held
    tune("-m", beta, "--out", "out", "--probe", "out/probe.safetensors", "--runs", "1", *ANY)
    assert [row["method"] + row["trial"] for row in table("out/tuning.csv")] == ["alpha:Alpha0", "beta:Beta0"]
    tune("-m", beta, "--out", "elsewhere", "--probe", "out/probe.safetensors", "--runs", "1", *ANY)
    assert Path("elsewhere/probe.safetensors").read_bytes() == held


def test_a_table_of_other_terms_is_refused_before_anything_runs(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, mine = executions(monkeypatch), plugin("Mine")
    Path("out").mkdir()
    theirs = Path("out/tuning.csv")
    good = replace(ROW, budget="smoke").text()
    changes = {"task": "other/a-b", "budget": "quick", "seed": "7", "protocol": "0.9", "track": "recipe"}
    for name, value in changes.items():
        theirs.write_text(tuning_table.table_text([{**good, name: value}]))
        assert f"has rows of {name} {value}, not" in refused(*TUNE, "-m", mine, "--out", "out")
    texts = dict.fromkeys(("trial\nfirst\n", "no\n1\n"), "no table of")
    texts |= dict.fromkeys(("trial,x\n1,2\n", ""), "other columns")
    texts[tuning_table.table_text([good]).rstrip() + ",more\n"] = "other columns"
    for text, says in texts.items():
        theirs.write_text(text)
        assert says in refused(*TUNE, "-m", mine, "--out", "out")
    assert not begun
    assert [p.name for p in Path("out").iterdir()] == ["tuning.csv"]


def test_a_dry_run_lists_the_trials_and_runs_nothing(tune: Printed) -> None:
    printed = tune("-m", plugin("Mine"), "-m", plugin("Beta", "{}"), "--dry-run")
    assert "4 trials, 0 done" in printed
    assert printed.count("missing") == 4
    assert printed.index("beta:Beta") < printed.index("mine:Mine")
    assert "scale=2.0" in printed
    assert printed.count("defaults") == 2
    assert not Path("runs").exists()


def test_all_is_every_installed_method_but_the_bounds(tune: Printed) -> None:
    from dfkd_bench.plugins.registry import entries
    from dfkd_bench.protocol import BOUNDS

    for words in ((), ("-m", "all")):
        listed = {
            line.split()[0] for line in tune("--dry-run", "--runs", "1", *words).splitlines() if "missing" in line
        }
        assert listed == set(entries()) - set(BOUNDS)


def test_settings_are_for_the_preset_that_was_tuned() -> None:
    mine = plugin("Mine", presets='{"default": {}, "strong": {"scale": 3.0, "mode": "fine"}}')
    plan = trials_of(mine, "strong")
    assert [t.planned.spec.preset for t in plan] == ["strong"] * 3
    assert {t.task_settings for t in plan[1:]} == {
        '("strong", "digits16/*", {"scale": 1.0})', '("strong", "digits16/*", {"scale": 2.0})',
    }  # fmt: skip
    part = plugin("Part", '{"scale": (1.0,), "mode": ("fine", "raise")}')
    (_, other) = trials_of(part)
    assert (other.settings, other.changed) == ({"mode": "raise", "scale": 1.0}, {"mode": "raise"})
    words = replace(plan[1], changed={"mode": 'a "b"', "flag": True, "steps": 2}, glob="*")
    assert words.task_settings == '("*", "digits16/*", {"mode": "a \\"b\\"", "flag": True, "steps": 2})'


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ('{"width": (8, 16)}', "track pinned fixes width for every method"),
        ('{"sacle": (1.0,)}', "no setting 'sacle'; did you mean 'scale'"),
        ('{"scale": ("much",)}', "scale takes float, got 'much'"),
        ('{"mode": ("odd",)}', "mode is one of fine, raise, nan"),
        ('{"mode": "fine"}', "mode takes a list of candidates"),
        ('{"scale": ()}', "scale takes a list of candidates"),
    ],
)
def test_a_search_that_cannot_be_is_refused(refused: Refused, search: str, says: str) -> None:
    assert says in (said := refused(*TUNE, "-m", plugin("Mine", search), "--dry-run"))
    assert "search of method mine:Mine" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "nowhere.py"), "no such file"),
        (("--method", "nobody"), "unknown method"),
        (("--task", "digits"), "a task is dataset/teacher-student"),
        (("--preset", "strogn"), "has no preset 'strogn'"),
        (("--budget", "huge"), "unknown budget"),
        (("--runs", "0"), "--runs"),
        (("--seed", "-1"), "--seed"),
        (("--threads", "0"), "--threads"),
        (("--coverage", "1.5"), "--coverage"),
        (("--device", "tpu"), "unknown device"),
        (("--out", "mine.py"), "--out"),
        (("--method", "other/mine.py"), "two of the methods are called 'mine:Mine'"),
    ],
)
def test_bad_options_are_refused(refused: Refused, words: tuple[str, ...], says: str) -> None:
    mine = plugin("Mine")
    Path("other").mkdir()
    Path("other/mine.py").write_text(Path(mine).read_text())
    assert says in refused(*TUNE, "-m", mine, *words)
    assert not Path("runs").exists()
