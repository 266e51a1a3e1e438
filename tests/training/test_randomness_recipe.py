"""Random streams are pure functions of (seed, purpose, round); learning rates are pure functions of the step."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_bench.recipe import StudentRecipe
from dfkd_bench.utils.seeding import Streams, derive, seed_global

# -- streams -------------------------------------------------------------------------------------------------------


def draw(streams: Streams, purpose: str) -> list[float]:
    values: list[float] = torch.rand(4, generator=streams.get(purpose)).tolist()
    return values


def test_derived_seeds_are_known_and_distinct() -> None:
    # known answers: any change here changes every number the benchmark ever produced
    assert derive(0, "global", 0) == 4311698954293999207
    assert derive(1, "method/sample", 17) == 4188778030519626869
    seeds = {derive(s, p, r) for s in range(5) for p in ("a", "b", "a/b", "") for r in range(-2, 20)}
    assert len(seeds) == 5 * 4 * 22
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive(1, "a", 11) != derive(11, "a", 1)


def test_a_stream_depends_on_seed_purpose_and_round_alone() -> None:
    long, short = Streams(3), Streams(3)
    for round in range(5):  # one has lived through rounds and drawn unevenly
        long.reseed(round)
        for _ in range(round):
            draw(long, "a")
        draw(long, "b")
    long.reseed(5)
    short.reseed(5)
    assert draw(long, "a") == draw(short, "a")
    assert draw(long, "a") == draw(short, "a")  # and goes on alike
    draw(long, "b")
    assert draw(long, "c") == draw(short, "c")  # whatever the others drew, and whenever it is first asked for
    assert draw(long, "a") == draw(short, "a")
    fresh = [Streams(3), Streams(4), Streams(3), Streams(3)]
    for streams, round in zip(fresh, (5, 5, 6, 5), strict=True):
        streams.reseed(round)
    values = [draw(s, p) for s, p in zip(fresh, ("a", "a", "a", "b"), strict=True)]
    assert len({tuple(v) for v in values}) == 4


def test_a_stream_is_the_generator_of_its_seed() -> None:
    streams = Streams(3)
    streams.reseed(2)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(derive(3, "a", 2))).tolist()
    assert draw(streams, "a") == expected


def test_global_streams_follow_the_round() -> None:
    found = []
    for before in (0, 5):
        torch.rand(before)
        random.seed(before)
        np.random.seed(before)
        Streams(3).reseed(7)
        found.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert found[0] == found[1]
    Streams(3).reseed(8)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) != found[0]
    seed_global(3, "global", 7)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == found[0]


def test_named_streams_leave_the_global_ones_alone() -> None:
    streams = Streams(0)
    streams.reseed(0)
    expected = torch.rand(3).tolist()
    streams.reseed(0)
    draw(streams, "a")
    assert torch.rand(3).tolist() == expected


# -- learning rates ------------------------------------------------------------------------------------------------


def rates(recipe: StudentRecipe, total: int, steps_per_round: int = 1) -> list[float]:
    return [recipe.rate(k, total, steps_per_round) for k in range(total)]


def half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


KNOWN: dict[str, tuple[StudentRecipe, int, int, list[float]]] = {
    "constant": (StudentRecipe(lr=0.3, schedule="constant"), 4, 1, [0.3] * 4),
    "a ramp of a step and a half": (
        StudentRecipe(lr=0.3, schedule="constant", warmup=0.05), 30, 1, [0.2] + [0.3] * 29
    ),
    "constant after a ramp": (
        StudentRecipe(lr=0.4, schedule="constant", warmup=0.5), 8, 1, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]
    ),
    "cosine by steps": (
        StudentRecipe(lr=1.0, schedule="cosine"), 4, 1, [1.0, half_cosine(0.25), 0.5, half_cosine(0.75)]
    ),
    "cosine by epochs, the scheduler stepping after each": (
        StudentRecipe(lr=1.0, unit="epoch", epochs=4), 4, 1, [half_cosine(k / 4) for k in (0, 1, 2, 3)]
    ),
    "cosine by epochs, the scheduler stepping before each": (
        StudentRecipe(lr=1.0, unit="epoch", stepping="before", epochs=4), 4, 1,
        [half_cosine(k / 4) for k in (1, 2, 3, 4)],
    ),
    "cosine held within epochs": (
        StudentRecipe(lr=1.0, unit="epoch", epochs=2), 6, 1, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    ),
    "cosine by epochs that are shorter than a step": (
        StudentRecipe(lr=1.0, unit="epoch", epochs=8), 4, 1, [half_cosine(k / 8) for k in (0, 2, 4, 6)]
    ),
    "cosine held within rounds": (
        StudentRecipe(lr=1.0, unit="round"), 6, 2, [half_cosine(k / 3) for k in (0, 0, 1, 1, 2, 2)]
    ),
    "cosine of what the ramp leaves": (
        StudentRecipe(lr=1.0, schedule="cosine", warmup=0.2), 10, 1,
        [0.5, 1.0, *(half_cosine(k / 8) for k in range(8))],
    ),
    "cosine over the whole, after the ramp": (
        StudentRecipe(lr=1.0, schedule="cosine", warmup=0.2, cosine_span="total"), 10, 1,
        [0.5, 1.0, *(half_cosine(k / 10) for k in range(8))],
    ),
    "cosine after a ramp by epochs, the scheduler stepping after each": (
        StudentRecipe(lr=1.0, unit="epoch", warmup=0.4, epochs=5), 10, 1,
        [0.5, 0.5, 1.0, 1.0, *(half_cosine(k / 3) for k in (0, 0, 1, 1, 2, 2))],
    ),
    "cosine after a ramp by epochs, the scheduler stepping before each": (
        StudentRecipe(lr=1.0, unit="epoch", stepping="before", warmup=0.4, epochs=5), 10, 1,
        [0.5, 0.5, 1.0, 1.0, *(half_cosine(k / 3) for k in (1, 1, 2, 2, 3, 3))],
    ),
    "cosine onto a floor": (
        StudentRecipe(lr=1.0, unit="epoch", floor=0.2, epochs=4), 4, 1,
        [0.2 + 0.8 * half_cosine(k / 4) for k in (0, 1, 2, 3)],
    ),
    "milestones by steps": (
        StudentRecipe(lr=1.0, schedule="multistep", milestones=(0.5, 0.75)), 8, 1,
        [1.0] * 4 + [0.1] * 2 + [0.01] * 2,
    ),
    "milestones by epochs, the scheduler stepping after each": (
        StudentRecipe(lr=1.0, schedule="multistep", unit="epoch", milestones=(0.5,), gamma=0.5, epochs=4), 8, 1,
        [1.0] * 4 + [0.5] * 4,
    ),
    "milestones by epochs, the scheduler stepping before each": (
        StudentRecipe(
            lr=1.0, schedule="multistep", unit="epoch", stepping="before", milestones=(0.5,), gamma=0.5, epochs=4
        ), 8, 1,
        [1.0] * 2 + [0.5] * 6,
    ),
    "milestones onto a floor": (
        StudentRecipe(lr=1.0, schedule="multistep", milestones=(0.5, 0.75), floor=0.05), 4, 1, [1.0, 1.0, 0.1, 0.05]
    ),
    "no milestones": (StudentRecipe(lr=1.0, schedule="multistep"), 3, 1, [1.0] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_rates(name: str) -> None:
    recipe, total, steps_per_round, expected = KNOWN[name]
    assert rates(recipe, total, steps_per_round) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", ["cosine", "multistep", "constant"])
@pytest.mark.parametrize(
    ("unit", "stepping"), [("step", "after"), ("round", "after"), ("epoch", "after"), ("epoch", "before")]
)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("span", ["remaining", "total"])
@pytest.mark.parametrize(("total", "steps_per_round"), [(1, 1), (3, 5), (30, 5), (400, 5), (2002, 7)])
def test_rates_are_sane_in_every_budget(
    schedule: str, unit: str, stepping: str, warmup: float, span: str, total: int, steps_per_round: int
) -> None:
    recipe = StudentRecipe(
        schedule=schedule, unit=unit, stepping=stepping, warmup=warmup, cosine_span=span,
        milestones=(0.4, 0.8), floor=1e-4, epochs=40,
    )  # fmt: skip
    found = rates(recipe, total, steps_per_round)
    assert all(0.0 < r <= recipe.lr * (1 + 1e-12) for r in found)
    top = found.index(max(found))
    assert all(a <= b for a, b in pairwise(found[: top + 1])), "up"
    assert all(a >= b for a, b in pairwise(found[top:])), "and down"
    if schedule == "cosine" and stepping == "after":
        assert all(r > recipe.floor for r in found), "no step is spent at the floor"
    for k in range(total):
        if unit == "epoch":
            assert found[k] == found[next(j for j in range(k + 1) if j * 40 // total == k * 40 // total)]
        elif unit == "round":
            assert found[k] == found[k - k % steps_per_round]
    assert rates(recipe, total, steps_per_round) == found  # nothing is remembered


def test_a_schedule_means_the_same_in_every_budget() -> None:
    recipe = StudentRecipe(warmup=0.1, schedule="cosine")
    assert recipe.rate(500, 1000) == pytest.approx(recipe.rate(5000, 10000), rel=1e-12)
    # the first tenth ramps in both
    assert recipe.rate(99, 1000) == recipe.rate(999, 10000) == recipe.lr


def test_optimisers() -> None:
    p = nn.Parameter(torch.ones(2))
    sgd = StudentRecipe(optimiser="sgd", lr=0.2, momentum=0.8, nesterov=True, weight_decay=1e-3).build([p])
    assert isinstance(sgd, torch.optim.SGD)
    asked = {"lr": 0.2, "momentum": 0.8, "nesterov": True, "weight_decay": 1e-3, "dampening": 0}
    assert {k: sgd.param_groups[0][k] for k in asked} == asked
    adam = StudentRecipe(optimiser="adam", lr=0.2, betas=(0.5, 0.9), weight_decay=1e-3).build(iter([p]))
    assert isinstance(adam, torch.optim.Adam)
    asked = {"lr": 0.2, "betas": (0.5, 0.9), "weight_decay": 1e-3}
    assert {k: adam.param_groups[0][k] for k in asked} == asked
    assert sgd.param_groups[0]["params"] == adam.param_groups[0]["params"] == [p]
