"""What protection costs: how good a teacher's answers still are, and what it takes to train and to ask it."""

from undistill.utility.comparison import (
    FIGURES,
    SCHEMA,
    Comparison,
    Difference,
    Group,
    Plan,
    Row,
    compare,
    difference,
    plan_comparison,
)
from undistill.utility.kept import kept_teacher, kept_utility
from undistill.utility.origin import Origin, origin_of
from undistill.utility.quality import (
    Quality,
    auroc,
    brier_score,
    calibration_error,
    confidence,
    quality,
    risk_coverage_area,
)
from undistill.utility.serving import ServingTime, kept_serving, measure_serving
from undistill.utility.teacher import (
    OtherTask,
    TeacherFacts,
    Utility,
    check_other_task,
    measure_teacher,
    measure_utility,
)

__all__ = [
    "FIGURES",
    "SCHEMA",
    "Comparison",
    "Difference",
    "Group",
    "Origin",
    "OtherTask",
    "Plan",
    "Quality",
    "Row",
    "ServingTime",
    "TeacherFacts",
    "Utility",
    "auroc",
    "brier_score",
    "calibration_error",
    "check_other_task",
    "compare",
    "confidence",
    "difference",
    "kept_serving",
    "kept_teacher",
    "kept_utility",
    "measure_serving",
    "measure_teacher",
    "measure_utility",
    "origin_of",
    "plan_comparison",
    "quality",
    "risk_coverage_area",
]
