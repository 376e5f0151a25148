"""The command line: ``undistill COMMAND``."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml, Yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from undistill import __version__
from undistill.attacks import ATTACKS
from undistill.audit import (
    VERSIONS,
    Audit,
    Verdict,
    audit_all,
    audit_path,
    check_split,
    customised,
    forecast_audit,
    train_knockoff,
    usable,
)
from undistill.blackbox import FULL, BlackBox, open_black_box, probe_of
from undistill.cli.demo import run_demo
from undistill.cli.listing import Kind, entries
from undistill.cli.measuring import DEFAULT_GRID, find_files, grid_of, measure_files, measure_teacher_on
from undistill.cli.methods import NAMED_ATTACKS, parse_grids, parse_method
from undistill.cli.options import (
    AttackerOptions,
    OtherTaskOptions,
    OutputDefenceOptions,
    RecipeOptions,
    RunningOptions,
    TaskOptions,
    Whole,
)
from undistill.cli.serving import defend, say_defences, serve
from undistill.cli.stores import store
from undistill.cli.watch import TerminalWatcher, show_training
from undistill.defences.training import DEFENCES, CrossEntropy
from undistill.errors import InputError, MissingExtraError, require, unknown_name
from undistill.information import spectrum_json
from undistill.models import load_checkpoint
from undistill.report import (
    REPORT,
    audit_tables,
    check_page,
    check_plot,
    check_trade_off,
    cost_line,
    flag_lines,
    forecast_lines,
    plot_spectra,
    plot_trade_off,
    spectrum_table,
    threat_card_table,
    utility_notes,
    utility_tables,
    write_figures,
    write_measurements,
    write_report,
)
from undistill.training import defaults_for, normal_folder, train_teacher
from undistill.utility import check_partial_path, compare, plan_comparison, save_measurement

BAD_INPUT, LEAKED, INTERRUPTED = 2, 1, 130
ROUNDING = 1e-12  # nats; a CMI below it is zero up to the rounding of float64

app = App(
    name="undistill",
    version=__version__,
    default_parameter=Parameter(negative=()),
    help_format="markdown",
    help="Protect classifiers against knowledge distillation, attack them, and audit the claim of protection.\n\n"
    "Every option can also stand in a TOML or YAML file, under a table named like the command: "
    "`undistill --config FILE COMMAND`.",
    suppress_keyboard_interrupt=False,
)
app.meta.suppress_keyboard_interrupt = False  # main says how to go on


@app.command
def train(
    task: TaskOptions,
    *,
    out: Path,
    model: str | None = None,
    defence: str = "ce",
    normal: Path | None = None,
    start: Path | None = None,
    seed: Whole = 0,
    recipe: RecipeOptions | None = None,
    tensorboard: bool = False,
) -> int:
    """Train a teacher and save it as a checkpoint folder.

    A training that was stopped goes on where it was when the same command runs again.

    Parameters
    ----------
    out: Path
        Folder of the checkpoint.
    model: str
        Architecture (see: undistill list models).
    defence: str
        What to train with, as NAME or NAME:FIELD=VALUE,... (see: undistill list defences).
    normal: Path
        Checkpoint of a normal teacher (defence ce, same task and architecture). Defences that need one train it into
        OUT.normal where none is given; others are watched for a collapse with it instead of by the weaker watch.
    start: Path
        Checkpoint to start from, of the same task; its architecture is the default of --model. For example to
        fine-tune with cmim in a fraction of the epochs.
    seed: int
        Of initial weights, order and augmentation.
    tensorboard: bool
        Write TensorBoard events beside the checkpoint.
    """
    data = task.load()
    defaults = defaults_for(data.input_shape)
    begun = start or normal
    architecture = model or (defaults.teacher if begun is None else load_checkpoint(begun).architecture)
    chosen = (recipe or RecipeOptions()).over(defaults.recipe)
    method = parse_method("defence", DEFENCES, defence)
    classifier = train_teacher(
        data,
        architecture,
        method,
        chosen,
        seed=seed,
        folder=out,
        normal=normal,
        start=start,
        tensorboard=tensorboard,
        progress=show_training,
    )
    made = classifier.provenance
    lines = []
    if "normal" in made:
        origin = "given" if made["normal"]["given"] else f"trained first, kept in {normal_folder(out)}"
        lines.append((f"normal teacher ({origin}): {_accuracies(made['normal'])}", ""))
    begun_at = "" if start is None else f", started from {start}"
    lines.append(
        (f"{architecture} with {method.name} on {data.name}{begun_at}: {_accuracies(made)}; saved in {out}", "")
    )
    if "check" in made:
        lines.append((made["check"]["sentence"], "" if made["check"]["holds"] else "yellow"))
    lines += _collapse_lines(made)
    console = Console(soft_wrap=True, highlight=False)
    for line, style in lines:
        console.print(line, markup=False, style=style)
    return 0


def _collapse_lines(made: dict[str, Any]) -> list[tuple[str, str]]:
    """What is said of the watch for a collapse, and in which style."""
    collapse = made.get("collapse", {"epochs": []})  # teachers of earlier versions say nothing of it
    weaker = collapse.get("weaker", False)
    lines = []
    if collapse["epochs"]:
        last = made["records"][-1]["epoch"] in collapse["epochs"]
        sentence = (
            f"collapse{' by the weaker watch' if weaker else ''}: after {len(collapse['epochs'])} of "
            f"{len(made['records'])} epochs the validation accuracy was under half of that of {collapse['against']}, "
            f"{'the last one among them' if last else 'but not after the last one'}"
        )
        lines.append((sentence, "yellow"))
    if weaker and made["defence"]["name"] != CrossEntropy.name:  # for cross entropy there is no other watch
        lines.append(
            (
                "no normal teacher is known, so only the weaker watch looked for a collapse: add --normal CHECKPOINT",
                "dim",
            )
        )
    return lines


def _accuracies(made: dict[str, Any]) -> str:
    return f"validation accuracy {made['validation_accuracy']:.2f}%, test accuracy {made['test_accuracy']:.2f}%"


@app.command
def measure(
    teacher: list[str],
    *,
    task: TaskOptions | None = None,
    split: Literal["train", "validation", "test"] = "test",
    powers: tuple[float, ...] | None = None,
    plot: Path | None = None,
    html: Path | None = None,
    save: Path | None = None,
    defences: OutputDefenceOptions | None = None,
    trust_import_path: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measure the CMI spectrum of a teacher's answers, or of saved predictions.

    Files may be larger than memory, and any number of them are measured together. Each of several machines can
    measure its own with --save, and those partial results are joined by measuring them in their turn.

    Parameters
    ----------
    teacher: list[str]
        A teacher, named as for `audit`; or files, as they are or as a quoted pattern: .npz or .parquet with `labels`
        and one of `log_probs`, `probs`, `logits`, and .safetensors of --save. Files take no --task, all else needs it.
    split: Literal["train", "validation", "test"]
        Which of the task's images to ask about.
    powers: tuple[float, ...]
        Powers a = 1/T at which to measure; by default twenty from 1/100 to 8, or those of the partial results.
    plot: Path
        Draw the spectrum into this PNG, SVG or PDF file.
    html: Path
        Write a page with the spectrum, class by class, and with the clusters of answers, into this HTML file.
    save: Path
        Write what was measured into this .safetensors file, to be joined with others.
    trust_import_path: bool
        Let a checkpoint whose architecture is package.module:callable import and run that code.
    json_: bool
        Print JSON instead of a table.
    """
    if save is not None:
        check_partial_path(save)
    if plot is not None:
        check_plot(plot)
    if html is not None:
        check_page(html)
    grid, files = grid_of(powers), find_files(teacher)
    defences = defences or OutputDefenceOptions()
    if files:
        if defences != OutputDefenceOptions():
            raise InputError(
                f"{teacher[0]!r} is a file of predictions, and an output defence needs the images that they belong to; "
                "name the teacher itself, with --task NAME"
            )
        if task is not None:
            raise InputError(
                f"{teacher[0]!r} is a file of predictions, which holds its own labels and takes no task; leave --task "
                "out"
            )
        with Console(stderr=True).status("") as status:
            found = measure_files(files, grid, watch=lambda line: status.update(escape(line)))
    elif task is None:
        raise InputError(
            f"{teacher[0]!r} is not a file of predictions (.npz or .parquet), so the images to ask about are needed: "
            "add --task NAME"
        )
    else:
        found = measure_teacher_on(
            teacher[0], task, split, grid or DEFAULT_GRID, defences, trust_import_path=trust_import_path
        )
    spectrum = found.spectrum
    if save is not None:
        save_measurement(found, save)
    if plot is not None:
        plot_spectra({found.name: spectrum}, plot)
    if html is not None:
        write_measurements({found.name: found}, html)
    if json_:
        about = {
            "name": found.name,
            "sources": [asdict(source) for source in found.sources],
            "output_defences": list(found.output_defences),
            "accuracy": found.accuracy,
            "n": found.n,
        }
        print(json.dumps({**about, **spectrum_json(spectrum)}, indent=2, allow_nan=False))
        return 0
    console = Console()
    console.print(spectrum_table({found.name: (found.accuracy, spectrum)}))
    if len(found.sources) > 1:
        console.print(f"{found.n:,} answers of {len(found.sources)} sources.", style="dim", highlight=False)
    say_defences(console, found.output_defences)
    console.print(
        "Accuracy in percent. CMI(a) in nats, its maximum over the powers, and where; T^2 CMI(1/T) at T = 4 and 20; "
        "and half the within-class variance of the logits, its limit for high T. What teaches nothing has all of "
        "them near 0.",
        style="dim",
    )
    if spectrum.supremum_at_edge and spectrum.supremum > ROUNDING:
        console.print(
            f"The maximum lies at a = {spectrum.supremum_power:.3g}, at the edge of the powers: there may be more "
            "beyond it, so add --powers there.",
            highlight=False,
        )
    if spectrum.absent:
        console.print(f"Classes without a sample, left out: {', '.join(map(str, spectrum.absent))}.")
    return 0


