"""CMIMLoss in the Trainer of Hugging Face, for a text classifier."""

import tempfile
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from undistill import CMIMLoss, CMISpectrum

TOPICS = {
    "sea": ["wave", "salt", "tide", "harbour", "sail", "gull", "anchor", "deep"],
    "wood": ["oak", "moss", "path", "fern", "owl", "bark", "root", "deep"],
    "town": ["street", "tram", "shop", "crowd", "lamp", "clock", "harbour", "path"],
}
WORDS = ["<pad>", "<class>", "the", "a", "and", "of", *sorted({word for words in TOPICS.values() for word in words})]


class Sentences(Dataset):
    """Random sentences of eight words, half of them of the topic. Your own tokenised texts go here."""

    def __init__(self, n: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(len(TOPICS), (n,), generator=random)
        topics = torch.tensor([[WORDS.index(word) for word in words] for words in TOPICS.values()])
        own = topics[self.labels].gather(1, torch.randint(8, (n, 8), generator=random))
        other = torch.randint(2, len(WORDS), (n, 8), generator=random)
        mixed = torch.where(torch.rand(n, 8, generator=random) < 0.5, own, other)
        self.input_ids = torch.cat([torch.full((n, 1), WORDS.index("<class>")), mixed], dim=1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids[index], "labels": self.labels[index]}


class CMIMTrainer(Trainer):
    """A Trainer with another loss. The loss is a part of the model, which the Trainer moves, switches and saves."""

    def __init__(self, model: Any, *, weight: float, ramp_steps: int, **settings: Any) -> None:
        model.criterion = CMIMLoss(model.config.num_labels, weight, ramp_steps=ramp_steps)
        super().__init__(model, **settings)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch, as the Trainer divides it

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.accelerator.unwrap_model(model).criterion(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def train(weight: float = 1.0, epochs: int = 8) -> tuple[BertForSequenceClassification, dict[str, float]]:
    torch.manual_seed(0)
    # Usually BertForSequenceClassification.from_pretrained(...); this one is tiny and knows nothing yet.
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=len(TOPICS),
    )
    model = BertForSequenceClassification(config)
    data, test = Sentences(1000, seed=1), Sentences(500, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=50,
            learning_rate=1e-2,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        ramp_steps = epochs * len(data) // 50 // 10
        trainer = CMIMTrainer(model, weight=weight, ramp_steps=ramp_steps, args=arguments, train_dataset=data)
        trainer.train()
        answers = trainer.predict(test)
    spectrum = CMISpectrum(num_classes=len(TOPICS))
    logits = torch.from_numpy(answers.predictions)
    spectrum.update(logits, test.labels)
    del model.criterion  # what is served, and saved with model.save_pretrained, is the classifier alone
    accuracy = 100 * (logits.argmax(1) == test.labels).double().mean().item()
    return model, {"accuracy": accuracy, "half_w": spectrum.spectrum().within_variance / 2}


if __name__ == "__main__":
    for weight in (0.0, 1.0):  # weight 0 is cross entropy
        _, found = train(weight)
        print(f"weight {weight}: accuracy {found['accuracy']:.2f}%, W/2 {found['half_w']:.3f}")
