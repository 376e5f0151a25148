"""What a defence has at hand while its teacher is trained."""

from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from undistill.defences.training import Workshop
from undistill.errors import InputError
from undistill.tasks import Task
from undistill.training.evaluate import predict
from undistill.training.loop import read_state, write_state

ONCE_FILE = ".once.pt"


class TeacherWorkshop(Workshop):
    """The workshop of one training: see :class:`undistill.defences.training.Workshop`.

    Args:
        task: whose training images.
        teacher: the network in training.
        normal: the normal teacher, on the same device; None for a defence that needs none.
        started: whether ``teacher`` is trained already.
        scratch: folder of what is made once.
        identity: of the training.
    """

    def __init__(
        self, task: Task, teacher: nn.Module, normal: nn.Module | None, *, started: bool, scratch: Path, identity: str
    ) -> None:
        self.images, self.labels, self.teacher, self.started = task.train.images, task.train.labels, teacher, started
        self._split, self._scratch, self._identity = task.train, scratch, identity
        self._normal = None if normal is None else normal.eval().requires_grad_(False)

    @property
    def normal(self) -> nn.Module:
        if self._normal is None:
            raise InputError("there is no normal teacher; a defence that uses one says so with needs_normal = True")
        return self._normal

    def logits(self, network: nn.Module) -> Float[Tensor, "n classes"]:
        return predict(network, self._split, next(network.parameters()).device)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        from accelerate import PartialState  # as in the training loop

        path = self._scratch / f"{name}{ONCE_FILE}"
        with PartialState().main_process_first():
            if not path.exists():
                write_state(path, {"identity": self._identity, "value": make()})
            value: Tensor = read_state(path, self._identity)["value"]
        return value
