"""Signals that end the demonstration: ^C, SIGTERM, and SIGHUP of a terminal that is closed. All of them lead through the cleanup.

In a process with green threads a handler runs in whichever of them is at work, and an exception raised there would hit a bystander;
so it only takes note, and the story looks at the note wherever it waits. With plain threads handlers run in the main one.
"""
import signal

from migrator import concurrency

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The demonstration is to end; as SystemExit, it is no error and must pass through handlers of errors. number: the signal."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


_heard = []       # every signal that came
_pending = []     # the one that has not led to Interrupted yet


def listen():
    """Take note of the signals from now on. Only the first one counts: a second ^C does not end the cleanup."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)


def check():
    """Raise Interrupted if a signal has come; once, so that the cleanup may wait for things too."""
    if _pending:
        raise Interrupted(_pending.pop())


def _note(number, _frame):
    _heard.append(number)
    if len(_heard) > 1:
        return
    if not concurrency.is_green():
        raise Interrupted(number)
    _pending.append(number)
