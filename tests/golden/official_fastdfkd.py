"""Ours beside the official values of FastDFKD, and what NAYER's need of the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from official import (
    Found,
    Says,
    build,
    computes,
    fill,
    float64,
    inputs,
    network,
    pulled,
    starting,
    state,
    tensor,
    tiny_job,
)
from torch import Tensor

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.generators import Generator
from dfkd_bench.blocks.inversion import SmoothedMoments
from dfkd_bench.method import StudentRecipe
from dfkd_bench.models.tapped import batch_moments
from dfkd_bench.protocol import task
from dfkd_bench.training.build import plan_run
from dfkd_bench.training.loop import Job, distill, synthesise

ON = "cifar10/wrn40_2-wrn16_1"
NETWORKS = {"teacher": ["TinyNet", 6, 10, 100], "student": ["TinyNet", 6, 10, 200]}


# -- terms ------------------------------------------------------------------------------------------------------------


def loss_of(method: Any, s: Tensor, t: Tensor, y: Tensor, images: Tensor) -> Tensor:
    """What a synthesis step of `method` minimises where the networks answer s and t; BatchNorm agrees wholly."""
    found: list[Tensor] = []

    def look(_draw: Any, objective: Callable[[Tensor], Any], *_more: Any) -> Any:
        found.append(objective(images)[0])
        return images, {"L_inv": found[0]}

    method.context.teacher = Says(t, moments=method.bn_running)
    method.context.student = Says(s)
    with patch.object(method.inverter, "labels", lambda *_a, **_k: y), patch.object(module_of(method), "invert", look):
        method.synthesize()
    return found[0]


def module_of(method: Any) -> Any:
    """The module in which a method's class stands."""
    return sys.modules[type(method).__module__]


@computes("fastdfkd/adv", "fastdfkd/oh")
def terms(entry: dict[str, Any]) -> Found:
    spec = {name: entry["inputs"][name] for name in ("s", "t")}
    x = inputs({"inputs": spec}, "s", "t")
    with torch.no_grad():  # rows_0_to_3_of_t
        x["t"][:4] = x["s"][:4] + fill((4, 10), 11, -0.1, 0.1)
    y = tensor(entry["inputs"].get("y", ["labels", 8, 10, 5]))
    weights = {"w_adv": 0.0, "w_oh": 0.0, "w_bn": 0.0, **{f"w_{k}": v for k, v in entry["params"].items()}}
    with float64():
        method = build("fastdfkd", "fast5", ON, **weights)
        tiny_job(method, {**NETWORKS, "classes": 10, "batch": 8})
        loss = loss_of(method, x["s"], x["t"], y, torch.zeros(8, 3, 8, 8))
    return pulled(loss, x, "s", "t")


@computes("fastdfkd/bn_momentum")
def bn_momentum(entry: dict[str, Any]) -> Found:
    given, smoothed = entry["inputs"], SmoothedMoments(build("fastdfkd", "fast5", ON).config.bn_momentum)
    assert smoothed.momentum == entry["params"]["momentum"]
    running, found = [(tensor(given["running_mean"]), tensor(given["running_var"]))], []
    for spec in given["x"]:
        x = tensor(spec).requires_grad_()
        moments = [batch_moments(x)]
        loss = bn_statistics_loss(smoothed.blend(moments), running)
        loss.backward()
        smoothed.update(moments)
        (average,) = smoothed.average
        assert x.grad is not None
        found.append({"value": loss, "gradient_x": x.grad, "average_mean": average[0], "average_var": average[1]})
    return Found(found)


# -- whole steps ------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What inner loops did: the loss of every step, whether it had the adversarial term, the images stored."""

    losses: list[float] = field(default_factory=list)
    adversarial: list[bool] = field(default_factory=list)
    stored: list[Tensor] = field(default_factory=list)


@contextmanager
def watched(method: Any) -> Iterator[Seen]:
    """Look at the inner loops of a method."""
    seen, real, keep = Seen(), module_of(method).invert, method.inverter.keep

    def invert(draw: Any, objective: Callable[[Tensor], Any], *more: Any) -> Any:
        def looked(x: Tensor) -> Any:
            loss, terms = objective(x)
            seen.losses.append(loss.item())
            seen.adversarial.append("D_agree" in terms)
            return loss, terms

        return real(draw, looked, *more)

    def kept(x: Tensor, labels: Tensor) -> None:
        seen.stored.append(method.inverter.render.pixels(x))
        keep(x, labels)

    with patch.object(module_of(method), "invert", invert), patch.object(method.inverter, "keep", kept):
        yield seen


def averages(method: Any) -> list[Any]:
    """The running moments, layer by layer."""
    return [[mean.tolist(), variance.tolist()] for mean, variance in method.moments.average]


