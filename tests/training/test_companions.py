"""Teachers that need other networks: a normal teacher, a start, passes made once, and the watch for a collapse."""

import json
from dataclasses import replace

import pytest
import torch

from undistill.defences.training import (
    CMIM,
    DEFENCES,
    MCMI,
    NCMI,
    AdversarialSparse,
    CrossEntropy,
    LabelSmoothing,
    Nasty,
    adversarial_sparse,
)
from undistill.errors import InputError
from undistill.models import load_checkpoint, save_checkpoint
from undistill.tasks import load_task
from undistill.training import Recipe, SilentProgress, accuracy, classifier_for, predict, train_teacher
from undistill.training.collapse import weaker_watch

RECIPE = Recipe(epochs=3, batch_size=100, learning_rate=0.1)
TINY = {defence.name: defence() for defence in DEFENCES.values()} | {
    "ast": AdversarialSparse(iterations=2),
    "mcmi": MCMI(epochs=1.0),
    "cmim-with-more": CMIM(second_view="mixed", held_out=0.5),
}


def train(task, folder, defence, recipe=RECIPE, architecture="mlp-16", **settings):
    return train_teacher(task, architecture, defence, recipe, seed=3, folder=folder, **settings)


def provenance(folder):
    return json.loads((folder / "model.json").read_text())["provenance"]


def without_seconds(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


class Telling(SilentProgress):
    """Keeps what it is told, and may stop a training from outside."""

    def __init__(self, title, recipe, stop=None):
        self.title, self.recipe, self.stop = title, recipe, stop
        self.records, self.warnings = [], []

    def epoch(self, record):
        self.records.append(record)
        if self.stop == (self.title, record["epoch"]):
            raise KeyboardInterrupt

    def warn(self, sentence):
        self.warnings.append((len(self.records), sentence))


def telling(heard, stop=None):
    def show(title, recipe, images):
        assert images == 500
        heard.append(Telling(title, recipe, stop))
        return lambda done: heard[-1]

    return show


@pytest.fixture(scope="module")
def normal(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("normal") / "ce"
    train(digits, folder, CrossEntropy())
    return folder


@pytest.mark.parametrize("name", TINY)
def test_an_interrupted_training_goes_on_bit_for_bit(digits, tmp_path, name, monkeypatch):
    """The normal teacher, if any, is trained first and stays; what is made once is not made again."""
    defence = TINY[name]
    title = f"mlp-16 with {defence.name}"
    made, make = [], adversarial_sparse.adversarial_images
    monkeypatch.setattr(adversarial_sparse, "adversarial_images", lambda *given: made.append(1) or make(*given))
    unbroken = train(digits, tmp_path / "unbroken", defence)
    assert len(made) == (name == "ast")

    heard = []
    for epoch in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            train(digits, tmp_path / "stopped", defence, progress=telling(heard, (title, epoch)))
    resumed = train(digits, tmp_path / "stopped", defence, progress=telling(heard))
    assert len(made) == 2 * (name == "ast")
    assert [told.title for told in heard] == ["mlp-16 with ce"] * defence.needs_normal + [title] * 3
    assert [len(told.records) for told in heard[-3:]] == [1, 1, 1]
    for part, tensor in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[part], tensor), part
    first, second = (provenance(tmp_path / folder) for folder in ("unbroken", "stopped"))
    assert without_seconds(first["records"]) == without_seconds(second["records"])
    differ = {"records", "normal", "needed_seconds"}  # they hold seconds
    assert {key: first[key] for key in first.keys() - differ} == {key: second[key] for key in second.keys() - differ}
    beside = ["stopped", "stopped.normal"] if defence.needs_normal else ["stopped"]
    assert sorted(path.name for path in tmp_path.glob("stopped*")) == beside


def test_a_stop_in_the_training_of_the_normal_teacher(digits, tmp_path, normal):
    heard = []
    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "t", Nasty(), progress=telling(heard, ("mlp-16 with ce", 1)))
    train(digits, tmp_path / "t", Nasty(), progress=telling(heard))
    assert [(told.title, len(told.records)) for told in heard] == [
        ("mlp-16 with ce", 2),
        ("mlp-16 with ce", 1),
        ("mlp-16 with nasty", 3),
    ]
    assert load_checkpoint(tmp_path / "t.normal").fingerprint() == load_checkpoint(normal).fingerprint()


