"""One of two processes that share a CMISpectrum: rank, rendezvous file and result file are its arguments."""

import sys

import torch
import torch.distributed as dist

from undistill.information import CMISpectrum

POWERS = (0.25, 1.0)


def batches():
    """Batches of different sizes; rank r takes every second one."""
    generator = torch.Generator().manual_seed(0)
    return [
        (3 * torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator))
        for n in (5, 30, 1, 14)
    ]


def main(rank, rendezvous, result):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    metric = CMISpectrum(num_classes=4, powers=POWERS)
    for logits, target in batches()[rank::2]:
        metric.update(logits, target)
    torch.save(metric.compute(), result)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
