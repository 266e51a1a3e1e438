"""Ours beside the official values of DAFL, ZSKT, DFAD and DFQ-gen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    settings_of,
    starting,
    state,
    steps_of,
    tensor,
    tiny_job,
)
from tiny import CPU
from torch import Tensor, nn

from dfkd_bench.method import Batch, Outputs, TaskFacts
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import Job, synthesise, train_student

CIFAR10, CIFAR100, PAIR = "cifar10/resnet34-resnet18", "cifar100/resnet34-resnet18", "cifar10/wrn40_2-wrn16_1"
MNIST = "mnist/lenet5-lenet5_half"
# networks for terms alone, which never see an image: what the networks say is given
TEN_CLASSES = {
    "classes": 10, "batch": 8, "teacher": ["TinyNet", 6, 10, 100], "student": ["TinyNet", 6, 10, 200],
}  # fmt: skip


# -- terms ------------------------------------------------------------------------------------------------------------


def objective(
    name: str, preset: str, on: str, x: dict[str, Tensor], **changes: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The generator's loss and its terms where the networks answer x["s"], x["t"], x["f_T"]."""
    with float64():
        job = tiny_job(build(name, preset, on, **changes), TEN_CLASSES)
        method: Any = job.method
        job.context.teacher = Says(x["t"], x.get("f_T"))  # type: ignore[assignment]
        job.context.student = Says(x.get("s", x["t"]))  # type: ignore[assignment]
        loss, terms, _ = method.forward(torch.zeros(2, method.config.latent_dim), None)
    return loss, terms


def student_loss(name: str, preset: str, on: str, x: dict[str, Tensor]) -> Tensor:
    """The student's loss where the networks answer x["s"] and x["t"]."""
    loss: Tensor = build(name, preset, on, **({"beta": 0.0} if name == "zskt" else {})).distill_loss(
        Batch(torch.zeros(1)), Says(x["s"]).outputs, Says(x["t"].detach()).outputs
    )
    return loss


def gradients(x: dict[str, Tensor]) -> dict[str, Tensor | None]:
    return {name: value.grad for name, value in x.items()}


WEIGHTS = {"oh": "w_oh", "act": "alpha", "balance": "beta"}  # DataFree's words -> DAFL's settings


@computes("dafl/datafree/oh", "dafl/datafree/act", "dafl/datafree/balance", "dafl/datafree/L_G")
def dafl_datafree(entry: dict[str, Any]) -> Found:
    x = inputs(entry, *entry["inputs"])
    given = {WEIGHTS[name]: weight for name, weight in entry["params"].items()}
    published = settings_of("dafl", "datafree", PAIR)
    if len(given) == 3:
        assert given == {name: published[name] for name in given}
    loss, _ = objective(
        "dafl", "datafree", PAIR, {"t": torch.zeros(8, 10), **x}, **{**dict.fromkeys(WEIGHTS.values(), 0.0), **given}
    )
    return pulled(loss, x)


@computes(
    *starting("dafl/official/MNIST"), *starting("dafl/official/cifar"), *[i for i in starting("dafl/") if "only" in i]
)
def dafl_official(entry: dict[str, Any]) -> Found:
    x, p = inputs(entry, "s", "t", "f_T"), entry["params"]
    on = {"MNIST": MNIST, "cifar100": CIFAR100}.get(entry["id"].split("/")[-1], CIFAR10)
    c = settings_of("dafl", "official", on)
    weights = {"w_oh": p["oh"], "beta": p["ie"], "alpha": p["a"]}
    if "only" not in entry["id"]:
        assert weights == {name: c[name] for name in weights}
    _, terms = objective("dafl", "official", on, {k: v.detach() for k, v in x.items()}, w_oh=1.0, alpha=1.0, beta=1.0)
    total, _ = objective("dafl", "official", on, x, **weights)
    kd = student_loss("dafl", "official", on, x)
    total.backward()
    kd.backward()
    value = {
        "total": total + kd, "kd": kd, "one_hot": terms["L_oh"], "information_entropy": terms["L_bal"],
        "activation": terms["L_act"],
    }  # fmt: skip
    return Found(value, gradients(x))


