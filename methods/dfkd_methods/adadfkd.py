"""AdaDFKD: adaptive data-free knowledge distillation by relation refinement, and its predecessor CuDFKD.

Li et al., Neural Networks 177, 106386 (AdaDFKD), and arXiv 2208.13648 (CuDFKD). The full texts were not available to
us; the equations follow the authors' code (commit cd281c4), rewritten, not copied. With q_i, k_i the unit-length
penultimate features of teacher and student on image x_i, and n_j the columns of a queue of past student features:

    L_R2M = -mean_i log exp(q_i k_i / tau) / (exp(q_i k_i / tau) + sum over j in N_h(i) of exp(q_i n_j / tau))
    L_G   = w_ent H(mean p) + alpha_e L_adv + w_oh L_oh + w_act L_act + w_bn L_bn + gamma L_R2M
    L_S   = v(l; lambda_t) l,   l = l_KD + eta L_rel

N_h(i) is a window over the negatives of anchor i, sorted by similarity, that moves from easy to hard (`hardness`); v is
the self-paced weight, whose threshold lambda_t grows. Schedules are functions of the E epochs and 400 E student steps
of the published runs; a run of any budget is mapped to all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import js_divergence, kl_per_sample
from dfkd_bench.blocks.generators import DEEP, LARGE, Generator, reinitialise
from dfkd_bench.blocks.pool import FeatureQueue
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.blocks.priors import activation_loss, balance_loss, one_hot_loss
from dfkd_bench.blocks.streaming import Stream, Terms, weighted
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe, setting

PENULTIMATE = ("penultimate",)
STEPS_PER_EPOCH = 400  # student steps of a published epoch, in which lambda_t is counted


@dataclass(frozen=True)
class AdaDFKDConfig:
    """Symbols of the losses first, then the schedules, then the generator."""

    gamma: float = setting(0.1, "weight of L_R2M in L_G")
    eta: float = setting(0.1, "weight of L_rel in the student's loss")
    tau: float = setting(0.07, "temperature of both contrastive losses")
    w_ent: float = setting(-20.0, "weight of the entropy of the mean prediction; negative: the entropy is maximised")
    w_oh: float = setting(1.0, "weight of the one-hot loss")
    w_act: float = setting(0.0, "weight of the activation loss")
    w_bn: float = setting(1.0, "weight of the BatchNorm statistics", privilege="bn_statistics")
    adv_type: str = setting("kl", "the adversarial loss", choices=("kl", "js"))
    adv_mask: str = setting("none", "agree: only where student and teacher agree (A1)", choices=("none", "agree"))
    kd_loss: str = setting("kl", "l_KD: divergence at T_kd, or L1 of raw logits", choices=("kl", "l1"))
    T_kd: float = setting(20.0, "temperature of l_KD and of the entropy term")
    ent_temperature: float = setting(0.0, "temperature of the entropy term, 0 for T_kd (A5)")
    k: float = setting(0.8, "fraction of the sorted negatives in the window; 1 uses all")
    queue_size: int = setting(6144, "K: size of the queue, rounded up to whole batches (B2)", unit="images")
    batch_size: int = setting(768, "recipe track: batch of generator and student", unit="images")
    epochs: int = setting(300, "E: published length, the unit of the schedules", unit="epochs")
    f_b: float = setting(0.2, "fraction of E at which window and alpha start to change")
    f_e: float = setting(0.8, "fraction of E at which they stop")
    alpha_0: float = setting(1.0, "initial weight alpha of the adversarial loss")
    grad_adv: float = setting(0.0, "slope g of alpha per epoch between f_b and f_e")
    spl: str = setting("log", "family of the self-paced weight", choices=("log", "soft", "hard", "none"))
    spl_granularity: str = setting("batch", "one weight per batch, or per sample (A2)", choices=("batch", "sample"))
    lambda_0: float = setting(2.2, "initial threshold of the self-paced weight")
    lambda_slope: float = setting(2e-5, "growth a of the threshold per published student step")
    proj: str = setting(
        "fresh", "projection if feature widths differ: new and random each call, fixed, or learned (B1)",
        choices=("fresh", "fixed", "learned"),
    )  # fmt: skip
    latent_dim: int = setting(1024, "size of the latent z")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    gen_lr: float = setting(1e-3, "learning rate of the generator's Adam")
    synthesis_steps: int = setting(1, "generator updates per round")
    student_steps: int = setting(10, "student updates per round")


class AdaDFKD(Method):
    """Relation refinement: a sliding window of negatives for the generator, a self-paced weight for the student."""

    Config = AdaDFKDConfig
    privileges = Privileges(gradients=True, bn_statistics=True, penultimate=True)
    paper = "Li et al., Neural Networks 177, 106386 (AdaDFKD), and arXiv 2208.13648 (CuDFKD)"
    presets = {
        "official": {},
        "readme": {"adv_mask": "agree", "alpha_0": 0.0, "grad_adv": 0.15},
        "textbook": {"spl_granularity": "sample", "proj": "learned"},
        "student-only": {"gamma": 0.0},
        "no-ring": {"k": 1.0},
        "cudfkd": {"gamma": 0.0, "eta": 0.0},
    }
    default_preset = "official"
    # From the scripts at that commit; a pair without a script has the settings of the most similar pair. k, gamma, eta
    # and alpha are left out for presets that set them.
    task_settings = (
        ("*", "cifar10/*|cifar10-16/*", {"latent_dim": 512, "lambda_slope": 1e-4}),
        ("*", "cifar10/*-resnet18", {"f_b": 0.25, "f_e": 0.75, "queue_size": 4096}),
        ("official|readme|textbook|student-only|cudfkd", "cifar10/*-resnet18", {"k": 0.9}),
        ("*", "cifar10/resnet34-wrn*", {
            "T_kd": 10.0, "queue_size": 4096, "batch_size": 256, "epochs": 1000, "lambda_0": 1.2,
        }),
        ("official|readme|textbook|student-only|cudfkd", "cifar10/resnet34-wrn*", {"k": 0.78}),
        ("official|textbook|student-only|no-ring|cudfkd", "cifar10/resnet34-wrn*", {
            "alpha_0": 0.1, "grad_adv": 0.01,
        }),
        ("*", "cifar10/wrn*", {
            "queue_size": 8192, "batch_size": 1024, "epochs": 500, "f_b": 0.0, "f_e": 0.75, "lambda_0": 1.5,
        }),
        ("*", "cifar100/*", {"T_kd": 2.0, "epochs": 500, "lambda_0": 1.2, "latent_dim": 512}),
        ("*", "cifar100/*-resnet18", {
            "kd_loss": "l1", "T_kd": 5.0, "queue_size": 12288, "batch_size": 1024, "epochs": 400, "lambda_0": 1.0,
        }),
        ("*", "cifar100/resnet34-wrn*", {"queue_size": 12288, "epochs": 700}),
        ("official|readme|textbook|student-only|cudfkd", "cifar100/resnet34-wrn*", {"k": 0.7}),
        ("*", "cifar100/wrn*", {"queue_size": 16384, "batch_size": 1024, "f_e": 0.79}),
        ("official|readme|textbook|student-only|no-ring", "cifar100/wrn*", {"eta": 0.15}),
        ("*", "tiny-imagenet/*", {
            "kd_loss": "l1", "T_kd": 5.0, "queue_size": 16384, "batch_size": 256, "epochs": 500, "f_e": 0.75,
            "lambda_0": 1.3,
        }),
        ("official|readme|textbook|student-only|cudfkd", "tiny-imagenet/*", {"k": 0.81}),
        ("official|readme|textbook|no-ring", "tiny-imagenet/*", {"gamma": 0.05}),
        ("official|readme|textbook|student-only|no-ring", "tiny-imagenet/*", {"eta": 0.02}),
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"queue_size": 1024}),  # their batch is small
        ("official", "digits16/*|*mnist/*|cifar10-16/*", {"student_steps": 2}),  # tuned on digits16
    )  # fmt: skip
    pinned = {"generator_width": "generator_width", "batch_size": "batch_size"}
    search = {"gen_lr": (1e-3, 3e-3), "T_kd": (4.0, 20.0), "student_steps": (1, 2)}

    config: AdaDFKDConfig

    @property
    def flags(self) -> Flags:
        """One generator step, then ten student steps on images of G in eval mode."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, student_steps=c.student_steps, rounds_per_epoch=40, rowwise=True
        )

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.1 / 0.9 / 1e-4, cosine to zero, updated per epoch."""
        c = self.config
        return StudentRecipe(weight_decay=1e-4, unit="epoch", batch_size=c.batch_size, epochs=c.epochs)

    def setup(self, context: Context) -> None:
        """Build G, the queue Q and, if feature widths differ, the projection."""
        super().setup(context)
        c, task = self.config, context.task
        K = -(-c.queue_size // task.batch_size) * task.batch_size
        if not (0.0 < c.k <= 1.0 <= c.k * K and 0.0 <= c.f_b <= c.f_e <= 1.0):
            raise ValueError("the window needs 0 < k <= 1, at least one negative, and 0 <= f_b <= f_e <= 1")
        plan = LARGE if min(task.image_shape[1:]) < 64 else DEEP
        G = Generator(task.image_shape, c.latent_dim, c.generator_width, plan=plan, output="sigmoid")
        reinitialise(G, 0.02)
        self.stream = Stream(context, G, c.latent_dim, lr=c.gen_lr, betas=(0.9, 0.99))

        self.d_S, self.d_T = context.student.feature_dim, context.teacher.feature_dim
        self.Q = context.register("queue", FeatureQueue(self.d_T, K, task.batch_size, context.device))
        self.projection: nn.Linear | None = None
        if self.d_S != self.d_T and c.proj != "fresh":
            linear = nn.Linear(self.d_S, self.d_T)
            if c.proj == "learned":
                context.companion("projection", linear)
            else:
                context.register("projection", linear.requires_grad_(False))
            self.projection = linear
        self.bn_running = context.teacher.bn_statistics if c.w_bn else ()
        self.objective = context.compile(self.L_G)

    # -- the schedules --------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The published epoch e in 0..E-1 that corresponds to the current round."""
        progress = self.context.progress
        return progress.round * self.config.epochs // progress.rounds  # integers avoid rounding errors

    def hardness(self, e: int) -> float:
        """h(e), from 0 (the easiest negatives) to 1 - k (the hardest)."""
        c = self.config
        e_b, width = math.floor(c.f_b * c.epochs), math.floor((c.f_e - c.f_b) * c.epochs)
        return min(max((1.0 - c.k) * (e - e_b) / max(1, width), 0.0), 1.0 - c.k)

    def alpha(self, e: int) -> float:
        """alpha in epoch e; the code sets it at the end of an epoch, so it is one epoch late (B11)."""
        c = self.config
        e_b, e_e = math.floor(c.f_b * c.epochs), math.floor(c.f_e * c.epochs)
        return c.alpha_0 + c.grad_adv * min(max(e - 1 - e_b, 0), e_e - e_b)

    def threshold(self, t: float) -> float:
        """lambda_t at published student step t in 0..400 E."""
        return self.config.lambda_0 + self.config.lambda_slope * t

    @property
    def lambda_t(self) -> float:
        """The threshold at the published step that corresponds to the current step."""
        progress = self.context.progress
        return self.threshold(progress.student_step / progress.student_steps * self.config.epochs * STEPS_PER_EPOCH)

    # -- the generator --------------------------------------------------------------------------------------------

    def L_G(
        self, z: Tensor, alpha: Tensor, N_h: Tensor, map_S: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Terms, Tensor]:
        """L_G, its terms, and the keys k_i (n, d) for the queue. N_h (2,): see `window`."""
        c = self.config
        x = self.stream.images(z, None)
        taps = PENULTIMATE if c.gamma else ()
        teacher = self.context.teacher(x, taps=PENULTIMATE if c.gamma or c.w_act else (), moments=bool(c.w_bn))
        student = self.context.student(x, taps=taps)
        s, t = student.logits, teacher.logits
        parts = {
            "H": (c.w_ent, -balance_loss(t, temperature=c.ent_temperature or c.T_kd)),
            "L_oh": (c.w_oh, one_hot_loss(t)),
        }
        if c.w_act:
            parts["L_act"] = c.w_act, activation_loss(teacher.features)
        if c.w_bn:
            parts["L_bn"] = c.w_bn, bn_statistics_loss(teacher.moments, self.bn_running)
        keys = x.new_empty(0)
        if c.gamma:
            q = F.normalize(at_least_fp32(teacher.features), dim=1)
            keys = F.normalize(project(at_least_fp32(student.features), map_S), dim=1).detach()
            parts["L_R2M"] = c.gamma, r2m_loss(q, keys, self.Q.columns, N_h, c.tau)
        L_adv = self.L_adv(s, t)
        total, terms = weighted(parts)
        return total + alpha * L_adv, {**terms, "L_adv": L_adv.detach()}, keys

    def L_adv(self, s: Tensor, t: Tensor) -> Tensor:
        """-9 KL at temperature 3, or 1 - JS with JS clipped to [0, 1]; gradients through both networks."""
        if self.config.adv_type == "js":
            return 1.0 - js_divergence(s, t).clamp(0.0, 1.0)
        divergence = 9.0 * kl_per_sample(s, t, 3.0)
        if self.config.adv_mask == "agree":
            divergence = divergence * (s.argmax(1) == t.argmax(1))
        return -divergence.mean()

    def synthesize(self) -> Mapping[str, Tensor]:
        """One step of G; then the batch's keys replace the oldest ones in the queue."""
        e, device = self.epoch, self.context.device
        h, alpha = self.hardness(e), torch.tensor(self.alpha(e), device=device)
        N_h = torch.tensor(window(h, self.config.k, self.Q.columns.shape[1]), device=device)
        z, _ = self.stream.draw(self.context.task.batch_size, self.context.stream("synthesis"))
        self.stream.G.train()
        total, terms, keys = self.objective(z, alpha, N_h, self.map_S("synthesis"))
        self.stream.descend(total)
        self.context.count(synthesised=len(z))
        if self.config.gamma:
            self.Q.push(keys)
        schedules = {"h": h, "lambda": self.lambda_t}
        logged = {name: torch.tensor(value, device=device) for name, value in schedules.items()}
        return {"L_G": total.detach(), **terms, "alpha": alpha, **logged}

    # -- the student ----------------------------------------------------------------------------------------------

    def sample(self, n: int) -> Batch:
        """New images, G in eval mode."""
        return self.stream.sample(n, self.context.stream("sample"), train=False)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """L_S: l times its self-paced weight v(l; lambda_t)."""
        c, s, t = self.config, student.logits, teacher.logits
        l_KD = c.T_kd**2 * kl_per_sample(s, t, c.T_kd) if c.kd_loss == "kl" else (s - t).abs().mean(1)
        loss = l_KD if c.spl_granularity == "sample" else l_KD.mean()
        if c.eta:
            map_S = self.map_S("distillation", gradient=True)
            loss = loss + c.eta * relation_loss(
                teacher.features, project(at_least_fp32(student.features), map_S), c.tau
            )
        return (self_paced_weight(loss.detach(), self.lambda_t, c.spl) * loss).mean()

    def map_S(self, name: str, gradient: bool = False) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the projection of student features to the teacher's width; None if widths are equal."""
        if self.d_S == self.d_T:
            return None
        if self.projection is not None:
            weight, bias = self.projection.weight, self.projection.bias
            return (weight, bias) if gradient else (weight.detach(), bias.detach())
        # torch's default initialisation of a linear layer, drawn from our stream
        bound, stream = 1.0 / math.sqrt(self.d_S), self.context.stream(f"projection/{name}")
        draw = torch.rand(self.d_T, self.d_S + 1, generator=stream, device=self.context.device)
        draw = (2.0 * draw - 1.0) * bound
        return draw[:, :-1], draw[:, -1]

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """As `sample`."""
        return self.stream.preview(n, stream, train=False)


