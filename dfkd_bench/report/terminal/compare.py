"""Table of a comparison of two methods: one row per set of terms, and a sentence with each verdict below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfkd_bench import protocol
from dfkd_bench.report.tables.compare import Comparison, Side
from dfkd_bench.runs import settings

LEFT = "terms"
TERMS = ("task", *settings.TERMS, "teacher_sha256", "data_sha256", "protocol")
PREFIXES = {"task": "", "device": "", "precision": "", "teacher_sha256": "teacher ", "data_sha256": "data "}
MIN_P = 1e-4  # smaller p-values are shown as `< 0.0001`
EXPLAINED = (
    ("A, B", "test top-1 in % of the last checkpoint, mean over complete runs and its 95 % interval (t below 30 runs)"),
    (
        "A − B",
        "mean difference over n shared seeds in points, 95 % interval by Student t; the spread is at least that of "
        "rounding",
    ),
    ("p", "paired t-test; Holm: corrected for all rows shown; the verdict uses this column at 0.05"),
    (
        "McNemar",
        "p over the test images, valid for these trained students only; below: images that only A, only B gets right",
    ),
    ("P(A > B)", "probability that a run of A beats a run of B, ties count half, and its 95 % interval (Newcombe)"),
)


def show(console: Console, comparisons: Sequence[Comparison], a: str, b: str) -> None:
    """Print the table of the comparisons, then one verdict each; `a` and `b` are the names of the two sides."""
    differing = [name for name in TERMS if len({one.terms[name] for one in comparisons}) > 1]
    common = [_term(name, comparisons[0].terms[name]) for name in TERMS if name not in differing]
    console.print(f"\n[bold]A[/] {escape(a)}, [bold]B[/] {escape(b)}", highlight=False)
    console.print(escape(" · ".join(common)), style="dim", highlight=False)
    console.print(_table(comparisons, differing))
    for one in comparisons:
        where = ", ".join(_term(name, one.terms[name]) for name in differing) + ": " * bool(differing)
        style = {"better": "green", "worse": "red"}.get(one.verdict, "yellow")
        console.print(escape(where) + f"[bold {style}]{escape(verdict_sentence(one, a, b))}[/]", highlight=False)
        if len(one.images_by_seed) > 1:
            by_seed = ", ".join(f"seed {seed}: {p_text(test.p)}" for seed, test in one.images_by_seed.items())
            console.print(f"McNemar by seed: {by_seed}", style="dim", highlight=False)
    for what, meaning in EXPLAINED:
        if what != "McNemar" or any(one.images for one in comparisons):
            console.print(f"[bold]{escape(what)}[/]: {escape(meaning)}", style="dim", highlight=False)


def verdict_sentence(one: Comparison, a: str, b: str) -> str:
    """`a is better than b: +0.42 points [+0.10, +0.74], n = 5`, or a sentence that they are not distinguishable."""
    d = one.paired
    if d.n < 2:
        return f"{a} and {b}: not distinguishable with n = {d.n}, a difference needs two shared seeds"
    size = f"{points(d.mean)} points [{points(d.low)}, {points(d.high)}]"
    if one.verdict != "not distinguishable":
        return f"{a} is {one.verdict} than {b}: {size}, n = {d.n}"
    corrected = f" (p {p_text(d.p)}, but {p_text(one.p_holm)} after Holm's correction)" if d.p < 0.05 else ""
    return f"{a} and {b}: not distinguishable with n = {d.n}, {size}{corrected}"


def _table(comparisons: Sequence[Comparison], differing: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    images = any(one.images for one in comparisons)
    for header in (*[LEFT] * bool(differing), "A", "B", "n", "A − B", "p", "Holm", *["McNemar"] * images, "P(A > B)"):
        style = "bold" if header == "A − B" else None
        table.add_column(header, justify="left" if header == LEFT else "right", style=style, overflow="fold")
    for one in comparisons:
        d, chance = one.paired, one.improvement
        cells = ["\n".join(_term(name, one.terms[name]) for name in differing)] * bool(differing)
        cells += [_side(one.a), _side(one.b), _shared(one), _number(d.mean, d.low, d.high, points)]
        cells += [p_text(d.p), p_text(one.p_holm), *[_images(one)] * images]
        table.add_row(*map(escape, cells), _number(chance.mean, chance.low, chance.high, "{:.2f}".format))
        table.add_section()
    return table


def _term(name: str, value: str) -> str:
    """`budget quick`; without the term's name for those in `PREFIXES`."""
    if name == "protocol":
        return protocol.titled(value)
    return f"{PREFIXES.get(name, name + ' ')}{value[:8] if name.endswith('sha256') else value}"


def _side(side: Side) -> str:
    lines = [_number(side.mean.mean, side.mean.low, side.mean.high, "{:.2f}".format), *side.words]
    lines += [f"{n} {what}" for n, what in ((side.n_diverged, "diverged"), (side.n_failed, "failed")) if n]
    return "\n".join([*lines, *["a bound"] * side.bound])


def _shared(one: Comparison) -> str:
    n_runs = (len(one.a.values), len(one.b.values))
    return f"{one.paired.n}" + (f"\nof {n_runs[0]}, {n_runs[1]}" if n_runs != (one.paired.n,) * 2 else "")


def _images(one: Comparison) -> str:
    return "" if one.images is None else f"{p_text(one.images.p)}\n{one.images.only_a}, {one.images.only_b}"


def _number(mean: float, low: float, high: float, write: Callable[[float], str]) -> str:
    if math.isnan(mean):
        return "–"
    return write(mean) + ("" if math.isnan(low) else f"\n[{write(low)}, {write(high)}]")


def points(value: float) -> str:
    """Two decimals with a sign, but no sign if it rounds to zero."""
    text = f"{value:+.2f}"
    return text[1:] if float(text) == 0 else text


def p_text(p: float) -> str:
    """`0.031`, `< 0.0001`, or a dash."""
    if math.isnan(p):
        return "–"
    return f"< {MIN_P:.4f}" if p < MIN_P else f"{p:.{4 if p < 0.01 else 3 if p < 0.1 else 2}f}"
