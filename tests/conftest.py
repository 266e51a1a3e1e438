"""Shared by all tests: helpers and benchmarks beside this file can be imported; torch runs on one thread.

Processes that tests start have the two threads of the default, beside those of other tests: what waits in them sleeps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: spinning took a tenth of all time

import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]
torch.set_num_threads(1)  # the number of threads changes bits; the networks here are too small to gain from more

LONG = ("test_tutorial", "test_ray", "test_slurm", "test_faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, with one worker: no other sits idle at the end, waiting for one of their tests."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of slow runs that every fault disturbs, done without disturbance; not to be changed."""
    from survive_faults import undisturbed

    root = tmp_path_factory.mktemp("whole")
    undisturbed(root)
    return root


@pytest.fixture(scope="session")
def real_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that real runs left; to be copied, never changed."""
    from forge import make_results

    return make_results(tmp_path_factory.mktemp("real") / "results")
