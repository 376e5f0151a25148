"""One of two processes that share a CMIMLoss: rank, rendezvous file and result file are its arguments."""

import sys

import torch
import torch.distributed as dist

from undistill.defences.training import CMIMLoss

SIZES = ((3, 5), (1, 4), (6, 2))


def make_loss():
    return CMIMLoss(4, powers=(0.25, 1.0), aggregation="power-mean", ramp_steps=4, reduction="none")


def steps():
    """Three training steps; each is one batch, and the numbers of examples that rank 0 and rank 1 get of it."""
    generator = torch.Generator().manual_seed(0)
    for sizes in SIZES:
        n = sum(sizes)
        yield 3 * torch.randn(n, 4, generator=generator), torch.randint(4, (n,), generator=generator), sizes


def main(rank, rendezvous, result):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    loss = make_loss()
    values, gradients = [], []
    for logits, target, sizes in steps():
        mine = logits.split(sizes)[rank].requires_grad_()
        value = loss(mine, target.split(sizes)[rank])
        value.sum().backward()
        values.append(value.detach())
        gradients.append(mine.grad)
    running = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    loss.recompute((logits.split(sizes)[rank], target.split(sizes)[rank]) for logits, target, sizes in steps())
    torch.save({"values": values, "gradients": gradients, "running": running, "exact": loss.state_dict()}, result)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
