"""Networks and recipe for a kind of input, where the user names none."""

from dataclasses import dataclass

from undistill.training.recipe import Recipe

# Small students have no normalisation layers. Without this, attacks with heavy losses (DKD, RLD, TTM) break them, and
# an attack that breaks its student looks like a teacher that does not leak.
CLIP_NORM = 2.0


@dataclass(frozen=True)
class Defaults:
    """What is used for an input shape where the user says nothing.

    Args:
        teacher: architecture of a teacher.
        student: architecture of a student.
        recipe: of both.
    """

    teacher: str
    student: str
    recipe: Recipe


def defaults_for(input_shape: tuple[int, ...]) -> Defaults:
    """Networks and recipe by the shape of an input: signals, small images (under 16 pixels), images.

    >>> defaults_for((3, 32, 32)).teacher
    'resnet20'
    """
    if len(input_shape) == 2:
        return Defaults(
            "cnn1d", "cnn1d-small", Recipe(epochs=40, batch_size=100, learning_rate=0.1, clip_norm=CLIP_NORM)
        )
    if min(input_shape[1:]) < 16:
        return Defaults("cnn", "mlp-64", Recipe(epochs=100, batch_size=50, learning_rate=0.1, clip_norm=CLIP_NORM))
    return Defaults("resnet20", "resnet8", Recipe())