@computes("zskt/datafree/L_G", "dfad/datafree/L_G", "dfq/L_G_without_bn", "dfad/official/L_G")
def adversarial(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "s", "t")
    name = {"dfq": "dfq-gen"}.get(entry["id"].split("/")[0], entry["id"].split("/")[0])
    # DataFree's form of DFAD has the term of the original
    preset = "official" if name == "dfad" else "datafree"
    loss, _ = objective(name, preset, PAIR, x, **({"w_bn": 0.0} if name == "dfq-gen" else {}))
    return pulled(loss, x)


@computes("dfad/official/L_S")
def dfad_student(entry: dict[str, Any]) -> Found:
    return Found(student_loss("dfad", "official", CIFAR10, inputs(entry)))


@computes("zskt/official/L_G")
def zskt_generator(entry: dict[str, Any]) -> Found:
    x = inputs(entry, "s", "t")
    with float64():
        job = tiny_job(build("zskt", "official", PAIR), TEN_CLASSES)
        method: Any = job.method
        job.context.teacher, job.context.student = Says(x["t"]), Says(x["s"])  # type: ignore[assignment]
        loss, _ = method.L_G(torch.zeros(1))
    return pulled(loss, x)


class Mapped:
    """What a method may know of a network with three feature maps."""

    tap_names = ("stage1", "stage2", "stage3", "penultimate")
    raw_taps = {"stage3": "stage3_raw"}


@computes("zskt/official/attention", "zskt/official/L_S")
def zskt_student(entry: dict[str, Any]) -> Found:
    method = build("zskt", "official", PAIR)
    names = [f"student_map_{k}" for k in (1, 2, 3)]
    x = inputs(entry, *names, *[name for name in ("s",) if name in entry["inputs"]])
    assert method.config.beta == entry["params"]["beta"]
    context = type("Context", (), {"student": Mapped, "teacher": Mapped})
    method.context = context
    logits = {name: x.get(name, torch.zeros(8, 10, dtype=torch.float64)) for name in ("s", "t")}
    said = [
        Outputs(
            logits[short], {tap: x[f"{role}_map_{k}"] for k, tap in enumerate(("stage1", "stage2", "stage3_raw"), 1)}
        )
        for role, short in (("student", "s"), ("teacher", "t"))
    ]
    loss = method.distill_loss(Batch(torch.zeros(1)), *said)
    return pulled(loss, x)


# -- whole steps ------------------------------------------------------------------------------------------------------


@contextmanager
def stepping(
    name: str, preset: str, on: str, p: dict[str, Any], z: list[Any], **changes: Any
) -> Iterator[tuple[Job, Any]]:
    """A job of the method on the entry's networks, and its generator; latents are `z` in order of use."""
    with float64():
        method = build(name, preset, on, latent_dim=p["nz"], **changes)
        G = network(p["generator"])
        # rounds enough that no schedule moves in the first ones
        job = tiny_job(method, p, replaced={"Generator": lambda *_a, **_k: G}, recipe=method.recipe, rounds=100000)
        draws = iter(map(tensor, z))
        with patch.object(method.stream, "draw", lambda *_: (next(draws), None)):
            yield job, G


def check_recipe(job: Job, p: dict[str, Any]) -> None:
    """The rates of both networks are the entry's."""
    method: Any = job.method
    recipe, adam = job.recipe, method.stream.adam
    assert recipe.rate(0, 1000) == p["lr_S"]
    assert adam.param_groups[0]["lr"] == p["lr_G"]
    betas = p.get("betas_G", p.get("adam_betas"))
    assert list(adam.defaults["betas"]) == betas
    if recipe.optimiser == "sgd":
        assert (recipe.momentum, recipe.weight_decay) == (p["momentum"], p["weight_decay"])
    else:
        assert (list(recipe.betas), recipe.weight_decay) == (betas, 0.0)


