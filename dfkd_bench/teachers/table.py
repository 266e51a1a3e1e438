"""The registered teachers as rows of a table. Importing this module imports no torch."""

from __future__ import annotations

from dfkd_bench.teachers.registry import SHIPPED, Teacher, teachers

COLUMNS = ("name", "dataset/model", ">top-1 %", "SHA-256", "origin")  # `>`: numbers


def rows() -> list[list[str]]:
    """One row of text per teacher, in the order of `COLUMNS`."""
    return [
        [t.name, f"{t.dataset}/{t.arch}", f"{t.top1:.2f}", t.sha256[:8], "; ".join(remarks(t))]
        for t in teachers().values()
    ]


def remarks(t: Teacher) -> list[str]:
    """Shipped or the user's, label noise, own normalisation and options; for an imported teacher also its origin."""
    parts = ["shipped" if t.home == SHIPPED else "yours"]
    if t.label_noise:
        parts.append(f"{100 * t.label_noise:g} % label noise")
    if t.mean:
        mean, std = (" ".join(f"{x:g}" for x in values) for values in (t.mean, t.std))
        parts.append(f"own normalisation (mean {mean}, std {std})")
    parts += [f"{key} {value}" for key, value in t.options.items()]
    return parts if t.seed >= 0 else [*parts, t.origin]
