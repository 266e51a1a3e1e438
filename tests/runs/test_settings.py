"""The settings of a run: one table, from which requests, options, run files, printed commands and terms come."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Refused, finding, python
from factory import make_record, write_record
from shared import ROOT

from dfkd_bench.cli.run import command, request
from dfkd_bench.errors import UsageError
from dfkd_bench.plugins.registry import SettingInfo
from dfkd_bench.report import bundle
from dfkd_bench.runs.plan import make_plan
from dfkd_bench.runs.runfile import words_of
from dfkd_bench.runs.settings import LATER_DEFAULTS, SETTINGS, TERMS, VARIANTS, Request, checked_request, request_fields
from dfkd_bench.runs.spec import RunSpec, coerce

FULL = Request(
    ("noise", "a b.py:Mine"), ("digits16/cnn32-cnn16", "mnist/lenet5-lenet5_half"), (0, 3), "uniform", "recipe",
    "seconds:60", "cpu", "bf16", True, 3, overrides={"kind": "two words", "ema.decay": "0.5"},
    addons=("replay", "ema"), teacher="mine",
)  # fmt: skip


def test_the_arguments_of_a_request_stay_as_they_are() -> None:
    """What users write from Python: names, order and defaults."""
    parameters = inspect.signature(Request).parameters
    usual = {name: one.default for name, one in parameters.items()}
    assert usual.pop("methods") is inspect.Parameter.empty
    assert dataclasses.asdict(Request(())) == {**usual, "methods": (), "overrides": {}}
    assert list(usual.items())[:9] == [
        ("tasks", ("digits16/cnn32-cnn16",)), ("seeds", (0,)), ("preset", None), ("track", "pinned"),
        ("budget", "quick"), ("device", "auto"), ("precision", "fp32"), ("compile", False), ("threads", 2),
    ]  # fmt: skip
    assert {k: usual[k] for k in ("teacher", "addons")} == {"teacher": None, "addons": ()}
    assert len(usual.keys() - LATER_DEFAULTS) == 12


def test_keys_of_a_run_file_are_the_names_of_the_options() -> None:
    keys = [one.key for one in SETTINGS.values()]
    assert keys[: len(keys) - len(LATER_DEFAULTS)] == [
        "method", "task", "seeds", "preset", "track", "budget", "set", "with", "teacher", "device", "precision",
        "compile", "threads",
    ]  # fmt: skip
    options = {name: one.opts for one in command.params if (name := one.name) in SETTINGS}
    assert {f"--{key}" for key in keys} == {words[-1] for words in options.values()}


def test_results_are_parted_by_what_a_specification_says() -> None:
    assert [name for name in TERMS if name not in LATER_DEFAULTS] == ["track", "budget", "device", "precision"]
    assert [name for name in VARIANTS if name not in LATER_DEFAULTS] == ["preset", "overrides", "compile", "threads"]
    assert {*LATER_DEFAULTS} <= {*TERMS, *VARIANTS}
    fields = {one.name for one in dataclasses.fields(RunSpec)}
    assert {*TERMS, *VARIANTS} == (fields & SETTINGS.keys()) - {"teacher", "addons"}


def test_a_request_is_the_same_as_words_and_as_a_table() -> None:
    words = words_of(FULL)
    assert words[:6] == ["--method", "noise", "--method", "a b.py:Mine", "--task", "digits16/cnn32-cnn16"]
    assert " ".join(words[8:]) == (
        "--seeds 0,3 --preset uniform --track recipe --budget seconds:60 --set kind=two words --set ema.decay=0.5 "
        "--with replay --with ema --teacher mine --device cpu --precision bf16 --compile --threads 3"
    )
    with command.make_context("run", words) as context:
        assert request(None, context.params) == FULL
    table = {
        "method": ["noise", "a b.py:Mine"], "task": list(FULL.tasks), "seeds": [0, 3], "preset": "uniform",
        "track": "recipe", "budget": "seconds:60", "set": {"kind": "two words", "ema": {"decay": "0.5"}},
        "with": ["replay", "ema"], "teacher": "mine", "device": "cpu", "precision": "bf16", "compile": True,
        "threads": 3,
    }  # fmt: skip
    assert Request(**request_fields(table, "the table")) == FULL
    assert checked_request(FULL) == FULL


def test_one_name_does_for_a_list_and_seeds_may_be_written_in_every_way() -> None:
    found = checked_request(Request("noise", "mnist/lenet5-lenet5_half", range(2), budget="seconds:5.0"))  # type: ignore[arg-type]
    assert (found.methods, found.tasks, found.seeds) == (("noise",), ("mnist/lenet5-lenet5_half",), (0, 1))
    assert found.budget == "seconds:5"
    for seeds in (3, "3", [3], (3,), "3,3"):
        assert request_fields({"seeds": seeds}, "x") == {"seeds": (3,)}
    assert request_fields({"seeds": "0-2,7"}, "x") == {"seeds": (0, 1, 2, 7)}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"track": "pined"}, "unknown track 'pined'; did you mean 'pinned'?"),
        ({"budget": "quik"}, "unknown budget 'quik'; did you mean 'quick'?"),
        ({"device": "gpu"}, "unknown device 'gpu'; did you mean 'cpu'?"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean 'bf16'?"),
        ({"threads": 0}, "--threads takes a whole number from 1 on"),
        ({"threads": "2"}, "the request: threads takes int, got '2'"),
        ({"threads": True}, "the request: threads takes int, got True"),
        ({"compile": 1}, "the request: compile takes bool, got 1"),
        ({"track": None}, "the request: track takes str, got None"),
        ({"teacher": 1}, "the request: teacher takes str, got 1"),
        ({"addons": ("ema", 1)}, "the request: with takes a name or a list of names, got ('ema', 1)"),
        ({"overrides": "a=1"}, "the request: set takes a table, got 'a=1'"),
        ({"seeds": 1.5}, "the request: seeds takes whole numbers, got 1.5"),
        ({"seeds": (True,)}, "seeds are whole numbers from 0 on, such as 0, 0-4 or 0,2,5; got 'True'"),
        ({"seeds": ()}, "seeds are whole numbers from 0 on, such as 0, 0-4 or 0,2,5; got ''"),
        ({"seeds": (-1,)}, "seeds are whole numbers from 0 on, such as 0, 0-4 or 0,2,5; got '-1'"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_one_line(wrong: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(Request(("noise",), **wrong), tmp_path)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    "words",
    [
        ["study.toml"], ["--suite", "quick"], ["--task", "x"], ["--seeds", "0"], ["--preset", "x"], ["--track", "x"],
        ["--budget", "x"], ["--set", "a=1"], ["--teacher", "x"], ["--device", "cpu"], ["--precision", "fp32"],
        ["--compile"], ["--no-compile"], ["--threads", "1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_like_takes_no_setting_of_its_own(refused: Refused, words: list[str], tmp_path: Path) -> None:
    path = write_record(tmp_path / "runs", make_record())
    left_out = words[0].replace("--no-", "--")
    said = f"error: --like repeats a run as it was: leave out {left_out}\n"
    assert refused("run", "--like", path, *words) == said


@pytest.mark.parametrize(
    ("default", "value", "found"),
    [
        (True, " Yes ", True), (True, "0", False), (1, " 5 ", 5), (1.0, "1e-3", 0.001), (1.0, 2, 2.0),
        (1.0, "inf", math.inf), ("a", "1", "1"), ((1,), "[1, [2]]", (1, [2])), ((1,), [3], (3,)),
        ({"a": 1}, '{"b": 2}', {"b": 2}),
    ],
)  # fmt: skip
def test_a_method_s_setting_takes_what_fits_its_default(default: Any, value: Any, found: Any) -> None:
    result = coerce(SettingInfo("key", default, "", None, ""), value, "--set")
    assert result == found
    assert type(result) is type(default)


@pytest.mark.parametrize(
    ("default", "value"),
    [
        (True, "on"), (True, 1), (1, "5.0"), (1, True), (1, 2.0), (1, "9" * 5000), (1.0, True), (1.0, 10**400),
        ("a", 1), ((1,), "1"), ((1,), "[" * 10_000), ({"a": 1}, "[1]"),
    ],
)  # fmt: skip
def test_a_method_s_setting_refuses_the_rest_in_one_line(default: Any, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        coerce(SettingInfo("key", default, "", None, ""), value, "--set")
    assert str(caught.value) == f"--set: key takes {type(default).__name__}, got {value!r:.200}"


# -- a setting more ---------------------------------------------------------------------------------------------------

FIELD = """
    tidy: bool = _setting(
        "--tidy/--no-tidy", default=False, help="Tidy up between rounds.", parts="rows"
    )
    share: float = _setting("--share", default=0.5, help="A number.", parts="rows")
