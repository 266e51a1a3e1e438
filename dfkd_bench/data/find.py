"""Finding a dataset by its name, or a folder of images by its path."""

from __future__ import annotations

from dfkd_bench.data.catalog import DATASETS, FOLDER, DatasetFacts
from dfkd_bench.errors import UsageError, did_you_mean


def dataset(name: str) -> DatasetFacts:
    """Facts of `name`, or of the folder of images at PATH for `folder:PATH`.

    Raises `UsageError` for an unknown dataset, and for a folder that is not laid out as one.
    """
    if name.startswith(FOLDER):
        from dfkd_bench.data.folder import facts

        return facts(name.removeprefix(FOLDER))
    if name not in DATASETS:
        raise UsageError(f"unknown dataset {name!r}{did_you_mean(name, [*DATASETS, 'folder:PATH'])}")
    return DATASETS[name]
