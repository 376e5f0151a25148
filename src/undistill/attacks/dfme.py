"""Data-free model extraction: queries that a generator makes up."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.attacks.base import AccessKind, Attack, Lab
from undistill.attacks.checks import check_count, check_positive
from undistill.errors import InputError

LATENT = 256  # size of the generator's noise
WIDTH = 64  # channels before its last layer
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of the student
MILESTONES, FALL = (0.1, 0.3, 0.5), 0.3  # both learning rates fall by this factor after these shares of the rounds
LOOKS = 10  # mean losses that the outcome keeps


@dataclass(frozen=True)
class DFME(Attack):
    """Data-free model extraction: no images, no labels, only queries.

    With centred log-probabilities u(p) = log p - mean over classes of log p, which are the teacher's logits up to
    their mean, the student minimises, and a generator of images maximises,

        L(x) = mean over classes of abs(u(softmax(z(x))) - u(p(x)))

    An image is x = (1 + tanh(a)) / 2, a = G(n), n normal. The gradient of L with respect to a is estimated from
    answers alone, by forward differences in m random directions of length 1, d being the number of pixels:

        g = d / (m e) * sum over i of [L(a + e u_i) - L(a)] u_i

    A round is one step of the generator (m + 1 queries an image, the student in evaluation mode) and
    ``student_steps`` steps of the student on new images (one query each). Rounds are run while the budget lasts; what
    is left of it is not spent.

    Args:
        budget: largest number of queries (images). The paper spends 20 million on CIFAR-10; the default is enough for
            images of a few pixels, and to see the attack run.
        batch_size: images of a step.
        student_steps: steps of the student in a round.
        directions: m, of the estimate.
        step: e, of the estimate, before the tanh.
        student_rate: learning rate of the student (SGD with momentum 0.9, weight decay 5e-4).
        generator_rate: learning rate of the generator (Adam).

    Example:
        >>> attack = DFME()
        >>> attack.queries_per_round, attack.rounds
        (1792, 111)

    Raises:
        InputError: the budget is smaller than one round.

    Source: Truong, Maini, Walls, Papernot, "Data-Free Model Extraction", CVPR 2021, arXiv 2011.14779; defaults of its
    code, but for the budget. Deviations: the student's logits are centred too, for their mean predicts nothing and a
    black box does not tell the teacher's; the estimate is not divided by the number of classes a second time (Adam
    does not see the factor); the generator makes images of any size, signals included. Recipe and query mode of the
    audit do not apply: the attack has its own.
    """

    name: ClassVar[str] = "dfme"
    summary: ClassVar[str] = "data-free extraction: a generator makes up the queries, its gradient estimated by answers"
    source: ClassVar[str] = "Truong, Maini, Walls, Papernot, CVPR 2021, arXiv 2011.14779"
    needs_labels: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {"full": "as published"}
    )  # differences of rounded or truncated answers are mostly zero
    placebo: ClassVar[str] = ""
    slow: ClassVar[bool] = True

    budget: int = 200_000
    batch_size: int = 256
    student_steps: int = 5
    directions: int = 1
    step: float = 1e-3
    student_rate: float = 0.1
    generator_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_count("batch size", self.batch_size, 2)
        check_count("number of student steps", self.student_steps, 1)
        check_count("number of directions", self.directions, 1)
        check_positive("step of the estimate", self.step)
        check_positive("learning rate of the student", self.student_rate)
        check_positive("learning rate of the generator", self.generator_rate)
        if self.rounds < 1:
            raise InputError(
                f"the budget is {self.budget} images, must be at least {self.queries_per_round}: one round of "
                f"{self.student_steps} student steps and {self.directions} directions in batches of {self.batch_size}"
            )

    @property
    def queries_per_round(self) -> int:
        """Images that one round asks about."""
        return self.batch_size * (self.directions + 1 + self.student_steps)

    @property
    def rounds(self) -> int:
        """Whole rounds in the budget."""
        return self.budget // self.queries_per_round

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        # An exact zero has no logarithm: the comparison is then among the other classes.
        held = log_probs.detach() > -torch.inf
        count = held.sum(1, keepdim=True)

        def centred(values: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
            values = values.float().where(held, 0.0)
            return values - values.sum(1, keepdim=True) / count

        gap = (centred(logits) - centred(log_probs.detach())).abs().where(held, 0.0)
        return gap.sum(1) / count[:, 0]

    @classmethod
    def grid(cls) -> "tuple[DFME, ...]":
        return (cls(),)

    @property
    def own_queries(self) -> int:
        return self.budget

    def train(self, lab: Lab) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(lab.seed)
            student: Any = lab.fresh_student()
            device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            student.to(device or "cpu")
            generator = Generator(student.input_shape).to(device or "cpu")
            losses = torch.tensor(list(self._rounds(lab, student, generator)))
        parts = losses.tensor_split(min(LOOKS, len(losses))) if len(losses) else ()
        lab.notes["loss"] = [part.mean().item() for part in parts]
        return student.to("cpu").eval()

    def _rounds(self, lab: Lab, student: nn.Module, generator: "Generator") -> Iterator[float]:
        """Run the rounds, up to one that breaks the student; gives the student's mean loss of each."""
        optimisers = (
            torch.optim.SGD(student.parameters(), self.student_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
            torch.optim.Adam(generator.parameters(), self.generator_rate),
        )
        falls = [int(share * self.rounds) for share in MILESTONES]
        schedules = [torch.optim.lr_scheduler.MultiStepLR(optimiser, falls, FALL) for optimiser in optimisers]
        of_student, of_generator = optimisers
        for number in range(self.rounds):
            raw = generator(self.batch_size)
            of_generator.zero_grad()
            raw.backward(-self.slope(lab, student.eval(), raw.detach()) / self.batch_size)
            of_generator.step()
            student.train()
            total = torch.zeros((), device=raw.device)
            for _ in range(self.student_steps):
                with torch.no_grad():
                    images = picture(generator(self.batch_size))
                loss = self._gap(lab, student, images).mean()
                of_student.zero_grad()
                loss.backward()
                of_student.step()
                total += loss.detach()
            mean = total.item() / self.student_steps
            if not math.isfinite(mean):
                lab.notes["diverged"] = (
                    f"the student's loss became {mean} in round {number} of {self.rounds}; try a learning rate of the "
                    f"student of {self.student_rate / 3:.2g}"
                )
                return
            for schedule in schedules:
                schedule.step()
            yield mean

    @torch.no_grad()
    def slope(self, lab: Lab, student: nn.Module, raw: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        """The estimated gradient of each image's loss with respect to the image before its tanh."""
        before = self._gap(lab, student, picture(raw))
        pixels = raw[0].numel()
        slope = torch.zeros_like(raw)
        for _ in range(self.directions):
            direction = F.normalize(torch.randn_like(raw).flatten(1)).view_as(raw)
            rise = self._gap(lab, student, picture(raw + self.step * direction)) - before
            slope += (rise * pixels / (self.directions * self.step)).view(-1, *[1] * (raw.ndim - 1)) * direction
        return slope

    def _gap(self, lab: Lab, student: nn.Module, images: Float[Tensor, "b *shape"]) -> Float[Tensor, "b"]:
        answers = lab.ask(images)
        return self.loss(student(images), answers, answers.argmax(1))


def picture(raw: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """Images in [0, 1] of a generator's numbers."""
    return (1 + raw.tanh()) / 2


class Generator(nn.Module):
    """Makes images from noise: a linear layer at a quarter of the size, then twice "double the size, convolve".

    The size may be odd, and the images may be signals.

    Args:
        input_shape: (channels, height, width) or (channels, length).

    Example:
        >>> Generator((1, 40))(3).shape, Generator((3, 9, 8))(2).shape
        (torch.Size([3, 1, 40]), torch.Size([2, 3, 9, 8]))

    Source: the generator of DFME's code.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *size = input_shape
        convolution, normalisation = (nn.Conv1d, nn.BatchNorm1d) if len(size) == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.quarter, half = (tuple(math.ceil(side / part) for side in size) for part in (4, 2))

        def layers(inputs: int, outputs: int) -> list[nn.Module]:
            convolved = convolution(inputs, outputs, 3, padding=1)
            return [convolved, normalisation(outputs), nn.LeakyReLU(0.2, inplace=True)]

        self.linear = nn.Linear(LATENT, 2 * WIDTH * prod(self.quarter))
        self.layers = nn.Sequential(
            normalisation(2 * WIDTH),
            nn.Upsample(half),
            *layers(2 * WIDTH, 2 * WIDTH),
            nn.Upsample(tuple(size)),
            *layers(2 * WIDTH, WIDTH),
            convolution(WIDTH, channels, 3, padding=1),
            normalisation(channels, affine=False),
        )

    def forward(self, count: int) -> Float[Tensor, "b *shape"]:
        """So many images, before their tanh."""
        noise = torch.randn(count, LATENT, device=self.linear.weight.device)
        return self.layers(self.linear(noise).view(count, 2 * WIDTH, *self.quarter))
