"""Runs with add-ons: their specification and hash, what is refused, records, rows of the leaderboard, conformance."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from factory import make_record, write_record
from smoke_runs import GOOD, plan_one, start
from test_resume import kill_and_resume

from dfkd_bench.conformance import check_method
from dfkd_bench.engines.scheduler import SchedulerOptions, works_of
from dfkd_bench.engines.worker import carry_out, missing_here
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import long_table
from dfkd_bench.report.terminal.leaderboard import sections
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan, plan_repeat
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.runfile import read_run_file, run_file
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.utils.text import method_label

RESULTS = Path(__file__).parents[2] / "results"
ADDONS = ("curriculum", "ema", "replay")
AROUND = {"name": "ema", "code": "ab" * 32, "settings": {"decay": 0.9}}


def planned(*addons: str, results: Path = Path("none"), method: str = "noise", **overrides: Any) -> PlannedRun:
    return plan_one(results, method, addons=addons, overrides=overrides)


def test_a_specification_without_add_ons_says_nothing_of_them() -> None:
    made = [records.read(path) for path in sorted(RESULTS.glob("*/*/*/*/record.json"))[::7]]
    assert len(made) >= 5
    for record in made:
        spec = RunSpec.from_json(record["spec"])
        assert "addons" not in spec.to_json()
        assert spec.to_json() == record["spec"] | {
            "overrides": spec.to_json()["overrides"],
            "settings": spec.to_json()["settings"],
        }
        assert spec.hash == record["hash"]


def test_order_settings_and_code_of_add_ons_are_part_of_a_run() -> None:
    base = planned("ema", "replay").spec
    assert [a.name for a in base.addons] == ["ema", "replay"]
    others = [
        planned().spec, planned("replay", "ema").spec, planned("ema", "replay", **{"ema.decay": "0.5"}).spec,
        dataclasses.replace(base, addons=(dataclasses.replace(base.addons[0], code="0" * 64), base.addons[1])),
    ]  # fmt: skip
    assert len({base.hash, *(s.hash for s in others)}) == 5
    assert RunSpec.from_json(json.loads(json.dumps(base.to_json()))) == base
    changed = others[2]
    assert dict(changed.addons[0].settings)["decay"] == 0.5
    assert dict(changed.overrides) == {"ema.decay": 0.5}
    with pytest.raises(RunError, match="not a run specification"):
        RunSpec.from_json({**base.to_json(), "addons": [{"name": "ema"}]})


@pytest.mark.parametrize(
    ("addons", "overrides", "method", "says"),
    [
        (("emo",), {}, "noise", "unknown add-on 'emo'; did you mean 'ema'"),
        (("ema", "replay", "ema"), {}, "noise", "--with ema is named 2 times"),
        ((), {"ema.decay": 0.5}, "noise", "the run has no add-on 'ema'"),
        (("ema",), {"ema.decoy": 0.5}, "noise", "add-on ema has no setting 'decoy'; did you mean 'decay'"),
        (("ema",), {"ema.decay": "x"}, "noise", "decay takes float"),
        (("curriculum",), {"curriculum.difficulty": "x"}, "noise", "difficulty is one of"),
        (("ema",), {}, "real-kd", "works on real data and takes no add-on"),
        (("noise",), {}, "noise", "unknown add-on 'noise'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(addons: Any, overrides: Any, method: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        planned(*addons, method=method, **overrides)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Noise with everything around it."""
    results = tmp_path_factory.mktemp("runs")
    one = planned("replay", "curriculum", "ema", results=results, **{"replay.capacity": 300})
    return start(one, results).record


