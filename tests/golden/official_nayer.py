"""Ours beside the official values of NAYER."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from official import (
    Found,
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
from official_fastdfkd import NETWORKS, averages, epochs_of, loss_of, rates, watched
from torch import nn

from dfkd_bench.blocks.generators import Generator
from dfkd_bench.training.loop import synthesise
from dfkd_methods import nayer

CIFAR10, CIFAR100, TINY_IMAGENET = (f"{d}/resnet34-resnet18" for d in ("cifar10", "cifar100", "tiny-imagenet"))
PRESETS = {100: "no-text-100", 200: "no-text-200", 300: "no-text"}


@computes("nayer/oh")
def oh(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "t")
    with float64():
        method = build("nayer", "no-text", CIFAR100, w_oh=1.0, w_adv=0.0, synthesis_batch=8)
        tiny_job(method, {**NETWORKS, "classes": 10, "batch": 8})
        loss = loss_of(method, x["t"], x["t"], x["y"], torch.zeros(8, 3, 8, 8))
    return pulled(loss, x, "t")


@computes("nayer/whole", "nayer/whole/one batch per call")
def whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    calls, batches = (p["batches"], 1) if entry["id"].endswith("one batch per call") else (1, p["batches"])
    sizes = {"latent_dim": p["nz"], "vector_dim": p["vector_dim"], "synthesis_batch": p["noisy_layers"] * p["classes"]}
    with float64():
        method = build("nayer", "no-text", CIFAR100, g_steps=p["g_steps"], synthesis_steps=batches, **sizes)
        c = method.config
        assert [c.w_adv, c.w_bn, c.w_oh] == [p[k] for k in ("adv", "bn", "oh")]
        assert [c.gen_lr, c.gen_beta1, 0.999, c.bn_momentum] == [p["lr_G"], *p["betas"], p["bn_momentum"]]
        spec = ["TinyGen", p["nz"], 0, "sigmoid", 0]
        job = tiny_job(method, p, replaced={"Generator": lambda *_a, **_k: network(spec)}, batch=c.synthesis_batch)
        G = method.G
        fill_module(G, p["generator"][-1])
        G.vectors.copy_(tensor(p["vectors"]))
        with watched(method) as seen, patch.object(nayer, "reinitialise"):
            for job.context.progress.round in range(calls):
                synthesise(job)
    networks = {"generator": {renamed(k): v for k, v in state(G).items()}, "student": state(job.student)}
    return Found({"L": seen.losses}, after={**networks, "stored_images": seen.stored, "bn_averages": averages(method)})


def renamed(name: str) -> str:
    """A tensor of the noisy generator as the file calls it."""
    first, _, rest = name.partition(".")
    return f"{({'norm': 'n1', 'noisy': 'le1', 'generator': 'g'}).get(first, first)}.{rest}"


@computes(*starting("schedule/nayer/"))
def schedule(entry: dict[str, Any]) -> Found:
    p, batch = entry["params"], 6
    on = TINY_IMAGENET if p["g_loops"] == 4 else CIFAR10
    epochs = p["epochs"] - p["warmup"]
    small = {"g_steps": 1, "latent_dim": 4, "vector_dim": 4, "generator_width": 2, "student_steps": 1}
    # no script warms up for 25 epochs
    more = {} if p["warmup"] == 20 else {"warmup_epochs": p["warmup"], "epochs": epochs}
    method = build("nayer", PRESETS.get(epochs, "no-text"), on, **small, synthesis_batch=batch, **more)
    c = method.config
    assert (c.synthesis_steps, c.warmup_synthesis_steps, c.gen_life) == (p["g_loops"], p["gwp_loops"], p["g_life"])
    run = epochs_of(method, on, None, batch)
    assert len(run.batches) == p["epochs"]
    redrawn = list(dict.fromkeys(run.redrawn))  # in several parts each
    added = [after - before for before, after in zip([0, *run.batches], run.batches, strict=False)]
    start = run.distilled.index(True)
    assert len(set(added[:start])) == len(set(added[start:])) == 1
    return Found(
        {
            "first_epoch_with_adversarial_term": run.adversarial.index(True),
            "epochs_at_whose_start_the_generator_is_redrawn": redrawn[:12],
            "redraws": len(redrawn),
            "batches_in_pool_after_epoch": {str(epoch): n for epoch, n in enumerate(run.batches)},
            "noisy_layers_redrawn_per_epoch": {"warm-up": added[0], "later": added[-1]},
            "first_epoch_with_distillation": start,
        }
    )


@computes(*starting("schedule/lr/tmtuan1307/"))
def rate(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    on = TINY_IMAGENET if "tiny" in entry["id"] else CIFAR100
    method = build("nayer", PRESETS[p["epochs"] - p["warmup"]], on)
    return Found(rates(method.recipe, p["warmup"], method.config.student_steps))


def no_steps(batch: int) -> Any:
    """Let inner loops return black images."""
    return patch.object(nayer, "invert", lambda *_: (torch.zeros(batch, 3, 8, 8), {"L_inv": torch.zeros(())}))


@computes(*starting("nayer/labels/"))
def labels(entry: dict[str, Any]) -> Found:
    classes, batch = entry["params"]["classes"], entry["params"]["batch"]
    networks = {"teacher": ["TinyNet", 6, classes, 100], "student": ["TinyNet", 6, classes, 200]}
    method = build("nayer", "no-text", CIFAR10, g_steps=1, latent_dim=4, vector_dim=4, synthesis_batch=batch)
    job = tiny_job(method, {**networks, "classes": classes, "batch": batch})
    with no_steps(batch):
        for seed in range(10):
            job.context.streams.reseed(seed)
            method.synthesize()
    y = method.inverter.pool.labels.view(10, batch)
    (random,) = torch.where((y != y[0]).any(0))
    last = list(range(batch - len(random), batch))
    return Found(
        {
            "first_12": y[0, :12],
            "length": batch,
            "least_per_class": int(torch.bincount(y[0], minlength=classes).min()),
            "drawn_at_random": len(random),
            "place_of_the_random_ones": "at the end" if random.tolist() == last else "elsewhere",
        }
    )


def full_size() -> Any:
    """The method with its whole generator for 32x32 images."""
    method = build("nayer", "no-text", CIFAR10)

    def built(_shape: Any, *args: Any, **more: Any) -> Generator:
        return Generator((3, 32, 32), *args, **more)

    tiny_job(method, {**NETWORKS, "classes": 10, "batch": 400}, replaced={"Generator": built})
    return method


@computes("generator/nayer/NLGenerator/cifar10")
def generator(entry: dict[str, Any]) -> Found:
    p, method = entry["params"], full_size()
    c = method.config
    sizes = (c.generator_width, c.latent_dim, c.vector_dim, c.synthesis_batch)
    assert sizes == tuple(p[k] for k in ("ngf", "le_emb_size", "le_size", "sbz"))
    count = sum(t.numel() for t in method.G.generator.parameters())
    return Found({"noisy_layers": len(method.G.noisy), "parameters_without_noisy_layers_and_n1": count})


@computes("nayer/redraw_law")
def redraw_law(_entry: dict[str, Any]) -> Found:
    method = full_size()
    with torch.no_grad():
        for t in method.G.parameters():
            t.fill_(3.0)
    with no_steps(400):
        method.synthesize()
    G = method.G.generator
    norms = [m for m in method.G.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert all(bool((m.weight == 1.0).all()) and not m.bias.any() for m in norms)
    law = {"deviation_of_l1_weight": G.fc.weight.std(), "deviation_of_first_conv_weight": G.convs[0].weight.std()}
    return Found(law, tolerance=3e-3)  # of the 147,456 weights of the convolution a draw strays by 1e-3
