"""What `undistill measure` keeps of answers that stream past, and joins over files and machines."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from undistill.blackbox import Predictions
from undistill.errors import InputError
from undistill.files import write_atomic
from undistill.information import (
    DEFAULT_POWERS,
    ClusterSample,
    Spectrum,
    SpectrumSums,
    check_powers,
    empty_sample,
    merge,
    sample_join,
    spectrum_compute,
)
from undistill.information.spectrum import accumulate, check_outputs, zero_sums
from undistill.utility.evidence import LARGEST_CLUSTERS, class_spectra_json, sample_clusters, widest_classes

PARTIAL_SCHEMA = "undistill.partial/1"
_SUMS = tuple(field.name for field in fields(SpectrumSums) if field.name != "powers")
_SAMPLE = tuple(field.name for field in fields(ClusterSample))


@dataclass(frozen=True)
class AnswerSource:
    """Where answers came from.

    Attributes:
        name: of the file or the teacher.
        n: number of answers.
        digest: SHA-256 of the answers and labels, as 64 hexadecimal digits, by which none is counted twice.
    """

    name: str
    n: int
    digest: str


@dataclass(frozen=True)
class Measurement:
    """What is kept of answers: of a size that depends on the numbers of classes and powers alone.

    Attributes:
        sources: where they came from.
        output_defences: what was done to them, as far as it is known (see
            :attr:`undistill.blackbox.BlackBox.defences`).
        sums: from which the spectrum follows.
        right: number of right answers by true class.
        sample: some answers of each class.
    """

    sources: tuple[AnswerSource, ...]
    output_defences: tuple[dict[str, Any], ...]
    sums: SpectrumSums
    right: Float[Tensor, " classes"]
    sample: ClusterSample

    @property
    def name(self) -> str:
        """The first source, and how many more there are."""
        first, *others = [source.name for source in self.sources]
        return f"{first} and {len(others)} more" if others else first

    @property
    def n(self) -> int:
        """Number of answers."""
        return sum(source.n for source in self.sources)

    @property
    def accuracy(self) -> float:
        """Top-1, in percent."""
        return 100 * float(self.right.sum()) / self.n

    @property
    def spectrum(self) -> Spectrum:
        """CMI at every power."""
        return spectrum_compute(self.sums)

    def evidence(self) -> dict[str, Any]:
        """What pictures need, in the form of a teacher of ``evidence.json``: its one split is called ``test``, and
        classes are called by their numbers."""
        spectrum = self.spectrum
        shown = widest_classes(spectrum, LARGEST_CLUSTERS)
        return {
            "class_names": [str(index) for index in range(len(self.right))],
            "shown": list(shown),
            "spectra": {"test": class_spectra_json(spectrum)},
            "clusters": {"test": sample_clusters(self.sample.log_probs, self.sample.labels, shown).to_json()},
        }


def measure_answers(
    batches: Iterable[Predictions],
    name: str,
    *,
    powers: Sequence[float] = DEFAULT_POWERS,
    output_defences: tuple[dict[str, Any], ...] = (),
    watch: Callable[[int], None] = lambda rows: None,
) -> Measurement:
    """Measure the answers of one source in one pass, holding one batch at a time.

    The sample's keys are drawn from a generator that is seeded by the first answer: so the result depends on the
    answers and their order, and neither on the name of the file nor on the size of the batches.

    Args:
        batches: answers with labels, at least one, all over the same classes.
        name: of the source.
        powers: K powers a = 1/T, each above 0.
        output_defences: what was done to the answers, as far as it is known.
        watch: told the number of answers so far, after each batch.

    Raises:
        InputError: answers of which no spectrum can be taken, or no answers.

    >>> from undistill.utility import measure_answers
    >>> log_probs = torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log()
    >>> found = measure_answers([Predictions(log_probs, torch.tensor([0, 0]))], "two answers", powers=[1.0])
    >>> found.n, found.accuracy, round(found.spectrum.at(1.0), 6)
    (2, 100.0, 0.024157)
    """
    grid, hashes = check_powers(powers), (hashlib.sha256(), hashlib.sha256())
    state: tuple[SpectrumSums, Tensor, ClusterSample, np.random.Generator] | None = None
    for batch in batches:
        log_probs, labels = batch.log_probs, batch.labels
        del batch  # the next one is read when this one is gone
        check_outputs(log_probs, labels)
        if not len(labels):
            continue
        hashes[0].update(np.ascontiguousarray(log_probs.numpy()).data)
        hashes[1].update(np.ascontiguousarray(labels.numpy()).data)
        if state is None:
            classes = log_probs.shape[1]
            random = np.random.default_rng(log_probs[0].numpy().view(np.uint32))
            state = zero_sums(classes, grid), torch.zeros(classes, dtype=torch.float64), empty_sample(classes), random
        sums, right, sample, random = state
        accumulate(sums, log_probs, labels)
        right.index_add_(0, labels, (log_probs.argmax(1) == labels).double())
        keys = torch.from_numpy(random.random(len(labels)))
        state = sums, right, sample_join(sample, ClusterSample(log_probs, labels, keys)), random
        del log_probs, labels
        watch(int(sums.counts.sum()))
    if state is None:
        raise InputError(f"{name} holds no answers; give at least one")
    both = hashlib.sha256(hashes[0].digest() + hashes[1].digest()).hexdigest()
    source = AnswerSource(name, int(state[0].counts.sum()), both)
    return Measurement((source,), output_defences, *state[:3])


def join_measurements(parts: Iterable[Measurement]) -> Measurement:
    """The measurement of all answers together, as if they had been measured at once: exact up to float64 rounding.

    Raises:
        InputError: measurements at other powers, over other classes, behind other output defences, or with the same
            answers twice; says which.
    """
    joined: Measurement | None = None
    for part in parts:
        joined = part if joined is None else _join(joined, part)
    if joined is None:
        raise InputError("there is nothing to join; give at least one measurement")
    return joined


def _join(first: Measurement, second: Measurement) -> Measurement:
    sums, others = first.sums, second.sums
    names = f"{first.sources[0].name} and {second.sources[0].name} cannot be measured together"
    if len(sums.counts) != len(others.counts):
        raise InputError(
            f"{names}: they have {len(sums.counts)} and {len(others.counts)} classes; measure each by itself"
        )
    if sums.powers != others.powers:
        differing = sorted(set(sums.powers) ^ set(others.powers))
        raise InputError(
            f"{names}: they were measured at {len(sums.powers)} and {len(others.powers)} powers, of which only one has "
            f"{', '.join(f'{power:.4g}' for power in differing[:5])}; measure both with the same --powers"
        )
    if first.output_defences != second.output_defences:
        raise InputError(f"{names}: their answers were served behind different output defences; measure each by itself")
    known = {source.digest: source.name for source in first.sources}
    for source in second.sources:
        if source.digest in known:
            raise InputError(
                f"{known[source.digest]} and {source.name} hold the same {source.n} answers to the same labels, which "
                "would be counted twice; leave one of them out"
            )
    return Measurement(
        first.sources + second.sources,
        first.output_defences,
        merge(sums, others),
        first.right + second.right,
        sample_join(first.sample, second.sample),
    )


def save_measurement(measurement: Measurement, path: Path) -> None:
    """Write a measurement as a partial result, a safetensors file, to be joined with others elsewhere.

    Raises:
        InputError: another suffix than ``.safetensors``.
    """
    check_partial_path(path)
    about = {
        "schema": PARTIAL_SCHEMA,
        "sources": [asdict(source) for source in measurement.sources],
        "output_defences": list(measurement.output_defences),
    }
    tensors = {
        "powers": torch.tensor(measurement.sums.powers, dtype=torch.float64),
        **{name: getattr(measurement.sums, name) for name in _SUMS},
        "right": measurement.right,
        **{f"sample.{name}": getattr(measurement.sample, name) for name in _SAMPLE},
    }
    write_atomic(path, safetensors.torch.save(tensors, {"undistill": json.dumps(about)}))


def check_partial_path(path: Path) -> None:
    """Refuse the name of a partial result before anything is measured."""
    if path.suffix != ".safetensors":
        raise InputError(f"{path.name!r} must end in .safetensors, for a partial result is such a file")


def load_measurement(path: Path) -> Measurement:
    """Read what :func:`save_measurement` wrote.

    Raises:
        InputError: no such file, another kind of file, or a damaged one.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("undistill", "{}"))
            if about.get("schema") != PARTIAL_SCHEMA:
                raise InputError(
                    f"{path} is no partial result of `undistill measure --save` ({PARTIAL_SCHEMA}); of a checkpoint, "
                    "name the folder"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
        measurement = Measurement(
            tuple(AnswerSource(**source) for source in about["sources"]),
            tuple(about["output_defences"]),
            SpectrumSums(powers=tuple(tensors["powers"].tolist()), **{name: tensors[name] for name in _SUMS}),
            tensors["right"],
            ClusterSample(**{name: tensors[f"sample.{name}"] for name in _SAMPLE}),
        )
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as a partial result ({error}); make it again") from error
    problems = list(_problems(measurement))
    if problems:
        raise InputError(f"{path} is damaged: {'; '.join(problems)}; make it again")
    return measurement


def _problems(measurement: Measurement) -> Iterator[str]:
    """What cannot be, in sums that must agree with each other."""
    counts = measurement.sums.counts
    if int(counts.sum()) != measurement.n:
        yield f"its classes hold {int(counts.sum())} answers, its sources {measurement.n}"
    if not torch.allclose(measurement.sums.probs.sum(2), counts.expand(len(measurement.sums.powers), -1)):
        yield "its probabilities do not sum to the number of answers"
    if not bool((measurement.right <= counts).all()):
        yield "more answers are right than there are"
