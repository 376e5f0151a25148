"""Distillation attacks: one small file each, a frozen dataclass whose loss returns one value per example."""

from undistill.attacks.base import Attack
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.kd import KD, KDWithoutLabels

ATTACKS: dict[str, type[Attack]] = {attack.name: attack for attack in (KD, KDWithoutLabels)}

__all__ = ["ATTACKS", "KD", "Attack", "KDWithoutLabels", "kl_divergence"]
