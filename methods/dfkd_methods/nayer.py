"""NAYER: noisy layer data generation for efficient and effective data-free knowledge distillation.

M.-T. Tran et al., CVPR 2024, arXiv 2310.00258. The generator's input is not noise but a constant vector per class;
randomness comes from a noisy linear layer between the two, which is reinitialised for every batch. Noisy layers and
generator take g steps on

    L = w_oh CE(T(x), y) + w_bn L_bn(m) - w_adv KL(T(x) || S(x)) [T and S agree]

and the best images are stored in a pool. Each noisy layer is used for one image per class. A round has several batches;
as published, the student is in train mode from the second batch on, and the lowest loss is that of the round, not of
the batch. `text` uses class vectors as in the paper, embeddings of the class names by an external language-image model,
from a user's file; this is declared as a privilege. `no-text`, the default, uses fixed random vectors. Both have 300
epochs on the recipe track; `-100` and `-200` have 100 and 200.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_bench.blocks.bn_stats import bn_statistics_loss
from dfkd_bench.blocks.disagreement import masked_kl
from dfkd_bench.blocks.generators import SMALL, Generator, reinitialise
from dfkd_bench.blocks.inversion import INFINITE, Inverter, SmoothedMoments, descend, invert
from dfkd_bench.blocks.losses import kd_loss
from dfkd_bench.blocks.streaming import Terms, weighted
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Context, Flags, Method, Moments, Outputs, Privileges, StudentRecipe, setting


@dataclass(frozen=True)
class NAYERConfig:
    """Weights of the loss first, then the noisy layers, the generator, the pool and the student."""

    w_oh: float = setting(0.5, "weight of the cross-entropy against the class labels")
    w_bn: float = setting(10.0, "weight of the BatchNorm statistics", privilege="bn_statistics")
    w_adv: float = setting(1.33, "weight of the disagreement where both predict the same class, after the warm-up")
    bn_momentum: float = setting(0.9, "m: weight of past batches in the BatchNorm moments")
    g_steps: int = setting(40, "inner steps per batch")
    gen_lr: float = setting(4e-3, "learning rate of the Adam of generator and noisy layers")
    gen_beta1: float = setting(0.5, "first-moment decay of that Adam")
    gen_life: int = setting(10, "rounds after which the generator is reinitialised", unit="rounds")
    noise_std: float = setting(1.0, "standard deviation of a noisy layer's initial weights")
    vectors: str = setting("random", "class vectors: random, or from class_vectors", choices=("random", "file"))
    class_vectors: str = setting("", "safetensors file with a tensor `vectors` (classes, d)", unit="file")
    vector_dim: int = setting(512, "size d of the random class vectors")
    latent_dim: int = setting(1000, "size of a noisy layer's output, the generator's latent")
    generator_width: int = setting(64, "base channels of the generator", unit="channels")
    synthesis_batch: int = setting(400, "images of an inverted batch", unit="images")
    synthesis_steps: int = setting(2, "inverted batches per round")
    warmup_synthesis_steps: int = setting(10, "inverted batches per round of the warm-up")
    warmup_epochs: int = setting(20, "epochs without distillation before the `epochs` with it; scaled with the run")
    pool_size: int = setting(320000, "capacity of the image pool", unit="images")
    temperature: float = setting(20.0, "softmax temperature of distillation")
    student_steps: int = setting(400, "student updates per round")
    student_lr: float = setting(0.2, "recipe track: learning rate of the student")
    batch_size: int = setting(512, "recipe track: size of a student batch", unit="images")
    epochs: int = setting(300, "recipe track: epochs with distillation, of one round each")


class NoisyGenerator(nn.Module):
    """Class vector, BatchNorm, noisy layer, generator; each group of `classes` rows has its own noisy layer."""

    output_space = "image01"
    vectors: Tensor

    def __init__(self, vectors: Tensor, layers: int, generator: Generator) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.norm = nn.BatchNorm1d(vectors.shape[1])
        self.noisy = nn.ModuleList(nn.Linear(vectors.shape[1], generator.latent_dim) for _ in range(layers))
        self.generator = generator

    def forward(self, y: Tensor) -> Tensor:
        """Images (n, channels, height, width) of classes y (n,)."""
        rows = self.norm(self.vectors[y]).split(len(self.vectors))
        images: Tensor = self.generator(torch.cat([layer(v) for layer, v in zip(self.noisy, rows, strict=True)]))
        return images


class NAYER(Method):
    """A constant vector per class and a noisy layer, reinitialised for each batch; an image pool."""

    Config = NAYERConfig
    privileges = Privileges(gradients=True, bn_statistics=True)
    preset_privileges = {
        "text": ("class_names", "external_model"),
        "text-200": ("class_names", "external_model"),
        "text-100": ("class_names", "external_model"),
    }
    paper = "Tran et al.: NAYER: Noisy Layer Data Generation, CVPR 2024, arXiv 2310.00258"
    presets = {
        "no-text": {},
        "no-text-200": {"epochs": 200, "pool_size": 240000},
        "no-text-100": {"epochs": 100, "pool_size": 160000},
        "text": {"vectors": "file"},
        "text-200": {"vectors": "file", "epochs": 200, "pool_size": 240000},
        "text-100": {"vectors": "file", "epochs": 100, "pool_size": 160000},
    }
    default_preset = "no-text"
    task_settings = (
        ("*", "cifar10/*", {"g_steps": 30}),
        ("*", "tiny-imagenet/*", {"g_steps": 60, "synthesis_batch": 200, "synthesis_steps": 4}),
        ("*", "tiny-imagenet/*", {"warmup_synthesis_steps": 20, "student_steps": 1000}),
        ("*", "tiny-imagenet/*", {"student_lr": 0.1, "batch_size": 256}),
        # small images need fewer steps and batches; rounds of the warm-up have five times as many batches, as published
        ("*", "digits16/*|*mnist/*|cifar10-16/*", {"g_steps": 30, "synthesis_steps": 1, "warmup_synthesis_steps": 5}),
        ("no-text", "digits16/*|*mnist/*|cifar10-16/*", {"gen_lr": 1e-2, "temperature": 4.0}),  # tuned on digits16
    )
    budget_settings = {"smoke": {"g_steps": 2, "student_steps": 5}}
    pinned = {"generator_width": "generator_width", "synthesis_batch": "batch_size"}
    search = {"gen_lr": (4e-3, 1e-2), "w_adv": (0.5, 1.33), "temperature": (4.0, 20.0)}

    config: NAYERConfig

    @property
    def flags(self) -> Flags:
        """A round is one call of the published synthesis; the warm-up is a fraction of the run."""
        c = self.config
        return Flags(
            synthesis_steps=c.synthesis_steps, warmup_synthesis_steps=c.warmup_synthesis_steps,
            student_steps=c.student_steps, rounds_per_epoch=1, warmup_fraction=c.warmup_epochs / c.epochs,
            student_mode=("eval", "train"),
        )  # fmt: skip

    @property
    def recipe(self) -> StudentRecipe:
        """SGD 0.2 / 0.9 / 1e-4, cosine to 2e-4 over 300 epochs, batch 512; on Tiny-ImageNet 0.1 and 256."""
        c = self.config
        return StudentRecipe(
            lr=c.student_lr, weight_decay=1e-4, unit="epoch", floor=2e-4, batch_size=c.batch_size, epochs=c.epochs
        )

    def setup(self, context: Context) -> None:
        """Build class vectors, noisy layers, generator, smoothed moments and the image pool."""
        super().setup(context)
        c, task = self.config, context.task
        vectors = self.class_vectors(context)
        layers = -(-c.synthesis_batch // task.classes)
        generator = Generator(task.image_shape, c.latent_dim, c.generator_width, plan=SMALL, output="sigmoid")
        self.G: NoisyGenerator = context.register("generator", NoisyGenerator(vectors, layers, generator))
        self.moments = context.register("moments", SmoothedMoments(c.bn_momentum))
        self.calls = context.state("calls", 0)
        self.lowest = INFINITE
        self.bn_running = context.teacher.bn_statistics
        self.inverter = Inverter(context, c.pool_size)

    def class_vectors(self, context: Context) -> Tensor:
        """Class vectors (classes, d) from the user's file, or random. Raises `RunError` for a missing or wrong file."""
        c, classes = self.config, context.task.classes
        if c.vectors == "random" and not c.class_vectors:
            return torch.randn(classes, c.vector_dim)
        if not c.class_vectors:
            raise RunError("preset text needs the class vectors: --set class_vectors=FILE.safetensors")
        vectors = context.asset(c.class_vectors).get("vectors", torch.empty(0))
        if vectors.dim() != 2 or len(vectors) != classes:
            raise RunError(f"class_vectors needs a tensor `vectors` ({classes}, d), got {tuple(vectors.shape)}")
        return vectors.float()

    def invert(
        self, stream: torch.Generator, G: NoisyGenerator, lowest: Tensor
    ) -> tuple[Tensor, Tensor, Terms, tuple[Moments, ...]]:
        """Reinitialise the noisy layers and take g steps: best images, labels, log, moments of the last step."""
        c, context = self.config, self.context
        reinitialise(G.noisy, c.noise_std, stream)
        y = self.inverter.labels(c.synthesis_batch, stream, balanced=True)
        adam = torch.optim.Adam(G.parameters(), c.gen_lr, (c.gen_beta1, 0.999))
        seen: tuple[Moments, ...] = ()

        def objective(x: Tensor) -> tuple[Tensor, Terms]:
            nonlocal seen
            view = self.inverter.augmented(x, stream)
            teacher = context.teacher(view, moments=bool(c.w_bn))
            seen = teacher.moments
            parts = {"L_oh": (c.w_oh, F.cross_entropy(teacher.logits, y))}
            if c.w_bn:
                parts["L_bn"] = c.w_bn, bn_statistics_loss(self.moments.blend(seen), self.bn_running)
            if c.w_adv and not context.progress.warmup:
                parts["D_agree"] = -c.w_adv, masked_kl(context.student(view).logits, teacher.logits)
            return weighted(parts)

        G.train()
        best, log = invert(lambda: self.inverter.render(G, y), objective, descend(adam), c.g_steps, lowest)
        return best, y, log, seen

    def synthesize(self) -> Mapping[str, Tensor]:
        """Invert one batch with balanced classes and store it; reinitialise the generator every `gen_life` rounds.

        As published, these rounds are counted both from the first round and from the first round after the warm-up.
        """
        progress, stream = self.context.progress, self.context.stream("synthesis")
        if progress.synthesis_step == 0:
            self.lowest = INFINITE
            if any((self.calls.value - first) % self.config.gen_life == 0 for first in (0, progress.warmup_rounds)):
                reinitialise(self.G.norm, None, stream)
                reinitialise(self.G.generator, None, stream)
        best, y, log, seen = self.invert(stream, self.G, self.lowest)
        self.calls.value += progress.synthesis_step == 0
        self.lowest = log["L_inv"]
        self.moments.update(seen)
        self.inverter.keep(best, y)
        return log

    def sample(self, n: int) -> Batch:
        """Augmented images from the pool."""
        return self.inverter.sample(n, self.context.stream("sample"))

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """KL at the method's temperature."""
        return kd_loss(student.logits, teacher.logits, temperature=self.config.temperature)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """Newly inverted images from copies of generator and noisy layers; changes no state."""

        def make(m: int, s: torch.Generator) -> tuple[Tensor, Tensor]:
            x, y, *_ = self.invert(s, copy.deepcopy(self.G), INFINITE)
            return x[:m], y[:m]

        return self.inverter.preview(n, stream, make, size=self.config.synthesis_batch)
