"""The handwritten digits of scikit-learn: 1,797 images of 8 x 8 pixels.

A copy of the test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository (https://doi.org/10.24432/C50P49), licensed CC BY 4.0, in the order of scikit-learn's ``load_digits``.
Changed: the values 0..16 are scaled to 0..255 by round(255 v / 16), and the images are stored as a compressed array.
"""

from importlib.resources import files

import numpy as np

from undistill.tasks.source import Source, consecutive


def read_digits() -> Source:
    """The digits; 500 are for training, 297 for validation and 1,000 for test.

    So few training images leave a teacher something to teach.
    """
    with files("undistill.tasks").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return Source(
        class_names=tuple("0123456789"),
        labels=labels.astype(np.int64),
        parts=consecutive({"train": len(labels)}),
        read=lambda rows: images[rows][..., None],
        test_size=1000,
        validation_size=297,
    )
