"""Short runs of the pinned track: a published round longer than a twentieth of the run is shortened to that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dfkd_bench.plugins.cards import Card, SettingInfo
from dfkd_bench.protocol import task
from dfkd_bench.runs.spec import resolve_settings

DIGITS, CIFAR = "digits16/cnn32-cnn16", "cifar10/wrn40_2-wrn16_1"
KNOWN = [  # student steps of the run: digits 30, 300, 2,000, 10,000; CIFAR-10 6, 2,000, 16,000, 80,000
    (DIGITS, "smoke", 400, 30),
    (DIGITS, "quick", 400, 15),
    (DIGITS, "standard", 400, 100),
    (DIGITS, "full", 400, 400),
    (DIGITS, "seconds:60", 400, 100),
    (DIGITS, "quick", 10, 10),
    (CIFAR, "smoke", 400, 6),
    (CIFAR, "quick", 400, 100),
    (CIFAR, "standard", 400, 400),
    (CIFAR, "quick", 5, 5),
]


def card(published: int, *, name: str = "student_steps", smoke: int | None = None) -> Card:
    settings = (SettingInfo(name, published, "", None, ""),)
    budgets = {} if smoke is None else {"smoke": {name: smoke}}
    return Card("", "", {"default": {}}, "default", (), settings, budget_settings=budgets)


@pytest.mark.parametrize(("on", "budget", "published", "expected"), KNOWN)
def test_rounds_fit_the_run(on: str, budget: str, published: int, expected: int) -> None:
    found = resolve_settings(card(published), "m", "default", task(on), "pinned", budget, {})
    assert dict(found) == {"student_steps": expected}


def test_a_recipe_keeps_its_rounds_and_a_user_has_the_last_word() -> None:
    on = task(DIGITS)
    assert dict(resolve_settings(card(400), "m", "default", on, "recipe", "quick", {})) == {"student_steps": 400}
    asked = {"student_steps": 200}
    assert dict(resolve_settings(card(400), "m", "default", on, "pinned", "quick", asked)) == asked
    smoke = resolve_settings(card(400, smoke=40), "m", "default", on, "pinned", "smoke", {})
    assert dict(smoke) == {"student_steps": 40}


def test_a_run_of_fewer_images_than_a_batch_has_rounds_of_one_step() -> None:
    """A user of `distill` may ask for as few."""
    on = task(DIGITS)
    one = replace(on, pinned=replace(on.pinned, student_images=dict.fromkeys(on.pinned.student_images, 1)))
    for budget in (*one.pinned.student_images, "seconds:60"):
        found = resolve_settings(card(400), "m", "default", one, "pinned", budget, {})
        assert dict(found) == {"student_steps": 1}


def test_other_settings_are_left_alone() -> None:
    found = resolve_settings(card(400, name="steps"), "m", "default", task(DIGITS), "pinned", "quick", {})
    assert dict(found) == {"steps": 400}
