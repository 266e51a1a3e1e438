"""A cache of decoded image files: decoding JPEG takes minutes, mapping a file of arrays takes no time."""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from dfkd_bench.data.base import Dataset
from dfkd_bench.data.home import data_home, user_folder
from dfkd_bench.data.source import SPLITS, Images, Labels, Source, Which, stamp_of
from dfkd_bench.errors import RunError
from dfkd_bench.utils.guard import DECODED
from dfkd_bench.utils.hashing import sha256
from dfkd_bench.utils.parse import read_json

Samples = Sequence[tuple[Path, int]]  # image files with their labels
Shape = tuple[int, int, int]
T = TypeVar("T")
GREY = ("1", "L", "LA")
OVER_8_BITS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
CHUNK = 512  # images decoded before they are written
ANNOUNCE_FROM = 2000  # images; from this number on, a line on stderr announces the decoding


def header(path: Path) -> tuple[int, int, bool]:
    """Height, width, and whether it is grey, of an image file. Raises `RunError` for a file that is not an image."""
    return _with_image(path, lambda image: (image.height, image.width, image.mode in GREY))


def decode(path: Path, shape: Shape) -> Images:
    """An image file as a uint8 array of `shape` (channels, height, width); one channel means grey, three RGB.

    An image of another size is resized (bilinear, antialiased) to cover the shape, then cropped at its centre.
    """
    from torchvision.transforms.v2 import functional as F

    channels, height, width = shape

    def fit(image: Image.Image) -> Images:
        image = image.convert("L" if channels == 1 else "RGB")
        if (image.height, image.width) != (height, width):
            if height * image.width > width * image.height:
                size = [height, height * image.width // image.height]
            else:
                size = [width * image.height // image.width, width]
            image = F.center_crop(F.resize(image, size, antialias=True), [height, width])
        array: Images = F.pil_to_tensor(image).numpy()
        return array

    return _with_image(path, fit)


def _with_image(path: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(path) as image:
            if image.mode in OVER_8_BITS:
                raise RunError(f"{path} has more than 8 bits per channel: convert it to an 8-bit image")
            return use(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"{path} is not a readable image: {str(error).splitlines()[0][:100]}") from error


def source_of(facts: Dataset, root: Path, samples: Mapping[Which, Samples], also: Sequence[Path] = ()) -> Source:
    """A source that decodes `samples` at the first read and later maps the cached arrays.

    `also`: further files that the samples depend on, such as a list of labels; a change of one invalidates the cache.
    Reading raises `RunError` for a file that cannot be decoded.
    """
    stamp = stamp_of(
        root,
        [*(path for split in SPLITS for path, _ in samples[split]), *also],
        [[label for _, label in samples[split]] for split in SPLITS],
        facts.image_shape,
        _decoder(),
    )

    def read(which: Which) -> tuple[Images, Labels]:
        folder = _cached_folder(cache_name(facts), stamp, lambda folder: _fill(folder, facts, samples))
        try:
            images = np.load(folder / f"{which}-images.npy", mmap_mode="r")
            return images, np.load(folder / f"{which}-labels.npy")
        except (OSError, ValueError, EOFError) as error:
            raise RunError(f"{folder} is damaged: delete it, then the images are decoded again") from error

    return Source(f"{root}|{stamp}", read)


def cache_name(facts: Dataset) -> str:
    """Name of a dataset in the cache: its own name; for `folder:PATH` the last part of PATH and a hash of PATH."""
    if not facts.home:
        return facts.name
    return f"folder-{Path(facts.home).name}-{sha256(facts.home)[:8]}"


def cached_measurement(label: str, stamp: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `measure()` for the files of `stamp`: computed once, then read from a small JSON file."""

    def fill(folder: Path) -> None:
        (folder / "measured.json").write_text(json.dumps(measure()))

    file = _cached_folder(label, stamp, fill) / "measured.json"
    try:
        result: dict[str, Any] = read_json(file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file.parent} is damaged: delete it, then the images are measured again") from error
    return result


def mean_and_std(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images (n, channels, h, w), scaled to 0..1, to four decimals.

    The sums are integers, so every machine gets the same result.
    """
    values = np.arange(256)
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = sum(
            np.bincount(images[k : k + CHUNK, channel].reshape(-1), minlength=256) for k in _chunk_starts(images)
        )
        total = int(np.sum(counts))
        mean = int(np.sum(counts * values)) / total
        square = int(np.sum(counts * values**2)) / total
        means.append(round(mean / 255, 4))
        stds.append(round(max(square - mean**2, 0.0) ** 0.5 / 255, 4))
    return tuple(means), tuple(stds)


def _chunk_starts(items: Sequence[Any] | Images) -> range:
    return range(0, len(items), CHUNK)


def _decoder() -> str:
    """Versions of Pillow and torchvision: another version may decode or resize to other bytes."""
    import PIL
    import torchvision

    return f"{PIL.__version__}/{torchvision.__version__}"


def _cached_folder(label: str, stamp: str, fill: Callable[[Path], None]) -> Path:
    """The cache folder for `stamp`; if missing, `fill` writes it. The folder is complete or absent, never partial."""
    entry = f"{label}-{stamp[:20]}"
    homes = [home / DECODED for home in (data_home(), user_folder() / "data")]
    for home in homes:
        if (home / entry).is_dir():
            return home / entry
    return _fill_once(_writable(homes), label, entry, fill)


def _writable(homes: Sequence[Path]) -> Path:
    """The first writable folder of `homes`; a shared data home is often read-only."""
    for home in homes:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(home, os.W_OK):
            return home
    raise RunError(f"cannot store decoded images: neither {homes[0]} nor {homes[-1]} can be written to")


def _fill_once(home: Path, label: str, entry: str, fill: Callable[[Path], None]) -> Path:
    from filelock import FileLock

    with FileLock(home / f".{label}.lock"):  # a second process waits here and then uses the finished folder
        if (home / entry).is_dir():
            return home / entry
        temporary = Path(tempfile.mkdtemp(prefix=f".{label}-", dir=home))
        try:
            fill(temporary)
            temporary.chmod(0o755)  # mkdtemp makes a private folder; other users may read the decoded images
            temporary.rename(home / entry)
        except OSError as error:
            what = f"cannot store decoded images in {home}: {error.strerror}"
            raise RunError(f"{what}; free some space or choose another --data-dir") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in home.glob(f"{glob.escape(label)}-{'[0-9a-f]' * 20}"):  # entries of earlier versions of the files
            if old.name != entry:
                shutil.rmtree(old, ignore_errors=True)
    return home / entry


def _fill(folder: Path, facts: Dataset, samples: Mapping[Which, Samples]) -> None:
    """Decode both splits into .npy files in `folder`."""
    count = sum(len(samples[split]) for split in SPLITS)
    if count >= ANNOUNCE_FROM:
        print(f"decoding {count:,} images of {facts.name} (only the first time)", file=sys.stderr, flush=True)
    for split in SPLITS:
        np.save(folder / f"{split}-labels.npy", np.array([label for _, label in samples[split]], np.int64))
        shape = (len(samples[split]), *facts.image_shape)
        with open(folder / f"{split}-images.npy", "wb") as file:  # not a memory map: on a full disk it would crash
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for images in _decoded(samples[split], facts.image_shape):
                file.write(np.stack(images).tobytes())


def _decoded(samples: Samples, shape: Shape) -> Iterator[list[Images]]:
    """Chunks of decoded images, in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow releases the GIL while it decodes
        for start in _chunk_starts(samples):
            chunk = samples[start : start + CHUNK]
            yield list(pool.map(lambda sample: decode(sample[0], shape), chunk))
