"""Named data sets as in-memory tasks: split by class shares, with augmentation as a function of (seed, epoch)."""

from undistill.tasks.load import TASKS, TaskInfo, load_task
from undistill.tasks.stratify import stratified
from undistill.tasks.task import Split, Task
from undistill.tasks.view import Augmentation, View, default_augmentation

__all__ = [
    "TASKS",
    "Augmentation",
    "Split",
    "Task",
    "TaskInfo",
    "View",
    "default_augmentation",
    "load_task",
    "stratified",
]