def test_a_given_normal_teacher_is_taken_and_described(digits, tmp_path, normal):
    heard = []
    given = train(digits, tmp_path / "given", Nasty(), normal=normal, progress=telling(heard))
    assert [told.title for told in heard] == ["mlp-16 with nasty"]
    assert not (tmp_path / "given.normal").exists()
    own = train(digits, tmp_path / "own", Nasty())
    assert given.fingerprint() == own.fingerprint(), "it is the same normal teacher"
    teacher = load_checkpoint(normal)
    expected = {
        "fingerprint": teacher.fingerprint(),
        "validation_accuracy": accuracy(predict(teacher, digits.validation), digits.validation),
        "test_accuracy": accuracy(predict(teacher, digits.test), digits.test),
    }
    assert given.provenance["normal"] == expected | {"given": True}
    assert own.provenance["normal"] == expected | {"given": False}
    assert given.provenance["defence"] == {
        "name": "nasty",
        "temperature": 4.0,
        "weight": 0.04,
        "direction": "nasty-to-normal",
        "reduction": "batch-mean",
    }
    # Finished trainings are returned, each by its own words only.
    again = train(digits, tmp_path / "given", Nasty(), normal=normal, progress=telling(heard))
    assert again.fingerprint() == given.fingerprint()
    train(digits, tmp_path / "own", Nasty(), progress=telling(heard))
    assert len(heard) == 1
    with pytest.raises(InputError, match="given exists and holds something else than this training"):
        train(digits, tmp_path / "given", Nasty())


def test_a_normal_teacher_that_only_watches_changes_nothing(digits, tmp_path, normal):
    with_it = train(digits, tmp_path / "with", CMIM(), normal=normal)
    without = train(digits, tmp_path / "without", CMIM())
    assert with_it.fingerprint() == without.fingerprint()
    assert with_it.provenance["identity"] == without.provenance["identity"]
    against = "the normal teacher after the same epoch"
    assert with_it.provenance["collapse"] == {"against": against, "weaker": False, "epochs": []}
    against = "its own best epoch or 4 times that of guessing, whichever is more"
    assert without.provenance["collapse"] == {"against": against, "weaker": True, "epochs": []}
    assert load_checkpoint(normal).provenance["collapse"] == {"against": against, "weaker": True, "epochs": []}


def test_a_collapse_is_told_as_it_happens(digits, tmp_path, normal):
    """A nasty teacher with far too large a weight never learns; one that is slow is out of its collapse in the end."""
    expected = [record["validation_accuracy"] for record in provenance(normal)["records"]]
    heard = []
    broken = train(
        digits, tmp_path / "broken", Nasty(weight=50.0, temperature=4.0), normal=normal, progress=telling(heard)
    )
    (told,) = heard
    reached = [record["validation_accuracy"] for record in told.records]
    collapsed = [epoch for epoch in range(3) if reached[epoch] < expected[epoch] / 2]
    assert collapsed[-1] == 2
    assert broken.provenance["collapse"]["epochs"] == collapsed
    place, sentence = told.warnings[0]
    assert place == collapsed[0] + 1, "right after the epoch, not at the end"
    first = collapsed[0]
    assert sentence == (
        f"collapse: after epoch {first + 1} the validation accuracy is {reached[first]:.2f}%, under half of "
        f"{expected[first]:.2f}%, that of the normal teacher after the same epoch"
    )


def test_a_collapse_of_fine_tuning_is_seen_against_the_start(digits, tmp_path, normal):
    heard = []
    made = train(digits, tmp_path / "t", MCMI(weight=50.0, epochs=1.0), normal=normal, progress=telling(heard))
    assert made.provenance["collapse"]["against"] == "the network that it started from"
    assert made.provenance["collapse"]["epochs"] == [0, 1, 2]
    assert len(heard[0].warnings) == 1, "once, when it begins"
    start = load_checkpoint(normal).provenance["validation_accuracy"]
    assert f"under half of {start:.2f}%" in heard[0].warnings[0][1]


def test_the_end_of_a_collapse_is_told(digits, tmp_path, normal):
    description = json.loads((normal / "model.json").read_text())
    teacher = load_checkpoint(normal)
    teacher.provenance = description["provenance"]
    for record, value in zip(teacher.provenance["records"], (100.0, 1.0, 1.0), strict=True):
        record["validation_accuracy"] = value
    save_checkpoint(teacher, tmp_path / "edited")
    heard = []
    made = train(digits, tmp_path / "t", LabelSmoothing(), normal=tmp_path / "edited", progress=telling(heard))
    assert made.provenance["collapse"]["epochs"] == [0]
    assert [place for place, _ in heard[0].warnings] == [1, 2]
    assert heard[0].warnings[1][1] == "out of the collapse after epoch 2"


