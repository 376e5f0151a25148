"""Distillation attacks: one small file each, a frozen dataclass whose loss returns one value per example."""

from undistill.attacks.as_released import AS_RELEASED
from undistill.attacks.averager import Averager, FullAverager
from undistill.attacks.base import ACCESS_KINDS, EXACT_ZEROS, AccessKind, Answers, Attack, AttackLoss, Lab
from undistill.attacks.ctkd import CTKD
from undistill.attacks.dfme import DFME
from undistill.attacks.dist import DIST, DISTWithoutLabels
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.dkd import DKD
from undistill.attacks.generations import Ensemble, SelfTraining
from undistill.attacks.htc import HTC
from undistill.attacks.kd import KD, KDWithoutLabels
from undistill.attacks.kd_mse import KDMSE, KDInfinite
from undistill.attacks.knockoff import Knockoff, KnockoffHard, LabelOnly
from undistill.attacks.lskd import LSKD, LSKDWithDKD, LSKDWithoutLabels
from undistill.attacks.mkd import MKD
from undistill.attacks.mlkd import MLKD, LSKDWithMLKD
from undistill.attacks.nkd import NKD
from undistill.attacks.recovery import RecoveryBayes, RecoveryLearned
from undistill.attacks.rld import RLD
from undistill.attacks.skeptical import Skeptical
from undistill.attacks.truncated import ImputedTailKD, RestBinKD, SupportKD
from undistill.attacks.ttm import TTM, WTTM, TTMWithoutLabels, WTTMWithoutLabels

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        KD,
        KDWithoutLabels,
        KDMSE,
        KDInfinite,
        DKD,
        NKD,
        RLD,
        DIST,
        DISTWithoutLabels,
        TTM,
        TTMWithoutLabels,
        WTTM,
        WTTMWithoutLabels,
        LSKD,
        LSKDWithoutLabels,
        LSKDWithDKD,
        MLKD,
        LSKDWithMLKD,
        CTKD,
        HTC,
        Skeptical,
        Averager,
        FullAverager,
        MKD,
        SupportKD,
        RestBinKD,
        ImputedTailKD,
        Knockoff,
        KnockoffHard,
        LabelOnly,
        SelfTraining,
        Ensemble,
        RecoveryBayes,
        RecoveryLearned,
        DFME,
    )
}

__all__ = [
    "ACCESS_KINDS",
    "AS_RELEASED",
    "ATTACKS",
    "CTKD",
    "DFME",
    "DIST",
    "DKD",
    "EXACT_ZEROS",
    "HTC",
    "KD",
    "KDMSE",
    "LSKD",
    "MKD",
    "MLKD",
    "NKD",
    "RLD",
    "TTM",
    "WTTM",
    "AccessKind",
    "Answers",
    "Attack",
    "AttackLoss",
    "Averager",
    "DISTWithoutLabels",
    "Ensemble",
    "FullAverager",
    "ImputedTailKD",
    "KDInfinite",
    "KDWithoutLabels",
    "Knockoff",
    "KnockoffHard",
    "LSKDWithDKD",
    "LSKDWithMLKD",
    "LSKDWithoutLabels",
    "Lab",
    "LabelOnly",
    "RecoveryBayes",
    "RecoveryLearned",
    "RestBinKD",
    "SelfTraining",
    "Skeptical",
    "SupportKD",
    "TTMWithoutLabels",
    "WTTMWithoutLabels",
    "kl_divergence",
]
