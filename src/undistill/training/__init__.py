"""The one loop that trains teachers, references, placebos and knockoffs alike."""

from undistill.training.defaults import Defaults, defaults_for
from undistill.training.evaluate import accuracy, predict
from undistill.training.loop import EpochRecord, NonFiniteLossError, fit
from undistill.training.network import classifier_for
from undistill.training.objectives import FromAnswers, FromLabels, Objective
from undistill.training.progress import Progress, ShowTraining, SilentProgress, TerminalProgress
from undistill.training.recipe import Recipe
from undistill.training.seconds import needed_seconds, own_seconds
from undistill.training.teacher import holds_training, normal_folder, train_teacher
from undistill.training.vectorised import Training, fit_all, fit_one, stacks

__all__ = [
    "Defaults",
    "EpochRecord",
    "FromAnswers",
    "FromLabels",
    "NonFiniteLossError",
    "Objective",
    "Progress",
    "Recipe",
    "ShowTraining",
    "SilentProgress",
    "TerminalProgress",
    "Training",
    "accuracy",
    "classifier_for",
    "defaults_for",
    "fit",
    "fit_all",
    "fit_one",
    "holds_training",
    "needed_seconds",
    "normal_folder",
    "own_seconds",
    "predict",
    "stacks",
    "train_teacher",
]