@computes(*starting("fastdfkd/whole/"), *(f"fastdfkd/{kind}/whole" for kind in ("no-meta", "warmup", "reptile")))
def whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    preset = "no-meta" if "no-meta" in entry["id"] else "fast5"
    more = {"meta": "reptile"} if "reptile" in entry["id"] else {}
    with float64():
        method = build("fastdfkd", preset, ON, k=p["k"], latent_dim=p["nz"], **more)
        c = method.config
        assert [c.w_adv, c.w_bn, c.w_oh] == [p[k] for k in ("adv", "bn", "oh")]
        assert [c.gen_lr, c.z_lr, c.bn_momentum] == [p[k] for k in ("lr_G", "lr_z", "bn_momentum")]
        G = network(p["generator"])
        job = tiny_job(method, p, replaced={"Generator": lambda *_a, **_k: G}, rounds=200)
        z, y = iter(map(tensor, p["z"])), iter(map(tensor, p["y"]))
        with (
            watched(method) as seen,
            patch.object(torch, "randn", lambda *_a, **_k: next(z)),
            patch.object(method.inverter, "labels", lambda *_a, **_k: next(y)),
        ):
            for call in range(p["rounds"]):
                job.context.progress.round = call - p["warmup"]
                synthesise(job)
    after = {"generator": state(G), "stored_images": seen.stored, "bn_averages": averages(method)}
    return Found({"L": seen.losses}, after=after)


# -- networks and schedules -------------------------------------------------------------------------------------------


@computes("generator/fast/Generator/nz=256")
def generator(entry: dict[str, Any]) -> Found:
    method, p, made = build("fastdfkd", "fast5", ON), entry["params"], []
    assert (method.config.latent_dim, method.config.generator_width) == (p["nz"], p["ngf"])

    def built(_shape: Any, *args: Any, **more: Any) -> Any:
        made.append(Generator((p["nc"], p["img_size"], p["img_size"]), *args, **more))
        return made[0]

    tiny_job(method, {**NETWORKS, "classes": 10, "batch": 8}, replaced={"Generator": built})
    return Found({"parameters": sum(t.numel() for t in made[0].parameters())})


@dataclass
class Epochs:
    """What happened in each epoch of a run, warm-up counted."""

    adversarial: list[bool]
    batches: list[int]  # in the pool at its end
    distilled: list[bool]  # whether the student has had a step
    redrawn: list[int]  # epochs in which something was drawn anew with the deviation asked about


def epochs_of(method: Any, on: str, std: float | None, batch: int) -> Epochs:
    """Run the whole published schedule of `method` on task `on`, its networks and batches small."""
    module, found = module_of(method), Epochs([], [], [], [])
    real = module.reinitialise

    def redraw(part: Any, deviation: float | None, *more: Any) -> None:
        if deviation == std:
            found.redrawn.append(len(found.batches))
        real(part, deviation, *more)

    def progress(job: Job, _rounds: int) -> None:
        found.adversarial.append(seen.adversarial[-1])
        found.batches.append(len(method.inverter.pool) // batch)
        found.distilled.append(job.context.progress.student_step > 0)

    spec: Any = SimpleNamespace(track="recipe", budget="full")
    _, plan = plan_run(spec, task(on), method.flags, method.recipe)
    with float64():
        job = tiny_job(method, {**NETWORKS, "classes": 10, "batch": batch})
        job.schedule = replace(plan, batch_size=batch, snapshots=())
        with (
            patch.object(module, "reinitialise", redraw),
            patch.object(job.storage, "progress", progress),
            watched(method) as seen,
        ):
            distill(job)
    return found


@computes("schedule/fastdfkd/meta", "schedule/fastdfkd/no-meta")
def schedule(entry: dict[str, Any]) -> Found:
    preset = "no-meta" if entry["id"].endswith("no-meta") else "fast5"
    method = build("fastdfkd", preset, ON, k=1, latent_dim=4, generator_width=2, student_steps=1)
    run = epochs_of(method, ON, 0.02, batch=6)
    assert len(run.batches) == entry["params"]["epochs"]
    return Found(
        {
            "first_epoch_with_adversarial_term": run.adversarial.index(True),
            "epochs_in_which_first_layers_are_redrawn": run.redrawn,
            "batches_in_pool_after_epoch": {str(epoch): n for epoch, n in enumerate(run.batches)},
            "first_epoch_with_distillation": run.distilled.index(True),
        }
    )


def rates(recipe: StudentRecipe, warmup: int, steps: int) -> dict[str, float]:
    """The rate in force in each epoch, by number, warm-up counted."""
    total = recipe.epochs * steps
    return {str(epoch + warmup): recipe.rate(epoch * steps, total, steps) for epoch in range(recipe.epochs)}


@computes("schedule/lr/zju-vipa/Fast-Datafree/fast E=220 warmup=20 lr=0.2")
def rate(entry: dict[str, Any]) -> Found:
    method = build("fastdfkd", "fast5", ON)
    return Found(rates(method.recipe, entry["params"]["warmup"], method.config.student_steps))
