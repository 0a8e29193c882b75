"""What `migrator` tells scripts by its exit code: the one place that defines, documents and derives these numbers.

Errors bring their own code along (`MigratorError.exit_code`); the rest says how a migration ended that was waited for.
"""
from migrator.states import Status

OK = 0
ERROR = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
AGENT = 5
UNAVAILABLE = 6
FAILED = 7
CANCELLED = 8
NEEDS_OPERATOR = 9
TIMED_OUT = 10
FOUND = 11
NOT_AUDITED = 12
INTERRUPTED = 130
BROKEN_PIPE = 141

MEANINGS = (
    (OK, 'done; with --wait: completed; with abort --wait: cancelled'),
    (ERROR, 'an error that fits nothing below'),
    (USAGE, 'wrong usage or a malformed request; nothing was changed'),
    (NOT_FOUND, 'no such instance, volume, host, backend, migration or debt'),
    (CONFLICT, 'not possible in the present state; nothing was changed. Also a dry run that says no, and an abort that came too late'),
    (AGENT, 'an agent refused or failed'),
    (UNAVAILABLE, 'no conductor answered, or the broker cannot be reached'),
    (FAILED, 'the migration that was waited for failed'),
    (CANCELLED, 'the migration that was waited for was cancelled'),
    (NEEDS_OPERATOR, 'the migration that was waited for needs an operator; it has not ended'),
    (TIMED_OUT, '--timeout is over; the migration goes on'),
    (FOUND, 'the audit found something'),
    (NOT_AUDITED, 'the audit found nothing, but a host could not be asked'),
    (INTERRUPTED, 'interrupted from the keyboard; what was asked for goes on'),
    (BROKEN_PIPE, 'whoever read the output went away'),
)

#: For the end of `migrator --help`.
HELP = '\n'.join(('Exit codes:', *(f'  {code:>3}  {words}' for code, words in MEANINGS)))

_OF_STATUS = {Status.COMPLETED: OK, Status.FAILED: FAILED, Status.CANCELLED: CANCELLED, Status.NEEDS_OPERATOR: NEEDS_OPERATOR}
_OF_ABORT = {**_OF_STATUS, Status.CANCELLED: OK, Status.COMPLETED: CONFLICT}


def of_ending(status, aborting=False):
    """Give the exit code for the status in which waiting ended. aborting: the caller asked for its abort, so cancelled is success."""
    return (_OF_ABORT if aborting else _OF_STATUS).get(Status(status), TIMED_OUT)