def project(f_S: Tensor, map_S: tuple[Tensor, Tensor] | None) -> Tensor:
    """Student features (n, d_S) projected to the teacher's width."""
    return f_S if map_S is None else F.linear(f_S, *map_S)


def window(h: float, k: float, K: int) -> tuple[int, int]:
    """N_h: first rank and end (exclusive) of the window, rounded down as published, so its size varies."""
    return math.floor(h * K), math.floor((h + k) * K)


def r2m_loss(q: Tensor, keys: Tensor, queue: Tensor, N_h: Tensor, tau: float) -> Tensor:
    """L_R2M for anchors q (n, d), keys (n, d), queue (d, K) and the window N_h (2,) of its sorted columns."""
    with torch.autocast(q.device.type, enabled=False):
        positive = (q * keys).sum(1, keepdim=True) / tau
        negatives = (q @ queue).sort(dim=1).values / tau
        ranks = torch.arange(queue.shape[1], device=q.device)
        outside = (ranks < N_h[0]) | (ranks >= N_h[1])  # a mask, because a slice would need a new graph per window
        negatives = negatives.masked_fill(outside, -math.inf)
        return -F.log_softmax(torch.cat([positive, negatives], dim=1), dim=1)[:, 0].mean()


def relation_loss(f_T: Tensor, f_S: Tensor, tau: float) -> Tensor:
    """L_rel for features (n, d): contrastive loss of each teacher row with the student's row of the same image."""
    with torch.autocast(f_S.device.type, enabled=False):
        cosine = F.normalize(at_least_fp32(f_T), dim=1) @ F.normalize(at_least_fp32(f_S), dim=1).T
        return -F.log_softmax(cosine / tau, dim=1).diagonal().mean()


def self_paced_weight(loss: Tensor, threshold: float, family: str) -> Tensor:
    """v(l; lambda) in [0, 1]: 1 for loss 0, lower for higher losses."""
    if family == "log":
        return (1.0 + math.exp(-threshold)) * torch.sigmoid(threshold - loss)
    if family == "soft":
        return (1.0 - loss / threshold).clamp_min(0.0)
    if family == "hard":
        return (loss < threshold).to(loss.dtype)
    return torch.ones_like(loss)
