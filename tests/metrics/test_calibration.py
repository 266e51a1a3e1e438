"""The calibration error: by hand, and against torchmetrics."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from dfkd_bench.metrics.recorded.fidelity import fidelity


def ece(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Of a student, as a record has it."""
    return fidelity(logits, logits, labels)["ece"]


def test_ece_is_the_gap_of_each_bin_weighted_by_its_share() -> None:
    """Four answers at confidence 0.9, three right; two at 0.62, both right; one that is certain, and wrong."""
    rows = [[0.9, 0.1]] * 4 + [[0.62, 0.38]] * 2 + [[1.0, 1e-300]]
    logits = torch.tensor(rows, dtype=torch.float64).log()
    labels = torch.tensor([0, 0, 0, 1, 0, 0, 1])
    assert ece(logits, labels) == pytest.approx((4 * 0.15 + 2 * 0.38 + 1 * 1.0) / 7, abs=1e-12)


def test_one_bin_holds_near_certainty_and_certainty() -> None:
    """Confidence 1.0 is no bin of its own: an error there is made up for by timid answers of the same bin."""
    logits = torch.tensor([[0.95, 0.05], [1.0, 1e-300]], dtype=torch.float64).log()
    labels = torch.tensor([0, 0])
    assert ece(logits, labels) == pytest.approx(0.025, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_ece_is_that_of_torchmetrics(classes: int) -> None:
    """On logits none of which is certain; torchmetrics counts in fp32."""
    g = torch.Generator().manual_seed(classes)
    logits = 2.0 * torch.randn(4000, classes, generator=g)
    labels = torch.where(
        torch.rand(4000, generator=g) < 0.5, logits.argmax(1), torch.randint(classes, (4000,), generator=g)
    )
    theirs = multiclass_calibration_error(torch.softmax(logits.double(), 1), labels, classes, n_bins=15, norm="l1")
    assert ece(logits, labels) == pytest.approx(float(theirs), abs=2e-6)