def test_a_training_that_goes_on_inside_a_collapse_says_so_and_that_it_ends(digits, tmp_path, normal):
    teacher = load_checkpoint(normal)
    for record, value in zip(teacher.provenance["records"], (100.0, 1.0, 1.0), strict=True):
        record["validation_accuracy"] = value
    save_checkpoint(teacher, tmp_path / "edited")
    heard, settings = [], {"normal": tmp_path / "edited"}
    stop = ("mlp-16 with label-smoothing", 0)
    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "t", LabelSmoothing(), progress=telling(heard, stop), **settings)
    train(digits, tmp_path / "t", LabelSmoothing(), progress=telling(heard), **settings)
    (before, begins), (after, ends) = heard[1].warnings
    assert (before, after) == (0, 1)
    assert begins.startswith("collapse: after epoch 1 ")
    assert ends == "out of the collapse after epoch 2"


def test_a_normal_teacher_without_records_leaves_the_weaker_watch(digits, tmp_path):
    save_checkpoint(classifier_for(digits, "mlp-16", seed=0), tmp_path / "foreign")
    made = train(digits, tmp_path / "t", CMIM(), normal=tmp_path / "foreign")
    assert made.provenance["collapse"]["weaker"] is True


def test_without_a_normal_teacher_a_collapse_is_told_by_the_weaker_watch(digits, tmp_path):
    heard = []
    broken = train(digits, tmp_path / "t", CMIM(weight=1e5, ramp=0.0), progress=telling(heard))
    assert broken.provenance["validation_accuracy"] < 20
    assert broken.provenance["collapse"]["epochs"] == [1, 2], "the first tenth of the epochs is not watched"
    ((place, sentence),) = heard[0].warnings
    assert place == 2, "right after the epoch, not at the end"
    assert sentence.startswith("collapse by the weaker watch: after epoch 2 the validation accuracy is ")
    guess = 100 * max(digits.validation.labels.bincount().tolist()) / len(digits.validation)
    assert f"under half of {4 * guess:.2f}%, that of its own best epoch or 4 times that of guessing" in sentence


def told_epochs(watch, *reached):
    records = [{"epoch": epoch, "validation_accuracy": value} for epoch, value in enumerate(reached)]
    return watch.facts(records)["epochs"]


def test_the_weaker_watch_compares_with_guessing_and_with_the_best_epoch(digits):
    watch = weaker_watch(digits, epochs=30)
    slow = (5.0, 5.0, 5.0)  # a tenth of the epochs
    assert told_epochs(watch, *slow, 19.0, 30.0, 21.0, 90.0, 44.0, 46.0) == [3, 7]
    assert told_epochs(watch, 90.0, 5.0, 5.0, 44.0) == [3], "the best epoch may be one that is not watched"
    assert told_epochs(weaker_watch(digits, epochs=1), 19.0) == [0], "the last epoch is always watched"


def test_two_classes_are_expected_to_be_right_half_of_the_time():
    task = load_task("digits", classes=2)  # four times guessing would be more than all
    assert told_epochs(weaker_watch(task, epochs=1), 51.0) == []
    assert told_epochs(weaker_watch(task, epochs=1), 49.0) == [0]


def test_a_start_gives_its_weights(digits, tmp_path, normal):
    still = replace(RECIPE, epochs=1, learning_rate=1e-12)
    begun = train(digits, tmp_path / "begun", CMIM(), recipe=still, start=normal)
    for name, tensor in load_checkpoint(normal).state_dict().items():
        torch.testing.assert_close(begun.state_dict()[name], tensor)
    made = begun.provenance
    start = load_checkpoint(normal)
    assert made["start"] == {
        "fingerprint": start.fingerprint(),
        "defence": {"name": "ce"},
        "recipe": start.provenance["recipe"],
    }
    with pytest.raises(InputError, match="begun exists and holds something else than this training"):
        train(digits, tmp_path / "begun", CMIM(), recipe=still)


@pytest.mark.parametrize("defence", [CMIM(), NCMI()], ids=["cmim", "ncmi"])
def test_fine_tuning_goes_on_bit_for_bit(digits, tmp_path, normal, defence):
    unbroken = train(digits, tmp_path / "unbroken", defence, start=normal)
    stop = telling([], (f"mlp-16 with {defence.name}", 1))
    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "stopped", defence, start=normal, progress=stop)
    resumed = train(digits, tmp_path / "stopped", defence, start=normal)
    assert resumed.fingerprint() == unbroken.fingerprint()