@computes("dafl/datafree/whole", "zskt/datafree/whole", "dfq/whole")
def datafree_whole(entry: dict[str, Any]) -> Found:
    p, name = entry["params"], entry["id"].split("/")[0].replace("dfq", "dfq-gen")
    z = [*p["z_generator"], p["z_student"]]
    with stepping(name, "datafree", PAIR, p, z, synthesis_steps=2, student_steps=1) as (job, G):
        method: Any = job.method
        c = settings_of(name, "datafree", PAIR)
        words = {"oh": "w_oh", "act": "alpha", "balance": "beta" if name == "dafl" else "w_bal", "bn": "w_bn"}
        assert all(c[words[word]] == weight for word, weight in p["weights"].items() if word != "adv")
        check_recipe(job, {**p, "lr_S": 0.1, "momentum": 0.9, "weight_decay": 1e-4})
        images: list[Tensor] = []
        sample = method.sample
        noting = patch.object(method, "sample", lambda n: images.append((drawn := sample(n)).images) or drawn)
        with steps_of(job, "L_G", "student") as seen, noting:
            synthesise(job)
            train_student(job)
    found = {name: value.grad for name, value in job.student.named_parameters()}
    return Found(
        {"L_G": of(seen, "L_G"), "L_S": of(seen, "student")[0]},
        after={"generator": state(G), "sample_images": images[0]},
        gradient_student=found,
    )


@computes("zskt/official/whole")
def zskt_whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    with stepping("zskt", "official", PAIR, p, [p["z"]], student_steps=3) as (job, G):
        method: Any = job.method
        check_recipe(job, p)
        assert (method.config.beta, method.config.gen_clip, job.recipe.clip) == (p["beta"], p["clip"], p["clip"])
        with steps_of(job, "L_G", "student") as seen:
            synthesise(job)
            train_student(job)
    value = {"L_G": of(seen, "L_G"), "L_S": of(seen, "student")}
    return Found(value, after={"generator": state(G), "student": state(job.student)})


@computes("dafl/official/whole")
def dafl_whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    with stepping("dafl", "official", CIFAR10, p, p["z"]) as (job, G):
        method: Any = job.method
        check_recipe(job, p)
        assert (method.config.w_oh, method.config.beta, method.config.alpha) == (p["oh"], p["ie"], p["a"])
        with steps_of(job, "L_G", "student") as seen:
            for _ in range(2):
                synthesise(job)
                train_student(job)
    kd = of(seen, "student")
    value = {"total": [a + b for a, b in zip(of(seen, "L_G"), kd, strict=True)], "kd": kd}
    return Found(value, after={"generator": state(G), "student": state(job.student)})


