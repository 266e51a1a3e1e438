"""Terms of a dataset's tasks: what the pinned track fixes, and the recipe for training a teacher.

Importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dfkd_bench.recipe import StudentRecipe


@dataclass(frozen=True)
class Pinned:
    """What the pinned track fixes for every method of a task."""

    batch_size: int
    generator_width: int
    student_images: dict[str, int]  # per budget: images that the student is trained on, repeated ones included
    evaluations: dict[str, int]  # per budget: snapshots at equal intervals, each evaluated after the run
    recipe: StudentRecipe


SMALL_RECIPE = StudentRecipe(lr=0.1, weight_decay=5e-4, schedule="cosine", warmup=0.05)


def small_pinned(smoke_steps: int, smoke_evaluations: int) -> Pinned:
    """Terms of the datasets that are small enough for a CPU; they differ only in the length of a smoke run."""
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
    """How a teacher is trained (cross-entropy, the dataset's augmentation): length, batch size, optimiser."""

    epochs: int
    batch_size: int
    optimiser: StudentRecipe
    threads: int = 2  # on CPU; part of the recipe because the number of threads changes the result's last bits

    def changed(
        self, epochs: int | None, batch_size: int | None, lr: float | None, weight_decay: float | None
    ) -> TeacherRecipe:
        """A copy with the given values; None keeps a value."""
        default = self.optimiser
        optimiser = replace(
            default,
            lr=default.lr if lr is None else lr,
            weight_decay=default.weight_decay if weight_decay is None else weight_decay,
        )
        return replace(
            self, epochs=epochs or self.epochs, batch_size=batch_size or self.batch_size, optimiser=optimiser
        )


# the recipe published with several methods for 32 px and more; a shorter one for datasets small enough for a CPU
USUAL_TEACHER = TeacherRecipe(100, 64, StudentRecipe(lr=0.1, weight_decay=5e-4))
SMALL_TEACHER = StudentRecipe(lr=0.1, weight_decay=5e-4, nesterov=True)
