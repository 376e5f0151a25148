"""What processes that train together exchange."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_batches(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, slice]:
    """All processes' logits and targets, in the order of ranks, and where this process's own are among them."""
    if world_size() == 1:
        return logits, target, slice(None)
    length = target.new_tensor([len(target)])
    lengths = [torch.empty_like(length) for _ in range(world_size())]
    dist.all_gather(lengths, length)
    sizes = [int(size) for size in lengths]
    # Collectives want equal shapes, so the batches travel padded to the longest one.
    padding = max(sizes) - len(target)
    padded_logits = F.pad(logits, (0, 0, 0, padding)).contiguous()
    padded_target = F.pad(target, (0, padding))
    all_logits = [torch.empty_like(padded_logits) for _ in sizes]
    all_targets = [torch.empty_like(padded_target) for _ in sizes]
    dist.all_gather(all_logits, padded_logits)
    dist.all_gather(all_targets, padded_target)
    start = sum(sizes[: dist.get_rank()])
    return (
        torch.cat([rows[:size] for rows, size in zip(all_logits, sizes, strict=True)]),
        torch.cat([rows[:size] for rows, size in zip(all_targets, sizes, strict=True)]),
        slice(start, start + len(target)),
    )


def own_share(rows: Tensor) -> Tensor:
    """The rows that are this process's when a data set is divided among the processes; all without
    ``torch.distributed``."""
    return rows[dist.get_rank() :: world_size()] if world_size() > 1 else rows
