"""Ours beside the official values of DeepInversion, CMI and what else the DataFree repository shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from official import (
    Found,
    Says,
    build,
    computes,
    fill_module,
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

from dfkd_bench.blocks.pool import ImagePool
from dfkd_bench.blocks.priors import total_variation
from dfkd_bench.method import Batch
from dfkd_bench.training.loop import Job, synthesise

ON = "cifar10/wrn40_2-wrn16_1"


@computes("student/kd/T=1", "student/kd/T=20")
def kd(entry: dict[str, Any]) -> Found:
    users = {
        1.0: [("dafl", "datafree"), ("zskt", "datafree"), ("dfq-gen", "datafree")],
        20.0: [("deepinversion", "datafree"), ("cmi", "scratch"), ("fastdfkd", "fast5"), ("nayer", "no-text")],
    }
    found = []
    for name, preset in users[entry["params"]["T"]]:
        x = inputs(entry, "s")
        method = build(name, preset, ON)
        loss = method.distill_loss(Batch(torch.zeros(1)), Says(x["s"]).outputs, Says(x["t"]).outputs)
        found.append(pulled(loss, x, "s"))
    assert len({f.value.item() for f in found}) == 1
    return found[0]


@computes("deepinversion/datafree/tv")
def tv(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "x")
    loss = total_variation(x["x"], norm=build("deepinversion", "datafree", ON).config.tv)
    return pulled(loss, x, "x")


@computes(*starting("deepinversion/datafree/js/"))
def js(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "s", "t")
    method = build("deepinversion", "datafree", ON, w_oh=0.0, alpha_f=0.0, alpha_tv=0.0)
    method.context = SimpleNamespace(teacher=Says(x["t"]), student=Says(x["s"]))
    nothing = torch.zeros(1)
    loss, _ = method.inversion_loss(nothing, nothing, torch.zeros(len(x["t"]), dtype=torch.int64))
    return pulled(-loss, x)  # it enters with a minus


# -- whole inversions -------------------------------------------------------------------------------------------------


@contextmanager
def watched(job: Job, draws: Tensor, labels: Tensor) -> Iterator[dict[str, list[Any]]]:
    """Synthesis with the entry's draws in place of random ones, noting losses, gradients and what is stored."""
    method: Any = job.method
    seen: dict[str, list[Any]] = {"losses": [], "gradients": [], "images": [], "pixels": []}
    usual_step, usual_keep, usual_add = torch.optim.Adam.step, method.inverter.keep, method.inverter.pool.add
    module = __import__(type(method).__module__, fromlist=["_"])
    usual_weighted = module.weighted

    def weighted(parts: Any) -> Any:
        loss, terms = usual_weighted(parts)
        seen["losses"].append(loss.item())
        return loss, terms

    def step(self: torch.optim.Adam, *more: Any) -> None:
        seen["gradients"].append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        usual_step(self, *more)

    def given(*shape: Any, **_: Any) -> Tensor:
        assert torch.Size(shape[0] if len(shape) == 1 else shape) == draws.shape
        return draws.clone()

    def keep(x: Tensor, y: Tensor) -> None:
        assert torch.equal(y, labels)
        seen["images"].append(x.clone())
        usual_keep(x, y)

    def add(pixels: Tensor, y: Tensor) -> int:
        seen["pixels"].append(pixels.clone())
        return int(usual_add(pixels, y))

    with ExitStack() as on:
        for patched in (
            patch.object(torch, "randn", given),
            patch.object(method.inverter, "labels", lambda n, _: labels.flip(0)[:n]),
            patch.object(torch.optim.Adam, "step", step),
            patch.object(method.inverter, "keep", keep),
            patch.object(method.inverter.pool, "add", add),
            patch.object(module, "weighted", weighted),
        ):
            on.enter_context(patched)
        yield seen


