"""Checks of a user's teacher before a run."""

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

TOLERANCE = 1e-2  # of the largest logit: how much logits of an image may depend on the other images of its batch
AVAILABLE: dict[str, Callable[[Tapped], bool]] = {  # privilege -> True if this teacher provides it
    "bn_statistics": lambda teacher: bool(teacher.running_moments()),
    "stage_maps": lambda teacher: len(teacher.tap_names) > 1,
}


def check_teacher(teacher: Tapped, user_teacher: UserTeacher, plan: Plan, device: torch.device) -> None:
    """Raise `UsageError` (`RunError` for logits that are not finite) unless `plan` can be run with `teacher`."""
    what, classes = user_teacher.file.name, user_teacher.classes
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(8, *user_teacher.image_shape, generator=stream).to(device)
    logits = checked_logits(teacher, images, what)
    if tuple(logits.shape) != (len(images), classes):
        raise UsageError(
            f"{what} returns a tensor of shape {tuple(logits.shape)} for {len(images)} images, not ({len(images)}, "
            f"{classes}): is --classes right?"
        )
    if not bool(torch.isfinite(logits).all()):
        raise RunError(f"{what} returns logits that are not finite for noise images: are its weights complete?")
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(len(images), device=device), atol=1e-3):
        raise UsageError(f"{what} returns probabilities, not logits: remove the softmax at its end")
    if float((logits - logits[:1]).abs().max()) <= 1e-6 * float(logits.abs().max()):
        raise UsageError(f"{what} returns the same logits for every image: is it trained, and is --std right?")
    alone = torch.cat([checked_logits(teacher, image[None], what) for image in images[:2]])
    if float((alone - logits[:2]).abs().max()) > TOLERANCE * float(logits.abs().max()):
        raise UsageError(f"{what} returns other logits for a single image than in a batch: is it in training mode?")
    privileges = plan.card.needs(plan.spec.preset, dict(plan.spec.settings))
    missing = [privilege for privilege, available in AVAILABLE.items() if not available(teacher)]
    for privilege in missing:
        if privilege in privileges:
            switches = {plan.spec.method: plan.card.switch_of(privilege)}
            more = ["name some to tap with --taps"] if privilege == "stage_maps" else []
            raise UsageError(privilege_message(switches, privilege, what, missing, *more))
    if "gradients" in privileges:
        x = images.clone().requires_grad_()
        out = teacher(x)
        gradient = torch.autograd.grad(out.square().sum(), x)[0] if out.requires_grad else torch.zeros(())
        if not bool(gradient.abs().max() > 0):
            raise UsageError(
                f"{what} gives no gradient for its input images (detach or no_grad inside?), and method "
                f"{plan.spec.method} needs it: {suggest_methods('gradients')}"
            )


def check_compile(plan: Plan, **networks: Tapped) -> None:
    """Raise `UsageError` if `plan` compiles a network that is observed by hooks or is an exported program."""
    for role, network in networks.items():
        if plan.spec.compile and isinstance(network, Hooked | Exported):
            raise UsageError(f"--compile is for networks of `list models`, and this {role} is none: leave it out")


@torch.no_grad()
def checked_logits(teacher: Tapped, images: Tensor, what: str) -> Tensor:
    """Logits of `images` in float32. Raises `UsageError` if the model does not accept the images."""
    try:
        logits: Tensor = teacher(images)
        return logits.float()
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{what} does not accept {len(images)} images of {tuple(images.shape[1:])}: {line}") from error
