"""What an outsider can ask of a teacher: raw images in, log-probabilities out."""

from undistill.blackbox.answers import AnswerCache
from undistill.blackbox.box import BlackBox, CallableBlackBox, LocalBlackBox, open_black_box
from undistill.blackbox.predictions import Predictions, is_predictions_file, read_predictions
from undistill.blackbox.validate import check_log_probs, log_probs_of_probabilities

__all__ = [
    "AnswerCache",
    "BlackBox",
    "CallableBlackBox",
    "LocalBlackBox",
    "Predictions",
    "check_log_probs",
    "is_predictions_file",
    "log_probs_of_probabilities",
    "open_black_box",
    "read_predictions",
]
