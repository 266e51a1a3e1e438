"""The digits in the package are scikit-learn's, and so are their two parts."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from dfkd_bench.data.datasets import digits16


def test_images_and_labels_are_those_of_scikit_learn() -> None:
    theirs = load_digits()
    with np.load(digits16.FILE) as held:
        assert held["images"].dtype == np.uint8
        np.testing.assert_array_equal(held["images"], theirs.images)
        np.testing.assert_array_equal(held["labels"], theirs.target)


def test_the_two_parts_are_its_stratified_split() -> None:
    target = load_digits().target
    train, test = train_test_split(np.arange(len(target)), test_size=597, random_state=0, stratify=target)
    with np.load(digits16.FILE) as held:
        np.testing.assert_array_equal(held["train"], train)
        np.testing.assert_array_equal(held["test"], test)


def test_what_is_loaded_is_twice_the_size_with_the_same_labels() -> None:
    theirs = load_digits()
    images, labels, shown, said = digits16.load()
    assert (images.shape, shown.shape) == ((1200, 1, 16, 16), (597, 1, 16, 16))
    with np.load(digits16.FILE) as held:
        np.testing.assert_array_equal(labels, theirs.target[held["train"]])
        np.testing.assert_array_equal(said, theirs.target[held["test"]])
        corners = theirs.images[held["test"]][:, ::7, ::7]  # a corner of a resized image is that of the image
    np.testing.assert_array_equal(shown[:, 0, ::15, ::15], np.floor(corners * 255 / 16 + 0.5))
