"""What a foreign teacher must show before anything runs on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dfkd_bench.distill.exported_program import Exported
from dfkd_bench.distill.request import Plan
from dfkd_bench.distill.user_models import UserTeacher
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.models.tapped import Hooked, Tapped
from dfkd_bench.runs.plan import privilege_message, suggest_methods

TOLERANCE = 1e-2  # of the largest logit: how far an image's answer may move with the company it is in
GIVEN: dict[str, Callable[[Tapped], bool]] = {  # privilege -> whether this teacher can give it
    "bn_statistics": lambda teacher: bool(teacher.running_moments()),
    "stage_maps": lambda teacher: len(teacher.tap_names) > 1,
}


def check_teacher(teacher: Tapped, teacher_entry: UserTeacher, plan: Plan, device: torch.device) -> None:
    """Raise `UsageError` (or `RunError` for numbers that are not finite) unless `plan` can be run on `teacher`."""
    what, classes = teacher_entry.file.name, teacher_entry.classes
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(8, *teacher_entry.image_shape, generator=stream).to(device)
    logits = answers(teacher, images, what)
    if tuple(logits.shape) != (len(images), classes):
        raise UsageError(
            f"{what} answers {len(images)} images with a tensor of {tuple(logits.shape)}, not ({len(images)}, "
            f"{classes}): is --classes right?"
        )
    if not bool(torch.isfinite(logits).all()):
        raise RunError(f"{what} answers noise with numbers that are not finite: are its weights whole?")
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(len(images), device=device), atol=1e-3):
        raise UsageError(f"{what} answers with probabilities, not logits: leave out the softmax at its end")
    if float((logits - logits[:1]).abs().max()) <= 1e-6 * float(logits.abs().max()):
        raise UsageError(f"{what} says the same of every image: are these trained weights, and is --std right?")
    alone = torch.cat([answers(teacher, image[None], what) for image in images[:2]])
    if float((alone - logits[:2]).abs().max()) > TOLERANCE * float(logits.abs().max()):
        raise UsageError(f"{what} says something else of an image alone than in a batch: is it in training mode?")
    privileges = plan.card.needs(plan.spec.preset, dict(plan.spec.settings))
    lacking = [privilege for privilege, given in GIVEN.items() if not given(teacher)]
    for privilege in lacking:
        if privilege in privileges:
            switches = {plan.spec.method: plan.card.switch_of(privilege)}
            more = ["name some to tap with --taps"] if privilege == "stage_maps" else []
            raise UsageError(privilege_message(switches, privilege, what, lacking, *more))
    if "gradients" in privileges:
        x = images.clone().requires_grad_()
        out = teacher(x)
        slope = torch.autograd.grad(out.square().sum(), x)[0] if out.requires_grad else torch.zeros(())
        if not bool(slope.abs().max() > 0):
            raise UsageError(
                f"no gradient comes back through {what} to its images (a detach, or no_grad, inside?), which method "
                f"{plan.spec.method} needs: {suggest_methods('gradients')}"
            )


def check_compile(plan: Plan, **networks: Tapped) -> None:
    """Raise `UsageError` where `plan` compiles steps with a network that is observed by hooks or step by step."""
    for role, network in networks.items():
        if plan.spec.compile and isinstance(network, Hooked | Exported):
            raise UsageError(f"--compile is for networks of `list models`, which this {role} is not: leave it out")


@torch.no_grad()
def answers(teacher: Tapped, images: Tensor, what: str) -> Tensor:
    """Logits of `images`; raises `UsageError` if the model does not take them."""
    try:
        logits: Tensor = teacher(images)
        return logits.float()
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{what} does not take {len(images)} images of {tuple(images.shape[1:])}: {line}") from error
