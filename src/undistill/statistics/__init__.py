"""What a handful of paired numbers lets one say: bounds, Holm's correction, the smallest gap that could have been seen.

Pure functions on numbers. They know nothing of models or attacks. The two one-sided questions of an audit:

>>> leaks = paired_difference([78.2, 77.9, 78.4], [76.8, 76.9, 76.7])
>>> leaks.lower(alpha=0.05) > 0  # is there a leak?
True
>>> silent = paired_difference([76.9, 76.7, 77.0], [76.8, 76.9, 76.9])
>>> silent.upper(alpha=0.05) < 0.5  # equivalence: is any leak smaller than the margin of 0.5 points?
True
"""

from undistill.statistics.detectable import smallest_detectable
from undistill.statistics.examples import example_interval
from undistill.statistics.holm import holm_adjust, holm_levels
from undistill.statistics.paired import PairedDifference, paired_difference
from undistill.statistics.sequential import SequentialDifference, look_shares, sequential_difference
from undistill.statistics.shares import share_p_value
from undistill.statistics.spread import Interval, interval
from undistill.statistics.unpaired import unpaired_interval

__all__ = [
    "Interval",
    "PairedDifference",
    "SequentialDifference",
    "example_interval",
    "holm_adjust",
    "holm_levels",
    "interval",
    "look_shares",
    "paired_difference",
    "sequential_difference",
    "share_p_value",
    "smallest_detectable",
    "unpaired_interval",
]
