"""The leaderboard in LaTeX: what is bold, what is missing, and names that mean something to TeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from factory import make_record
from pages import board_of

from dfkd_bench.report.latex import best, latex, tex

HOSTILE = ["<script>alert(1)</script>", "a_b%&", r"\input{x}", "~^$#{}", "é–ü'`\"", "\U0001f600\nsmile", "a--b|c[*]"]
OTHER = "mnist/lenet5-lenet5_half"


def text_of(*made: dict[str, Any]) -> str:
    return latex(board_of(*made))


def lines_of(text: str) -> dict[str, list[str]]:
    """Cells of each line of the tables by the method's name, marks and preset taken off."""
    rows = [line.strip().removesuffix("\\\\").split(" & ") for line in text.split("\n") if " & " in line]
    return {re.split(r"\$\^", row[0])[0]: [cell.strip() for cell in row[1:]] for row in rows}


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a_b%&", r"a\_b\%\&"),
        ("<b>", r"\textless{}b\textgreater{}"),
        (r"\x{y}", r"\textbackslash{}x\{y\}"),
        ("--[*]", "{-}{-}{[}{*}{]}"),
        ("two\n lines", "two lines"),
        ("é–\U0001f600\x07", "é–{[}U+1F600{]}{[}U+0007{]}"),
    ],
)
def test_text_is_printed_as_it_is(text: str, printed: str) -> None:
    assert tex(text) == printed


def test_the_best_and_what_lies_within_its_interval_is_bold() -> None:
    seeds = {
        "top": (90.0, 91.0, 92.0),
        "near": (88.6, 88.6, 88.6),
        "far": (88.0, 88.4, 88.6),
        "noise": (95.0, 95.0, 95.0),
    }
    made = [make_record(method=m, seed=k, last=v) for m, values in seeds.items() for k, v in enumerate(values)]
    found = lines_of(text_of(*made))
    # 91 +- t(0.975, 2) / sqrt(3) = 4.3027 * 1 / 1.7321 = 2.4841: from 88.5159 on
    assert found["top"][1] == r"$\mathbf{91.00 \pm 2.48}$"
    assert found["near"][1] == r"$\mathbf{88.60 \pm 0.00}$"
    assert found["far"][1] == r"$88.33 \pm 0.76$"
    assert found["noise"][1] == r"$95.00 \pm 0.00$"  # a bound


def test_one_seed_has_no_interval_and_only_equals_tie() -> None:
    rows = [
        {"last_mean": m, "last_ci95": float("nan"), "bound": b}
        for m, b in ((90.0, False), (90.0, False), (89.99, False), (99.0, True))
    ]
    assert best(rows) == {0, 1}
    assert best(rows[3:]) == set()
    assert lines_of(text_of(make_record(last=90.0)))["alpha"][1] == r"$\mathbf{90.00}$"


def test_bounds_stand_beneath_a_rule_and_marks_are_explained() -> None:
    text = text_of(make_record(last=90.0), make_record(method="scratch", last=99.0, privileges=("real_data",)))
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert re.findall(r"(\\midrule|alpha|scratch)", body) == [r"\midrule", "alpha", r"\midrule", "scratch"]
    assert r"alpha$^{\mathrm{G}}$" in body
    assert r"Uses: $^{\mathrm{G}}$\,gradients, $^{\mathrm{R}}$\,real data." in text


def test_several_tasks_have_an_overview_with_what_is_missing() -> None:
    made = [
        make_record(method=m, task=t, last=90.0) for m in ("alpha", "beta") for t in ("digits16/cnn32-cnn16", OTHER)
    ]
    text = text_of(*made[:-1])
    assert text.count(r"\begin{table}") == 3
    overview = lines_of(text[: text.index(r"\end{table}")])
    assert overview["Method"] == ["digits16/cnn32{-}cnn16", r"mnist/lenet5{-}lenet5\_half"]
    assert overview["beta"] == [r"$\mathbf{90.00}$", "--"]
    assert (
        text_of(make_record(), make_record(task=OTHER, track="recipe")).count(r"\begin{table}") == 2
    )  # never side by side


def test_failed_runs_are_counted() -> None:
    text = text_of(
        make_record(last=90.0), make_record(seed=1, status="failed"), make_record(method="gone", status="failed")
    )
    assert lines_of(text)["alpha"][0] == "1/1 failed"
    assert lines_of(text)["gone"][:2] == ["0/1 failed", "--"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_hostile_names_compile_and_are_printed_literally(tmp_path: Path) -> None:
    made = [make_record(method=m, task=t, last=90.0) for m in HOSTILE for t in ("digits16/cnn32-cnn16", OTHER)]
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{booktabs,textcomp}"
    (tmp_path / "a.tex").write_text(head + r"\begin{document}" + text_of(*made) + r"\end{document}")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    if shutil.which("pdftotext"):
        subprocess.run(["pdftotext", "-layout", "a.pdf"], cwd=tmp_path, check=True)
        printed = (tmp_path / "a.txt").read_text()
        assert all(name in printed for name in ("<script>alert(1)</script>", "a_b%&", r"\input{x}", "a--b|c[*]"))
