"""CGDD-style: class-conditional generation with preset labels, distillation and stage maps.

After X. Yu et al., *Conditional Generative Data-Free Knowledge Distillation*, arXiv 2112.15358. "CGDD-style:
class-conditional generator with preset labels, label cross-entropy, distillation and stage-map matching, optional
adversarial term, following the abstracts of arXiv 2112.15358 v1 and v4. The full text was not available to us;
generator, loss forms, weights and schedule are our choices, taken from DAFL, DFAD, DFQ, DeepInversion and attention
transfer. Scores are not a reproduction of the paper."

A generator G turns a latent z and a preset label y into an image x; t = T(x), s = S(x) are logits, A_l stage maps:

    L_G = lambda_cls CE(t, y) + lambda_bn L_bn - lambda_adv D(T, S; x) + lambda_ie L_ie + lambda_act L_act
    L_S = lambda_kd L_kd + lambda_ce CE(s, y) + lambda_at L_at

CE(s, y) is only over images for which the teacher predicts y. `v4` has the adversarial term, and L_at compares the
student's maps after a 1x1 convolution with the teacher's, for stages of equal size. `v1` (lambda_adv = 0) compares
attention maps, and trains G for some steps before the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.attention import attention_loss
from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import disagreement
from dfkd_bench.blocks.generators import SMALL, DeepGenerator, Generator, LabelledGenerator
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.blocks.priors import activation_loss, balance_loss
from dfkd_bench.blocks.streaming import Stream, Terms, weighted
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class CGDDConfig:
    """Symbols of the losses first, then the generator."""

    lambda_cls: float = setting(1.0, "weight of the teacher's cross-entropy against the preset label, in L_G")
    lambda_bn: float = setting(1.0, "weight of the BatchNorm statistics", privilege="bn_statistics")
    lambda_adv: float = setting(1.0, "weight of the disagreement D, which G maximises")
    lambda_ie: float = setting(0.0, "weight of the batch entropy (balance) loss")
    lambda_act: float = setting(0.0, "weight of the activation loss")
    lambda_kd: float = setting(1.0, "weight of distillation in L_S")
    lambda_ce: float = setting(0.1, "weight of the student's cross-entropy against the preset label")
    lambda_at: float = setting(5.0, "weight of map matching, the mean over stages", privilege="stage_maps")
    tau: float = setting(1.0, "temperature of L_kd")
    disc: str = setting("kl", "the disagreement D", choices=("kl", "l1", "js"))
    imitation: str = setting("same", "form of the student's L_kd; same: as `disc`", choices=("same", "kl", "l1", "js"))
    feat: str = setting(
        "attention",
        "attention maps in the sum form; hint: maps through a 1x1 convolution for stages of equal size",
        choices=("attention", "hint"),
    )
    ce_mask: bool = setting(True, "the student's cross-entropy only on images for which the teacher predicts y")
    label_input: str = setting("embedding", "code of y in the input of G", choices=("embedding", "onehot"))
    latent_dim: int = setting(256, "size n_z of the latent z")
    embedding_dim: int = setting(50, "size n_e of the label embedding")
    generator: str = setting("auto", "auto: A for images below 64 px, else B", choices=("auto", "A", "B"))
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam, cosine to zero")
    gen_clip: float = setting(0.0, "limit of the generator's gradient norm, 0 for none")
    warmup_steps: int = setting(0, "generator steps before the first student step")
    synthesis_steps: int = setting(1, "generator updates n_G per round")
    student_steps: int = setting(5, "student updates n_S per round")


class CGDD(Method):
    """CGDD-style: preset labels, label cross-entropy, distillation, stage maps, optional adversarial term."""

    Config = CGDDConfig
    privileges = Privileges(gradients=True, bn_statistics=True, penultimate=True, stage_maps=True)
    paper = "after Yu et al.: Conditional Generative Data-Free Knowledge Distillation, arXiv 2112.15358 (abstracts)"
    presets = {"v4": {"feat": "hint"}, "v1": {"lambda_adv": 0.0, "warmup_steps": 500}}
    default_preset = "v4"
    task_settings = (
        ("v1", "digits16/*|*mnist/*", {"warmup_steps": 60}),
        ("v4", "*mnist/*", {"gen_lr": 3e-3, "lambda_at": 20.0}),  # from a separate search for CGDD on digits16
    )
    pinned = {"generator_width": "generator_width"}
    search = {
        "gen_lr": (1e-3, 3e-3), "lambda_at": (1.0, 5.0, 20.0), "lambda_cls": (0.5, 1.0), "synthesis_steps": (1, 2),
    }  # fmt: skip
    least_label_consistency = 90.0  # the generator must follow its label: the teacher predicts the preset label

    config: CGDDConfig

    @property
    def flags(self) -> Flags:
        """One generator step, five student steps, all stage maps of both networks."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=80,
            warmup_rounds=-(-c.warmup_steps // c.synthesis_steps), distill_taps=("stages",) if c.lambda_at else (),
        )  # fmt: skip

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 5e-4, cosine, batch 256, 200 epochs (our choice)."""
        return StudentRecipe(unit="epoch", batch_size=256, epochs=200)

    def setup(self, context: Context) -> None:
        """Build G with its label embedding and, for hints, a 1x1 convolution per stage with maps of equal size."""
        super().setup(context)
        c, task = self.config, context.task
        deep = c.generator == "B" or (c.generator == "auto" and min(task.image_shape[1:]) >= 64)

        def build(latent_dim: int) -> nn.Module:
            if deep:
                return DeepGenerator(task.image_shape, latent_dim, c.generator_width)
            return Generator(task.image_shape, latent_dim, c.generator_width, plan=SMALL, output="tanh_bn", bias=True)

        G = LabelledGenerator(build, c.latent_dim, task.classes, c.embedding_dim, c.label_input)
        self.stream = Stream(
            context, G, c.latent_dim, lr=c.gen_lr, betas=(0.5, 0.999), classes=task.classes, clip=c.gen_clip
        )
        self.forward = self.stream.through(self.L_G)
        self.bn_running = context.teacher.bn_statistics if c.lambda_bn else ()
        stages = (reversed(network.tap_names[:-1]) for network in (context.student, context.teacher))
        self.stages = list(zip(*stages, strict=False))[::-1]  # paired from the last one backwards
        self.hints: dict[tuple[str, str], nn.Module] = {}
        if c.lambda_at and not self.stages:
            raise RunError("map matching needs feature maps of teacher and student: set lambda_at to 0")
        if c.lambda_at and c.feat == "hint":
            A_s, A_t = context.student.tap_shapes, context.teacher.tap_shapes
            fit = [(s, t) for s, t in self.stages if A_s[s][1:] == A_t[t][1:]]
            self.hints = {(s, t): nn.Conv2d(A_s[s][0], A_t[t][0], 1) for s, t in fit}
            context.companion("hints", nn.ModuleList(self.hints.values()))

    # -- the generator --------------------------------------------------------------------------------------------

    def L_G(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Terms]:
        """L_G on images x of preset labels y; the student is used only if lambda_adv is not zero."""
        assert y is not None
        c = self.config
        teacher = self.context.teacher(x, taps=("penultimate",) if c.lambda_act else (), moments=bool(c.lambda_bn))
        t = teacher.logits
        parts = {"L_cls": (c.lambda_cls, F.cross_entropy(t, y))}
        if c.lambda_bn:
            parts["L_bn"] = c.lambda_bn, bn_statistics_loss(teacher.moments, self.bn_running)
        if c.lambda_adv:
            parts["D"] = -c.lambda_adv, disagreement(self.context.student(x).logits, t, c.disc)
        if c.lambda_ie:
            parts["L_ie"] = c.lambda_ie, balance_loss(t)
        if c.lambda_act:
            parts["L_act"] = c.lambda_act, activation_loss(teacher.features)
        return weighted(parts)

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G on new z, y."""
        self.stream.cosine(self.config.gen_lr)
        z, y = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        return self.stream.step(self.forward, z, y)[0]

    # -- the student ----------------------------------------------------------------------------------------------

    def sample(self, n: int) -> Batch:
        """New images with their preset labels, G in train mode."""
        return self.stream.sample(n, self.context.stream("sample"), train=True)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """L_S."""
        c, s, t, y = self.config, student.logits, teacher.logits, batch.labels
        assert y is not None
        form = c.disc if c.imitation == "same" else c.imitation
        L_kd = kd_loss(s, t, temperature=c.tau) if form == "kl" else disagreement(s, t, form)
        L_S = c.lambda_kd * L_kd
        if c.lambda_ce:
            L_ce = F.cross_entropy(s, y, reduction="none")
            L_S = L_S + c.lambda_ce * (L_ce * (t.argmax(1) == y) if c.ce_mask else L_ce).mean()
        if c.lambda_at:
            L_S = L_S + c.lambda_at * self.L_at(student, teacher)
        return L_S

    def L_at(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean over stages of the distance of maps: of whole maps for stages with a hint, else of attention maps."""
        terms = []
        for s, t in self.stages:
            a_s, a_t = at_least_fp32(student.taps[s]), at_least_fp32(teacher.taps[t])
            r = self.hints.get((s, t))
            terms.append((r(a_s) - a_t).square().mean() if r else attention_loss([a_s], [a_t]))
        return torch.stack(terms).mean()

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`."""
        return self.stream.preview(n, stream, train=True)
