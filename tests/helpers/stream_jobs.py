"""Jobs of the streaming methods with tiny networks, observed outputs of the networks, and single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hooks
import reference_streaming as ref
import torch
from hooks import array
from reference_streaming import Seen
from tiny import make_job
from torch import Tensor

from dfkd_bench.method import Batch, Method
from dfkd_bench.models.cnn import CNN
from dfkd_bench.training.loop import Job
from dfkd_methods.adadfkd import AdaDFKD
from dfkd_methods.cgdd import CGDD
from dfkd_methods.dafl import DAFL
from dfkd_methods.dfad import DFAD
from dfkd_methods.dfq_gen import DFQGen
from dfkd_methods.mad import MAD
from dfkd_methods.pre_dfkd import PREDFKD
from dfkd_methods.zskt import ZSKT

METHODS: dict[str, type[Method]] = {
    "dafl": DAFL, "dfad": DFAD, "zskt": ZSKT, "dfq-gen": DFQGen, "cgdd": CGDD, "adadfkd": AdaDFKD,
    "pre-dfkd": PREDFKD, "mad": MAD,
}  # fmt: skip
CASES = [(name, preset) for name, kind in METHODS.items() for preset in kind.presets]
SMALL: dict[str, dict[str, Any]] = {
    "cgdd": {"embedding_dim": 3}, "adadfkd": {"queue_size": 12}, "pre-dfkd": {"memory_dim": 5},
}  # fmt: skip
CLASSES, BATCH = 4, 6
SEED = 27  # with this seed, student and teacher agree on some images only, and on some labels


def build(name: str, preset: str | None = None, **settings: Any) -> Method:
    """A method with a tiny generator."""
    kind = METHODS[name]
    values = kind.presets[preset or kind.default_preset]
    small = {"latent_dim": 4, "generator_width": 2, **SMALL.get(name, {})}
    return kind(kind.Config(**{**values, **small, **settings}))


def make(
    name: str,
    preset: str | None = None,
    *,
    student_features: int = 5,
    rounds: int = 2,
    precision: str = "fp32",
    **settings: Any,
) -> Job:
    """A job with two CNNs on 8x8 images of four classes, in the default dtype."""
    method = build(name, preset, **settings)
    teacher, student = CNN(3, CLASSES, 1, 5), CNN(2, CLASSES, 1, student_features)
    return make_job(
        method, teacher, student, classes=CLASSES, batch_size=BATCH, rounds=rounds, seed=SEED, precision=precision
    )


def network(job: Job, role: str) -> Any:
    """The network behind the view of teacher or student."""
    return getattr(job.context, role)._module


def look(job: Job, x: Tensor) -> Seen:
    """The outputs of teacher and student, in their present modes, for x. BN statistics are restored."""
    found: dict[str, Any] = {}
    for role, short in (("student", "s"), ("teacher", "t")):
        module = network(job, role)
        kept = {k: v.clone() for k, v in module.state_dict().items()}
        acts: list[Any] = []
        handle = module.act.register_forward_hook(lambda _m, _a, out, acts=acts: acts.append(array(out)))
        shown = hooks.look(module, x)
        handle.remove()
        module.load_state_dict(kept)
        found.update({short: shown.logits, f"f_{short}": shown.features, f"maps_{short}": acts[0::2]})
    return Seen(**found, inputs=shown.inputs, running=hooks.running(network(job, "teacher")))


@dataclass
class Step:
    """One call of `synthesize`: its losses, G's images in the teacher's input space, and the state before the call."""

    losses: dict[str, float]
    x: Tensor
    y: list[int]
    seen: Seen
    before: dict[str, Tensor]  # of the generator
    queue: Any


def enter_synthesis(job: Job) -> None:
    """Set the mode of the student as the loop does before `synthesize`."""
    job.student.train(job.method.flags.student_mode != "eval").requires_grad_(False)


def synthesis(job: Job) -> Step:
    """Call `synthesize` as the loop does, and observe the networks on its images."""
    method: Any = job.method
    G = method.stream.G
    caught: list[Any] = []
    handle = G.register_forward_hook(lambda _m, inputs, out: caught.append((inputs, out.detach())))
    before = {k: v.clone() for k, v in G.state_dict().items()}
    queue = array(method.Q.columns) if hasattr(method, "Q") else None
    enter_synthesis(job)
    kept = {k: v.clone() for k, v in job.student.state_dict().items()}
    losses = {k: v.item() for k, v in method.synthesize().items()}
    handle.remove()
    ((inputs, x),) = caught  # one forward of the generator
    x = (x - 0.5) / 0.5 if G.output_space == "image01" else x
    moved = {k: v.clone() for k, v in job.student.state_dict().items()}
    job.student.load_state_dict(kept)
    seen = look(job, x)
    job.student.load_state_dict(moved)
    y = inputs[1].tolist() if len(inputs) > 1 else []
    return Step(losses, x, y, seen, before, queue)


def expected_step(job: Job, step: Step, f_s: Any = None) -> dict[str, float]:
    """The reference losses of that call, in epoch 0 of the run."""
    method: Any = job.method
    c, v = method.config, step.seen
    name = next(k for k, kind in METHODS.items() if isinstance(method, kind))
    if name == "cgdd":
        return ref.cgdd(c, v, step.y)
    if name == "mad":
        return ref.mad(c, v, step.y, array(step.before["embedding.weight"]) if step.y else None)
    if name == "adadfkd":
        terms = ref.adadfkd(c, v, c.alpha_0, step.queue, ref.window(0.0, c.k, step.queue.shape[1]), f_s)
        return {**terms, "alpha": c.alpha_0, "h": 0.0, "lambda": c.lambda_0}
    simple = {"dafl": ref.dafl, "dfad": ref.dfad, "zskt": ref.zskt, "dfq-gen": ref.dfq_gen, "pre-dfkd": ref.pre_dfkd}
    return simple[name](c, v)


def student_batch(job: Job) -> tuple[Batch, Seen, Tensor]:
    """A batch as the loop draws it, the outputs of the networks, and the method's loss with its graph."""
    job.student.train().requires_grad_(True)
    with torch.no_grad():
        batch = job.method.sample(job.schedule.batch_size)
        teacher = job.teacher_outputs(batch.images)
    seen = look(job, batch.images)
    return batch, seen, job.method.distill_loss(batch, job.student_outputs(batch.images), teacher)


def expected_student(job: Job, batch: Batch, v: Seen) -> float:
    """The reference of that loss, at the first student step of the run."""
    method: Any = job.method
    c = method.config
    if isinstance(method, DFAD | PREDFKD):
        return -ref.dfad(c, v)["L_G"]
    if isinstance(method, ZSKT):
        return ref.zskt_student(c, v)
    if isinstance(method, CGDD):
        assert batch.labels is not None
        tables = [(array(r.weight), array(r.bias)) for r in method.hints.values()]
        return ref.cgdd_student(c, v, batch.labels.tolist(), tables)
    if isinstance(method, AdaDFKD):
        return ref.adadfkd_student(c, v, c.lambda_0)
    if isinstance(method, MAD):
        return ref.mad_student(c, v)
    return ref.kd(v.s, v.t)
