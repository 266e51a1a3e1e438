"""The C library keeps what steps free, and gives it back when told."""

from __future__ import annotations

import os
import platform

import pytest
from commands import python

FAULTS = """
import resource, sys
import torch
from dfkd_bench.utils import memory

kept = memory.keep_freed_memory() if "keep" in sys.argv else None
for k in range(13):
    if k == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step = [torch.ones(2_000_000) for _ in range(10)]
    del step
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * 2_000_000 * 4 // 4096  # of one step
GIVEN = """
import psutil
import torch
from dfkd_bench.utils import memory

assert memory.keep_freed_memory()
step = [torch.ones(2_000_000) for _ in range(20)]
rest = torch.ones(300)
del step
held = psutil.Process().memory_info().rss
memory.return_freed_memory()
print(held - psutil.Process().memory_info().rss)
"""


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def fresh(script: str, *words: str, **variables: str) -> list[str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    return python(script, *words, env=plain | variables).split()


def test_pages_are_asked_for_once_and_not_in_every_step() -> None:
    kept, faults = fresh(FAULTS, "keep")
    assert kept == "True"
    assert int(faults) < 1.5 * PAGES  # of twelve steps; usually each asks again, or some do


@pytest.mark.long
def test_what_the_user_has_settled_stays() -> None:
    assert fresh(FAULTS, "keep", MALLOC_MMAP_MAX_="1000")[0] == "False"
    assert fresh(FAULTS, "keep", GLIBC_TUNABLES="glibc.malloc.mmap_max=1000")[0] == "False"


@pytest.mark.long
def test_what_is_free_is_given_back() -> None:
    assert int(fresh(GIVEN)[0]) > 100 * 2**20
