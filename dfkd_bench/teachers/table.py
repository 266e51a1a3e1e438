"""The registered teachers as rows of a table. Plain data: no torch, no drawing."""

from __future__ import annotations

from dfkd_bench.teachers.registry import SHIPPED, Teacher, teachers

COLUMNS = ("name", "dataset/model", ">top-1 %", "SHA-256", "origin")  # `>`: numbers


def rows() -> list[list[str]]:
    """One row per teacher, plain text: what it is, and in the last column whose, from where, and what is unusual."""
    return [
        [t.name, f"{t.dataset}/{t.arch}", f"{t.top1:.2f}", t.sha256[:8], "; ".join(remarks(t))]
        for t in teachers().values()
    ]


def remarks(t: Teacher) -> list[str]:
    """Whose it is, what is unusual about it, and of one that was not trained here, where it comes from."""
    found = ["shipped" if t.home == SHIPPED else "yours"]
    if t.label_noise:
        found.append(f"{100 * t.label_noise:g} % label noise")
    if t.mean:
        mean, std = (" ".join(f"{x:g}" for x in values) for values in (t.mean, t.std))
        found.append(f"own normalisation (mean {mean}, std {std})")
    found += [f"{key} {value}" for key, value in t.options.items()]
    return found if t.seed >= 0 else [*found, t.origin]