def test_a_run_with_add_ons_leaves_a_record_that_tells_of_them(record: dict[str, Any], tmp_path: Path) -> None:
    assert record["result"]["status"] == "complete"
    counts = record["result"]["counts"]
    assert counts["images_stored"] == 300
    assert counts["student_images"] == counts["images_synthesised"] == 30 * 128
    assert counts["student_forwards"] == 2 * counts["student_images"]  # the slow student answers each batch too
    assert record["result"]["generator_parameters"] == 0  # the slow student makes no images
    assert [a["name"] for a in record["manifest"]["addons"]] == ["replay", "curriculum", "ema"]
    assert record["manifest"]["addons"][0]["owner"] == "dfkd-bench"
    assert plan_repeat(record, tmp_path).addons[2].name == "ema"
    with pytest.raises(UsageError, match=r"the record's add-ons \(replay, curriculum, ema\) differ from those here"):
        plan_repeat(record, tmp_path, addons=("ema",))
    assert method_label(record["spec"]) == "noise with replay+curriculum+ema"


def test_the_run_file_of_a_record_makes_the_same_run(record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(run_file(record))
    (again,) = make_plan(Request(**read_run_file(tmp_path / "run.toml")), tmp_path)
    assert again.spec == RunSpec.from_json(record["spec"])


def test_a_worker_finds_the_add_ons_or_says_what_it_lacks(record: dict[str, Any], tmp_path: Path) -> None:
    one = planned("ema", results=tmp_path)
    (work,) = works_of([one], tmp_path, SchedulerOptions())
    assert [entry.word for entry in work.run.addons] == ["ema"]
    assert missing_here([work]) == []
    other = dataclasses.replace(one.spec, addons=(dataclasses.replace(one.spec.addons[0], code="0" * 64),))
    strange = dataclasses.replace(work, run=dataclasses.replace(work.run, spec=other))
    assert [said.partition(" on ")[0] for said in missing_here([strange])] == ["add-on ema is another version"]
    report = carry_out(strange)
    assert report.outcome == "failed"
    assert report.error.startswith("add-on ema differs here")
    gone = dataclasses.replace(work.run.addons[0], name="emma")
    missing = dataclasses.replace(work, run=dataclasses.replace(work.run, addons=(gone,)))
    assert missing_here([missing])[0].startswith("unknown add-on 'emma'")


def test_runs_with_add_ons_are_rows_of_their_own(tmp_path: Path) -> None:
    made = []
    for seed in (0, 1):
        plain = make_record(seed=seed, last=90.0)
        made.append(plain)
        for settings, last in (({"decay": 0.9}, 95.0), ({"decay": 0.5}, 80.0)):
            one = make_record(seed=seed, last=last)
            one["spec"]["addons"] = [AROUND | {"settings": settings}]
            one["hash"] = RunSpec.from_json(one["spec"]).hash
            one["manifest"]["addons"] = [{"name": "ema", "privileges": ["penultimate"]}]
            made.append(one)
    board = leaderboard(long_table(made))
    assert board[["addons", "last_mean", "n_complete", "rank"]].values.tolist() == [
        ["ema", 95.0, 2, 1], ["", 90.0, 2, 2], ["ema", 80.0, 2, 3],
    ]  # fmt: skip
    assert board["privileges"].tolist() == ["gradients,penultimate", "gradients", "gradients,penultimate"]
    ((first, second, third),) = (s.ranked for s in sections(board))
    assert first[2].startswith("official\nwith ema\nsettings ")
    assert second[2] == "official"
    assert third[2] != first[2]
    write_record(tmp_path, made[1])
    assert records.read_all(tmp_path).__next__()["spec"]["addons"][0]["name"] == "ema"


@pytest.mark.parametrize("addon", [*ADDONS, "all"])
def test_a_composition_conforms(addon: str) -> None:
    around = [registry.resolve(name, registry.ADDON) for name in (ADDONS if addon == "all" else (addon,))]
    broken = [r for r in check_method(registry.resolve(GOOD), addons=around, batch_size=8) if not r.passed]
    assert not broken


BROKEN = '''
from dataclasses import dataclass
import torch
from dfkd_bench.addon import AddOn
from dfkd_bench.method import Batch, setting

@dataclass(frozen=True)
class Settings:
    size: float = setting(0.1, "how much")

class Late(AddOn):
    """Registers when asked for rows, and draws from a global stream."""

    Config = Settings

    def sample(self, n, inner):
        batch = inner(n)
        self.context.state(f"late {self.context.progress.student_step}", 0)
        return Batch(batch.images + torch.rand(1), batch.labels)
'''


def test_conformance_finds_what_an_add_on_breaks(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(BROKEN)
    entry = registry.resolve(str(tmp_path / "late.py"), registry.ADDON)
    assert entry.name == "late:Late"
    found = {r.name: r for r in check_method(registry.resolve(GOOD), addons=[entry], batch_size=8)}
    assert not found["registered"].passed
    assert not found["global-rng"].passed
    (tmp_path / "late.py").write_text(BROKEN.replace("(AddOn)", "(object)").replace("class Late", "class AddOn2"))
    with pytest.raises(UsageError, match="has 0 add-ons"):
        registry.resolve(str(tmp_path / "late.py"), registry.ADDON)
    stranger = registry.resolve(f"{tmp_path / 'late.py'}:AddOn2", registry.ADDON)
    found = {r.name: r for r in check_method(registry.resolve(GOOD), addons=[stranger])}
    assert found["import"].seen.endswith("is not a subclass of dfkd_bench.addon.AddOn")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_method_conforms_with_every_add_on() -> None:
    from small import SMALL

    around = [registry.resolve(name, registry.ADDON) for name in ADDONS]
    for entry in registry.entries().values():
        if entry.owner == "dfkd-bench" and "real_data" not in registry.card(entry).privileges:
            found = check_method(entry, overrides=SMALL.get(entry.name, {}), addons=around, batch_size=8)
            assert [(entry.name, r.name, r.seen) for r in found if not r.passed] == []


@pytest.mark.long
def test_a_composition_survives_a_kill() -> None:
    words = [w for name in ADDONS for w in ("--with", name)]
    status, lines = kill_and_resume("--method", GOOD, *words, "--set", "replay.capacity=200", "--quick")
    name = "good:Good with curriculum+ema+replay"
    assert lines == [
        f"{name}: killed at synthesis 8, then checkpoint-rename 1: identical, resumed from a checkpoint: 1 x"
    ]
    assert status == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("addon", ADDONS)
def test_each_add_on_survives_every_fail_point_around_two_methods(addon: str) -> None:
    status, lines = kill_and_resume("--method", "dafl", "--method", "zskt", "--with", addon)
    assert status == 0, lines
    assert len(lines) >= 16


def test_the_commands_tell_of_add_ons(command: Command, tmp_path: Path) -> None:
    entries = registry.entries(registry.ADDON)
    assert tuple(entries) == ADDONS
    assert all(card.about and card.settings for entry in entries.values() if (card := registry.card(entry)))
    status, out, _ = command("list", "addons")
    assert status == 0
    assert all(name in out for name in ADDONS)
    out = command("show", "replay")[1]
    assert "an add-on" in out
    assert "--set replay.NAME=VALUE" in out
    assert "capacity" in out
    status, out, _ = command("run", "-m", "noise", "--with", "ema", "--dry-run", "--results", tmp_path, columns=200)
    assert "noise with ema" in out
    assert "--with ema" in out
    status, out, err = command("run", "-m", "noise", "--with", "emma", "--dry-run")
    assert (status, err) == (2, "error: unknown add-on 'emma'; did you mean 'ema'?\n")
    out = command("run", "-m", "all", "--with", "ema", "--dry-run", "--results", tmp_path)[1]
    assert "--method noise" in out
    assert "--method real-kd" not in out


def test_the_example_of_the_document_conforms(tmp_path: Path) -> None:
    text = (RESULTS.parent / "methods" / "README.md").read_text().partition("## Add-ons")[2]
    source = text.partition("```python\n")[2].partition("```")[0]
    head = (
        "import dataclasses\nfrom dataclasses import dataclass\nimport torch\n"
        "from dfkd_bench.addon import AddOn, Sample\nfrom dfkd_bench.method import Batch, setting\n\n"
    )
    (tmp_path / "noise.py").write_text(head + source)
    entry = registry.resolve(f"{tmp_path / 'noise.py'}:InputNoise", registry.ADDON)
    broken = [r for r in check_method(registry.resolve(GOOD), addons=[entry], batch_size=8) if not r.passed]
    assert not broken
