"""What an outsider can ask of a teacher: raw images in, log-probabilities out."""

from undistill.blackbox.access import FULL, Access, Decimals, FullAccess, LabelAccess, TopK, parse_access
from undistill.blackbox.answers import ANSWER_SPACE, AnswerCache, SharedAnswers, page_images
from undistill.blackbox.box import BlackBox, CallableBlackBox, LimitedBlackBox, LocalBlackBox
from undistill.blackbox.check import (
    ANSWER_TOLERANCE,
    CHECKED_IMAGES,
    REPEAT_TOLERANCE,
    Steadiness,
    check_black_box,
)
from undistill.blackbox.defended import DefendedBlackBox, Served
from undistill.blackbox.defending import defend
from undistill.blackbox.facts import AnswerFacts, answer_facts
from undistill.blackbox.opening import (
    PROBE_IMAGES,
    TeacherLike,
    is_import_path,
    open_black_box,
    open_folder,
    probe_of,
)
from undistill.blackbox.predictions import Predictions, is_predictions_file, read_predictions, stream_predictions
from undistill.blackbox.queries import Page, Queries, QueryPlan
from undistill.blackbox.remote import (
    ANSWERS_PATH,
    MODEL_PATH,
    TENSORS_PATH,
    TENSORS_TYPE,
    RemoteBlackBox,
    check_key,
    is_url,
    unpack_images,
)
from undistill.blackbox.saved import check_new, is_defended, load_defended, save_defended
from undistill.blackbox.validate import check_log_probs, log_probs_of_probabilities

__all__ = [
    "ANSWERS_PATH",
    "ANSWER_SPACE",
    "ANSWER_TOLERANCE",
    "CHECKED_IMAGES",
    "FULL",
    "MODEL_PATH",
    "PROBE_IMAGES",
    "REPEAT_TOLERANCE",
    "TENSORS_PATH",
    "TENSORS_TYPE",
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
    "RemoteBlackBox",
    "Served",
    "SharedAnswers",
    "Steadiness",
    "TeacherLike",
    "TopK",
    "answer_facts",
    "check_black_box",
    "check_key",
    "check_log_probs",
    "check_new",
    "defend",
    "is_defended",
    "is_import_path",
    "is_predictions_file",
    "is_url",
    "load_defended",
    "log_probs_of_probabilities",
    "open_black_box",
    "open_folder",
    "page_images",
    "parse_access",
    "probe_of",
    "read_predictions",
    "save_defended",
    "stream_predictions",
    "unpack_images",
]
