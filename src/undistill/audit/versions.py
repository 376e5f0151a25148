"""Frozen protocols: what ``quick``, ``standard`` and ``plus`` do, to the last setting.

A version is a function of the shape of a task's images, because students and recipe are, and of nothing else. What it
returns is frozen under its name and number: a changed setting needs a new number (a test holds the contents' hashes).
"""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from undistill.attacks import (
    CTKD,
    DIST,
    DKD,
    HTC,
    KD,
    KDMSE,
    LSKD,
    MKD,
    MLKD,
    NKD,
    RLD,
    TTM,
    WTTM,
    Attack,
    Averager,
    DISTWithoutLabels,
    Ensemble,
    FullAverager,
    KDInfinite,
    KDWithoutLabels,
    KnockoffHard,
    LabelOnly,
    LSKDWithDKD,
    LSKDWithMLKD,
    LSKDWithoutLabels,
    SelfTraining,
    Skeptical,
    TTMWithoutLabels,
    WTTMWithoutLabels,
)
from undistill.audit.protocol import Origin, Protocol
from undistill.tasks import TRAINING_IMAGES, FreshImages
from undistill.training import defaults_for

TRIES = 4
SMOOTHINGS = (0.0, 0.1, 0.2, 0.4)
PLACEBO_SMOOTHINGS = (0.1, 0.3)
BOTH_REGIMES = (TRAINING_IMAGES, FreshImages())

# Four settings for each attack: its own grid, which starts at the official defaults, filled up or cut to four.
QUICK: tuple[tuple[Attack, ...], ...] = (
    (KD(4.0), KD(1.0), KD(20.0), KD(4.0, hard=0.5)),
    (KDWithoutLabels(4.0), KDWithoutLabels(1.0), KDWithoutLabels(20.0), KDWithoutLabels(8.0)),
    (DKD(), DKD(beta=2.0), DKD(1.0, beta=2.0), DKD(1.0, beta=8.0)),
    (DIST(4.0), DIST(1.0), DIST(2.0), DIST(4.0, weight=1.0)),
    (LSKD(), LSKD(3.0), LSKD(weight=3.0), LSKD(3.0, weight=3.0)),
    (FullAverager(20.0), FullAverager(4.0), FullAverager(1.0), FullAverager(4.0, hard=0.5)),
    (LabelOnly(), LabelOnly(smoothing=0.1), LabelOnly(smoothing=0.3), LabelOnly(hard=0.1, smoothing=0.1)),
)
STANDARD: tuple[tuple[Attack, ...], ...] = (
    *QUICK,
    (NKD(), NKD(1.0, gamma=1.5), NKD(3.0, gamma=1.5), NKD(1.0, gamma=3.5)),
    (TTM(0.3, beta=7.0), TTM(0.2, beta=8.0), TTM(0.1, beta=45.0), TTM(0.3, beta=2.0)),
    (Averager(20.0), Averager(4.0), Averager(1.0), Averager(4.0, hard=0.5)),
)
PLUS: tuple[tuple[Attack, ...], ...] = (
    *STANDARD,
    (KDMSE(), KDMSE(huber=1.0), KDMSE(huber=0.1), KDMSE(huber=10.0)),
    (KDInfinite(), KDInfinite(4.0), KDInfinite(0.25), KDInfinite(16.0)),
    (RLD(), RLD(alpha_temperature=4.0), RLD(alpha_temperature=4.0, beta=2.0), RLD(beta=2.0)),
    (DISTWithoutLabels(4.0), DISTWithoutLabels(1.0), DISTWithoutLabels(2.0), DISTWithoutLabels(4.0, weight=1.0)),
    tuple(TTMWithoutLabels(power, beta=1.0) for power in (0.4, 0.2, 0.6, 0.8)),
    (WTTM(0.1, beta=2.25), WTTM(0.2, beta=3.0), WTTM(0.3, beta=1.5), WTTM(0.1, beta=1.0)),
    tuple(WTTMWithoutLabels(power, beta=1.0) for power in (0.4, 0.2, 0.6, 0.8)),
    (LSKDWithoutLabels(), LSKDWithoutLabels(3.0), LSKDWithoutLabels(weight=3.0), LSKDWithoutLabels(3.0, weight=3.0)),
    (
        LSKDWithDKD(),
        LSKDWithDKD(alpha=15.0, beta=30.0),
        LSKDWithDKD(alpha=9.0, beta=18.0),
        LSKDWithDKD(3.0, alpha=9.0, beta=18.0),
    ),
    tuple(MLKD(hard=hard, weight=weight) for hard, weight in ((0.1, 0.9), (0.025, 0.225), (0.5, 0.5), (0.1, 0.45))),
    tuple(LSKDWithMLKD(hard=0.1, weight=weight) for weight in (9.0, 3.0, 1.0, 6.0)),
    (CTKD(1.0), CTKD(4.0), CTKD(1.0, hard=0.5), CTKD(4.0, hard=0.5)),
    (HTC(), HTC(alpha=3.0), HTC(100.0), HTC(100.0, alpha=3.0)),
    (Skeptical(20.0), Skeptical(4.0), Skeptical(20.0, soft=0.5), Skeptical(4.0, soft=0.5)),
    (MKD(rate=0.01), MKD(rate=0.001), MKD(1.0, rate=0.01), MKD(20.0, rate=0.01)),
    tuple(KnockoffHard(smoothing) for smoothing in (0.0, 0.1, 0.3, 0.2)),
    tuple(SelfTraining(temperature) for temperature in (4.0, 20.0, 1.0, 8.0)),
    tuple(Ensemble(temperature) for temperature in (4.0, 20.0, 1.0, 8.0)),
)


