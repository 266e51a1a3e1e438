"""Ours beside the official values of AdaDFKD (ljrprocc/DFKD)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from official import (
    ENTRIES,
    Found,
    Says,
    build,
    computes,
    float64,
    inputs,
    network,
    of,
    projected,
    pulled,
    starting,
    state,
    steps_of,
    tensor,
    tiny_job,
)
from tiny import CPU
from torch import Tensor

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.pool import FeatureQueue
from dfkd_bench.method import Batch, StudentRecipe, TaskFacts
from dfkd_bench.models.tapped import batch_moments
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import synthesise, train_student
from dfkd_methods.adadfkd import STEPS_PER_EPOCH, AdaDFKD, relation_loss, self_paced_weight, window

RESNETS, WIDE, TINY_IMAGENET = (
    "cifar10/resnet34-resnet18", "cifar10/wrn40_2-wrn16_2", "tiny-imagenet/resnet50-resnet18",
)  # fmt: skip
ALONE = {"w_ent": 0.0, "w_oh": 0.0, "w_bn": 0.0, "gamma": 0.0, "alpha_0": 0.0}


# -- the generator's loss ---------------------------------------------------------------------------------------------


def answered(method: AdaDFKD, x: dict[str, Tensor], h: float = 0.0) -> tuple[Tensor, Tensor]:
    """L_G and the keys, where the networks answer with the logits and features of `x`."""
    nothing = torch.zeros(8, 10, dtype=torch.float64)
    method.context = SimpleNamespace(  # type: ignore[assignment]
        teacher=Says(x.get("t", nothing), x.get("f_T")), student=Says(x.get("s", nothing), x.get("f_S"))
    )
    method.stream = SimpleNamespace(images=lambda z, y: z)  # type: ignore[assignment]
    method.d_S = method.d_T = 16
    method.Q = FeatureQueue(16, 64, 8, CPU)
    method.Q.columns = x.get("queue", method.Q.columns)
    N_h = torch.tensor(window(h, method.config.k, 64))
    loss, _, keys = method.L_G(torch.zeros(1, dtype=torch.float64), torch.tensor(method.alpha(0)), N_h, None)
    return loss, keys


# entry -> the settings beside which its term stands alone, and what has a gradient
TERMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "adadfkd/L_G/ent": ({"w_ent": -20.0}, ("t",)),
    "adadfkd/L_G/ent/T=5": ({"w_ent": -20.0, "T_kd": 5.0}, ("t",)),
    "adadfkd/L_G/adv_kl": ({"alpha_0": 1.0}, ("s", "t")),
    "adadfkd/L_G/adv_js": ({"alpha_0": 1.0, "adv_type": "js"}, ("s", "t")),
    "adadfkd/L_G/oh": ({"w_oh": 1.0}, ("t",)),
    "adadfkd/L_G/act": ({"w_act": 1.0}, ("f_T",)),
}


@computes(*TERMS)
def term(entry: dict[str, Any]) -> Found:
    settings, free = TERMS[entry["id"]]
    x = inputs(entry, *free)
    loss, _ = answered(build("adadfkd", "official", RESNETS, **{**ALONE, **settings}), x)
    return pulled(loss, x, *free)


@computes(*starting("adadfkd/L_R2M/"))
def R2M(entry: dict[str, Any]) -> Found:
    p, x = entry["params"], inputs(entry, "f_S", "f_T")
    method = build("adadfkd", "official", WIDE, **{**ALONE, "gamma": 1.0})
    assert (method.config.k, method.config.tau) == (p["k"], p["tau"])
    assert window(p["h"], p["k"], p["K"]) == (p["window_start"], p["window_stop"])
    loss, keys = answered(method, x, p["h"])
    loss.backward()
    assert x["f_S"].grad is None
    method.Q.push(keys)
    assert not list(projected("queue_after", entry["queue_after"], method.Q.columns))
    return Found(loss, {"f_T": x["f_T"].grad})


@computes("adadfkd/L_G/all")
def L_G(entry: dict[str, Any]) -> Found:
    p, x = entry["params"], inputs(entry, "s", "t", "f_T")
    method = build("adadfkd", "official", WIDE, w_bn=0.0)
    c = method.config
    assert [c.w_ent, c.alpha_0, c.w_oh, c.gamma, c.k, c.T_kd, c.tau, c.adv_type] == [
        p[name] for name in ("lmda_ent", "adv", "oh", "hard", "k", "T", "tau", "adv_type")
    ]
    loss, _ = answered(method, x, p["h"])
    return pulled(loss, x, "s", "t", "f_T")


@computes("adadfkd/bn", "dfq/bn")  # one term, in the code of both
def bn(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "x")
    loss = bn_statistics_loss([batch_moments(x["x"])], [(x["running_mean"], x["running_var"])])
    return pulled(loss, x, "x")


# -- the student's loss -----------------------------------------------------------------------------------------------


@computes("adadfkd/L_rel")
def L_rel(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "f_T", "f_S")
    loss = relation_loss(x["f_T"], x["f_S"], entry["params"]["tau"])
    return pulled(loss, x, "f_T", "f_S")


@computes("adadfkd/self_paced_weight")
def self_paced(entry: dict[str, Any]) -> Found:
    def v(row: dict[str, Any]) -> Tensor:
        return self_paced_weight(torch.tensor(row["loss"], dtype=torch.float64), row["lambda"], row["family"])

    return Found([{**row, "v": v(row)} for row in entry["value"]])


def at_step(method: AdaDFKD, t: int) -> None:
    """Put `method` at the published student step t, and into the epoch that it is in."""
    E = method.config.epochs
    method.context = SimpleNamespace(  # type: ignore[assignment]
        progress=SimpleNamespace(
            student_step=t, student_steps=E * STEPS_PER_EPOCH, round=t // 10, rounds=E * STEPS_PER_EPOCH // 10
        )
    )


LOSSES = {
    "cifar10/kl": RESNETS,
    "cifar100/l1": "cifar100/vgg11-resnet18",
    "cifar100/kl": "cifar100/wrn40_2-wrn16_2",
    "tiny_imagenet/l1": TINY_IMAGENET,
}


@computes(*starting("adadfkd/L_S/"))
def L_S(entry: dict[str, Any]) -> Found:
    p, x = entry["params"], inputs(entry, "s", "f_S")
    method = build("adadfkd", "official", LOSSES[f"{p['dataset']}/{p['loss']}"])
    c = method.config
    assert (c.kd_loss, c.T_kd, c.lambda_0, c.eta, c.tau, c.spl) == (
        *(p[name] for name in ("loss", "T", "lambda_0", "eta", "tau")), p["spl"],
    )  # fmt: skip
    method.d_S = method.d_T = 16
    at_step(method, p["global_step"])
    loss = method.distill_loss(Batch(torch.zeros(1)), Says(x["s"], x["f_S"]).outputs, Says(x["t"], x["f_T"]).outputs)
    return pulled(loss, x, "s", "f_S")


# -- whole steps, generator -------------------------------------------------------------------------------------------


@computes("adadfkd/whole")
def whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    sizes = {"latent_dim": p["nz"], "queue_size": p["K"], "k": p["k"]}
    steps = {"synthesis_steps": len(p["z_generator"]), "student_steps": len(p["z_student"])}
    recipe = StudentRecipe(
        lr=p["student_lr"], momentum=p["momentum"], weight_decay=p["weight_decay"], schedule="constant"
    )
    with float64():
        method = build("adadfkd", "official", RESNETS, **sizes, **steps)
        c = method.config
        names = ("lmda_ent", "adv", "oh", "bn", "hard", "T", "tau", "lr_G", "lambda_0", "lambda_slope", "eta")
        ours = [c.w_ent, c.alpha_0, c.w_oh, c.w_bn, c.gamma, c.T_kd, c.tau, c.gen_lr, c.lambda_0, c.lambda_slope, c.eta]
        assert ours == [p[name] for name in names]
        G = network(p["generator"])
        built = {"Generator": lambda *_a, **_k: G, "reinitialise": lambda *_a: None}
        job = tiny_job(method, p, replaced=built, recipe=recipe)
        assert list(method.stream.adam.defaults["betas"]) == p["betas_G"]
        method.Q.columns = tensor(p["queue"])
        progress = job.context.progress
        progress.student_step, progress.student_steps = p["first_global_step"], c.epochs * STEPS_PER_EPOCH
        draws = iter(map(tensor, p["z_generator"] + p["z_student"]))

        def draw(n: int, _stream: torch.Generator) -> tuple[Tensor, None]:
            return torch.cat([next(draws) for _ in range(n // p["batch"])]), None

        given = patch.object(method.stream, "draw", draw), patch.object(method, "hardness", side_effect=p["h"])
        with given[0], given[1], steps_of(job, "L_G", "student") as seen:
            synthesise(job)
            train_student(job)
    losses = {"L_G": of(seen, "L_G"), "L_S": of(seen, "student")}
    return Found(losses, after={"generator": state(G), "queue": method.Q.columns, "student": state(job.student)})


@computes(*starting("generator/adadfkd/"))
def generator(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    method = build("adadfkd", "official", RESNETS if p["img_size"] == 32 else TINY_IMAGENET)
    assert (method.config.latent_dim, method.config.generator_width) == (p["nz"], p["ngf"])
    facts = TaskFacts("tiny", 5, (3, p["img_size"], p["img_size"]), (0.5,) * 3, (0.5,) * 3, 8, p["ngf"])
    networks = [network(["TinyNet", 6, 5, base]) for base in (100, 200)]
    method.setup(RunContext(*networks, facts, CPU, 0, AdaDFKD.privileges))
    return Found({"parameters": sum(t.numel() for t in method.stream.G.parameters())})


# -- schedules --------------------------------------------------------------------------------------------------------


@computes("schedule/adadfkd/window_table")
def window_table(entry: dict[str, Any]) -> Found:
    rows = []
    for row in entry["value"]:
        start, stop = window(row["h"], row["k"], row["K"])
        rows.append({**row, "start": start, "stop": stop})
    return Found(rows)


# the second command for one pair differs from the first, whose settings the task has
SECOND = {"schedule/adadfkd/cifar100/wrn40_2-wrn16_2(b)": {"epochs": 460, "f_e": 0.8}}


@computes(*(name for name in starting("schedule/adadfkd/") if "params" in ENTRIES[name]))
def curricula(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    on = entry["id"].removeprefix("schedule/adadfkd/").replace("tiny_imagenet", "tiny-imagenet").partition("(")[0]
    method = build("adadfkd", "official", on, **SECOND.get(entry["id"], {}))
    c = method.config
    ours = [c.epochs, c.f_b, c.f_e, c.k, c.queue_size, c.alpha_0, c.grad_adv, c.lambda_0, c.lambda_slope]
    names = ("epochs", "begin_fraction", "end_fraction", "k", "K", "adv", "grad_adv", "lambda_0", "lambda_slope")
    assert ours == [p[name] for name in names]
    assert p["student_steps_per_epoch"] == STEPS_PER_EPOCH == method.flags.rounds_per_epoch * c.student_steps
    rows = []
    for e in (row["epoch"] for row in entry["value"]):
        at_step(method, (e + 1) * STEPS_PER_EPOCH - 1)
        last = method.lambda_t
        at_step(method, e * STEPS_PER_EPOCH)
        h = method.hardness(method.epoch)
        start, stop = window(h, c.k, c.queue_size)
        rows.append({
            "epoch": method.epoch, "h": h, "alpha": method.alpha(method.epoch), "window_start": start,
            "window_stop": stop, "lambda_first_step": method.lambda_t, "lambda_last_step": last,
        })  # fmt: skip
    return Found(rows)


@computes(*starting("schedule/lr/ljrprocc/DFKD/"))
def rate(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    recipe = replace(build("adadfkd", "official", RESNETS).recipe, epochs=p["epochs"])
    assert recipe.lr == p["lr"]
    total = p["epochs"] * STEPS_PER_EPOCH
    return Found({e: recipe.rate(int(e) * STEPS_PER_EPOCH, total) for e in entry["value"]})
