"""CMIMLoss with timm's models, optimisers, schedules and averages, as in timm's train.py."""

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, accuracy, dispatch_clip_grad
from torch.utils.data import DataLoader, TensorDataset

from undistill import CMIMLoss, CMISpectrum, load_task


def train(weight: float = 1.0, epochs: int = 6) -> tuple[torch.nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    task = load_task("digits")
    loader = DataLoader(TensorDataset(task.train.images / 255, task.train.labels), batch_size=50, shuffle=True)
    # As small as the images. Usually: timm.create_model("resnet50", pretrained=True, num_classes=...)
    model = timm.create_model(
        "resnet10t", num_classes=10, in_chans=1, stem_width=8, stem_type="", channels=(8, 16, 32, 64), block_args={}
    )
    average = ModelEmaV3(model, decay=0.9)
    optimiser = create_optimizer_v2(model, opt="sgd", lr=0.05, weight_decay=5e-4, momentum=0.9)
    schedule, epochs = create_scheduler_v2(optimiser, sched="cosine", num_epochs=epochs, warmup_epochs=1)
    # timm's train.py makes `train_loss_fn` here; this is the line to change.
    train_loss_fn = CMIMLoss(num_classes=10, weight=weight, ramp_steps=epochs * len(loader) // 10)
    for epoch in range(epochs):
        model.train()
        for images, labels in loader:
            loss = train_loss_fn(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            dispatch_clip_grad(model.parameters(), 2.0, mode="norm")
            optimiser.step()
            average.update(model)
        schedule.step(epoch + 1)
    return average.module, evaluate(average.module, task.test.images / 255, task.test.labels)


@torch.no_grad()
def evaluate(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    logits = model.eval()(images)
    spectrum = CMISpectrum(num_classes=10)
    spectrum.update(logits, labels)
    return {
        "accuracy": float(accuracy(logits, labels)[0]),
        "half_w": spectrum.spectrum().within_variance / 2,
    }


if __name__ == "__main__":
    for weight in (0.0, 1.0):  # weight 0 is cross entropy
        _, found = train(weight)
        print(f"weight {weight}: accuracy {found['accuracy']:.2f}%, W/2 {found['half_w']:.3f}")