def test_mcmi_starts_from_the_normal_teacher_and_takes_a_share_of_its_recipe(digits, tmp_path):
    heard = []
    made = train(digits, tmp_path / "t", MCMI(epochs=0.4, rate=0.25), progress=telling(heard))
    assert [(told.title, told.recipe.epochs, told.recipe.learning_rate) for told in heard] == [
        ("mlp-16 with ce", 3, 0.1),
        ("mlp-16 with mcmi", 1, 0.025),
    ]
    assert len(made.provenance["records"]) == 1
    assert made.provenance["recipe"]["epochs"] == 3, "of the normal teacher, from which the shares are taken"
    assert {"holds", "sentence", "numbers"} == made.provenance["check"].keys()


def seconds(folder):
    return sum(record["seconds"] for record in provenance(folder)["records"])


def test_the_seconds_of_what_a_training_was_built_on_are_kept(digits, tmp_path, normal):
    short = replace(RECIPE, epochs=1)
    assert provenance(normal)["needed_seconds"] == 0
    train(digits, tmp_path / "watched", CMIM(), short, normal=normal)
    assert provenance(tmp_path / "watched")["needed_seconds"] == 0, "it was not needed"
    train(digits, tmp_path / "given", MCMI(epochs=1.0), short, normal=normal)
    assert provenance(tmp_path / "given")["needed_seconds"] == pytest.approx(seconds(normal))
    train(digits, tmp_path / "own", Nasty(), short)
    assert provenance(tmp_path / "own")["needed_seconds"] == pytest.approx(seconds(tmp_path / "own.normal"))
    train(digits, tmp_path / "both", Nasty(), short, normal=normal, start=normal)
    assert provenance(tmp_path / "both")["needed_seconds"] == pytest.approx(seconds(normal)), "once"
    train(digits, tmp_path / "tuned", CMIM(), short, start=tmp_path / "given")
    expected = seconds(normal) + seconds(tmp_path / "given")
    assert provenance(tmp_path / "tuned")["needed_seconds"] == pytest.approx(expected), "the start needed one, too"


def test_the_seconds_of_a_foreign_start_are_not_known(digits, tmp_path):
    save_checkpoint(classifier_for(digits, "mlp-16", seed=0), tmp_path / "foreign")
    made = train(digits, tmp_path / "t", CMIM(), replace(RECIPE, epochs=1), start=tmp_path / "foreign")
    assert made.provenance["needed_seconds"] is None


def test_what_does_not_fit_is_refused_with_both_named(digits, tmp_path, normal):
    def refuse(task, words, architecture="mlp-16", **settings):
        with pytest.raises(InputError) as refusal:
            train(task, tmp_path / "t", CMIM(), architecture=architecture, **settings)
        assert words in str(refusal.value)
        assert not (tmp_path / "t").exists()

    few = load_task("digits", classes=3)
    refuse(digits, "cannot be the start of this training: it is a 'mlp-16', not a 'mlp-8'", "mlp-8", start=normal)
    refuse(few, "it knows 10 classes ('0', '1', '2', ...), not 3 classes ('0', '1', '2')", start=normal)
    other = load_task("digits", seed=1)
    refuse(other, "it was trained on another split or part, not on this task 'digits'", start=normal)
    refuse(other, "cannot be the normal teacher of this training", normal=normal)
    signals = load_task("mnist1d", fraction=0.05)
    words = "it takes inputs of shape (1, 8, 8), not (1, 40); it was trained on 'digits', not on this task 'mnist1d'"
    refuse(signals, words, start=normal)

    train(digits, tmp_path / "cmim", CMIM(), recipe=replace(RECIPE, epochs=1))
    words = "was trained with cmim, but a normal teacher is trained with ce; choose another checkpoint"
    refuse(digits, words, normal=tmp_path / "cmim")


def test_mcmi_takes_no_start_beside_its_normal_teacher(digits, tmp_path, normal):
    with pytest.raises(InputError, match=r"mcmi starts from its normal teacher; give .*ce as the normal teacher"):
        train(digits, tmp_path / "t", MCMI(), start=normal)


def test_what_is_made_once_for_another_training_is_refused(digits, tmp_path, normal):
    scratch = tmp_path / "t.training"
    scratch.mkdir()
    torch.save({"identity": "other", "value": torch.zeros(1)}, scratch / "adversarial.once.pt")
    with pytest.raises(InputError, match=r"adversarial\.once\.pt is the state of another training"):
        train(digits, tmp_path / "t", TINY["ast"], normal=normal)


def test_a_workshop_has_a_normal_teacher_only_where_one_is_needed(digits, tmp_path, normal):
    class Asking(CMIM):
        def prepare(self, loss, workshop):
            workshop.normal  # noqa: B018

    with pytest.raises(InputError, match="there is no normal teacher; a defence that uses one says so"):
        train(digits, tmp_path / "t", Asking(), normal=normal)