@computes("dfad/official/whole")
def dfad_whole(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    with stepping("dfad", "official", CIFAR10, p, p["z"]) as (job, G):
        check_recipe(job, p)
        assert job.method.flags.order == "distill_first"
        with steps_of(job, "L_G", "student") as seen:
            for _ in range(2):
                train_student(job)
                synthesise(job)
    return Found({"loss": [v for _, v in seen]}, after={"generator": state(G), "student": state(job.student)})


# -- generators -------------------------------------------------------------------------------------------------------


def generator_of(name: str, preset: str, on: str, channels: int) -> nn.Module:
    """The generator that the method builds for images of 32x32."""
    net = network(TEN_CLASSES["teacher"])
    facts = TaskFacts("any", 10, (channels, 32, 32), (0.5,) * channels, (0.5,) * channels, 8, 64)
    method = build(name, preset, on)
    method.setup(RunContext(net, net, facts, CPU, 0, type(method).privileges))
    G: nn.Module = method.stream.G
    return G


def parameters(G: nn.Module) -> int:
    return sum(t.numel() for t in G.parameters())


def norms(G: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]


@computes("generator/dafl/official/cifar")
def dafl_generator(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    assert settings_of("dafl", "official", CIFAR10)["latent_dim"] == p["latent_dim"]
    G = generator_of("dafl", "official", CIFAR10, p["channels"])
    value = {
        "parameters": parameters(G), "batchnorm_eps_in_order": [m.eps for m in norms(G)],
        "last_batchnorm_has_parameters": norms(G)[-1].affine,
    }  # fmt: skip
    return Found(value)


@computes("generator/dfad/official/nc=3", "generator/dfad/official/nc=1")
def dfad_generator(entry: dict[str, Any]) -> Found:
    p = entry["params"]
    on = MNIST if p["nc"] == 1 else CIFAR10
    assert settings_of("dfad", "official", on)["latent_dim"] == p["nz"]
    G = generator_of("dfad", "official", on, p["nc"])
    value = {
        "parameters": parameters(G), "batchnorm_eps_in_order": [m.eps for m in norms(G)],
        "batchnorm_affine": [m.affine for m in norms(G)],
    }  # fmt: skip
    return Found(value)


# -- schedules --------------------------------------------------------------------------------------------------------


@computes("schedule/zskt/official")
def zskt_schedule(entry: dict[str, Any]) -> Found:
    method = build("zskt", "official", PAIR)
    rounds, steps = entry["params"]["total_n_pseudo_batches"], method.flags.student_steps
    assert rounds == method.recipe.epochs * method.flags.rounds_per_epoch
    value: dict[str, dict[str, float]] = {"student": {}, "generator": {}}
    for key in entry["value"]["student"]:
        first = int(key) * steps
        rates = {method.recipe.rate(step, rounds * steps, steps) for step in range(first, first + steps)}
        (value["student"][key],) = rates  # held for the whole round
        value["generator"][key] = generator_rate("zskt", PAIR, int(key), rounds)
    return Found(value)


def generator_rate(name: str, on: str, round: int, rounds: int) -> float:
    """The rate of the generator's Adam in a round."""
    with float64():
        job = tiny_job(build(name, "official", on), TEN_CLASSES)
        job.context.progress.round, job.context.progress.rounds = round, rounds
        job.method.synthesize()
        method: Any = job.method
        rate: float = method.stream.adam.param_groups[0]["lr"]
    return rate


def student_rates(name: str, on: str, keys: list[str], first: int) -> dict[str, float]:
    """The student's rate in epochs `keys` of a full run, counted from `first`, the same in every step of each."""
    method = build(name, "official", on)
    flags, recipe = method.flags, method.recipe
    per_epoch = flags.rounds_per_epoch * flags.student_steps
    total, found = recipe.epochs * per_epoch, {}
    for key in keys:
        begin = (int(key) - first) * per_epoch
        (found[key],) = {recipe.rate(step, total, flags.student_steps) for step in (begin, begin + per_epoch - 1)}
    return found


@computes("schedule/dafl/official/cifar")
def dafl_schedule(entry: dict[str, Any]) -> Found:
    check_length("dafl", CIFAR10, entry["params"]["n_epochs"], entry["params"]["iterations_per_epoch"])
    mnist = build("dafl", "official", MNIST)  # which has no entry of its own but this one's note
    assert mnist.recipe.optimiser == "adam"
    assert student_rates("dafl", MNIST, ["0", "100", "199"], 0) == dict.fromkeys(("0", "100", "199"), 2e-3)
    check_length("dafl", MNIST, 200, 120)
    for on, rate in ((CIFAR10, 0.02), (MNIST, 0.2)):
        assert [generator_rate("dafl", on, round, 10) for round in (0, 9)] == [rate, rate]
    return Found(student_rates("dafl", CIFAR10, list(entry["value"]), 0))


def check_length(name: str, on: str, epochs: int, rounds: int) -> None:
    """Epochs of a full run and rounds of an epoch are the entry's."""
    method = build(name, "official", on)
    assert (method.recipe.epochs, method.flags.rounds_per_epoch) == (epochs, rounds)


@computes("schedule/dfad/official/cifar/student")
def dfad_schedule(entry: dict[str, Any]) -> Found:
    check_length("dfad", CIFAR10, entry["params"]["epochs"], entry["params"]["iterations_per_epoch"])
    return Found(student_rates("dfad", CIFAR10, list(entry["value"]), 1))


@computes("schedule/dfad/official/cifar/generator")
def dfad_generator_schedule(entry: dict[str, Any]) -> Found:
    epochs, rounds = entry["params"]["epochs"], entry["params"]["iterations_per_epoch"]
    found = {}
    for key in entry["value"]:
        begin = (int(key) - 1) * rounds
        (found[key],) = {generator_rate("dfad", CIFAR10, r, epochs * rounds) for r in (begin, begin + rounds - 1)}
    return Found(found)


@computes("schedule/dfad/official/mnist")
def dfad_mnist_schedule(entry: dict[str, Any]) -> Found:
    epochs, rounds = entry["params"]["epochs"], entry["params"]["iterations_per_epoch"]
    check_length("dfad", MNIST, epochs, rounds)
    (student,) = set(student_rates("dfad", MNIST, ["1", "20", "40"], 1).values())
    (generator,) = {generator_rate("dfad", MNIST, r, epochs * rounds) for r in (0, 1000, 1999)}
    return Found({"student": student, "generator": generator})
