"""Predictions and accuracy."""

import pytest
import torch
from torch import nn

from undistill.tasks import Split
from undistill.training import accuracy, predict


def test_predictions_are_the_networks_logits_in_evaluation_mode(digits, fresh):
    classifier = fresh("cnn")
    logits = predict(classifier, digits.test)
    assert classifier.training, "left in the mode in which it came"
    assert logits.shape == (1000, 10)
    assert logits.dtype == torch.float32
    classifier.eval()
    with torch.no_grad():
        expected = torch.cat([classifier(image[None] / 255) for image in digits.test.images[:20]])
    torch.testing.assert_close(logits[:20], expected, rtol=1e-4, atol=1e-5)
    predict(classifier, digits.validation)
    assert not classifier.training


def test_the_mode_comes_back_after_an_error(digits):
    class Refusing(nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    network = Refusing()
    with pytest.raises(RuntimeError, match="no"):
        predict(network, digits.test)
    assert network.training


def test_predicting_changes_no_running_statistics(digits, fresh):
    classifier = fresh("cnn")
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    predict(classifier, digits.test)
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_accuracy_counts():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(70, 5, generator=generator), torch.randint(5, (70,), generator=generator)
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    right = sum(row.index(max(row)) == label for row, label in rows)
    split = Split(torch.zeros(70, 1, 1, 1, dtype=torch.uint8), labels)
    assert accuracy(logits, split) == pytest.approx(100 * right / 70)
