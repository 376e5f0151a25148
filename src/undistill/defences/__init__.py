"""Defences of a classifier against distillation.

- ``undistill.defences.training``: losses that a teacher is trained with (cross entropy, label smoothing, CMIM, ...).
- ``undistill.defences.output``: row-wise transforms of what a teacher answers (top-k, rounding, reverse sigmoid, ...).
"""
