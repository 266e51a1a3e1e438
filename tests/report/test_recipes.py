"""Recipes against the scripts that they come from: what a script sets and ours does not is declared, or a failure."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dfkd_bench import protocol
from dfkd_bench.errors import UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.report.docs import filled
from dfkd_bench.report.tables import recipes
from dfkd_bench.report.tables.recipes import Claim, Deviation, cells, claims, differences, rates, same

ROOT = Path(__file__).parents[2]
CLAIMED = [claim for claim in claims() if claim.method]
METHODS = [name for name, entry in registry.entries().items() if entry.owner == "dfkd-bench"]
DIGITS, MNIST, CIFAR = protocol.DEFAULT_TASK, "mnist/lenet5-lenet5_half", "cifar10/wrn40_2-wrn16_1"


def name_of(claim: Claim) -> str:
    return f"{claim.method}:{claim.preset}:{claim.task}"


def page(method: str) -> str:
    return (ROOT / "docs" / "methods" / f"{method}.md").read_text()


@pytest.mark.parametrize("claim", CLAIMED, ids=name_of)
def test_a_claimed_row_is_what_ours_does_on_the_recipe_track(claim: Claim) -> None:
    assert list(map(str, differences(claim))) == []


def test_nothing_is_declared_that_does_not_differ_and_every_number_is_in_the_document() -> None:
    assert recipes.stale() == []
    for declared in recipes.deviations():
        assert re.search(rf"^{declared.number}\. ", page(declared.method), re.MULTILINE), declared


def test_every_method_with_a_claim_shows_it_in_its_document() -> None:
    assert [m for m in dict.fromkeys(c.method for c in CLAIMED) if f"<!-- begin:recipes {m} -->" not in page(m)] == []


def test_every_row_is_claimed_once_or_has_a_reason() -> None:
    assert len(claims()) == 138
    assert len({name_of(claim) for claim in CLAIMED}) == len(CLAIMED)
    assert {claim.theirs["method"] for claim in CLAIMED} == {claim.theirs["method"] for claim in claims()}
    assert all(claim.method == claim.theirs["method"] for claim in CLAIMED)
    assert {claim.reason for claim in claims()} <= {"", *recipes.REASONS}
    assert not {"ours", "differs"} & set(claims()[0].theirs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (None, "has no line for"),
        ({"method": ""}, "needs either a method or a reason"),
        ({"reason": recipes.REASONS[0]}, "needs either a method or a reason"),
        ({"method": "", "reason": "no time"}, "unknown reason 'no time'"),
        ({"command": "99"}, "has no line for"),
    ],
)
def test_a_row_in_neither_list_or_in_both_is_refused(
    changes: dict[str, str] | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = recipes.read(recipes.CLAIMS)
    at = next(k for k, line in enumerate(lines) if line["method"])
    lines[at : at + 1] = [] if changes is None else [{**lines[at], **changes}]
    with pytest.raises(UsageError, match=says):
        claims_of(lines, monkeypatch)


def test_a_claim_of_no_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = recipes.read(recipes.CLAIMS)
    with pytest.raises(UsageError, match=r"recipes\.csv has no row .* 99"):
        claims_of([*lines, {**lines[0], "command": "99"}], monkeypatch)


def claims_of(lines: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Any:
    real = recipes.read
    monkeypatch.setattr(recipes, "read", lambda path: lines if path == recipes.CLAIMS else real(path))
    return recipes.claims.__wrapped__()


def test_every_column_that_a_script_sets_is_compared_or_said_to_be_for_readers() -> None:
    lines = recipes.read(recipes.COLUMNS)
    known = set(claims()[0].theirs) - set(recipes.ABOUT)
    assert {line["column"] for line in lines} <= known
    assert {line["method"] for line in lines} <= {"*", *(claim.method for claim in CLAIMED)}
    for claim in CLAIMED:
        missing = {c for c in known if claim.theirs[c]} - set(recipes.columns(claim.method))
        assert not missing, (claim.method, missing)


def test_values_are_compared_as_what_they_are() -> None:
    assert same("0.1", 0.1 * (1 + 9e-7))
    assert not same("0.1", 0.1 * (1 + 2e-6))
    assert same("400", 400)
    assert same("0", 0.0)
    assert not same("1e-3", 0.0)
    assert same("0.5 0.5", (0.5, 0.5))
    assert not same("0.5", (0.5, 0.5))
    assert same("sgd", "sgd")
    assert not same("sgd", 0.1)
    assert not same("0", False), "a switch is no number"
    assert not same("1", None)


def test_words_of_a_script_stand_for_values_and_a_product_for_one_column() -> None:
    parts: Any = SimpleNamespace(flags=SimpleNamespace(student_steps=5, rounds_per_epoch=80))
    assert recipes.ResolvedRun.value(parts, "flags.student_steps * flags.rounds_per_epoch") == 400
    assert recipes.ResolvedRun.value(parts, "flags.epochs") is None
    (spl,) = recipes.columns("adadfkd")["spl"]
    assert spl == ("settings.spl", {"curr_log": "log"})
    assert recipes.columns("adadfkd")["generator"] == ()
    first, second = recipes.columns("deepinversion")["optimiser_G"]
    assert (first[1]["adam 0.5 0.99"], second[1]["adam 0.5 0.99"]) == ("0.5", "0.99")


def test_a_deviation_covers_its_column_alone_and_goes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = next(c for c in CLAIMED if c.method == "cpsc")
    wrong = recipes.Cell("tau", "settings.tau", "0.2", 0.07, False)
    declared = Deviation("cpsc", "off*", "cifar10/*|cifar100/*", "tau", 3)
    assert declared.covers(claim, "tau")
    assert not declared.covers(claim, "w_ce")
    assert not Deviation("cpsc", "textbook", "*", "tau", 3).covers(claim, "tau")
    monkeypatch.setattr(recipes, "deviations", lambda: (declared,))
    assert recipes.stale() == [declared], "it is equal"
    monkeypatch.setattr(recipes, "cells", lambda claim: (wrong,))
    assert recipes.stale() == []
    monkeypatch.setattr(recipes, "deviations", lambda: (Deviation("cpsc", "*", "svhn/*", "tau", 3),))
    assert len(recipes.stale()) == 1, "it is of no row"


def test_a_difference_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = next(c for c in CLAIMED if c.method == "cpsc")
    other = Claim({**claim.theirs, "tau": "0.2", "lr_half": "0.0523"}, "cpsc", "official", claim.task, "")
    assert [str(cell) for cell in differences(other)] == [
        "lr_half: theirs 0.0523, ours 0.0523553 (rate.middle)",
        "tau: theirs 0.2, ours 0.07 (settings.tau)",
    ]
    declared = Deviation("cpsc", "official", "*", "tau", 3)
    monkeypatch.setattr(recipes, "deviations", lambda: (declared,))
    assert [cell.column for cell in differences(Claim(other.theirs, "cpsc", "official", claim.task, ""))] == ["lr_half"]
    strange = Claim({**claim.theirs, "colour": "red"}, "cpsc", "official", claim.task, "")
    with pytest.raises(UsageError, match="has no line for column colour of cpsc"):
        cells(strange)


def test_a_document_shows_theirs_and_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "D.md"
    path.write_text("<!-- begin:recipes dfad -->\n<!-- end:recipes -->\n")
    mine = [c for c in claims() if c.theirs["method"] == "dfad" and not (c.method and "mnist" in c.task)]
    changed = {**mine[-1].theirs, "latent": "100", "lr_G": "0.1"}
    mine[-1] = Claim(changed, "dfad", "official", mine[-1].task, "")
    elsewhere = {**mine[-2].theirs, "repository": "some/where", "commit": "0123456789", "latent": "7"}
    mine.append(Claim(elsewhere, "dfad", "official", mine[-2].task, ""))
    monkeypatch.setattr(recipes, "claims", lambda: tuple(mine))
    monkeypatch.setattr(recipes, "deviations", lambda: (Deviation("dfad", "*", mine[-2].task, "lr_G", 4),))
    text = filled(path)
    first, second = text.split("some/where at 0123456. ")
    assert "VainF/Data-Free-Adversarial-Distillation at c161591. In every row: epochs 500; batch 256; " in first
    assert r"| task | preset | script | lr\_G | latent |" in first
    assert "| cifar10/resnet34-resnet18 | official | README.md 1 | 0.001 | 256 |" in first
    assert "| cifar100/resnet34-resnet18 | official | README.md 2 | 0.1 / 0.001 (4) | 100 / 256 |" in first
    assert "latent 7 / 256" in second, "what differs in all rows is said once"
    assert "| task | preset | script |\n" in second
    assert r"Not compared, since no setting corresponds: lr\_steps, generator, " in second
    assert "Not claimed: 1 (the teacher in the student's place)." in second
    path.write_text("<!-- begin:recipes scratch -->\n<!-- end:recipes -->\n")
    with pytest.raises(UsageError, match="line 1: no script of 'scratch' is claimed"):
        filled(path)


# -- learning rates ---------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_rates_begin_as_the_schedule_says_and_end_with_at_most_one_step_at_the_floor(name: str) -> None:
    about = registry.card(registry.resolve(name))
    for preset in about.presets:
        for task in (DIGITS, MNIST, CIFAR):
            for budget in protocol.BUDGETS:
                run = recipes.resolve_run(name, preset, task, budget)
                recipe, found = run.recipe, rates(run)
                where = (preset, task, budget, found)
                if recipe.schedule == "cosine":
                    assert found.at_floor <= 1, where
                ramp = round(recipe.warmup * (recipe.epochs if recipe.unit == "epoch" else found.steps))
                assert found.first == pytest.approx(recipe.lr / max(1, ramp)), where
                assert found.last <= recipe.lr


def test_rates_of_a_short_run_in_numbers() -> None:
    # three rounds of 50 steps, each a third of the 200 published epochs
    found = rates(recipes.resolve_run("deepinversion", None, DIGITS, "quick"))
    assert found.first == 0.1
    assert 0.0 < found.last < 1e-4
    assert found.at_floor == 0
    lines = list(recipes.rates_table(["deepinversion"]))
    assert len(lines) == len(protocol.BUDGETS)
    assert lines[1].startswith(f"deepinversion, {DIGITS}, recipe quick: {found.steps} student steps, rate 0.1 to ")