def _students(input_shape: tuple[int, ...]) -> tuple[str, str, str]:
    """Up to three, the cheapest first."""
    default = defaults_for(input_shape).student
    others = {"cnn1d-small": ("mlp-64", "cnn1d"), "mlp-64": ("cnn", "mlp-32"), "resnet8": ("mobilenetv2", "vgg8")}
    return default, *others[default]


def _frozen(name: str, protocol: Protocol) -> Protocol:
    return replace(protocol, origin=Origin(name, protocol.hash))


def quick(input_shape: tuple[int, ...]) -> Protocol:
    """Minutes on a laptop for an embedded task: seven attacks, one student, at most 10 seeds, a margin of one point.

    Args:
        input_shape: of the task's images.

    Example:
        >>> protocol = quick((1, 8, 8))
        >>> protocol.version, [grid[0].name for grid in protocol.attacks]
        ('undistill-quick v1', ['kd', 'kd-no-labels', 'dkd', 'dist', 'lskd', 'averager-full', 'label-only'])
    """
    protocol = Protocol(
        _students(input_shape)[:1],
        defaults_for(input_shape).recipe,
        QUICK,
        SMOOTHINGS,
        PLACEBO_SMOOTHINGS,
        seeds=10,
        looks=(3, 6),
        tries=TRIES,
        tuning_seeds=1,
        margin=1.0,
        data=BOTH_REGIMES,
    )
    return _frozen("undistill-quick v1", protocol)


def standard(input_shape: tuple[int, ...]) -> Protocol:
    """What to cite: ten attacks, two students, at most 24 seeds, a margin of half a point.

    Args:
        input_shape: of the task's images.

    Example:
        >>> protocol = standard((3, 32, 32))
        >>> protocol.version, protocol.students, protocol.all_looks
        ('undistill-standard v1', ('resnet8', 'mobilenetv2'), (3, 6, 12, 24))
    """
    protocol = Protocol(
        _students(input_shape)[:2],
        defaults_for(input_shape).recipe,
        STANDARD,
        SMOOTHINGS,
        PLACEBO_SMOOTHINGS,
        seeds=24,
        looks=(3, 6, 12),
        tries=TRIES,
        tuning_seeds=2,
        margin=0.5,
        data=BOTH_REGIMES,
    )
    return _frozen("undistill-standard v1", protocol)


def plus(input_shape: tuple[int, ...]) -> Protocol:
    """Every attack of the battery that differs from the others under full access, three students, at most 40 seeds.

    Args:
        input_shape: of the task's images.

    Example:
        >>> protocol = plus((3, 32, 32))
        >>> protocol.version, len(protocol.attacks), len(protocol.students)
        ('undistill-plus v1', 28, 3)
    """
    protocol = Protocol(
        _students(input_shape),
        defaults_for(input_shape).recipe,
        PLUS,
        SMOOTHINGS,
        PLACEBO_SMOOTHINGS,
        seeds=40,
        looks=(3, 6, 12, 24),
        tries=TRIES,
        tuning_seeds=3,
        margin=0.5,
        data=BOTH_REGIMES,
    )
    return _frozen("undistill-plus v1", protocol)


VERSIONS: MappingProxyType[str, Callable[[tuple[int, ...]], Protocol]] = MappingProxyType(
    {"quick": quick, "standard": standard, "plus": plus}
)
"""The versions by name; each takes the shape of a task's images."""


def customised(protocol: Protocol, **changes: Any) -> Protocol:
    """A protocol with some of its settings changed; it then calls itself custom.

    Looks that the new number of seeds does not exceed fall away, and so does the equal number of tries where the new
    grids are not of one length.

    Args:
        protocol: a version, or a protocol of one's own.
        changes: fields of :class:`Protocol`.

    Example:
        >>> from undistill.attacks import KD
        >>> changed = customised(quick((1, 8, 8)), attacks=(KD.grid(),), seeds=5)
        >>> changed.version, changed.looks, changed.tries
        ('custom (from undistill-quick v1)', (3,), None)
    """
    fields = {
        name: changes.get(name, getattr(protocol, name))
        for name in ("attacks", "smoothings", "seeds", "looks", "tries")
    }
    equal = {len(grid) for grid in (fields["smoothings"], *fields["attacks"])} == {fields["tries"]}
    looks = tuple(size for size in fields["looks"] if size < fields["seeds"])
    return replace(protocol, **changes | {"looks": looks, "tries": fields["tries"] if equal else None})
