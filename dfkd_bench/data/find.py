"""Look up a dataset by name, or a folder of images by path."""

from __future__ import annotations

from dfkd_bench.data import catalog
from dfkd_bench.data.base import FOLDER, Dataset
from dfkd_bench.utils import guard


def dataset(name: str) -> Dataset:
    """Facts of the dataset `name`; `folder:PATH` is the folder of images at PATH.

    Raises `UsageError` for an unknown name and for a folder with a wrong layout, `RunError` for a dataset of another
    package that cannot be imported.
    """
    if name.startswith(FOLDER):
        from dfkd_bench.data.folder import facts

        return facts(name.removeprefix(FOLDER))
    found = catalog.TABLE.get(name, "folder:PATH")
    guard.watch_files(found.name, found.files)  # for datasets of other packages; `catalog` does it for ours
    return found
