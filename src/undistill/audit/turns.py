"""Functions that wait for one thing together."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")
Result = TypeVar("Result")


def in_turns(
    functions: Sequence[Callable[[Callable[[Question], Reply]], Result]],
    answer: Callable[[list[Question]], Sequence[Reply]],
) -> list[Result | Exception]:
    """Run functions that each may ask something, any number of times, and answer whoever is waiting at once.

    Each function has a thread, and only one of all threads runs at a time: the first function until it asks, then the
    second, and so on; when all that have not ended are waiting, their questions are answered together. So the order
    of events is always the same, and what the functions share needs no lock.

    Args:
        functions: each is called with a function that asks.
        answer: takes questions in the order of the functions, and gives as many replies.

    Returns:
        What each function returned or raised. What ``answer`` raises is raised in every function that waits for it.

    Example:
        >>> def twice(ask):
        ...     return ask("a") + ask("b")
        >>> def once(ask):
        ...     return ask("c")
        >>> def together(questions):
        ...     print(questions)
        ...     return [question.upper() for question in questions]
        >>> in_turns([twice, once], together)
        ['a', 'c']
        ['b']
        ['AB', 'C']
    """
    seats = [_Seat(function) for function in functions]
    for seat in seats:
        seat.go_on()
    while waiting := [seat for seat in seats if seat.waits]:
        stopped: BaseException | None = None
        try:
            replies = answer([seat.question for seat in waiting])
            for seat, reply in zip(waiting, replies, strict=True):
                seat.reply = reply
        except BaseException as error:
            stopped = error
        for seat in waiting:
            seat.failure = stopped
            seat.go_on()
        if stopped is not None and not isinstance(stopped, Exception):  # such as Ctrl-C: the threads have ended now
            raise stopped
    return [seat.result for seat in seats]


class _Seat(Generic[Question, Reply, Result]):
    """One function and its thread. Either it or the caller of :meth:`go_on` runs, never both."""

    question: Question
    reply: Reply
    result: Result | Exception

    def __init__(self, function: Callable[[Callable[[Question], Reply]], Result]) -> None:
        self.function, self.waits, self.failure = function, False, None
        self._turn, self._pause = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    failure: BaseException | None

    def go_on(self) -> None:
        """Let the function run until it asks or ends."""
        self.waits = False
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._turn.release()
        self._pause.acquire()

    def _run(self) -> None:
        try:
            self.result = self.function(self._ask)
        except Exception as error:
            self.result = error
        except BaseException as error:  # raised again by whoever waits for the answer
            self.result = RuntimeError(f"stopped by {error!r}")
        finally:
            self._pause.release()

    def _ask(self, question: Question) -> Reply:
        self.question, self.waits = question, True
        self._pause.release()
        self._turn.acquire()
        if self.failure is not None:
            raise self.failure
        return self.reply