"""
USE = """
import json, sys
from pathlib import Path
from click.testing import CliRunner
from dfkd_bench.cli.run import command, request
from dfkd_bench.profiling.estimate.recorded import matching_records
from dfkd_bench.report import bundle
from dfkd_bench.report.labels import details
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import long_table
from dfkd_bench.results.verify.renderings import check
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import make_plan
from dfkd_bench.runs.runfile import command_of, read_run_file, run_file
from dfkd_bench.runs.settings import Request
from dfkd_bench.runs.spec import RunSpec

old = records.read(Path(sys.argv[1]))
usual, tidy = (RunSpec.from_json({**old["spec"], **more}) for more in ({}, {"tidy": True}))
Path("run.toml").write_text(run_file({**old, "spec": tidy.to_json()}))
fields = read_run_file(Path("run.toml"))
words = ["-m", "noise", "--budget", "smoke", "--tidy"]
with command.make_context("run", [*words, "--share", "0.25"]) as context:
    (planned,) = make_plan(request(None, context.params), Path("runs"))
(unused,) = make_plan(Request(("noise",), budget="smoke", tidy=True), Path("runs"))
other = {**old, "spec": tidy.to_json(), "hash": tidy.hash, "path": "b"}
board = leaderboard(long_table([old, other]))
rows = board.to_dict("records")
print(json.dumps({
    "hashes": [usual.hash, tidy.hash, old["hash"]], "field": fields["tidy"], "said": usual.to_json().get("tidy"),
    "planned": [planned.spec.tidy, planned.spec.share], "command": command_of(planned, Path("runs")),
    "unused": command_of(unused, Path("runs")),
    "alike": [len([*matching_records(spec, Path("runs"))]) for spec in (usual, tidy)],
    "older": [[f.severity, f.file] for f in check(Path("runs"), bundle.render)[1]],
    "rows": [[row["tidy"], row["n_complete"], [*details(row, rows)]] for row in rows],
    "help": CliRunner().invoke(command, ["--help"]).output,
}))
"""


def test_a_setting_more_is_a_field_of_the_request_and_of_the_specification(tmp_path: Path) -> None:
    """One class in a copy of the package is changed; everything else follows; older records and tables stay valid."""
    home = tmp_path / "home" / "dfkd_bench"
    shutil.copytree(ROOT / "dfkd_bench", home, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    file = home / "runs" / "settings.py"
    head, found, tail = file.read_text().partition("\n\n@dataclass(frozen=True)\nclass Request(LaterSettings):")
    assert found
    file.unlink()
    file.write_text(head + FIELD + found + tail)
    path = write_record(tmp_path / "runs", make_record(method="noise"))
    write_record(tmp_path / "runs", make_record(method="alpha"))
    bundle.write(tmp_path / "runs", tmp_path / "runs")
    said = json.loads(python(USE, path, cwd=tmp_path, env=finding(home.parent)))
    usual, tidy, old = said["hashes"]
    assert (usual == old, tidy == old) == (True, False)
    assert (said["field"], said["said"], said["planned"]) == (True, None, [True, 0.25])
    assert " --tidy --share 0.25 " in said["command"]
    assert (" --tidy " in said["unused"], "--share" in said["unused"]) == (True, False)
    assert said["alike"] == [1, 0]
    assert said["older"] == [["note", f"{name}.csv"] for name in ("leaderboard", "runs", "pairs", "across")]
    assert said["rows"] == [[False, 1, []], [True, 1, ["tidy=True"]]]
    assert "--tidy / --no-tidy  " in said["help"]