@computes(*starting("deepinversion/datafree/whole/"))
def datafree(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    terms = p["weights"]
    published = build("deepinversion", "datafree", ON).config
    assert [published.w_oh, published.alpha_f, published.alpha_c, published.alpha_tv] == [1.0, 10.0, 1.0, 1e-3]
    weights = {"w_oh": terms["oh"], "alpha_f": terms["bn"], "alpha_c": terms["adv"], "alpha_tv": terms["tv"]}
    return inverted("datafree", p, weights, tensor(p["y"]), {"stored_pixels": "pixels"})


@computes(*starting("deepinversion/nvlabs/whole/"))
def nvlabs(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    weights = {
        "w_oh": p["ce_weight"], "alpha_f": p["bn_reg_scale"], "alpha_c": p["competitive_scale"],
        "alpha_tv": p["var_scale"],
    }  # fmt: skip
    preset = "adaptive" if weights["alpha_c"] else "nvlabs"
    return inverted(preset, p, weights, torch.tensor(p["y"]), {"returned_images": "images"})


def inverted(preset: str, p: dict[str, Any], weights: dict[str, float], y: Tensor, stored: dict[str, str]) -> Found:
    """One inverted batch of DeepInversion from the entry's pixels, without jitter."""
    with float64():
        changed = {name: float(weight) for name, weight in weights.items()}
        method = build("deepinversion", preset, ON, iterations=p["iterations"], jitter=0.0, **changed)
        c = method.config
        assert [c.lr, c.beta1, c.beta2] == [p["lr"], *p["betas"]]
        job = tiny_job(method, p)
        in_turn = patch.object(torch, "arange", lambda *_a, **_k: y) if c.labels == "in_turn" else patch.dict({})
        with watched(job, tensor(p["x0"]), y) as seen, in_turn:
            synthesise(job)
    gradients = {f"x_iteration_{k + 1}": found[0] for k, found in enumerate(seen["gradients"])}
    after = {name: seen[kind][0] for name, kind in stored.items()}
    return Found({"L": seen["losses"]}, dict(gradients), after)


@computes(*starting("cmi/whole/"))
def cmi(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    terms = p["weights"]
    published = build("cmi", "scratch", ON).config
    assert [published.w_adv, published.alpha, published.beta, published.w_cr] == [0.5, 1.0, 1.0, 0.8]
    with float64():
        method = build(
            "cmi", "scratch", ON, iterations=p["iterations"], gen_lr=p["lr"], latent_dim=p["nz"], head_dim=8,
            synthesis_batch=p["batch"], w_adv=terms["adv"], alpha=terms["bn"], beta=terms["oh"], w_cr=terms["cr"],
        )  # fmt: skip
        c = method.config
        assert (c.tau, [c.gen_beta1, 0.999]) == (p["cr_T"], p["betas_generator_and_z"])
        G, y = network(p["generator"]), tensor(p["y"])
        job = tiny_job(method, p, replaced={"Generator": lambda *_a, **_k: G}, batch=128)
        fill_module(method.head, p["head"]["fill_base"])
        if p["bank"]:
            local, whole = tensor(p["bank"]).chunk(2, dim=1)
            method.bank.push(local, whole)
        module = "dfkd_methods.cmi."
        with (
            watched(job, tensor(p["z"]), y) as seen,
            patch(module + "reinitialise"),
            patch(module + "random_resized_crop", lambda pixels, *_: 0.9 * pixels.flip(3)),
        ):
            synthesise(job)
    names = {"layers.0": "head.0", "layers.2": "head.2"}
    head = {f"{names[key[:8]]}{key[8:]}": value for key, value in state(method.head).items()}
    after = {
        "generator": state(G), "head": head, "bank_rows": method.bank.rows[-p["batch"] :].flatten(1),
        "stored_images": seen["pixels"][0],
    }  # fmt: skip
    return Found({"L": seen["losses"]}, after=after)


# -- pool, generators, rates ------------------------------------------------------------------------------------------


@computes("pool/bytes")
def pool(entry: dict[str, Any]) -> Found:
    pixels = torch.tensor(entry["params"]["pixels"])
    found = []
    for name, preset in (("deepinversion", "datafree"), ("cmi", "scratch")):
        store = ImagePool(len(pixels), (1, 1, 1), pixels.device, build(name, preset, ON).config.pool_bytes)
        store.add(pixels.view(-1, 1, 1, 1))
        found.append(store.images.flatten().tolist())
    assert found[0] == found[1]
    return Found(found[0])


@computes(*starting("generator/datafree/"))
def generator(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    user = {"Generator": "cmi", "LargeGenerator": "dfq-gen" if p["nz"] == 256 else "dafl"}[entry["id"].split("/")[2]]
    method = build(user, "scratch" if user == "cmi" else "datafree", ON)
    assert (method.config.latent_dim, method.config.generator_width) == (p["nz"], p["ngf"])
    images = ["fill", [4, p["nc"], p["img_size"], p["img_size"]], 0, 0, 1]
    networks = {"teacher": ["TinyNet", 6, 10, 100], "student": ["TinyNet", 6, 10, 200]}
    job = tiny_job(method, {**networks, "classes": 10, "batch": 4, "x0": images})
    return Found({"parameters": sum(t.numel() for t in job.context.registered["generator"].parameters())})


@computes(*starting("schedule/lr/zju-vipa/DataFree/"), *starting("schedule/lr/zju-vipa/Fast-Datafree/E=200"))
def schedule(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    name, preset = {0.1: ("cmi", "scratch"), 0.05: ("dfq-gen", "datafree")}[p["lr"]]
    recipe = replace(build(name, preset, ON).recipe, lr=p["lr"], epochs=p["epochs"])
    if "Fast-Datafree" in entry["id"]:
        floor = build("fastdfkd", "fast5", ON).recipe.floor
        recipe = replace(recipe, floor=floor)
    total = 400 * p["epochs"]
    return Found({epoch: recipe.rate(400 * int(epoch), total) for epoch in entry["value"]})
