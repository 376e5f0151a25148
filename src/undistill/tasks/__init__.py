"""Named data sets as in-memory tasks: split by class shares, with augmentation as a function of (seed, epoch)."""

from undistill.tasks.load import TASKS, TaskInfo, load_task
from undistill.tasks.mixed import MixedView
from undistill.tasks.query_data import (
    TRAINING_IMAGES,
    FreshImages,
    NoImages,
    OtherImages,
    QueryData,
    TrainingImages,
    check_same_shape,
)
from undistill.tasks.stratify import stratified
from undistill.tasks.strong import StrongView
from undistill.tasks.task import Split, Task
from undistill.tasks.view import Augmentation, View, default_augmentation

__all__ = [
    "TASKS",
    "TRAINING_IMAGES",
    "Augmentation",
    "FreshImages",
    "MixedView",
    "NoImages",
    "OtherImages",
    "QueryData",
    "Split",
    "StrongView",
    "Task",
    "TaskInfo",
    "TrainingImages",
    "View",
    "check_same_shape",
    "default_augmentation",
    "load_task",
    "stratified",
]
