"""A teacher without BatchNorm: which methods run on it, which say that they do not, and which setting does without."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from commands import dfkd
from small import SMALL

from dfkd_bench.errors import UsageError
from dfkd_bench.models import ARCHITECTURES
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import task
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.training.dry_run import job_for
from dfkd_bench.training.loop import synthesise, train_student

PLAIN = "mnist/lenet5_plain-lenet5_plain_half"
WEIGHTS = {  # method -> the setting whose 0 leaves the statistics out; CMI's features are the statistics themselves
    "adadfkd": "w_bn", "cgdd": "lambda_bn", "cmi": "", "cpsc": "beta_bn", "deepinversion": "alpha_f",
    "dfq-gen": "w_bn", "fastdfkd": "w_bn", "mad": "w_bn", "nayer": "w_bn",
}  # fmt: skip
SHIPPED = [name for name, entry in registry.entries().items() if entry.owner == "dfkd-bench"]
FREE = [name for name in SHIPPED if name not in WEIGHTS]


def plan(*methods: str, overrides: dict[str, Any] | None = None, preset: str | None = None) -> list[PlannedRun]:
    """On the plain task, whose teacher and data need not be here."""
    request = Request(
        methods, (PLAIN,), preset=preset, budget="smoke", threads=1, device="cpu", overrides=overrides or {}
    )
    return make_plan(request, Path("nowhere"), anywhere=True)


def steps(planned: PlannedRun) -> dict[str, float]:
    """Losses of one synthesis and one student step on a teacher of random weights."""
    job = job_for(planned.spec, planned.method, None, task(PLAIN), stand_in=True)
    job.context.streams.reseed(0)
    job.method.on_epoch_start(0)
    synthesise(job, 1)
    train_student(job)
    losses: dict[str, float] = job.tally.take()
    return losses


@pytest.mark.parametrize("name", [name for name, weight in WEIGHTS.items() if weight])
def test_with_its_weight_at_0_a_method_that_uses_statistics_runs_without(name: str) -> None:
    says = f"method {name} needs BatchNorm statistics, which lenet5_plain does not have: "
    says += f"--set {WEIGHTS[name]}=0 avoids this"
    with pytest.raises(UsageError, match=says):
        plan(name)
    (planned,) = plan(name, overrides={**SMALL.get(name, {}), WEIGHTS[name]: 0})
    losses = steps(planned)
    assert all(map(math.isfinite, losses.values()))
    assert not {"L_bn", "L_BN", "R_feature"} & losses.keys()


@pytest.mark.parametrize("name", FREE)
def test_a_method_that_needs_no_statistics_runs(name: str) -> None:
    for preset in registry.card(registry.resolve(name)).presets:
        (planned,) = plan(name, preset=preset)
        assert all(map(math.isfinite, steps(planned).values()))


def test_cmi_has_nothing_to_do_without() -> None:
    says = (
        r"^method cmi needs BatchNorm statistics, which lenet5_plain does not have: choose one of dafl, dfad, noise, "
    )
    for settings in ({}, {"alpha": 0}):
        with pytest.raises(UsageError, match=says):
            plan("cmi", overrides=settings)


def test_a_preset_that_weighs_the_statistics_with_0_is_not_refused() -> None:
    described = registry.card(registry.resolve("zskt"))
    maps = {preset: "stage_maps" in described.needs(preset, {**defaults("zskt"), **settings})
            for preset, settings in described.presets.items()}  # fmt: skip
    assert maps == {"official": True, "datafree": False}


def defaults(name: str) -> dict[str, Any]:
    return {s.name: s.default for s in registry.card(registry.resolve(name)).settings}


def test_of_several_named_methods_all_that_cannot_are_named_and_nothing_is_planned() -> None:
    with pytest.raises(UsageError) as caught:
        plan("noise", "cpsc", "cmi", "mad")
    assert str(caught.value).startswith(
        "methods cpsc, cmi, mad need BatchNorm statistics, which lenet5_plain does not have: --set beta_bn=0 (cpsc) or "
        "w_bn=0 (mad) avoids this, or choose one of dafl, dfad, noise, "
    )


def test_all_methods_are_those_that_can(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    words = ("plan", "-m", "all", "-t", PLAIN, "-t", "digits16/cnn32-cnn16", "--budget", "smoke", "--results", tmp_path)
    status, out, err = dfkd(monkeypatch, capsys, *words, columns=200)
    assert status == 0
    assert err == f"{PLAIN}: without {', '.join(sorted(WEIGHTS, key=SHIPPED.index))}, which need BatchNorm statistics\n"
    assert out.startswith(f"{len(FREE) + len(SHIPPED)} runs")
    with pytest.raises(UsageError, match="method cmi needs"):
        plan("all", "cmi")  # asked for by name


def test_run_ends_at_once_with_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("dfkd_bench.runs.plan.data_digest", lambda facts: "0" * 64)  # the data need not be here
    words = ("run", "--method", "cpsc", "--task", PLAIN, "--device", "cpu", "--results", tmp_path / "runs")
    status, out, err = dfkd(monkeypatch, capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(
        "error: method cpsc needs BatchNorm statistics, which lenet5_plain does not have: --set beta_bn=0 "
    )
    assert not (tmp_path / "runs").exists()


def test_what_a_network_lacks_is_known_before_it_is_built() -> None:
    assert {name for name, entry in ARCHITECTURES.items() if "bn_statistics" in entry.lacks} == {
        "lenet5_plain", "lenet5_plain_half", "tv_vit_b_16"
    }  # fmt: skip
