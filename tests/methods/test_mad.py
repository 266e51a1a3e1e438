"""MAD: the generator's terms, the slow copy and its average, and the two sources of the student's batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference_blocks as blocks
import torch
from hooks import array
from stream_jobs import BATCH, CLASSES, build, make, student_batch, synthesis
from tiny import buffers, make_job

from dfkd_bench.models.cnn import CNN
from dfkd_bench.training.loop import Job
from dfkd_methods.mad import MADConfig

TERMS = {"L_nll": "w_nll", "L_bn": "w_bn", "D": "w_adv"}
LABELLED = {"conditional": "yes"}  # what it does from 100 classes on


pytestmark = pytest.mark.usefixtures("double")


def mad(job: Job) -> Any:
    return job.method


def state(module: Any) -> dict[str, Any]:
    return {k: array(v) for k, v in module.state_dict().items()}


# -- the generator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "labelled"), [(10, False), (99, False), (100, True)])
def test_labels_are_for_many_classes(classes: int, labelled: bool) -> None:
    method: Any = build("mad")
    make_job(method, CNN(2, classes, 1, 5), CNN(2, classes, 1, 5), classes=classes, filled=False)
    assert method.conditional == labelled
    assert ("embedding.weight" in dict(method.stream.G.named_parameters())) == labelled
    with torch.no_grad():
        assert (method.sample(4).labels is not None) == labelled


def test_the_label_is_added_to_the_latent() -> None:
    job = make("mad", **LABELLED)
    G = mad(job).stream.G.eval()
    z, y = torch.randn(3, 4), torch.tensor([3, 0, 3])
    torch.testing.assert_close(G(z, y), G.generator(z + G.embedding.weight[y]))
    assert tuple(G.embedding.weight.shape) == (CLASSES, 4)


def test_the_penalty_shrinks_the_embeddings_of_the_batch_alone() -> None:
    job = make("mad", w_nll=0.0, w_bn=0.0, w_adv=0.0, w_norm=1.0, **LABELLED)
    G = mad(job).stream.G
    step = synthesis(job)
    table = array(step.before["embedding.weight"])
    expected = np.zeros_like(table)
    for label in step.y:
        expected[label] += 2.0 * table[label] / BATCH
    np.testing.assert_allclose(array(G.embedding.weight.grad), expected, rtol=1e-9, atol=1e-12)
    assert set(step.y) != set(range(CLASSES)), "one class must be missing"
    convolutions = [p.grad for name, p in G.named_parameters() if name != "embedding.weight"]
    assert all(g is None or not g.any() for g in convolutions)


# -- the slow copy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.95, 0.5])
def test_the_slow_copy_follows_the_formula(momentum: float) -> None:
    job = make("mad", momentum=momentum)
    method = mad(job)
    for _ in range(3):
        slow = state(method.slow.module)
        synthesis(job)
        fast = state(method.stream.G)  # after the update, running statistics included
        for name, value in state(method.slow.module).items():
            if "num_batches" in name:
                np.testing.assert_array_equal(value, fast[name])
            else:
                expected = momentum * slow[name] + (1.0 - momentum) * fast[name]
                np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-14)
    assert MADConfig().momentum == 0.95


# -- the student ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", ["yes", "no"])
def test_half_of_a_batch_is_of_each_source(conditional: str) -> None:
    job = make("mad", conditional=conditional)
    method = mad(job)
    for module in (method.slow.module, method.stream.G):
        module.train(module is method.slow.module)  # sample sets both modes, whatever they were
    statistics = [buffers(method.stream.G), buffers(method.slow.module)]
    with torch.no_grad():
        batch = method.sample(7)
    z, y = batch.latents, batch.labels
    assert batch.images.shape == (7, 1, 8, 8)
    assert method.stream.G.training
    assert not method.slow.module.training
    assert not torch.equal(buffers(method.stream.G), statistics[0])
    assert torch.equal(buffers(method.slow.module), statistics[1])
    with torch.no_grad():
        labels = ((), ()) if y is None else ((y[:3],), (y[3:],))
        fast, slow = method.stream.G(z[:3], *labels[0]), method.slow.module(z[3:], *labels[1])
    torch.testing.assert_close(batch.images, (torch.cat([fast, slow]) - 0.5) / 0.5)
    assert not batch.images.requires_grad
    assert len(torch.unique(z, dim=0)) == 7


@pytest.mark.parametrize("mix", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("n", [6, 7])
def test_the_two_losses_are_mixed_as_told(mix: float, n: int) -> None:
    job = make("mad", mix=mix)
    with torch.no_grad():
        weights = mad(job).sample(n).weights
    half = n // 2
    assert weights[:half].sum().item() / n == pytest.approx(mix)
    assert weights[half:].sum().item() / n == pytest.approx(1.0 - mix)
    _, seen, loss = student_batch(job)
    first, second = (blocks.kl(*seen.rows(part)) for part in (slice(3), slice(3, None)))
    assert first != pytest.approx(second, rel=1e-2)
    assert loss.item() == pytest.approx(mix * first + (1.0 - mix) * second, rel=1e-9)
