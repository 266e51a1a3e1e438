"""What is known of each dataset without opening it. Plain data: listing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from dfkd_bench.utils import guard

FOLDER = "folder:"  # what the name of a dataset of one's own begins with; the path of its folder follows


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one dataset.

    `sha256` is over the decoded arrays (see `door.fingerprint`) and checked at each load; where it is empty, the
    protocol knows no bytes of this dataset and a run states those that it found.
    """

    name: str
    classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_size: int
    test_size: int
    crop_padding: int  # augmentation for training on it: random crop with this padding, in pixels
    flip: bool  # and random horizontal flip; never for digits, whose meaning it changes
    loader: str  # module:function inside dfkd_bench.data; the function takes these facts and gives a `Source`
    files: tuple[str, ...]  # glob patterns of the files that hold its images, watched by the guard
    sha256: str
    about: str
    source: str = ""  # whose it is and on what terms
    needs: tuple[str, ...] = ()  # what must lie in its folder; none: it comes with the package
    aliases: tuple[str, ...] = ()  # other names that its folder below the data home may have
    home: str = ""  # absolute path of a dataset of one's own
    made_of: str = ""  # the dataset whose files it is made from; they lie in that one's folder


def _idx(folder: str) -> tuple[str, ...]:
    """The files of MNIST and of those that copy its form."""
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


_CIFAR10_FILES = ("*/cifar-10-batches-py/*", "*/cifar-10-python.tar*")
_CIFAR10_NEEDS = tuple(
    f"cifar-10-batches-py/{part}" for part in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
)

