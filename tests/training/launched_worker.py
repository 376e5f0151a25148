"""What each of several processes does that `accelerate launch` starts, and one process alone to compare with."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState

from undistill.defences.training import CMIM, AdversarialSparse
from undistill.errors import InputError
from undistill.models import make_classifier
from undistill.tasks import load_task
from undistill.training import FromLabels, Recipe, fit, train_teacher

RECIPE = Recipe(epochs=2, batch_size=50, learning_rate=0.1)
DEFENCE = CMIM(weight=0.5)


def fit_perceptron(digits):
    """Weights, centroids and records of a network without batch normalisation."""
    classifier = make_classifier(
        "mlp-8",
        class_names=digits.class_names,
        input_shape=digits.input_shape,
        mean=digits.mean,
        std=digits.std,
        seed=0,
    )
    objective = FromLabels(DEFENCE.loss(10, 20))
    records = fit(classifier, digits, objective, RECIPE, seed=1, validate=True)
    return {"model": classifier.state_dict(), "objective": objective.state_dict(), "records": records}


def main(folder):
    digits = load_task("digits")
    outcome = fit_perceptron(digits)
    outcome["rank"], outcome["world"] = PartialState().process_index, PartialState().num_processes
    teacher = train_teacher(digits, "cnn", DEFENCE, RECIPE, seed=1, folder=folder / "teacher")
    outcome["teacher"], outcome["provenance"] = teacher.state_dict(), teacher.provenance
    again = train_teacher(digits, "cnn", DEFENCE, RECIPE, seed=1, folder=folder / "teacher")
    outcome["again"] = again.state_dict()
    sparse = AdversarialSparse(iterations=1)  # needs a normal teacher, and images that are made once
    outcome["sparse"] = train_teacher(
        digits, "mlp-8", sparse, RECIPE, seed=1, folder=folder / "sparse" / "teacher"
    ).state_dict()
    try:
        train_teacher(digits, "mlp-8", DEFENCE, Recipe(batch_size=51), seed=1, folder=folder / "odd")
    except InputError as error:
        outcome["refusal"] = str(error)
    torch.save(outcome, folder / f"rank{os.environ['RANK']}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
