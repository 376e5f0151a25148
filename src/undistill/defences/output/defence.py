"""What every output defence is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from undistill.errors import InputError
from undistill.files import content_hash
from undistill.settings import settings_of

# In what form answers are served: all probabilities; rounded ones; the largest, renormalised or as they are; the
# predicted class alone.
Form = Literal["full", "decimals", "top-k", "top-k-raw", "label"]


@dataclass(frozen=True)
class OwnData:
    """What the owner of a teacher has at hand when a defence is set up.

    Attributes:
        images: raw images that the teacher was trained on; none for a defence that learns nothing.
        log_probs: the teacher's full answers to them.
        labels: their true classes.
        surrogate: stands for the attacker's student: raw images in [0, 1] to log-probabilities.
    """

    images: UInt8[Tensor, "n *shape"]
    log_probs: Float[Tensor, "n classes"]
    labels: Int64[Tensor, "n"]
    surrogate: Callable[[Tensor], Tensor] | None = None

    def check_enough(self, name: str, least: int = 1) -> None:
        """Refuse fewer answers than the defence ``name`` can learn from.

        Raises:
            InputError: there are fewer than ``least``.
        """
        if len(self.log_probs) < least:
            raise InputError(
                f"{name} cannot be set up with {len(self.log_probs)} answers of the teacher; hand over at least "
                f"{least}, those to its training images, for example"
            )


class Transform(ABC):
    """A row-wise function from a teacher's full answers to what is served in their place.

    A row of the result depends on the same row of ``log_probs`` and the same image, and on nothing else: not on the
    batch, not on the order of the questions, not on a random state. It can be pickled. In single precision that holds
    bit for bit; in double precision, up to the last bits, for how PyTorch rounds depends on the size of the batch.

    What is served is in single precision, or in double where the full answers are: 16 bits are too few for it.
    """

    @abstractmethod
    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        """What is served to ``images`` in [0, 1] where ``log_probs`` are full answers; ``-inf`` is an exact zero."""

    def facts(self) -> dict[str, Any]:
        """What a report should say about what was learnt, as JSON."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What was learnt, from which :meth:`OutputDefence.restore` makes the same transform again, to the bit.

        Raises:
            InputError: it cannot be saved.
        """
        raise InputError(f"{type(self).__name__} cannot be saved: its class has no state()")


class OutputDefence(ABC):
    """A defence that changes answers and not the teacher; a frozen dataclass whose fields are its settings.

    Attributes:
        name: its name on the command line.
        summary: one line on what it does.
        source: where it was published.
        keeps_top1: the predicted class is never changed.
        idempotent: applying it twice is applying it once.
        normalised: the served probabilities sum to 1.
        serves: in what form.
        learns: it looks at the owner's data, so the teacher must be asked about them.
        takes_surrogate: it can make use of a surrogate.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    keeps_top1: bool
    idempotent: bool
    normalised: bool = True
    serves: Form = "full"
    learns: ClassVar[bool] = True
    takes_surrogate: ClassVar[bool] = False

    def check(self, num_classes: int) -> None:  # noqa: B027 (most fit any number)
        """Refuse settings that do not fit the number of classes.

        Raises:
            InputError: for example, it keeps more classes than there are.
        """

    @abstractmethod
    def set_up(self, own: OwnData) -> Transform:
        """The transform for one teacher. What has nothing to learn ignores ``own``."""

    def restore(self, state: Mapping[str, Tensor]) -> Transform:
        """The transform that :meth:`set_up` once made, from its :meth:`~Transform.state`.

        Raises:
            KeyError: a part of the state is missing.
            InputError: it cannot be saved.
        """
        raise InputError(f"{self.name} cannot be restored: its class has no restore()")

    def sums(self, num_classes: int) -> tuple[float, float]:
        """The least and the largest sum that a row of served probabilities may have."""
        return 1.0, 1.0

    def description(self) -> dict[str, Any]:
        """Name and settings as JSON. Of a setting that ``repr`` leaves out, a secret, it holds the hash alone."""
        shown = {field.name: field.repr for field in fields(self)}  # type: ignore[arg-type]
        settings = settings_of(self).items()
        return {"name": self.name} | {name: value if shown[name] else content_hash(value) for name, value in settings}

    def __str__(self) -> str:
        settings = settings_of(self).items()
        secret = {field.name for field in fields(self) if not field.repr}  # type: ignore[arg-type]
        given = [f"{name}={value}" for name, value in settings if value is not None and name not in secret]
        return f"{self.name} ({', '.join(given)})" if given else self.name


class FixedDefence(OutputDefence, Transform):
    """An output defence that learns nothing: it is its own transform."""

    learns = False

    def set_up(self, own: OwnData) -> Transform:
        return self

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> Transform:
        return self
