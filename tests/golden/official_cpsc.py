"""Ours beside the official values of CPSC-DFKD."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from official import (
    Found,
    Says,
    build,
    computes,
    float64,
    inputs,
    network,
    of,
    pulled,
    starting,
    state,
    steps_of,
    tensor,
    tiny_job,
)
from torch import nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.contrastive import supervised_contrastive_loss
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.method import Batch, StudentRecipe
from dfkd_bench.models.tapped import batch_moments
from dfkd_bench.training.loop import synthesise, train_student
from dfkd_methods.cpsc import CPSC

ON = {"cifar10": "cifar10/resnet34-resnet18", "cifar100": "cifar100/resnet34-resnet18"}


@computes("cpsc/kd")
def kd(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "s", "t")
    loss = kd_loss(x["s"], x["t"])
    return pulled(loss, x, "s", "t")


@computes("cpsc/scl/tau=0.07", "cpsc/scl/tau=0.2")
def scl(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "h_S", "h_T")
    method = build("cpsc", "official", ON["cifar10"], tau=entry["params"]["temperature"])
    c = method.config
    assert c.scl_base_temperature == entry["params"]["base_temperature"]
    loss = supervised_contrastive_loss(
        (x["h_S"], x["h_T"]), x["y"], temperature=c.tau, base_temperature=c.scl_base_temperature
    )
    return pulled(loss, x, "h_S", "h_T")


@computes("cpsc/scl/adapter")
def adapter(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "h_S_raw")
    method = build("cpsc", "official", ON["cifar10"])
    layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 16)).double()
    layers.load_state_dict({name.removeprefix("adapter."): v for name, v in x.items() if name.startswith("adapter.")})
    method.adapter = layers
    loss = contrast(method, x["h_S_raw"], x["h_T"], x["y"])
    return pulled(loss, x, "h_S_raw")


def contrast(method: CPSC, h_S: torch.Tensor, h_T: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """L_SCL of features that the file gives at unit length and takes as free variables: they are not scaled again."""
    said = (Says(h_S, h_S).outputs, Says(h_T, h_T).outputs)
    with unscaled(h_S, h_T):
        return method.contrast(*said, y)


def unscaled(*given: torch.Tensor) -> Any:
    """Let `F.normalize` in the method pass on the tensors `given` as they are; all others it scales as ever."""
    usual = torch.nn.functional.normalize

    def normalize(x: torch.Tensor, dim: int) -> torch.Tensor:
        return x if any(x is g for g in given) else usual(x, dim=dim)

    return patch("dfkd_methods.cpsc.F.normalize", normalize)


@computes("cpsc/bn")
def bn(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "x")
    c = build("cpsc", "official", ON["cifar10"]).config
    running = [(x["running_mean"], x["running_var"])]
    loss = bn_statistics_loss([batch_moments(x["x"])], running, norm=c.bn_norm, reduce=c.bn_reduce)
    return pulled(loss, x, "x")


def with_terms(entry: dict[str, Any]) -> CPSC:
    """Preset official on the entry's dataset, the terms that the entry leaves out switched off."""
    params, terms = entry["params"], entry["params"]["terms"].split("+")
    dataset = params["dataset_branch"]
    method = build("cpsc", "official", ON[dataset])
    c = method.config
    assert (c.alpha, c.eta) == (params["alpha"], params["eta"])
    assert (c.gamma, c.tau) == (params.get("gamma", c.gamma), params.get("temperature", c.tau))
    off = {"alpha": "IKD", "gamma": "SCL", "eta": "CE"}
    zero = {name: 0.0 for name, term in off.items() if term not in terms}
    method = build("cpsc", "official", ON[dataset], beta_bn=0.0, **zero)
    method.adapter = nn.Identity()
    return method


@computes(*starting("cpsc/J_G/"))
def J_G(entry: dict[str, Any]) -> Found:
    method = with_terms(entry)
    x = inputs(entry, "s", "t", "h_S", "h_T")
    method.context = SimpleNamespace(teacher=Says(x["t"], x["h_T"]), student=Says(x["s"], x["h_S"]))  # type: ignore[assignment]
    with patch.object(method, "generate", lambda z, y: z), unscaled(x["h_S"], x["h_T"]):
        loss, _ = method.generator_objective(torch.zeros(1), x["y"])
    return pulled(loss, x, "s", "t", "h_S", "h_T")


@computes(*starting("cpsc/J_S/"))
def J_S(entry: dict[str, Any]) -> Found:
    method = with_terms(entry)
    x = inputs(entry, "s")
    loss = method.distill_loss(Batch(torch.zeros(1), labels=x["y"]), Says(x["s"]).outputs, Says(x["t"]).outputs)
    return pulled(loss, x, "s")


@computes("cpsc/whole/cifar10", "cpsc/whole/cifar100")
def whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    steps = {"synthesis_steps": p["generator_steps"], "student_steps": p["student_steps"], "latent_dim": p["nz"]}
    recipe = StudentRecipe(lr=p["lr_S"], momentum=p["momentum"], weight_decay=p["weight_decay"], schedule="constant")
    with float64():
        method = build("cpsc", "official", ON[entry["id"].split("/")[-1]], **steps)
        c = method.config
        assert [c.alpha, c.beta_bn, c.gamma, c.eta, c.tau] == [
            p[k] for k in ("alpha", "beta", "gamma", "eta", "temperature")
        ]
        assert [c.gen_lr, c.gen_beta1, c.gen_beta2] == [p["lr_G"], *p["betas_G"]]
        G = network(p["generator"])
        job = tiny_job(method, p, replaced={"ConditionalGenerator": lambda *_a, **_k: G}, recipe=recipe)
        draws = iter(zip(map(tensor, p["z"]), map(tensor, p["y"]), strict=True))
        with patch.object(method, "draw", lambda *_: next(draws)), steps_of(job, "J_G", "student") as seen:
            synthesise(job)
            train_student(job)
    losses = {"J_G": of(seen, "J_G"), "J_S": of(seen, "student")}
    return Found(losses, after={"generator": state(G), "student": state(job.student)})


@computes(*starting("generator/cpsc/"))
def generator(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    on = "tiny-imagenet/resnet34-resnet18" if p["img_size"] == 64 else ON["cifar10"]
    c = build("cpsc", "official", on).config
    assert (c.latent_dim, c.generator_width, c.generator) == (p["nz"], p["ngf"], "shallow_cbn")
    from dfkd_bench.blocks.generators import ConditionalGenerator

    size = p["img_size"]
    G = ConditionalGenerator((3, size, size), p["num_classes"], c.latent_dim, c.generator_width)
    eps = sorted({m.eps for m in G.modules() if isinstance(m, nn.BatchNorm2d)})
    return Found({"parameters": sum(t.numel() for t in G.parameters()), "batchnorm_eps": eps})


@computes(*starting("schedule/lr/RoryShao/"))
def schedule(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    recipe = build("cpsc", "official", ON["cifar100"]).recipe
    from dataclasses import replace

    recipe = replace(recipe, epochs=p["epochs"], warmup=p["warmup_epochs"] / p["epochs"])
    per_epoch = p["iterations_per_epoch"] * p["student_steps_per_iteration"]
    total = per_epoch * p["epochs"]
    return Found([recipe.rate(e * per_epoch, total) for e in range(p["epochs"])])
