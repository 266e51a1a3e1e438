"""Distances between real and synthetic images: by hand, against SciPy, and against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from dfkd_bench import models
from dfkd_bench.metrics import distances as module
from dfkd_bench.metrics.base import View
from dfkd_bench.metrics.distances import features_of, frechet_distance, neighbour_metrics, radii
from dfkd_bench.metrics.evaluate import student_metrics
from dfkd_bench.metrics.recorded.realism import realism


def drawn(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_frechet_of_two_normals_by_hand() -> None:
    """In one dimension (m_r - m_f)^2 + (s_r - s_f)^2: means 0 and 5, standard deviations 1 and 3."""
    unit = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    assert frechet_distance(unit, 3.0 * unit + 5.0) == pytest.approx(25.0 + 4.0, abs=1e-12)
    assert frechet_distance(unit, unit.flip(0)) == pytest.approx(0.0, abs=1e-12)
    assert frechet_distance(unit, unit[:1]) is None


@pytest.mark.parametrize(("n", "m", "d"), [(50, 70, 8), (9, 6, 20), (40, 8, 20)])
def test_frechet_is_that_of_matrix_roots_at_any_rank(n: int, m: int, d: int) -> None:
    real, made = drawn(n, d, 1), drawn(m, d, 2, 0.3, 1.7) * torch.linspace(0.1, 2.0, d, dtype=torch.float64)
    c_r, c_f = (np.cov(x.numpy(), rowvar=False) for x in (real, made))
    gap = (real.mean(0) - made.mean(0)).square().sum()
    expected = float(gap) + np.trace(c_r + c_f) - 2.0 * np.trace(sqrtm(c_r @ c_f).real)
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-6)


def test_manifolds_by_hand() -> None:
    """On a line, k = 1: real balls of 1 around 0 and 1, 3 around 4; made ones of 0.3 at 0.5 and 0.8, 29.2 at 30."""
    real = torch.tensor([[0.0], [1.0], [4.0]], dtype=torch.float64)
    made = torch.tensor([[0.5], [0.8], [30.0]], dtype=torch.float64)
    assert radii(real, 1).tolist() == [1.0, 1.0, 3.0]
    found = neighbour_metrics(real, made, 1)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)  # 1 is 0.2 from 0.8; 4 is 26 from 30
    assert found["density"] == pytest.approx((2 + 2 + 0) / 3)  # 0.8 is 3.2 from 4
    assert found["coverage"] == pytest.approx(2 / 3)
    assert neighbour_metrics(real, made, 3) == dict.fromkeys(("precision", "recall", "density", "coverage"))


def test_manifolds_are_those_of_brute_force_whatever_is_looked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made, k = drawn(37, 3, 1), drawn(29, 3, 2, 1.5, 1.0), 5

    def gap(a: Tensor, b: Tensor) -> float:
        return math.dist(a.tolist(), b.tolist())

    def width(x: Tensor, j: int) -> float:
        return sorted(gap(x[j], other) for i, other in enumerate(x) if i != j)[k - 1]

    inside_real = [[gap(f, r) < width(real, i) for i, r in enumerate(real)] for f in made]
    inside_made = [[gap(f, r) < width(made, j) for j, f in enumerate(made)] for r in real]
    expected = {
        "precision": sum(map(any, inside_real)) / len(made),
        "recall": sum(map(any, inside_made)) / len(real),
        "density": sum(map(sum, inside_real)) / (k * len(made)),
        "coverage": sum(any(row[i] for row in inside_real) for i in range(len(real))) / len(real),
    }
    assert len(set(expected.values())) == 4
    assert all(0.0 < v < 1.0 for v in expected.values())
    assert neighbour_metrics(real, made) == pytest.approx(expected)
    monkeypatch.setattr(module, "AT_A_TIME", 8)
    assert neighbour_metrics(real, made) == pytest.approx(expected)


def test_the_same_images_are_at_no_distance_and_noise_is_far_away() -> None:
    teacher = models.build("cnn16", 10, (1, 16, 16)).train()
    real = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    same, far = realism(teacher, real, real), realism(teacher, real, 5.0 * torch.randn(64, 1, 16, 16))
    assert same["frechet"] == pytest.approx(0.0, abs=1e-9)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    assert far["frechet"] is not None
    assert far["frechet"] > 0.1
    assert far["precision"] == far["coverage"] == 0.0


def test_features_are_those_of_the_network_in_eval_mode_batch_by_batch() -> None:
    teacher = models.build("cnn16", 10, (1, 16, 16)).train()
    images = torch.rand(7, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = features_of(teacher, images, batch_size=3)
    assert not teacher.training
    assert found.dtype == torch.float64
    expected = teacher.observe(images, ("penultimate",)).features.double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_run_is_judged_beside_all_test_images() -> None:
    teacher, student = (models.build("cnn16", 10, (1, 16, 16)).eval() for _ in range(2))
    images, labels = torch.rand(30, 1, 16, 16), torch.arange(30) % 10
    made = torch.rand(20, 1, 16, 16)
    s, t = student(images).detach(), teacher(images).detach()
    view = View([50.0], [None], [20.0], 50.0, teacher, student, t, s, labels, images, made, None)
    assert student_metrics(view)["realism"] == realism(teacher, images, made)
    assert student_metrics(replace(view, synthetic=None))["realism"] is None


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_images_that_are_not_finite_have_no_distances(spoilt: float) -> None:
    teacher = models.build("cnn16", 10, (1, 16, 16)).eval()
    images = torch.rand(30, 1, 16, 16)
    made = images.clone()
    made[3] = spoilt
    assert realism(teacher, images, made) == dict.fromkeys(("frechet", "precision", "recall", "density", "coverage"))
