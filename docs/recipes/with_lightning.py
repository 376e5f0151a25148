"""CMIMLoss in a LightningModule: a submodule like any other, so Lightning moves, switches and saves it."""

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from undistill import CMIMLoss, CMISpectrum, load_task


class ProtectedClassifier(lightning.LightningModule):
    def __init__(self, num_classes: int = 10, weight: float = 3.0) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, num_classes))
        self.criterion = CMIMLoss(num_classes, weight)
        self.spectrum = CMISpectrum(num_classes)  # a torchmetrics metric

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return self.criterion(self(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = self(images)
        self.spectrum.update(logits, labels)
        self.log("accuracy", 100 * (logits.argmax(1) == labels).float().mean())

    def on_validation_epoch_end(self) -> None:
        found = self.spectrum.compute()
        self.log("half_w", found["within_variance"].float() / 2)
        self.log("supremum", found["supremum"].float())
        self.spectrum.reset()

    def on_fit_start(self) -> None:
        # A tenth of all steps, which only the trainer knows.
        self.criterion.ramp_steps = int(self.trainer.estimated_stepping_batches) // 10

    def configure_optimizers(self) -> dict:
        optimiser = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(weight: float = 3.0, epochs: int = 15) -> tuple[ProtectedClassifier, dict[str, float]]:
    lightning.seed_everything(0, verbose=False)
    task = load_task("digits")
    loader = DataLoader(TensorDataset(task.train.images / 255, task.train.labels), batch_size=50, shuffle=True)
    test = DataLoader(TensorDataset(task.test.images / 255, task.test.labels), batch_size=1000)
    module = ProtectedClassifier(weight=weight)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        gradient_clip_val=2.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=epochs,
    )
    trainer.fit(module, loader, test)
    return module, {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    for weight in (0.0, 3.0):  # weight 0 is cross entropy
        _, found = train(weight)
        print(f"weight {weight}: accuracy {found['accuracy']:.2f}%, W/2 {found['half_w']:.3f}")
