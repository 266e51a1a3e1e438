"""Tasks with the terms they are played on, and suites: named requests that ship."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from commands import Command, Refused, snoop
from hatchling.builders.wheel import WheelBuilder
from shared import ROOT

from dfkd_bench import protocol
from dfkd_bench.data.catalog import DATASETS
from dfkd_bench.data.terms import USUAL
from dfkd_bench.errors import UsageError
from dfkd_bench.models import ARCHITECTURES
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import BOUNDS, BUDGETS, TASKS, TRACKS, pinned_for, split_task_name, task
from dfkd_bench.report.terminal import listing
from dfkd_bench.runs import suites
from dfkd_bench.runs.plan import Request

# of the suites
PAIRS = ("resnet34-resnet18", "vgg11-resnet18", "wrn40_2-wrn16_1", "wrn40_2-wrn16_2", "wrn40_2-wrn40_1")


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_a_known_dataset_and_two_known_models(name: str) -> None:
    one = task(name)
    assert f"{one.dataset.name}/{one.teacher}-{one.student}" == name
    assert {one.teacher, one.student} <= set(ARCHITECTURES)


def test_the_tasks_of_the_papers_are_there() -> None:
    assert TASKS[0] == protocol.DEFAULT_TASK == "digits16/cnn32-cnn16"
    assert len(set(TASKS)) == len(TASKS)
    for data in ("cifar10", "cifar100"):
        assert {f"{data}/{pair}" for pair in (*PAIRS, "resnet34-wrn16_1", "resnet34-mobilenetv2")} <= set(TASKS)
    lenets = {f"{data}/lenet5_plain-lenet5_plain_half" for data in ("mnist", "fashion-mnist")}
    assert {*lenets, "cifar10-16/cnn32-cnn16", "cifar10/wrn16_2-wrn16_1", "cifar10/wrn40_1-wrn16_1"} <= set(TASKS)


def test_names_are_read_from_the_right() -> None:
    assert split_task_name("folder:/a-b/c/resnet20-resnet8") == ("folder:/a-b/c", "resnet20", "resnet8")
    for bad in ("digits16", "digits16/cnn32", "/cnn32-cnn16", "digits16/-cnn16", "digits16/cnn32-", "cnn32-cnn16"):
        with pytest.raises(UsageError, match=r"a task is dataset/teacher-student, such as digits16/cnn32-cnn16"):
            split_task_name(bad)
    with pytest.raises(UsageError, match=r"did you mean 'mnist/lenet5-lenet5_half'\?"):
        split_task_name("mnist/lenet5_lenet5_half")


def test_terms_of_the_pinned_track() -> None:
    """Images are batches times a number of steps, so that every method stops at the same count."""
    digits = task("digits16/cnn32-cnn16").pinned
    small = ("mnist/lenet5-lenet5_half", "fashion-mnist/lenet5_plain-lenet5_plain_half", "cifar10-16/cnn32-cnn16")
    for name in small:
        terms = task(name).pinned
        assert (terms.batch_size, terms.generator_width) == (128, 16)
        assert terms.student_images == {"smoke": 512, "quick": 38400, "standard": 256000, "full": 1280000}
        assert terms.evaluations == {"smoke": 2, "quick": 10, "standard": 20, "full": 50}
        gentle = replace(digits.recipe, lr=0.01)  # without BatchNorm a student often stays at chance at 0.1
        assert terms.recipe == (gentle if "plain" in name else digits.recipe)
    assert digits.student_images["smoke"] == 3840
    assert digits.evaluations["smoke"] == 3
    for pair in ("resnet20-resnet8", "wrn16_2-wrn16_1", "wrn40_1-wrn16_1"):
        terms = task(f"cifar10/{pair}").pinned
        assert (terms.batch_size, terms.generator_width) == (128, 32)
        steps = {budget: images / 128 for budget, images in terms.student_images.items()}
        assert steps == {"smoke": 4, "quick": 800, "standard": 2000, "full": 10000}
        assert terms.evaluations == {"smoke": 2, "quick": 4, "standard": 8, "full": 20}
        assert task(f"cifar100/{pair}").pinned is USUAL  # terms of one task alone
    assert (USUAL.batch_size, USUAL.generator_width) == (256, 64)
    for pair in ("cifar10/wrn40_2-wrn16_1", "tiny-imagenet/resnet34-resnet18", "cifar10/resnet20-resnet20"):
        assert task(pair).pinned is USUAL
    assert pinned_for("folder:/x/mnist/resnet20-resnet8") is USUAL
    for terms in (*protocol.PINNED.values(), *(facts.pinned for facts in DATASETS.values())):
        assert set(terms.student_images) == set(terms.evaluations) == set(BUDGETS)
        assert all(images % terms.batch_size == 0 for images in terms.student_images.values())


# -- suites -----------------------------------------------------------------------------------------------------------


def test_suites_hold_what_they_say() -> None:
    known = suites.suites()
    assert list(known) == ["quick", "cifar10", "cifar100", "paper-tables"]
    for one in known.values():
        asked = Request(**one.fields)  # every key is one of a request
        assert asked.methods == ("all",)
        assert set(asked.tasks) <= set(TASKS)
        assert len(set(asked.tasks)) == len(asked.tasks)
        assert (asked.track in TRACKS, asked.budget in BUDGETS) == (True, True)
        assert 20 < len(one.about) < 120
    terms = {name: (s.fields["track"], s.fields["budget"], s.fields["seeds"]) for name, s in known.items()}
    assert terms == {
        "quick": ("pinned", "quick", (0,)), "cifar10": ("pinned", "standard", (0, 1, 2)),
        "cifar100": ("pinned", "standard", (0, 1, 2)), "paper-tables": ("recipe", "full", (0, 1, 2)),
    }  # fmt: skip
    assert [name.partition("/")[0] for name in known["quick"].fields["tasks"]] == ["digits16", "mnist", "fashion-mnist"]
    for data in ("cifar10", "cifar100"):
        assert set(known[data].fields["tasks"]) == {f"{data}/{pair}" for pair in PAIRS}
    tiny = {name for name in TASKS if name.startswith("tiny-imagenet/")}
    both = {f"{data}/{pair}" for data in ("cifar10", "cifar100") for pair in PAIRS}
    assert set(known["paper-tables"].fields["tasks"]) == both | tiny


def test_suites_are_in_the_wheel() -> None:
    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "dfkd_bench/runs/suites/__init__.py" in files
    assert {f"dfkd_bench/runs/suites/{name}.toml" for name in suites.suites()} <= files


def test_a_suite_runs_every_method_and_options_win(command: Command) -> None:
    words = ("run", "--suite", "quick", "--task", "digits16/cnn32-cnn16", "--dry-run", "--device", "cpu")
    status, out, err = command(*words, columns=200)
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.split("\n") if " missing " in line]
    assert sorted(row[0] for row in rows) == sorted(registry.entries())
    assert set(BOUNDS) <= {row[0] for row in rows}
    assert {tuple(row[2:6]) for row in rows} == {("digits16/cnn32-cnn16", "pinned", "quick", "0")}
    more = ("--method", "noise", "--seeds", "3-4", "--budget", "smoke", "--track", "recipe")
    status, out, _ = command(*words, *more, columns=200)
    rows = [line.split() for line in out.split("\n") if " missing " in line]
    assert [(row[0], *row[3:6]) for row in rows] == [("noise", "recipe", "smoke", seed) for seed in "34"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--suite", "quik"), "unknown suite 'quik'; did you mean 'quick'?"),
        (("--suite", "nothing-like-it"), "known: cifar10, cifar100, paper-tables, quick"),
        (("study.toml", "--suite", "quick"), "not both: study.toml and --suite quick"),
    ],
)
def test_suites_refuse_in_one_line(refused: Refused, words: tuple[str, ...], says: str) -> None:
    assert says in refused("run", *words)


def test_suites_are_listed_with_what_they_come_to() -> None:
    out, loaded = snoop("list", "suites")
    assert loaded == "[]"
    methods = len(registry.entries())
    for name, tasks, seeds in (("quick", 3, 1), ("cifar10", 5, 3), ("cifar100", 5, 3), ("paper-tables", 12, 3)):
        (line,) = [line.split() for line in out.split("\n") if line.startswith(f"{name} ")]
        assert line[1] == str(methods * tasks * seeds)
    assert "cifar100: resnet34-resnet18, vgg11-resnet18, wrn40_2-wrn16_1" in out


def test_a_suite_of_named_methods_is_counted_by_them(monkeypatch: Any) -> None:
    fields = {"methods": ("a", "b"), "tasks": TASKS[:3], "seeds": (0, 1), "track": "pinned", "budget": "quick"}
    monkeypatch.setattr(listing, "suites", lambda: {"[x]": suites.Suite("[x]", "for [bold]", fields)})
    table = listing.suite_list()
    assert [next(iter(column.cells)) for column in table.columns][:3] == ["\\[x]", "12", "pinned/quick"]
    assert "for \\[bold]" in next(iter(table.columns[3].cells))
