import json
import math
from functools import partial

import pytest
import torch

from benchmarks import BENCHMARKS, Figure
from benchmarks.__main__ import as_table, run
from benchmarks.cmim_loss import AutogradCMIM, cmim_loss
from benchmarks.material import PARTS, TEN_POWERS, Trainee, random_task
from benchmarks.throughput import PlainDataset, crop_at_random, normalise, our_batches, to_tensor
from benchmarks.timing import take_turns
from undistill import CMIMLoss
from undistill.defences.training import CrossEntropy
from undistill.training import FromLabels, Recipe

TOY_SIZES = {
    "throughput": {"architecture": "mlp-4", "classes": 2, "batch_size": 4, "steps": 2, "repeats": 2},
    "cmim-step": {"architecture": "mlp-4", "classes": 2, "batch_size": 4, "repeats": 2},
    "cmim-loss": {"classes": 3, "batch_size": 4, "repeats": 2},
    "spectrum": {"samples": 60, "classes": 3, "batch_size": 25, "repeats": 2},
    "step": {"teacher": "mlp-4", "student": "mlp-2", "classes": 2, "batch_size": 4, "steps": 2, "repeats": 2},
    "attack-step": {"student": "mlp-2", "classes": 3, "batch_size": 4, "repeats": 2},
    "precision": {"subjects": (("cnn", (1, 8, 8), 4), ("mlp-2", (1, 4, 4), 4)), "classes": 2, "repeats": 2},
    "packing": {"subjects": (("digits", "mlp-4", 1),), "students": 2, "repeats": 2},
    "plain-way": {
        "teacher": "mlp-4",
        "student": "mlp-2",
        "classes": 2,
        "images": 8,
        "batch_size": 4,
        "epochs": 1,
        "repeats": 2,
    },
    "serving": {"classes": 3, "images": 4, "repeats": 2},
    "running": {"trials": 100, "student": "mlp-4", "epochs": 1, "seeds": 2, "repeats": 2},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "running" else []) for name in BENCHMARKS]
)
def test_a_benchmark_gives_a_figure_per_row_with_every_repeat(name):
    figures = BENCHMARKS[name](**TOY_SIZES[name])
    assert len({figure.name for figure in figures}) == len(figures) >= 3
    for figure in figures:
        assert len(figure.values) == 2
        assert all(map(math.isfinite, figure.values))
        # What is a difference of two timings may be anything when it is as small as their noise.
        assert min(figure.values) > 0 or figure.name.startswith("extra") or figure.name.endswith("network")


def test_pieces_take_turns_in_alternating_order():
    calls = []

    def piece(name):
        calls.append(name)
        return float(len(calls))

    seconds = take_turns({name: partial(piece, name) for name in "ab"}, repeats=3, warmups=1)
    assert "".join(calls) == "abbaabba"
    assert seconds == {"a": (4.0, 5.0, 8.0), "b": (3.0, 6.0, 7.0)}


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (Figure("speed", "x", (1.0, 3.0, 2.0), at_least=2), "at least 2: met"),
        (Figure("speed", "x", (1.0, 3.0, 1.9), at_least=2), "at least 2: missed"),
        (Figure("cost", "ms", (12.0, 11.0, 30.0), at_most=12), "at most 12: met"),
        (Figure("cost", "ms", (12.5, 11.0, 30.0), at_most=12), "at most 12: missed"),
        (Figure("cost", "ms", (1.0,)), ""),
    ],
)
def test_a_target_is_judged_on_the_median(figure, words):
    assert figure.target == words


def test_both_forms_of_the_loss_are_one_function():
    generator = torch.Generator().manual_seed(0)
    closed, plain = CMIMLoss(6, powers=TEN_POWERS), AutogradCMIM(6, TEN_POWERS)
    for _ in range(3):
        labels = torch.randint(6, (16,), generator=generator)
        values, gradients = [], []
        logits = (2 * torch.randn(16, 6, generator=generator)).requires_grad_()
        for loss in (closed, plain):
            logits.grad = None
            value = loss(logits, labels)
            value.backward()
            values.append(value.detach())
            gradients.append(logits.grad)
        torch.testing.assert_close(values[0], values[1])
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_both_loops_see_images_of_one_scale():
    task = random_task(8, 2, (3, 32, 32))
    plain = PlainDataset(task, (to_tensor, normalise(task.mean, task.std)))
    image, label = plain[5]
    mean, std = torch.tensor(task.mean)[:, None, None], torch.tensor(task.std)[:, None, None]
    torch.testing.assert_close(image * std + mean, task.train.images[5] / 255)
    assert label == task.train.labels[5]
    images, labels = next(iter(our_batches(task, 4)))
    assert images.shape == (4, 3, 32, 32)
    assert labels.shape == (4,)
    assert images.max() <= 1


def test_the_plain_crop_shifts_by_at_most_its_padding():
    image = PlainDataset(random_task(4, 2), ())[0][0]
    original = to_tensor(image)
    framed = torch.nn.functional.pad(original, (4, 4, 4, 4))
    windows = framed.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)  # every crop there is, [9, 9, 3, 32, 32]
    for _ in range(20):
        crop = to_tensor(crop_at_random(image))
        assert (windows == crop).flatten(2).all(2).sum() == 1


def test_a_step_reports_each_part_and_trains():
    trainee = Trainee("mlp-4", random_task(8, 2, (1, 4, 4)), Recipe(batch_size=4, learning_rate=0.1))
    before = [parameter.clone() for parameter in trainee.classifier.parameters()]
    seconds = trainee.step(FromLabels(CrossEntropy().loss(2, 1)))
    assert tuple(seconds) == PARTS
    assert min(seconds.values()) > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, trainee.classifier.parameters(), strict=True))


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys, monkeypatch):
    def toy():
        """A toy."""
        return cmim_loss(**TOY_SIZES["cmim-loss"])

    monkeypatch.setitem(BENCHMARKS, "cmim-loss", toy)
    run("cmim-loss", json=tmp_path / "figures.json")
    printed = capsys.readouterr().out
    assert "threads: 1" in printed
    assert "at most 12" in printed
    assert "had its core for" in printed
    written = json.loads((tmp_path / "figures.json").read_text())
    assert set(written["setting"]) == {"date", "command", "processor", "cores", "bfloat16 in hardware", "versions"}
    assert list(written["benchmarks"]) == ["cmim-loss"]
    assert written["benchmarks"]["cmim-loss"]["share_of_core"] > 0
    rows = written["benchmarks"]["cmim-loss"]["figures"]
    assert [row["name"] for row in rows] == ["closed form", "autograd", "cross entropy", "autograd / closed form"]
    assert all(row["n"] == len(row["values"]) == 2 for row in rows)
    assert all(row["minimum"] <= row["median"] <= row["maximum"] for row in rows)


def test_a_table_has_a_row_per_figure():
    table = as_table([Figure("a", "ms", (0.00123, 1234.5)), Figure("b", "x", (2.0,))])
    assert table.row_count == 2
    assert list(table.columns[3].cells) == ["0.00123", "2"]
    assert list(table.columns[5].cells) == ["1,234", "2"]
