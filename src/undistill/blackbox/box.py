"""Black boxes: a model of one's own, or anything that can be called."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undistill.attacks import AccessKind
from undistill.blackbox.access import FULL, Access
from undistill.blackbox.validate import SUM_TOLERANCE, check_log_probs, log_probs_of_probabilities
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.models import Classifier
from undistill.source import callable_code
from undistill.tasks import Split

# Larger batches fall out of the caches of a CPU: 256 images of 32x32 take half as long again through a ResNet-20.
QUERY_BATCH = 64

# Percentages that were rounded to whole ones sum to 100 with that much to spare; hardly any logits do, row by row.
PERCENTAGE_TOLERANCE = 5


class BlackBox(ABC):
    """A teacher as an outsider sees it.

    Attributes:
        name: what reports call it.
        fingerprint: equal only for boxes that answer alike; names stored answers and trials.
        policy: what it lets through of its answers.
    """

    name: str
    fingerprint: str
    policy: Access = FULL

    @property
    def access(self) -> AccessKind:
        """What kind of answers it gives."""
        return self.policy.kind

    @property
    def unlimited(self) -> "BlackBox":
        """What lies behind an access policy that is set here; without one, the box itself."""
        return self

    @property
    def undefended(self) -> "BlackBox":
        """What lies behind access policies and output defences that are set here; without any, the box itself."""
        return self

    @property
    def defences(self) -> tuple[dict[str, Any], ...]:
        """The output defences that are set here, in the order in which they are applied, as JSON: name, settings, the
        same in ``words``, and what was ``learnt``."""
        return ()

    @abstractmethod
    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Natural log-probabilities (float32) for raw images in [0, 1]; ``-inf`` is an exact zero."""

    def limit(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        """What would be answered to ``images`` in place of these full log-probabilities."""
        return self.policy.apply(log_probs)

    def answers(self, split: Split) -> Float[Tensor, "n classes"]:
        """Log-probabilities for the clean images of a split, checked.

        Raises:
            InputError: an answer holds NaN or does not sum to 1 (or to what the policy allows).
        """
        parts = split.images.split(QUERY_BATCH)
        log_probs = torch.cat([self.log_probs(images.float().div_(255)).cpu() for images in parts])
        check_log_probs(log_probs, self.name, self.policy.sums(log_probs.shape[1]))
        return log_probs


@dataclass
class LocalBlackBox(BlackBox):
    """A classifier in this process. It answers in float32 and in evaluation mode; NaN is an error.

    Example:
        >>> from undistill.models import make_classifier
        >>> teacher = make_classifier(
        ...     "mlp-4", class_names=("a", "b"), input_shape=(1, 2, 2), mean=(0.0,), std=(1.0,), seed=0
        ... )
        >>> LocalBlackBox("teacher", teacher).log_probs(torch.zeros(3, 1, 2, 2)).exp().sum(1).round(decimals=5).tolist()
        [1.0, 1.0, 1.0]
    """

    name: str
    classifier: Classifier
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self.classifier = self.classifier.eval()
        self.fingerprint = self.classifier.fingerprint()

    @torch.no_grad()
    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        log_probs = torch.log_softmax(self.classifier.to(images.device)(images).float(), 1)
        check_log_probs(log_probs, self.name)
        return log_probs


@dataclass
class CallableBlackBox(BlackBox):
    """Anything that maps raw images in [0, 1], shape (n, \\*input_shape), to one row of answers per image.

    Rows that are not negative and sum to 1 are taken as probabilities, all others as logits (of which
    log-probabilities are a case). Which of the two it is is decided once, on ``probe``, and held to afterwards:
    probabilities that cease to be such are an error, never a guess.

    Args:
        name: what reports call it.
        function: the callable; an ``nn.Module`` is put into evaluation mode.
        classes: number of classes that the answers must have.
        probe: a few images of the task, shape (n, \\*input_shape), float in [0, 1].
        policy: what the callable itself lets through: an API that serves rounded probabilities or the k largest says
            so here, and its rows then sum to what such answers may sum to. It can as well give full answers.

    Raises:
        InputError: the callable fails; or its answers are no tensor of shape (n, classes), hold NaN, or look like
            percentages; or they all lie between 0 and 1 without summing to 1, and ``policy`` does not say that they are
            rounded or cut off.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    classes: int
    probe: Float[Tensor, "n *shape"]
    policy: Access = FULL
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.function, nn.Module):
            self.function = self.function.eval()
        self.sums = self.policy.sums(self.classes)
        rows = self._ask(self.probe)
        self.gives_probabilities = self._are_probabilities(rows)
        if not self.gives_probabilities:
            self._check_logits(rows)
        # Four decimals: the same model must keep its fingerprint across thread counts and machines.
        answers = self.log_probs(self.probe).clamp_min(-100).mul(1e4).round().to(torch.int64)
        made_by = content_hash([self.name, callable_code(self.function)]).encode()
        self.fingerprint = hashlib.sha256(made_by + answers.numpy().tobytes()).hexdigest()

    def _are_probabilities(self, rows: Float[Tensor, "n classes"]) -> bool:
        least, most = self.sums
        totals = rows.sum(1)
        within = (totals >= least - SUM_TOLERANCE) & (totals <= most + SUM_TOLERANCE) & (totals > 0)
        return bool((rows >= 0).all() and within.all())

    def _check_logits(self, rows: Float[Tensor, "n classes"]) -> None:
        """Refuse what is taken for logits and is most likely something else."""
        totals = rows.sum(1)
        if ((rows >= 0) & (rows <= 1)).all():
            worst = int((totals - 1).abs().argmax())
            raise InputError(
                f"{self.name}: its answers look like probabilities, but do not sum to 1 (row {worst} sums to "
                f"{totals[worst].item():.6g}, off by {totals[worst].item() - 1:+.3g}); if it rounds them or serves "
                "only some, name the access (such as decimals:3 or top-k-raw:5), and if they are logits, return their "
                "log_softmax"
            )
        if (rows >= 0).all() and ((totals - 100).abs() <= PERCENTAGE_TOLERANCE).all():
            raise InputError(
                f"{self.name}: its answers are not negative and sum to about 100, so they look like percentages; "
                "divide them by 100, and if they are logits, return their log_softmax"
            )
        if self.sums[0] < self.sums[1] and (rows == -torch.inf).any():
            raise InputError(
                f"{self.name}: its answers hold -inf, so they are logarithms of answers that are not full; return the "
                "probabilities themselves"
            )

    @torch.no_grad()
    def _ask(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        try:
            rows = self.function(images)
        except Exception as error:
            raise InputError(
                f"{self.name} failed when it was asked about {len(images)} images, with {type(error).__name__}: "
                f"{' '.join(str(error).split())}; mend it and run the same command again"
            ) from error
        if not isinstance(rows, Tensor):
            raise InputError(f"{self.name} returned a {type(rows).__name__}, must return a torch.Tensor")
        expected = (len(images), self.classes)
        if tuple(rows.shape) != expected:
            raise InputError(
                f"{self.name} returned shape {tuple(rows.shape)} for {len(images)} images, must return {expected}: "
                "one row per image, one column per class of the task"
            )
        return rows.detach().float().cpu()

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        rows = self._ask(images)
        if self.gives_probabilities:
            return log_probs_of_probabilities(rows, self.name, self.sums)
        log_probs = torch.log_softmax(rows, 1)
        check_log_probs(log_probs, self.name)
        return log_probs


@dataclass
class LimitedBlackBox(BlackBox):
    """Another black box, of whose answers only a part is let through.

    Args:
        box: the other one.
        policy: what is let through.

    Example:
        >>> from undistill.blackbox import TopK
        >>> whole = CallableBlackBox("api", lambda images: torch.tensor([[0.5, 0.3, 0.2]]), 3, torch.zeros(1, 1, 8, 8))
        >>> box = LimitedBlackBox(whole, TopK(2))
        >>> box.log_probs(torch.zeros(1, 1, 8, 8)).exp(), box.access
        (tensor([[0.6250, 0.3750, 0.0000]]), 'top-k')
    """

    box: BlackBox
    policy: Access
    name: str = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.box.name
        self.fingerprint = content_hash(["limited", self.box.fingerprint, str(self.policy)])

    @property
    def unlimited(self) -> BlackBox:
        return self.box.unlimited

    @property
    def undefended(self) -> BlackBox:
        return self.box.undefended

    @property
    def defences(self) -> tuple[dict[str, Any], ...]:
        return self.box.defences

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        return self.policy.apply(self.box.log_probs(images))

    def limit(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return self.policy.apply(self.box.limit(log_probs, images))
