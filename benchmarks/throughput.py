"""How many images a second a teacher's training takes in, beside the loop that one would write without this package."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.material import TINY_RATE, fresh, random_task, second_epoch
from benchmarks.timing import Figure, differences, milliseconds, quotients, stopwatch, take_turns
from undistill.tasks import Task
from undistill.training import FromLabels, Recipe


def throughput(
    *, architecture: str = "resnet20", classes: int = 100, batch_size: int = 128, steps: int = 12, repeats: int = 7
) -> list[Figure]:
    """Training throughput of a teacher at 32x32: our loop against the plain one.

    The plain loop is float32, channels-first, with PIL transforms in a DataLoader. One repeat is an epoch of ``steps``
    steps of each loop. The data part is an epoch's batches taken in and thrown away; the network part is the rest.
    """
    task = random_task(batch_size * steps, classes)
    ours = partial(second_epoch, architecture, task, FromLabels(nn.CrossEntropyLoss(reduction="none")))
    plain = PlainLoop(architecture, task, batch_size)
    seconds = take_turns(
        {
            "plain loop": stopwatch(plain.train_epoch),
            "plain loop, data": stopwatch(lambda: exhaust(plain.loader)),
            "our loop": lambda: ours(Recipe(epochs=2, batch_size=batch_size, learning_rate=TINY_RATE)),
            "our loop, float32": lambda: ours(
                Recipe(epochs=2, batch_size=batch_size, learning_rate=TINY_RATE, precision="float32")
            ),
            "our loop, data": stopwatch(lambda: exhaust(our_batches(task, batch_size))),
        },
        repeats=repeats,
    )
    images = batch_size * steps

    def rate(name: str) -> Figure:
        return Figure(name, "images/s", tuple(images / value for value in seconds[name]))

    def part(name: str, values: tuple[float, ...]) -> Figure:
        return Figure(name, "ms per step", tuple(value / steps for value in milliseconds(values)))

    return [
        rate("plain loop"),
        rate("our loop"),
        rate("our loop, float32"),
        Figure("our loop / plain loop", "x", quotients(seconds["plain loop"], seconds["our loop"]), at_least=2),
        Figure("our loop, float32 / plain loop", "x", quotients(seconds["plain loop"], seconds["our loop, float32"])),
        part("plain loop, data", seconds["plain loop, data"]),
        part("plain loop, network", differences(seconds["plain loop"], seconds["plain loop, data"])),
        part("our loop, data", seconds["our loop, data"]),
        part("our loop, network", differences(seconds["our loop"], seconds["our loop, data"])),
        part("our loop, float32, network", differences(seconds["our loop, float32"], seconds["our loop, data"])),
    ]


def exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def our_batches(task: Task, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """An epoch's batches as our loop makes them."""
    view = task.view(seed=0, epoch=0)
    for indices in view.order.split(batch_size):
        yield view.images(indices).float().div_(255), task.train.labels[indices]


class PlainLoop:
    """The loop of a tutorial: augmentation image by image in PIL, float32, channels first."""

    def __init__(self, architecture: str, task: Task, batch_size: int) -> None:
        transforms = (crop_at_random, flip_at_random, to_tensor, normalise(task.mean, task.std))
        self.loader = DataLoader(PlainDataset(task, transforms), batch_size=batch_size, shuffle=True, drop_last=True)
        self.network = fresh(architecture, task).net
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=TINY_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    def train_epoch(self) -> float:
        """One pass over the data; returns the mean loss."""
        self.network.train()
        total = 0.0
        for images, labels in self.loader:
            self.optimiser.zero_grad()
            loss = F.cross_entropy(self.network(images), labels)
            loss.backward()
            self.optimiser.step()
            total += loss.item()
        return total / len(self.loader)


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """Images as arrays (height, width, channels), each turned into a PIL image and transformed when it is asked for."""

    def __init__(self, task: Task, transforms: Iterable[Callable]) -> None:
        self.images = task.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = task.train.labels.tolist()
        self.transforms = tuple(transforms)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image: Any = Image.fromarray(self.images[index])
        for transform in self.transforms:
            image = transform(image)
        return image, self.labels[index]


def crop_at_random(image: Image.Image, pad: int = 4) -> Image.Image:
    """As torchvision's RandomCrop(size, padding=4)."""
    padded = ImageOps.expand(image, border=pad, fill=0)
    left, top = torch.randint(2 * pad + 1, (2,)).tolist()
    return padded.crop((left, top, left + image.width, top + image.height))


def flip_at_random(image: Image.Image) -> Image.Image:
    """As torchvision's RandomHorizontalFlip()."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image


def to_tensor(image: Image.Image) -> Tensor:
    """As torchvision's ToTensor()."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


def normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """As torchvision's Normalize(mean, std)."""
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    return lambda image: (image - shift) / scale
