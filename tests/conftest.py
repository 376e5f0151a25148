import torch

# The tests run in several processes at once; more threads than cores would only slow them down.
torch.set_num_threads(1)
