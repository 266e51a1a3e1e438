"""Terms that a dataset brings for the tasks on it: those of the pinned track, and of training a teacher.

Plain data: listing it imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dfkd_bench.recipe import StudentRecipe


@dataclass(frozen=True)
class Pinned:
    """What the pinned track fixes for every method of a task."""

    batch_size: int
    generator_width: int
    student_images: dict[str, int]  # per budget: images the student is trained on, repeats counted
    evaluations: dict[str, int]  # per budget: snapshots at equal distances, each evaluated after the run
    recipe: StudentRecipe


SMALL_RECIPE = StudentRecipe(lr=0.1, weight_decay=5e-4, schedule="cosine", warmup=0.05)


def small_pinned(smoke_steps: int, smoke_evaluations: int) -> Pinned:
    """Terms of the datasets that a CPU gets through: the same for all of them but for the length of a smoke run."""
    batch = 128
    return Pinned(
        batch_size=batch,
        generator_width=16,
        student_images={
            "smoke": smoke_steps * batch,
            "quick": 300 * batch,
            "standard": 2000 * batch,
            "full": 10000 * batch,
        },
        evaluations={"smoke": smoke_evaluations, "quick": 10, "standard": 20, "full": 50},
        recipe=SMALL_RECIPE,
    )


# the field's most common budget: 80,000 steps of 256 images
USUAL = Pinned(
    batch_size=256,
    generator_width=64,
    student_images={"smoke": 6 * 256, "quick": 2000 * 256, "standard": 16000 * 256, "full": 80000 * 256},
    evaluations={"smoke": 2, "quick": 10, "standard": 40, "full": 100},
    recipe=StudentRecipe(lr=0.1, weight_decay=5e-4, schedule="cosine", warmup=0.02),
)


@dataclass(frozen=True)
class TeacherRecipe:
    """How long a teacher is trained and with what: plain cross-entropy, the dataset's augmentation."""

    epochs: int
    batch_size: int
    optimiser: StudentRecipe
    threads: int = 2  # on CPU; part of the recipe because their number changes bits

    def changed(
        self, epochs: int | None, batch_size: int | None, lr: float | None, weight_decay: float | None
    ) -> TeacherRecipe:
        """The same but for what is given."""
        usual = self.optimiser
        optimiser = replace(
            usual,
            lr=usual.lr if lr is None else lr,
            weight_decay=usual.weight_decay if weight_decay is None else weight_decay,
        )
        return replace(
            self, epochs=epochs or self.epochs, batch_size=batch_size or self.batch_size, optimiser=optimiser
        )


# the recipe published with several methods for 32 px and more; short ones for what a CPU gets through
USUAL_TEACHER = TeacherRecipe(100, 64, StudentRecipe(lr=0.1, weight_decay=5e-4))
SMALL_TEACHER = StudentRecipe(lr=0.1, weight_decay=5e-4, nesterov=True)
