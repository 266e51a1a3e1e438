"""Finding a dataset by its name, or a folder of images by its path."""

from __future__ import annotations

from dfkd_bench.data import catalog
from dfkd_bench.data.base import FOLDER, Dataset
from dfkd_bench.utils import guard


def dataset(name: str) -> Dataset:
    """Facts of `name`, or of the folder of images at PATH for `folder:PATH`.

    Raises `UsageError` for an unknown dataset and for a folder that is not laid out as one, `RunError` for a dataset
    of another package that cannot be imported.
    """
    if name.startswith(FOLDER):
        from dfkd_bench.data.folder import facts

        return facts(name.removeprefix(FOLDER))
    found = catalog.TABLE.get(name, "folder:PATH")
    guard.watch_files(found.name, found.files)  # those of this package are watched from the first on
    return found