def _say_flags(console: Console, result: Audit) -> None:
    """A line about each kind of flag that was raised."""
    lines = flag_lines(result)
    if lines:
        console.print()
    for line in lines:
        console.print(line, highlight=False, markup=False, style="yellow")
    if lines:
        console.print(
            "Flags are doubts about this audit. audit.json holds all of them with their values; docs/flags.md says "
            "what each means, and what to do.",
            style="dim",
            highlight=False,
            markup=False,
        )


@app.command
def utility(
    teacher: list[str],
    *,
    task: TaskOptions,
    against: list[str] | None = None,
    defences: OutputDefenceOptions | None = None,
    other: OtherTaskOptions | None = None,
    plot: Path | None = None,
    trust_import_path: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measure what protection costs: how good teachers' answers still are, and what they take to train and to ask.

    Teachers that were trained alike but for their seed share a row, with a 95% t-interval. With an output defence,
    every teacher is measured without it and with it.

    Parameters
    ----------
    teacher: list[str]
        Teachers, named as for `audit`.
    against: list[str]
        What the others are compared with: a teacher, or several seeds of one training. By default those of TEACHER
        that were trained with cross entropy.
    plot: Path
        Draw the trade-off over the defence's weight into this PNG, SVG or PDF file.
    trust_import_path: bool
        Let checkpoints whose architecture is package.module:callable import and run that code.
    json_: bool
        Print JSON instead of tables.
    """
    data = task.load()
    probe = probe_of(data)

    def opened(named: str) -> BlackBox:
        box = open_black_box(named, class_names=data.class_names, probe=probe, trust_import_path=trust_import_path)
        check_split(box, data)
        return box

    around = (defences or OutputDefenceOptions()).around
    served = [around(opened(named), data, trust_import_path=trust_import_path) for named in teacher]
    boxes = [box for box in served if isinstance(box, BlackBox)]
    defended = [box for box in boxes if box.undefended is not box]
    plain = [opened(named) for named in against or []]
    named = [box for box in boxes if box.undefended is box]
    known = {box.fingerprint for box in named}
    behind: dict[str, BlackBox] = {}  # what lies behind several defences is measured once
    for box in defended:
        if box.undefended.fingerprint not in known:
            behind.setdefault(box.undefended.fingerprint, box.undefended)
    plan = plan_comparison([*named, *behind.values(), *defended], against=plain)
    if plot is not None:
        check_trade_off(plan, plot)
    with Console(stderr=True).status("") as status:
        comparison = compare(
            plan,
            data,
            other=(other or OtherTaskOptions()).load_other(),
            watch=lambda name: status.update(f"measuring {escape(name)}"),
        )
    if plot is not None:
        plot_trade_off(comparison, plot)
    if json_:
        print(json.dumps(comparison.to_json(), indent=2, allow_nan=False))
        return 0
    console = Console()
    for table in utility_tables(comparison):
        console.print(table)
        console.print()
    for note in utility_notes(comparison):
        console.print(note, highlight=False, markup=False)
    console.print(
        "Accuracy in percent, its difference in points; means over seeds, ± half the width of a 95% t-interval. AUROC "
        "of confidence: for right against wrong answers; other task: for this task's images against another's. Seconds "
        "of wall-clock time: of a teacher's own epochs, in all with those of the trainings it was built on, and for "
        "1,000 answers. Spectrum as in `undistill measure`.",
        style="dim",
        highlight=False,
        markup=False,
    )
    return 0


@app.command
def audit(
    teacher: list[str],
    *,
    task: TaskOptions,
    out: Path,
    protocol: Literal["quick", "standard", "plus"] = "quick",
    student: list[str] | None = None,
    attack: list[str] | None = None,
    slow: bool = False,
    defences: OutputDefenceOptions | None = None,
    attacker: AttackerOptions | None = None,
    smoothing: list[float] | None = None,
    placebo_smoothing: list[float] | None = None,
    seeds: Whole | None = None,
    tuning_seeds: Whole | None = None,
    margin: float | None = None,
    alpha: float | None = None,
    recipe: RecipeOptions | None = None,
    undefended: str | None = None,
    running: RunningOptions | None = None,
    dry_run: bool = False,
    trust_import_path: bool = False,
    fail_on: Literal["leaks"] | None = None,
) -> int:
    """Audit teachers: does it leak, through which attack, how sure are we?

    Writes OUT/audit.json (OUT/NAME/audit.json for several teachers), which can be read while trials run, and
    OUT/report.html. Finished trials are kept in OUT/trials: the same command again runs only what is missing.

    Parameters
    ----------
    teacher: list[str]
        Checkpoint folders, folders of `undistill defend`, URLs of `undistill serve`, or package.module:callable of
        anything that maps images in [0, 1] to answers.
    out: Path
        Folder of results and finished trials.
    protocol: Literal["quick", "standard", "plus"]
        Frozen version that decides all that the other options do not; with any of them the audit calls itself custom.
        To be cited: standard.
    student: list[str]
        Student architecture; repeat for several.
    attack: list[str]
        NAME for an attack with its own grid, or NAME:FIELD=VALUE,... for one setting; repeat for several (see:
        undistill list attacks). By default those of the protocol that can be used.
    slow: bool
        Take every attack that can be used, slow ones, too, where none is named.
    smoothing: list[float]
        Label smoothing of the reference students, among which the audit chooses; 0 is plain cross entropy.
    placebo_smoothing: list[float]
        Smoothing of the labels that stand in for a teacher in placebos.
    seeds: int
        The most paired seeds on which a cell is judged; undecided ones get more and more of them.
    tuning_seeds: int
        Other seeds, on which settings are chosen by validation accuracy.
    margin: float
        Largest leak, in points of accuracy, that counts as none.
    alpha: float
        Error rate of each one-sided decision.
    undefended: str
        A teacher trained with cross entropy, to show which attacks work at all. By default one of TEACHER that says so
        of itself, else one is trained. No output defence is set around it.
    dry_run: bool
        Train nothing and write nothing: say how many trials, queries, seconds and bytes it would take.
    trust_import_path: bool
        Let checkpoints whose architecture is package.module:callable import and run that code.
    fail_on: Literal["leaks"]
        Exit with status 1 if any teacher leaks.
    """
    data = task.load()
    attacker = attacker or AttackerOptions()
    version = VERSIONS[protocol](data.input_shape)
    access, images, queries = attacker.policy(), attacker.images(version.data), attacker.queries()
    students = tuple(student or version.students)
    around = (defences or OutputDefenceOptions()).around
    teachers = [around(named, data, trust_import_path=trust_import_path) for named in teacher]
    if attack is not None:
        grids = parse_grids("attack", NAMED_ATTACKS, attack)
    else:
        cut = [box.policy for box in teachers if isinstance(box, BlackBox) and box.policy != FULL]
        offered = [kind.grid() for kind in ATTACKS.values()] if slow else version.attacks
        seen = cut[0] if cut else access
        grids = usable(offered, data, students, access=seen, data=images, queries=queries)
    if not grids:
        raise InputError(
            f"no attack of protocol {protocol} can use access '{access}' with data '{', '.join(map(str, images))}'; "
            "name one, or add --slow"
        )
    given = {
        "smoothings": None if smoothing is None else tuple(smoothing),
        "placebo_smoothings": None if placebo_smoothing is None else tuple(placebo_smoothing),
        "seeds": seeds,
        "tuning_seeds": tuning_seeds,
        "margin": margin,
        "alpha": alpha,
    }
    chosen = customised(
        version,
        students=students,
        attacks=grids,
        recipe=(recipe or RecipeOptions()).over(version.recipe),
        access=access,
        data=images,
        queries=queries,
        **{name: value for name, value in given.items() if value is not None},
    )
    running = running or RunningOptions()
    asked: dict[str, Any] = {
        "out": out,
        "protocol": chosen,
        "undefended": undefended,
        "workers": running.where(),
        "store": running.store,
        "answer_space": running.answer_space(),
        "trust_import_path": trust_import_path,
    }
    if dry_run:
        Console().print(
            *forecast_lines(forecast_audit(teachers, data, **asked)), sep="\n", highlight=False, markup=False
        )
        return 0
    with TerminalWatcher() as watcher:
        audits = audit_all(teachers, data, watcher=watcher, **asked)
    console = Console()
    console.print(audit_tables(audits))
    left_out = (
        [] if attack is not None else sorted({grid[0].name for grid in offered} - {grid[0].name for grid in grids})
    )
    if left_out:
        console.print()
        console.print(
            f"Not run, for they are of no use here (--attack NAME says why): {', '.join(left_out)}.", style="dim"
        )
    for missing in chosen.left_out(data):
        console.print()
        console.print(
            f"Left out: {missing.sentence}, for the task has none (--fresh SHARE reserves some, for the teacher's "
            "training as well).",
            style="dim",
        )
    for result in audits:
        console.print()
        console.print(result.sentence, highlight=False, markup=False)
        console.print()
        console.print(cost_line(result), highlight=False, markup=False)
        console.print()
        console.print(threat_card_table(result), style="dim")
        say_defences(console, result.teacher.output_defences)
        _say_flags(console, result)
        console.print()
        console.print(f"Details: {_result_path(out, audits, result)}", highlight=False, markup=False, soft_wrap=True)
    console.print(_report_line([_result_path(out, audits, result) for result in audits], out / REPORT), soft_wrap=True)
    leaked = any(result.verdict is Verdict.LEAKS for result in audits)
    return LEAKED if fail_on == "leaks" and leaked else 0


def _result_path(out: Path, audits: Sequence[Audit], result: Audit) -> Path:
    return audit_path(out, result.teacher.name, alone=len(audits) == 1)


def _report_line(places: Sequence[Path], path: Path) -> str:
    """Write the report; where it is. An audit is finished all the same where what the page needs is not installed."""
    try:
        return escape(f"Report: {write_report(places, path, keep=True)}")
    except MissingExtraError as error:
        return f"[yellow]{escape(f'No report: {error}, then: undistill report {path.parent}')}[/yellow]"


@app.command
def report(
    folder: list[Path],
    *,
    out: Path | None = None,
    figures: Literal["pdf", "svg", "png"] | None = None,
) -> int:
    """Make the report of an audit anew, or compare several audits side by side: teachers, defences, versions, budgets.

    Trains and asks nothing: all is read from the files of the audits.

    Parameters
    ----------
    folder: list[Path]
        Folders that were given to `undistill audit --out`, or `audit.json` files.
    out: Path
        The page; by default DIR/report.html, or report.html in the current folder for several.
    figures: Literal["pdf", "svg", "png"]
        Also draw figures for a paper, one column wide, into the folder `figures` beside the page.
    """
    path = write_report(folder, out)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"Report: {path}", markup=False)
    if figures is not None:
        for file in write_figures(folder, path.parent / "figures", figures):
            console.print(f"Figure: {file}", markup=False)
    return 0


@app.command
def attack(
    teacher: str,
    *,
    task: TaskOptions,
    attack: str,
    out: Path,
    student: str | None = None,
    defences: OutputDefenceOptions | None = None,
    attacker: AttackerOptions | None = None,
    seed: Whole = 0,
    recipe: RecipeOptions | None = None,
    trust_import_path: bool = False,
) -> int:
    """Attack a teacher: train one student on its answers, and save it as a checkpoint folder.

    The knockoff is a model like any other: it can be measured, audited, and attacked in its turn. Answers are kept in
    OUT.training until it is finished: the same command after a kill asks nothing twice.

    Parameters
    ----------
    teacher: str
        A teacher, named as for `audit`.
    attack: str
        NAME or NAME:FIELD=VALUE,... (see: undistill list attacks).
    out: Path
        Folder of the knockoff.
    student: str
        Architecture of the student (see: undistill list models).
    seed: int
        Of initial weights, order and augmentation.
    trust_import_path: bool
        Let a checkpoint whose architecture is package.module:callable import and run that code.
    """
    method = parse_method("attack", NAMED_ATTACKS, attack)
    attacker = attacker or AttackerOptions()
    access, images, queries = attacker.policy(), attacker.images(), attacker.queries()
    if len(images) > 1:
        raise InputError(f"an attack asks about one kind of images, not {', '.join(map(str, images))}; name one --data")
    data = task.load()
    defaults = defaults_for(data.input_shape)
    finished = out.exists()
    with TerminalWatcher() as watcher:
        knockoff = train_knockoff(
            (defences or OutputDefenceOptions()).around(teacher, data, trust_import_path=trust_import_path),
            data,
            method,
            out=out,
            student=student or defaults.student,
            recipe=(recipe or RecipeOptions()).over(defaults.recipe),
            seed=seed,
            access=access,
            data=images[0],
            queries=queries,
            trust_import_path=trust_import_path,
            watcher=watcher,
        )
    made = knockoff.provenance
    Console().print(
        f"{method.name} on {made['teacher']['name']} with {knockoff.architecture}, {data.name}: test accuracy "
        f"{made['test_accuracy']:.2f}%, agreement with the teacher {made['agreement']:.2f}%, "
        f"{made['queries']['asked']} queries; {'was already there in' if finished else 'saved in'} {out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for note, value in made["notes"].items():
        if value is True or note == "diverged":
            words = note.replace("_", " ") + ("" if value is True else f": {value}")
            Console().print(words, highlight=False, markup=False, style="yellow")
    return 0


@app.command(name="list")
def list_(
    kind: Kind,
    *,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """List what can be named.

    Parameters
    ----------
    kind: Kind
        Of what.
    json_: bool
        Print a JSON list of objects instead of a table.
    """
    found = entries(kind)
    if json_:
        print(json.dumps(found, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for entry in found:
        settings = ", ".join(f"{name}={_named(value)}" for name, value in entry.get("settings", {}).items())
        below = ": ".join(filter(None, [entry.get("kind"), settings]))
        if entry.get("needs_normal"):
            below += f"\nruns itself: {entry['runs']}"
        table.add_row(str(entry["name"]), escape(entry["summary"]) + (f"\n[dim]{escape(below)}[/dim]" if below else ""))
    Console().print(table)
    return 0


def _named(value: Any) -> Any:
    """The name of a method that is a setting of another one; any other value as it is."""
    return value["name"] if isinstance(value, dict) else value


@app.command
def demo(*, out: Path = Path("demo-out"), workers: Whole | None = None) -> int:
    """Train a plain and a protected teacher on embedded data, audit both, and say what was found.

    Parameters
    ----------
    out: Path
        Folder of teachers, audits and plots.
    workers: int
        Processes; by default as many as cores.
    """
    run_demo(out, workers)
    return 0


app.command(defend)
app.command(serve)
app.command(store)


@app.meta.default
def with_config(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        Path | None, Parameter(help="TOML or YAML file with options, under tables named by command.")
    ] = None,
) -> int | None:
    """Read the file of options, if any, then run the command."""
    app.config = None if config is None else _config(config)
    try:
        return app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    finally:
        app.config = None  # the file is this command's alone


def _config(path: Path) -> Toml | Yaml:
    if not path.is_file():
        raise InputError(f"there is no file {path}; give --config the path of a TOML or YAML file")
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise InputError(f"{path.name!r} must end in .toml, .yaml or .yml")
    if path.suffix != ".toml":
        require("yaml", "yaml")
    file = Toml(path, must_exist=True) if path.suffix == ".toml" else Yaml(path, must_exist=True)
    try:
        tables = file.config
    except CycloptsError as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error.__cause__ or error).split())}") from error
    commands = [name for name in app if not name.startswith("-")]
    for name in map(str, tables):
        if name not in commands:
            raise InputError(
                f"{path}: options stand under the names of commands; {unknown_name('command', name, commands)}"
            )
    return file


def main(tokens: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 with ``--fail-on``, 2 for bad input, 130 after Ctrl-C."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # our own progress is enough
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        # Help and version return nothing.
        return app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except (InputError, CycloptsError) as error:
        errors.print(f"undistill: {error}", markup=False)
        return BAD_INPUT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        errors.print(
            f"undistill: {where}{error.strerror or error}; what was finished is stored, so mend this and run the same "
            "command again",
            markup=False,
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        errors.print(
            "undistill: stopped; what was finished is stored, and the same command goes on from there", markup=False
        )
        return INTERRUPTED
