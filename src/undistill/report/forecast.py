"""What an audit would take, as text."""

from collections.abc import Callable

from undistill.audit import Forecast, Range


def forecast_lines(forecast: Forecast) -> list[str]:
    """A forecast in a few lines: trials, queries, time, disk, and on which measurements the time rests."""
    trials = list(forecast.trials.values())
    whole = Range(sum(value.smallest for value in trials), sum(value.largest for value in trials))
    parts = ", ".join(f"{_range(value, _count)} {role}s" for role, value in forecast.trials.items())
    steps = ", ".join(f"{1000 * value:.3g} ms a step of {name}" for name, value in forecast.step_seconds.items())
    answers = ", ".join(f"{value:.3g} s for 1,000 answers of {name}" for name, value in forecast.answer_seconds.items())
    if forecast.cluster:
        where = "with one trial at a time; a cluster that runs N at once takes about an Nth"
        beside = "in the time; on this machine alone, so the cluster does not shorten it"
    else:
        where, beside = f"with {forecast.workers} {'worker' if forecast.workers == 1 else 'workers'}", "in the time"
    lines = [
        f"Trials: {_range(whole, _count)} ({parts}); {forecast.stored} stored already.",
        f"Queries: teachers are asked about {_range(forecast.queries, _count)} images.",
        f"Time: about {_range(forecast.seconds, duration)} {where}.",
        f"Disk: outcomes {_range(forecast.outcome_bytes, _size)}, answers {_range(forecast.answer_bytes, _size)}.",
    ]
    if forecast.undefended_epochs:
        lines.append(f"An undefended teacher is trained first, for {forecast.undefended_epochs} epochs ({beside}).")
    return [*lines, f"Measured just now, with one thread: {'; '.join(filter(None, [steps, answers]))}."]


def duration(seconds: int | float) -> str:
    """Seconds in words that a person can plan with.

    >>> duration(8), duration(95), duration(7000), duration(200_000)
    ('8 s', '2 min', '1.9 h', '2.3 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _range(value: Range, words: Callable[[int | float], str]) -> str:
    ends = words(value.smallest), words(value.largest)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _count(value: int | float) -> str:
    return f"{value:,.0f}"


def _size(value: int | float) -> str:
    if value < 1e6:
        return f"{value / 1e3:.0f} kB"
    return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"
