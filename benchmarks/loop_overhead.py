"""What the shared loop costs over a loop written by hand that takes the same steps.

    python benchmarks/loop_overhead.py [--pairs 7] [--rounds 2] [--batch 128] [--device cpu]

The default task (its shipped teacher, its student, its batch size), CPSC with its published settings: six generator
and five student steps a round. `by_hand` is what one would write for this method alone, in one function, with the same
networks, losses and random streams but no contract, views, meter or records. Both start from the same bits; every loss
of every step and the final student must be equal bit for bit, or the comparison means nothing and the script fails.

Pairs alternate in order, so that a drift of the machine hits both. Printed are the median, least and largest ratio of
paired times, by the wall clock and, on CPU, by the process's own time, which other work on the machine disturbs less.
The benchmark promises no more than 5 %; nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_bench import models
from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.contrastive import supervised_contrastive_loss
from dfkd_bench.blocks.generators import ConditionalGenerator
from dfkd_bench.blocks.losses import ikd_loss, kd_loss, pseudo_ce_loss
from dfkd_bench.method import TaskFacts
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.protocol import DEFAULT_TASK, task
from dfkd_bench.teachers.registry import load_teacher, teacher_for
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.loop import Job, Schedule, distill
from dfkd_bench.training.meter import Tally
from dfkd_bench.utils.seeding import derive, seed_global
from dfkd_methods.cpsc import CPSC

TASK = task(DEFAULT_TASK)
Losses = list[dict[str, Tensor]]


def initial_student(device: torch.device) -> Tapped:
    """The same student for both."""
    seed_global(0, "student-init")
    return place(models.build(TASK.student, TASK.dataset.classes, TASK.dataset.image_shape), device)


def by_hand(teacher: Tapped, student: Tapped, *, rounds: int, batch: int, width: int, device: torch.device) -> Losses:
    """CPSC, official preset, on the pinned recipe, with nothing around it. Returns the losses of every step."""
    recipe = TASK.pinned.recipe
    seed_global(derive(0, "method"), "setup")
    shape, classes, latent = TASK.dataset.image_shape, TASK.dataset.classes, 256
    generator = place(ConditionalGenerator(shape, classes, latent, width), device)
    weights = list(generator.parameters())
    running = [(m.clone(), v.clone()) for m, v in teacher.running_moments()]
    sgd = torch.optim.SGD(student.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    synthesis, sample = (torch.Generator(device) for _ in range(2))
    losses: Losses = []
    step, steps = 0, rounds * 5

    for round in range(rounds):
        synthesis.manual_seed(derive(0, "method/synthesis", round))
        sample.manual_seed(derive(0, "method/sample", round))

        student.train().requires_grad_(False)
        for _ in range(6):
            z = torch.randn(batch, latent, generator=synthesis, device=device)
            y = torch.randint(0, classes, (batch,), generator=synthesis, device=device)
            for p in weights:
                p.grad = None
            x = generator(z, y).contiguous(memory_format=torch.channels_last)
            t = teacher.observe(x, ("penultimate",), moments=True)
            s = student.observe(x, ("penultimate",))
            kd = kd_loss(s.logits, t.logits)
            ikd = -ikd_loss(s.logits, t.logits.detach(), "mse")
            bn = bn_statistics_loss(t.moments, running)
            features = (F.normalize(s.features, dim=1), F.normalize(t.features, dim=1))
            scl = supervised_contrastive_loss(features, y)
            ce = pseudo_ce_loss(t.logits, y, on="probs")
            loss = -kd + 5.0 * ikd + 1.0 * bn + 0.7 * scl + 0.7 * ce
            loss.backward()
            with torch.no_grad():
                gradients = [p.grad for p in weights if p.grad is not None]
                scale = torch._foreach_abs(gradients)
                torch._foreach_add_(scale, 1e-8)
                torch._foreach_addcdiv_(weights, gradients, scale, value=-1e-3)
            terms = {"J_G": loss, "L_KD": kd, "R_G": ikd, "L_BN": bn, "L_SCL": scl, "L_CE": ce}
            losses.append({name: value.detach() for name, value in terms.items()})

        student.train().requires_grad_(True)
        for _ in range(5):
            with torch.no_grad():
                z = torch.randn(batch, latent, generator=sample, device=device)
                y = torch.randint(0, classes, (batch,), generator=sample, device=device)
                x = generator(z, y).contiguous(memory_format=torch.channels_last)
                labels = teacher(x)
            sgd.param_groups[0]["lr"] = recipe.rate(step, steps)
            sgd.zero_grad(set_to_none=True)
            logits = student(x)
            loss = kd_loss(logits, labels) + 5.0 * ikd_loss(logits, labels, "mse")
            loss = loss + 0.7 * pseudo_ce_loss(logits, y, on="probs")
            loss.backward()
            sgd.step()
            step += 1
            losses.append({"student": loss.detach()})
    return losses


class Recorder(Tally):
    """A tally that keeps every loss, as the hand-written loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: Losses = []

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Keep and add."""
        super().add(values)
        self.losses.append({name: value.detach() for name, value in values.items()})


class Keepless:
    """A storage that keeps nothing: files are no part of the comparison."""

    def restore(self, job: Job) -> int:
        """Start anew."""
        return 0

    def checkpoint(self, job: Job, rounds: int) -> None:
        """Nothing."""

    def snapshot(self, job: Job, rounds: int, row: dict[str, float]) -> None:
        """Nothing."""

    def progress(self, job: Job, rounds: int) -> None:
        """Nothing."""


def by_loop(teacher: Tapped, student: Tapped, *, rounds: int, batch: int, width: int, device: torch.device) -> Losses:
    """The same through the contract and the shared loop, with the meter running and a snapshot's check at the end."""
    data = TASK.dataset
    method = CPSC(CPSC.Config(**{**CPSC.presets["official"], "generator_width": width}))
    facts = TaskFacts(TASK.name, data.classes, data.image_shape, data.mean, data.std, batch, width)
    context = RunContext(teacher, student, facts, device, 0, method.privileges)
    seed_global(derive(0, "method"), "setup")
    method.setup(context)
    schedule = Schedule(rounds, rounds, method.flags.student_steps, batch, 0, (rounds,))
    recorder = Recorder()
    distill(Job(method, context, student, TASK.pinned.recipe, schedule, Keepless(), tally=recorder))
    return recorder.losses


