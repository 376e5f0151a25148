"""CMIMLoss in a plain PyTorch loop: the criterion is the only thing that changes."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from undistill import CMIMLoss, CMISpectrum, load_task


def digits(seed: int = 0) -> tuple[DataLoader, DataLoader]:
    """Your own data go here: images, and integer labels from 0."""
    task = load_task("digits")
    train = TensorDataset(task.train.images / 255, task.train.labels)
    test = TensorDataset(task.test.images / 255, task.test.labels)
    shuffled = DataLoader(train, batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(seed))
    return shuffled, DataLoader(test, batch_size=500)


def train(weight: float = 3.0, epochs: int = 15) -> tuple[nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    loader, test = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    steps = epochs * len(loader)
    # In the place of nn.CrossEntropyLoss(). The weight rises over the first tenth of the steps.
    criterion = CMIMLoss(num_classes=10, weight=weight, ramp_steps=steps // 10)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=steps)
    for _ in range(epochs):
        model.train()
        criterion.train()  # it learns the centroids of the classes, in training mode only
        for images, labels in loader:
            loss = criterion(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            schedule.step()
    return model, evaluate(model, test)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> dict[str, float]:
    model.eval()
    spectrum, right, n = CMISpectrum(num_classes=10), 0, 0
    for images, labels in loader:
        logits = model(images)
        spectrum.update(logits, labels)
        right, n = right + int((logits.argmax(1) == labels).sum()), n + len(labels)
    return {"accuracy": 100 * right / n, "half_w": spectrum.spectrum().within_variance / 2}


if __name__ == "__main__":
    for weight in (0.0, 3.0):  # weight 0 is cross entropy
        _, found = train(weight)
        print(f"weight {weight}: accuracy {found['accuracy']:.2f}%, W/2 {found['half_w']:.3f}")
