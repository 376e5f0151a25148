"""What every attack is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.errors import InputError

# What a black box answers: all log-probabilities; probabilities of so many decimals; the k largest, renormalised or as
# they are; the predicted class alone.
AccessKind = Literal["full", "decimals", "top-k", "top-k-raw", "label"]
ACCESS_KINDS: tuple[AccessKind, ...] = get_args(AccessKind)

# What a loss in the log domain does by itself: an exact zero of the answer is masked.
EXACT_ZEROS: Mapping[AccessKind, str] = MappingProxyType(
    {
        "full": "as published",
        "decimals": "an entry that is rounded to zero is an exact zero: the student is taught that it is impossible",
        "top-k": "hidden classes are exact zeros, and the power transform renormalises over the others",
        "top-k-raw": "renormalised over the returned classes, then as top-k",
        "label": "the answer is the predicted class with probability 1",
    }
)

Answers = Callable[[int, int], Tensor]
"""Log-probabilities (n, classes) of an epoch's view of all query images. Second argument: 0 for the usual view, 1 for
the strong one (attacks with ``views = 2``)."""


class Attack(ABC):
    """A way to train a student on a black box's answers. Subclasses are frozen dataclasses of hyper-parameters.

    A plain attack is its ``loss``. What needs more overrides one of the other methods, each of which has a default that
    does nothing: ``prepare`` (a look at all answers of an epoch), ``start`` (a schedule, or parameters of its own),
    ``dress`` (a student with more outputs), ``train`` (several trainings, or queries of its own).

    Class attributes:
        name: what the command line, reports and registries call it.
        summary: one line for ``undistill list attacks``.
        source: paper and, where there is one, official code.
        needs_labels: whether the attack reads the true labels of its query images.
        needs_images: whether it asks about the attacker's images; an attack that makes up its queries does not.
        access: what it does under each kind of access. A kind that is missing is refused.
        placebo: what its placebo is; an empty string for an attack that cannot have one.
        views: how many views of an image are asked for at each step: 1, or 2 (the usual one and a strong one).
        blocks: how many blocks of logits the student gives at each step: one per view, and one per exit.
        row_wise: whether an example's loss depends on its own logits, answer and label alone; not inherited.
        slow: too long for a battery; run on demand only.
        label_only: whether it uses nothing of an answer but the predicted class.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_labels: ClassVar[bool]
    needs_images: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = EXACT_ZEROS
    placebo: ClassVar[str] = "the same attack on smoothed one-hot labels"
    views: ClassVar[int] = 1
    blocks: ClassVar[int] = 1
    row_wise: ClassVar[bool] = False  # not inherited: a subclass with another loss might not think of it
    slow: ClassVar[bool] = False
    label_only: ClassVar[bool] = False

    @abstractmethod
    def loss(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "v classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """One value per example, in float32, at full strength (after any warm-up).

        Args:
            logits: the student's, with gradient: (b, classes). A student with several outputs, and an attack with two
                views, gives several blocks of b rows, one after the other.
            log_probs: the black box's answers at temperature 1, (views * b, classes); ``-inf`` where it answered an
                exact zero. Constants: no gradient flows into them, and they are not written to (other trials read
                them too).
            labels: the true classes; an attack with ``needs_labels = False`` must not read them.
        """

    @classmethod
    @abstractmethod
    def grid(cls) -> "tuple[Attack, ...]":
        """The settings among which an audit chooses on validation data. Frozen with the protocol version."""

    @property
    def trainings(self) -> int:
        """How many students are trained to get one knockoff."""
        return 1

    @property
    def own_queries(self) -> int:
        """How many images of its own making the attack asks about; its plan of queries knows the others."""
        return 0

    def check_access(self, kind: AccessKind) -> None:
        """Refuse an access that leaves nothing to this attack.

        Raises:
            InputError: the access, and what would do.
        """
        if kind not in self.access:
            raise InputError(
                f"attack {self.name} cannot use access {kind!r} (it can use: {', '.join(self.access)}); choose another "
                "attack, or another access"
            )

    def prepare(self, log_probs: Float[Tensor, "n classes"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "n classes"]:
        """What the attack makes of all answers to a view before any batch is drawn from them; by default the same."""
        return log_probs

    def start(self, num_classes: int, seed: int) -> "AttackLoss":
        """The loss in the course of one training: a module, with what changes over time."""
        return AttackLoss(self)

    def dress(self, student: nn.Module, seed: int) -> nn.Module:
        """The network that is trained in the student's place and shares its parameters; by default the student.

        In training mode it returns blocks of logits, the student's own first; in evaluation mode the student's alone.
        """
        return student

    def train(self, lab: "Lab") -> nn.Module:
        """Train a knockoff; by default one student on the answers."""
        return lab.fit(self, lab.answers)


class AttackLoss(nn.Module):
    """An attack in the course of one training. Parameters of this module are the attack's own, not the student's."""

    def __init__(self, attack: Attack) -> None:
        super().__init__()
        self.attack = attack

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before epoch ``epoch`` (counted from 0) of ``epochs``."""

    def forward(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "v classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """The loss per example at this moment of the training."""
        return self.attack.loss(logits, log_probs, labels)

    def after_step(self, learning_rate: float) -> None:
        """Called after each step of the student, at its learning rate, when gradients of the module's own parameters
        are in place. A module with parameters takes its own step here and clears them."""

    def facts(self) -> dict[str, Any]:
        """What the outcome of the trial should say about the training, as JSON."""
        return {}


class Lab(ABC):
    """What an attacker has at hand while making one knockoff (or its placebo). Made by an audit, handed to ``train``.

    Attributes:
        labels: true classes of the query images, (n,); meaningless where the attacker does not know them.
        num_classes: C.
        access: kind of access.
        seed: of everything that is drawn.
        notes: what the outcome of the trial should say, as JSON; ``train`` may add to it.
    """

    labels: Tensor
    num_classes: int
    access: AccessKind
    seed: int
    notes: dict[str, Any]

    @abstractmethod
    def answers(self, epoch: int, view: int) -> Tensor:
        """Of the black box, or of what stands in for it; see :data:`Answers`."""

    @abstractmethod
    def fit(self, attack: Attack, answers: Answers, generation: int = 0) -> nn.Module:
        """Train a student with an attack's loss. Each ``generation`` has initial weights of its own; order and views
        are those of the seed, so that answers can be used again."""

    @abstractmethod
    def answers_of(self, student: nn.Module) -> Answers:
        """A trained student as a teacher."""

    @abstractmethod
    def limit(self, log_probs: Tensor) -> Tensor:
        """What the black box would answer if these full log-probabilities were its own: its access policy, or known
        output defence, as a function."""

    @abstractmethod
    def fresh_student(self) -> nn.Module:
        """An untrained student of the trial's architecture, with the seed's initial weights (images in [0, 1] in)."""

    @abstractmethod
    def ask(self, images: Tensor) -> Tensor:
        """Ask the black box about images of the attacker's own making, in [0, 1]; every image counts as a query."""
