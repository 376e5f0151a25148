"""What ``undistill measure`` measures: a teacher, or any number of files that are joined."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from undistill.audit import check_split
from undistill.blackbox import Predictions, is_url, open_black_box, probe_of, stream_predictions
from undistill.cli.options import OutputDefenceOptions, TaskOptions
from undistill.errors import InputError
from undistill.information import DEFAULT_POWERS
from undistill.utility import Measurement, join_measurements, load_measurement, measure_answers

PREDICTIONS, PARTIAL = (".npz", ".parquet"), ".safetensors"
IN_THE_TABLE = (1.0, 1 / 4, 1 / 20)  # powers that are always measured
DEFAULT_GRID = tuple(sorted({*DEFAULT_POWERS, *IN_THE_TABLE}))


def grid_of(powers: Sequence[float] | None) -> tuple[float, ...] | None:
    """The powers asked for, with those that the table shows; None if none were."""
    return None if powers is None else tuple(sorted({*powers, *IN_THE_TABLE}))


def find_files(names: Sequence[str]) -> list[Path]:
    """The files of answers among ``names``, patterns resolved; empty if one teacher is named.

    Raises:
        InputError: a file that is not there, a pattern that fits none, files beside a teacher, or several teachers.
    """
    files: list[Path] = []
    others = []
    for name in names:
        found = (
            [name]
            if is_url(name) or Path(name).exists() or not glob.has_magic(name)
            else sorted(glob.glob(name, recursive=True))
        )
        if not found:
            raise InputError(f"no file fits the pattern {name!r}; check the path")
        files += [Path(one) for one in found if Path(one).suffix in (*PREDICTIONS, PARTIAL)]
        others += [one for one in found if Path(one).suffix not in (*PREDICTIONS, PARTIAL)]
    if files and others:
        raise InputError(
            f"{others[0]!r} is not a file of answers (.npz, .parquet, or .safetensors of --save), and files of answers "
            "are measured by themselves; leave one kind out"
        )
    if len(others) > 1:
        raise InputError(f"{len(others)} teachers are named ({', '.join(others[:3])}), but one is measured at a time")
    for path in files:
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}; check the path")
    return files


def measure_files(files: Sequence[Path], grid: tuple[float, ...] | None, watch: Callable[[str], None]) -> Measurement:
    """Measure files of predictions one after the other, and join them with partial results.

    Args:
        files: in any mixture.
        grid: powers; by default those of the first partial result, or the usual ones.
        watch: told what is being read, and how far it is.

    Raises:
        InputError: a file that cannot be used, or two that cannot be joined.
    """
    partials = [path for path in files if path.suffix == PARTIAL]
    if grid is None:
        grid = load_measurement(partials[0]).sums.powers if partials else DEFAULT_GRID

    def measure_one(path: Path) -> Measurement:
        watch(str(path))
        if path.suffix == PARTIAL:
            return load_measurement(path)
        name = path.name if len({one.name for one in files}) == len(files) else str(path)
        return measure_answers(
            stream_predictions(path), name, powers=grid, watch=lambda rows: watch(f"{path}: {rows:,} answers")
        )

    return join_measurements(measure_one(path) for path in files)


def measure_teacher_on(
    teacher: str,
    task: TaskOptions,
    split: str,
    grid: tuple[float, ...],
    defences: OutputDefenceOptions,
    *,
    trust_import_path: bool,
) -> Measurement:
    """Measure a teacher's answers to the images of a split.

    Raises:
        InputError: a teacher that cannot be opened, or that was trained on another split of the task.
    """
    data = task.load()
    box = open_black_box(
        defences.around(teacher, data, trust_import_path=trust_import_path),
        class_names=data.class_names,
        probe=probe_of(data),
        trust_import_path=trust_import_path,
    )
    check_split(box, data)
    part = data.splits[split]
    answers = Predictions(box.answers(part), part.labels)
    name = f"{box.name} on {data.name} ({split})"
    return measure_answers([answers], name, powers=grid, output_defences=box.defences)