LOOPS = {"loop": by_loop, "by hand": by_hand}


def measure(teacher: Tapped, name: str, device: torch.device, **sizes: int) -> tuple[float, float, Losses, Tapped]:
    """Wall seconds, process seconds, losses and student of one run."""
    student = initial_student(device)
    wait(device)
    wall, own = time.perf_counter(), time.process_time()
    losses = LOOPS[name](teacher, student, device=device, **sizes)
    wait(device)
    return time.perf_counter() - wall, time.process_time() - own, losses, student


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_same(found: Mapping[str, tuple[Losses, Tapped]]) -> int:
    """Raise `AssertionError` unless both runs are equal bit for bit; returns the number of losses compared."""
    (ours, our_student), (theirs, their_student) = found["loop"], found["by hand"]
    assert len(ours) == len(theirs), f"{len(ours)} steps against {len(theirs)}"
    compared = 0
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert mine.keys() == other.keys(), f"step {number}: {sorted(mine)} against {sorted(other)}"
        for name in mine:
            assert torch.equal(mine[name], other[name]), f"step {number}: {name} {mine[name]} against {other[name]}"
            compared += 1
    weights = zip(our_student.state_dict().items(), their_student.state_dict().values(), strict=True)
    for (name, mine), other in weights:
        assert torch.equal(mine, other), f"student {name}"
    return compared


def summary(ratios: list[float]) -> str:
    """Median, least and largest."""
    return f"median {statistics.median(ratios):.4f}  min {min(ratios):.4f}  max {max(ratios):.4f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=TASK.pinned.batch_size, help="tiny ones show the cost per step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    device = torch.device(chosen.device)
    teacher = load_teacher(teacher_for(TASK), device)
    sizes = {"rounds": chosen.rounds, "batch": chosen.batch, "width": TASK.pinned.generator_width}
    for name in LOOPS:  # the first steps of a process are slower
        measure(teacher, name, device, **{**sizes, "rounds": 1})

    wall: list[float] = []
    own: list[float] = []
    compared = 0
    for pair in range(chosen.pairs):
        order = list(LOOPS) if pair % 2 else list(LOOPS)[::-1]
        runs: dict[str, Any] = {name: measure(teacher, name, device, **sizes) for name in order}
        compared += check_same({name: (losses, student) for name, (_, _, losses, student) in runs.items()})
        wall.append(runs["loop"][0] / runs["by hand"][0])
        own.append(runs["loop"][1] / runs["by hand"][1])
        seconds = ", ".join(f"{name} {runs[name][0]:.3f} s" for name in LOOPS)
        print(f"pair {pair + 1}: {seconds}, wall {wall[-1]:.4f}, process {own[-1]:.4f}", flush=True)
    print(f"{compared} losses and the students equal bit for bit")
    print(f"wall     {summary(wall)}")
    if device.type == "cpu":
        print(f"process  {summary(own)}")


if __name__ == "__main__":
    main()
