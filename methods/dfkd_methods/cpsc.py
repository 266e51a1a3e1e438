"""CPSC-DFKD: conditional pseudo-supervised contrast for data-free knowledge distillation.

R. Shao, W. Zhang, J. Wang, Pattern Recognition 143 (2023) 109781, arXiv 2510.03375. The full text was not available to
us; the equations follow the official code at commit 1c6ade1, rewritten, not copied.

A class-conditional generator G maps a latent z and a pseudo-label y to an image x. Rounds alternate generator steps and
student steps. With t = T(x), s = S(x) the logits and h^T, h^S the unit-length penultimate features:

    J_G = -L_KD + alpha R_G + beta_bn L_BN + gamma L_SCL + eta L_CE^T      (minimised over G)
    J_S =  L_KD + alpha R_S + eta L_CE^S                                   (minimised over S)

`official` follows the published code, and fixes only what crashes, leaks test data or depends on hardware. `textbook`
uses the standard form wherever the code deviates from it. Each deviation has its own setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss, kept_statistics
from dfkd_bench.blocks.contrastive import supervised_contrastive_loss
from dfkd_bench.blocks.generators import ConditionalGenerator, DeepConditionalGenerator
from dfkd_bench.blocks.losses import ikd_loss, kd_loss, pseudo_ce_loss
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting

PENULTIMATE = ("penultimate",)
IKD_FORMS = ("mse", "log_mse", "log_norm")


@dataclass(frozen=True)
class CPSCConfig:
    """Symbols of the losses first, then the generator, then deviations (their numbers are explained in cpsc.md)."""

    alpha: float = setting(5.0, "weight of the raw-logit disagreement R (IKD)")
    beta_bn: float = setting(1.0, "weight of the BatchNorm statistics L_BN", privilege="bn_statistics")
    gamma: float = setting(0.7, "weight of the supervised contrast L_SCL")
    eta: float = setting(0.7, "weight of the pseudo-supervised cross-entropy L_CE")
    tau: float = setting(0.07, "temperature of the contrast")
    scl_base_temperature: float = setting(0.07, "the contrast is multiplied by tau over this (17)")
    scl_on_student: float = setting(0.0, "weight of the contrast in the student's loss (16)")
    synthesis_steps: int = setting(6, "generator updates per round")
    student_steps: int = setting(5, "student updates per round")
    latent_dim: int = setting(256, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    generator: str = setting("shallow_cbn", "architecture (27)", choices=("shallow_cbn", "deep_cbn"))
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam")
    gen_beta1: float = setting(0.5, "first-moment decay of the generator's Adam")
    gen_beta2: float = setting(0.999, "second-moment decay of the generator's Adam")
    gen_opt_state: str = setting(
        "reset", "Adam's state; reset: new at each step, i.e. sign descent (3)", choices=("reset", "persistent")
    )
    gen_lr_schedule: str = setting(
        "constant", "multistep: x0.1 after 1/12 and 1/4 of the run (4)", choices=("constant", "multistep")
    )
    ce_input_generator: str = setting(
        "probs", "input of the generator's cross-entropy (1)", choices=("probs", "logits")
    )
    ce_input_student: str = setting("probs", "input of the student's cross-entropy (2)", choices=("probs", "logits"))
    ikd_generator: str = setting("mse", "form of R_G, with a minus sign (6, 7)", choices=IKD_FORMS)
    ikd_student: str = setting("mse", "form of R_S (6, 7)", choices=IKD_FORMS)
    detach_teacher_in_kd: bool = setting(False, "no gradient through the teacher in the generator's -L_KD (8)")
    bn_norm: str = setting("l2", "distance of BatchNorm moments (11)", choices=("l2", "mse"))
    bn_reduce: str = setting("sum", "reduction over the teacher's BatchNorm layers (11)", choices=("sum", "mean"))
    student_mode: str = setting(
        "train", "the student's mode in generator steps; train also updates its running statistics (13)",
        choices=("train", "train_keep_stats", "eval"),
    )  # fmt: skip
    adapter_normalise: bool = setting(False, "unit length after the adapter if feature widths differ (14)")
    adapter: str = setting(
        "frozen",
        "frozen at its random initialisation, or trained with J_G (15)",
        choices=("frozen", "train_with_generator_loss"),
    )
    cosine_to_zero: bool = setting(False, "recipe track: end the student's cosine at zero (29)")


class CPSC(Method):
    """Class-conditional generator, adversarial distillation, BatchNorm prior, contrast of teacher and student."""

    Config = CPSCConfig
    privileges = Privileges(gradients=True, bn_statistics=True, penultimate=True)
    paper = "Shao, Zhang, Wang: Conditional pseudo-supervised contrast for data-free KD, Pattern Recognition 143, 2023"
    presets = {
        "official": {},
        "textbook": {
            "ce_input_generator": "logits",
            "ce_input_student": "logits",
            "gen_opt_state": "persistent",
            "student_mode": "train_keep_stats",
            "adapter_normalise": True,
            "adapter": "train_with_generator_loss",
            "cosine_to_zero": True,
        },
    }
    default_preset = "official"
    task_settings = (
        ("official", "cifar10/*", {"ikd_generator": "log_mse", "ikd_student": "log_norm"}),
        ("official", "digits16/*|*mnist/*|cifar10-16/*", {"alpha": 1.0, "synthesis_steps": 4}),  # tuned on digits16
    )
    pinned = {"generator_width": "generator_width"}
    search = {"gen_lr": (1e-3, 2e-3), "alpha": (1.0, 5.0), "synthesis_steps": (4, 6)}

    config: CPSCConfig

    @property
    def flags(self) -> Flags:
        """Six generator steps, then five student steps; 50 rounds are an epoch."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps,
            student_steps=c.student_steps,
            rounds_per_epoch=50,
            student_mode=c.student_mode,  # type: ignore[arg-type]
        )

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 5e-4; linear ramp for ten epochs, then a cosine of period E, shifted by ten epochs."""
        to_zero = self.config.cosine_to_zero
        return StudentRecipe(
            weight_decay=5e-4, unit="epoch", stepping="after" if to_zero else "before", warmup=10 / 600,
            cosine_span="remaining" if to_zero else "total", batch_size=512, epochs=600,
        )  # fmt: skip

    def setup(self, context: Context) -> None:
        """Build G, its Adam, and the adapter if the widths of h^S and h^T differ."""
        super().setup(context)
        c, task = self.config, context.task
        factory = ConditionalGenerator if c.generator == "shallow_cbn" else DeepConditionalGenerator
        self.G: nn.Module = context.register(
            "generator", factory(task.image_shape, task.classes, c.latent_dim, c.generator_width)
        )

        d_S, d_T = context.student.feature_dim, context.teacher.feature_dim
        self.adapter: nn.Module = nn.Identity()
        trained: list[Tensor] = list(self.G.parameters())
        if d_S != d_T:
            layers = nn.Sequential(nn.Linear(d_S, d_S), nn.ReLU(), nn.Linear(d_S, d_T))
            self.adapter = context.register("adapter", layers)
            learns = c.adapter == "train_with_generator_loss"
            self.adapter.requires_grad_(learns)
            trained += list(self.adapter.parameters()) if learns else []
        self.trained = trained

        self.adam: torch.optim.Adam | None = None
        if c.gen_opt_state == "persistent":
            betas = (c.gen_beta1, c.gen_beta2)
            self.adam = context.register("generator_adam", torch.optim.Adam(trained, c.gen_lr, betas))
        self.bn_running = context.teacher.bn_statistics if c.beta_bn else ()
        self.objective = context.compile(self.generator_objective)

    # -- called by the loop ---------------------------------------------------------------------------------------

    def synthesize(self) -> Mapping[str, Tensor]:
        """One generator step on new z, y."""
        c = self.config
        n = self.context.task.batch_size
        z, y = self.draw(n, self.context.stream("synthesis"))
        for p in self.trained:
            p.grad = None
        J_G, terms = self.objective(z, y)
        J_G.backward()
        self.context.count(synthesised=n)

        lr = c.gen_lr
        if c.gen_lr_schedule == "multistep":
            lr *= 0.1 ** sum(self.context.progress.fraction >= m for m in (50 / 600, 150 / 600))
        if self.adam is None:
            reset_adam_step(self.trained, lr)
        else:
            self.adam.param_groups[0]["lr"] = lr
            self.adam.step()
        return {"J_G": J_G.detach(), **terms}

    def sample(self, n: int) -> Batch:
        """New images, G in train mode, which also updates its running statistics."""
        z, y = self.draw(n, self.context.stream("sample"))
        return Batch(self.generate(z, y), labels=y, latents=z)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """J_S."""
        c, s, t, y = self.config, student.logits, teacher.logits, batch.labels
        assert y is not None
        J_S = kd_loss(s, t)
        if c.alpha:
            J_S = J_S + c.alpha * ikd_loss(s, t, c.ikd_student)
        if c.eta:
            J_S = J_S + c.eta * pseudo_ce_loss(s, y, on=c.ce_input_student)
        if c.scl_on_student:
            J_S = J_S + c.scl_on_student * self.contrast(student, teacher, y)
        return J_S

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`, from `stream`, but restores G's running statistics."""
        z, y = self.draw(n, stream)
        with kept_statistics(self.G):
            return Batch(self.generate(z, y), labels=y, latents=z)

    # -- the losses -----------------------------------------------------------------------------------------------

    def generator_objective(self, z: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """J_G and its terms, unweighted, for latents z (n, latent_dim) and pseudo-labels y (n,)."""
        c = self.config
        x = self.generate(z, y)
        teacher = self.context.teacher(x, taps=PENULTIMATE if c.gamma else (), moments=bool(c.beta_bn))
        student = self.context.student(x, taps=PENULTIMATE if c.gamma else ())
        t, s = teacher.logits, student.logits

        L_KD = kd_loss(s, t.detach() if c.detach_teacher_in_kd else t)
        J_G, terms = -L_KD, {"L_KD": L_KD.detach()}
        if c.alpha:
            R_G = -ikd_loss(s, t.detach(), c.ikd_generator)
            J_G, terms["R_G"] = J_G + c.alpha * R_G, R_G.detach()
        if c.beta_bn:
            L_BN = bn_statistics_loss(teacher.moments, self.bn_running, norm=c.bn_norm, reduce=c.bn_reduce)  # type: ignore[arg-type]
            J_G, terms["L_BN"] = J_G + c.beta_bn * L_BN, L_BN.detach()
        if c.gamma:
            L_SCL = self.contrast(student, teacher, y)
            J_G, terms["L_SCL"] = J_G + c.gamma * L_SCL, L_SCL.detach()
        if c.eta:
            L_CE = pseudo_ce_loss(t, y, on=c.ce_input_generator)
            J_G, terms["L_CE"] = J_G + c.eta * L_CE, L_CE.detach()
        return J_G, terms

    def contrast(self, student: Outputs, teacher: Outputs, y: Tensor) -> Tensor:
        """L_SCL between h^S (through the adapter) and h^T."""
        c = self.config
        h_S, h_T = (F.normalize(at_least_fp32(out.features), dim=1) for out in (student, teacher))
        if not isinstance(self.adapter, nn.Identity):
            h_S = self.adapter(h_S)
            h_S = F.normalize(h_S, dim=1) if c.adapter_normalise else h_S
        return supervised_contrastive_loss((h_S, h_T), y, temperature=c.tau, base_temperature=c.scl_base_temperature)

    # -- helpers --------------------------------------------------------------------------------------------------

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents z ~ N(0, I) (n, latent_dim) and pseudo-labels y (n,), uniform over *the task's* classes (18)."""
        device = self.context.device
        z = torch.randn(n, self.config.latent_dim, generator=stream, device=device)
        y = torch.randint(0, self.context.task.classes, (n,), generator=stream, device=device)
        return z, y

    def generate(self, z: Tensor, y: Tensor) -> Tensor:
        """G(z, y) in fp32 and channels_last."""
        with self.context.autocast():
            x: Tensor = self.G(z, y)
        return at_least_fp32(x).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def reset_adam_step(parameters: Sequence[Tensor], lr: float, eps: float = 1e-8) -> None:
    """The first step of a new Adam: p -= lr g / (|g| + eps), sign descent. Parameters without gradient are skipped."""
    updated = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in updated if p.grad is not None]
    if not updated:
        return
    scale = torch._foreach_abs(gradients)
    torch._foreach_add_(scale, eps)
    torch._foreach_addcdiv_(updated, gradients, scale, value=-lr)