_ALL = (
    DatasetFacts(
        name="digits16",
        classes=10,
        image_shape=(1, 16, 16),
        mean=(0.3053,),
        std=(0.3186,),
        train_size=1200,
        test_size=597,
        crop_padding=2,
        flip=False,
        loader="digits:source",
        files=("*digits.csv*", "*optdigits*"),
        sha256="2d5661a7b446c27b83eb6addaf1180f9314be2ab07f506a5616b540592cc5281",
        about="1,797 handwritten digits (UCI, as in scikit-learn) resized from 8x8 to 16x16, stratified 1200/597",
        source="Alpaydin and Kaynak 1998, CC BY 4.0",
    ),
    DatasetFacts(
        name="mnist",
        classes=10,
        image_shape=(1, 32, 32),
        mean=(0.1,),  # of the padded training images; the customary 0.1307 and 0.3081 are those of 28x28
        std=(0.2752,),
        train_size=60000,
        test_size=10000,
        crop_padding=2,
        flip=False,
        loader="vision:mnist",
        files=("*/MNIST/raw/*", "*/MNIST/processed/*", "*/mnist/*-ubyte*"),
        sha256="5e66db2ded29722b4b079e0db116b4bc060850e9ae87e9c7b23123ac64c61d80",
        about="handwritten digits, 28x28 zero-padded to 32x32",
        source="LeCun, Cortes and Burges 1998, CC BY-SA 3.0",
        needs=_idx("MNIST"),
    ),
    DatasetFacts(
        name="fashion-mnist",
        classes=10,
        image_shape=(1, 32, 32),
        mean=(0.219,),  # of the padded training images, as above
        std=(0.3318,),
        train_size=60000,
        test_size=10000,
        crop_padding=2,
        flip=True,
        loader="vision:fashion_mnist",
        files=("*/FashionMNIST/raw/*", "*/FashionMNIST/processed/*", "*/fashion*/*-ubyte*"),
        sha256="0d0fff298b2e3532fcfe0f7df791741733bffef7c1fce62eb043422995e5b27c",
        about="articles of clothing, 28x28 zero-padded to 32x32",
        source="Zalando Research 2017, MIT",
        needs=_idx("FashionMNIST"),
        aliases=("fashion",),
    ),
    DatasetFacts(
        name="svhn",
        classes=10,
        image_shape=(3, 32, 32),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        train_size=73257,
        test_size=26032,
        crop_padding=4,
        flip=False,
        loader="vision:svhn",
        files=("*train_32x32.mat", "*test_32x32.mat", "*extra_32x32.mat"),
        sha256="",
        about="house numbers, one digit each, without the extra images",
        source="Netzer et al. 2011, non-commercial use",
        needs=("train_32x32.mat", "test_32x32.mat"),
    ),
    DatasetFacts(
        name="cifar10",
        classes=10,
        image_shape=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),  # as everybody states it: means of the images' own deviations
        train_size=50000,
        test_size=10000,
        crop_padding=4,
        flip=True,
        loader="vision:cifar10",
        files=_CIFAR10_FILES,
        sha256="e6216b9018fcebdb2fc8d67681111ecdcbcb1599320d6cfc1c4f6ff4b91839a8",
        about="animals and vehicles",
        source="Krizhevsky 2009, no licence stated",
        needs=_CIFAR10_NEEDS,
    ),
    DatasetFacts(
        name="cifar10-16",
        classes=10,
        image_shape=(3, 16, 16),
        mean=(0.4919, 0.4827, 0.447),
        std=(0.2381, 0.2347, 0.2536),  # of all its pixels
        train_size=50000,
        test_size=10000,
        crop_padding=2,
        flip=True,
        loader="vision:cifar10_halved",
        files=_CIFAR10_FILES,
        sha256="afe05f32081eccc2d2729f292d7f01cb0226265462d95dac40729c12244276bc",
        about="CIFAR-10 halved to 16x16: means of 2x2 pixels, rounded half up",
        source="Krizhevsky 2009, no licence stated",
        needs=_CIFAR10_NEEDS,
        made_of="cifar10",
    ),
    DatasetFacts(
        name="cifar100",
        classes=100,
        image_shape=(3, 32, 32),
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        train_size=50000,
        test_size=10000,
        crop_padding=4,
        flip=True,
        loader="vision:cifar100",
        files=("*/cifar-100-python/*", "*/cifar-100-python.tar*"),
        sha256="",
        about="things, plants and animals, 100 fine classes",
        source="Krizhevsky 2009, no licence stated",
        needs=("cifar-100-python/train", "cifar-100-python/test"),
    ),
    DatasetFacts(
        name="tiny-imagenet",
        classes=200,
        image_shape=(3, 64, 64),
        mean=(0.5,) * 3,  # as the published scripts have it
        std=(0.5,) * 3,
        train_size=100000,
        test_size=10000,
        crop_padding=4,
        flip=True,
        loader="image_folders:tiny_imagenet",
        files=("*/tiny-imagenet-200/*", "*tiny-imagenet-200.zip"),
        sha256="",
        about="200 classes of ImageNet at 64x64; its validation images are the test split",
        source="Stanford CS231n, terms of ImageNet (non-commercial)",
        needs=tuple(f"tiny-imagenet-200/{f}" for f in ("train", "val/val_annotations.txt", "wnids.txt")),
    ),
    DatasetFacts(
        name="caltech101",
        classes=101,
        image_shape=(3, 128, 128),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        train_size=6983,
        test_size=1694,
        crop_padding=12,
        flip=True,
        loader="image_folders:caltech101",
        files=("*/101_ObjectCategories/*", "*101_ObjectCategories.tar*", "*/caltech-101.zip"),
        sha256="",
        about="101 objects without the background class, 80/20 by class, short side to 128, centre crop",
        source="Li et al. 2003, CC BY 4.0",
        needs=("caltech101/101_ObjectCategories",),
    ),
    DatasetFacts(
        name="imagenette",
        classes=10,
        image_shape=(3, 128, 128),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        train_size=9469,
        test_size=3925,
        crop_padding=12,
        flip=True,
        loader="image_folders:imagenette",
        files=("*/imagenette2-160/*", "*/imagenette2-160.tgz"),
        sha256="",
        about="10 easy classes of ImageNet (160 px edition), short side to 128, centre crop",
        source="fast.ai, Apache 2.0, images on the terms of ImageNet",
        needs=("imagenette2-160/train", "imagenette2-160/val"),
    ),
)
DATASETS: dict[str, DatasetFacts] = {facts.name: facts for facts in _ALL}
for _facts in _ALL:
    guard.watch_files(_facts.name, _facts.files)
