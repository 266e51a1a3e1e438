"""All datasets: those of this package (one file each in `datasets/`) and those of other packages.

Importing this module imports no torch.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

from dfkd_bench.data import datasets
from dfkd_bench.data.base import Dataset
from dfkd_bench.plugins.entry import DATASET, Entry
from dfkd_bench.plugins.objects import Table
from dfkd_bench.utils import guard

FIRST = (  # lists start with these, from easy to hard
    "digits16", "mnist", "fashion-mnist", "svhn", "cifar10", "cifar10-16", "cifar100", "tiny-imagenet", "caltech101",
    "imagenette",
)  # fmt: skip


def _own() -> dict[str, Dataset]:
    modules = [import_module(f"{datasets.__name__}.{info.name}") for info in pkgutil.iter_modules(datasets.__path__)]
    known: dict[str, Dataset] = {module.DATASET.name: module.DATASET for module in modules}
    return {name: known[name] for name in (*FIRST, *(name for name in known if name not in FIRST))}


def _problem(entry: Entry, dataset: Dataset) -> str:
    if dataset.name != entry.name:
        return f"has the name {dataset.name!r}: use the same name in the entry point and in the object"
    if not re.fullmatch(r"\w[\w.-]*", dataset.name):
        return "has an invalid name: use letters, digits, '_', '.' and '-'"
    if dataset.reader is None:
        return "has no reader"
    return ""


DATASETS = _own()
TABLE = Table(DATASET, Dataset, DATASETS, _problem)
for _dataset in DATASETS.values():
    guard.watch_files(_dataset.name, _dataset.files)
