"""What an outsider can ask of a teacher: raw images in, log-probabilities out."""

from undistill.blackbox.access import FULL, Access, Decimals, FullAccess, LabelAccess, TopK
from undistill.blackbox.answers import ANSWER_SPACE, AnswerCache, SharedAnswers, page_images
from undistill.blackbox.box import BlackBox, CallableBlackBox, LimitedBlackBox, LocalBlackBox
from undistill.blackbox.check import (
    ANSWER_TOLERANCE,
    CHECKED_IMAGES,
    REPEAT_TOLERANCE,
    Steadiness,
    check_black_box,
)
from undistill.blackbox.defended import DefendedBlackBox, defend
from undistill.blackbox.facts import AnswerFacts, answer_facts
from undistill.blackbox.opening import PROBE_IMAGES, TeacherLike, open_black_box
from undistill.blackbox.predictions import Predictions, is_predictions_file, read_predictions, stream_predictions
from undistill.blackbox.queries import Page, Queries, QueryPlan
from undistill.blackbox.validate import check_log_probs, log_probs_of_probabilities

__all__ = [
    "ANSWER_SPACE",
    "ANSWER_TOLERANCE",
    "CHECKED_IMAGES",
    "FULL",
    "PROBE_IMAGES",
    "REPEAT_TOLERANCE",
    "Access",
    "AnswerCache",
    "AnswerFacts",
    "BlackBox",
    "CallableBlackBox",
    "Decimals",
    "DefendedBlackBox",
    "FullAccess",
    "LabelAccess",
    "LimitedBlackBox",
    "LocalBlackBox",
    "Page",
    "Predictions",
    "Queries",
    "QueryPlan",
    "SharedAnswers",
    "Steadiness",
    "TeacherLike",
    "TopK",
    "answer_facts",
    "check_black_box",
    "check_log_probs",
    "defend",
    "is_predictions_file",
    "log_probs_of_probabilities",
    "open_black_box",
    "page_images",
    "read_predictions",
    "stream_predictions",
]
