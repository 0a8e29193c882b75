"""Waiting for the end of a migration: for --wait, and for whoever else polls.

The conductor is asked often at first and once a second in the long run. A conductor or broker that is away for a while does not end
the wait, for the migration goes on without it.
"""
import argparse
import contextlib

from migrator import exceptions
from migrator.cli import arguments, base, exit_codes, fields, output
from migrator.cli.errors import one_line
from migrator.states import Status

FIRST_INTERVAL = 0.2
LAST_INTERVAL = 1.0
GROWTH = 1.3
#: Seconds for which unanswered questions are repeated before Unavailable is raised.
PATIENCE = 60.0
MAX_SECONDS = 10_000_000


class Poller:
    """Asks for one migration again and again, at growing intervals."""

    def __init__(self, app, timeout=None):
        """app: with api, clock, sleep and complain. timeout: seconds; None waits as long as it takes."""
        self.app = app
        self._deadline = None if timeout is None else app.clock() + timeout
        self._interval = FIRST_INTERVAL
        self._silent_since = None

    def pause(self):
        """Sleep until the next question. Returns False, without sleeping, when the time is over."""
        interval = self._interval
        if self._deadline is not None:
            left = self._deadline - self.app.clock()
            if left <= 0:
                return False
            interval = min(interval, left)
        self.app.sleep(interval)
        self._interval = min(LAST_INTERVAL, self._interval * GROWTH)
        return True

    def show(self, migration_id):
        """Ask for a migration. Returns its view, or None when nobody answers for the moment; raises Unavailable after PATIENCE."""
        try:
            view = self.app.api.show(migration_id)
        except exceptions.MigratorError as error:
            if error.exit_code != exit_codes.UNAVAILABLE:
                raise
            return self._silence(error)
        self._silent_since = None
        return view

    def _silence(self, error):
        now = self.app.clock()
        if self._silent_since is None:
            self._silent_since = now
            self.app.complain(f'no answer for the moment, asking again: {error}')
        elif now - self._silent_since > PATIENCE:
            raise error
        return


def wait(app, view, timeout, display, since=''):
    """Wait until a migration has ended or needs an operator. Returns (view, whether the time was over).

    view: the migration as it is known. timeout: seconds or None. display: has update(views), to be called with each news.
    since: a time of the API; that an operator is needed counts if it follows from answers to questions that were put then or later.
    """
    poller = Poller(app, timeout)
    app.watched[view['id']] = view
    while True:
        app.watched[view['id']] = view = poller.show(view['id']) or view
        display.update([view])
        fresh = view.get('looked_at', since) >= since
        if Status(view['status']).terminal or (view['status'] == Status.NEEDS_OPERATOR and fresh):
            return view, False
        if not poller.pause():
            return view, True


def seconds(text):
    """Read a number of seconds for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f'{text!r:.40} is not a number of seconds from 0 to {MAX_SECONDS}')
    return number


def add_timeout(parser):
    """Add --timeout."""
    parser.add_argument('--timeout', type=seconds, metavar='SECONDS', help='how long to wait at most; default: until it ends')


def verdict(view, timed_out=False, aborting=False):
    """Say how waiting for a migration ended: (exit code, one sentence; '' when there is nothing to complain of)."""
    code = exit_codes.TIMED_OUT if timed_out else exit_codes.of_ending(view['status'], aborting)
    who = f'{output.kind(view["kind"])} of {output.guest(view)} (migration {view["id"]})'
    why = view['error'] or view['reason']
    sentence = {
        exit_codes.OK: '',
        exit_codes.CONFLICT: f'TooLate: {who} has completed; the abort came too late',
        exit_codes.FAILED: f'Failed: {who}: {why}',
        exit_codes.CANCELLED: f'Cancelled: {who}: {why}',
        exit_codes.NEEDS_OPERATOR: f'NeedsOperator: {who}: {why}',
        exit_codes.TIMED_OUT: f'TimedOut: {who} goes on; it is {view["status"]}: {why}',
    }[code]
    return code, one_line(sentence)


class MigrationCommand(base.ShowCommand):
    """A command whose result is a migration, to be waited for on request."""

    columns = fields.SHOW
    aborting = False
    since = ''
    waited = False

    def add_wait(self, where):
        """Add --wait to a parser or group."""
        where.add_argument('--wait', action='store_true', help='wait for the end, and exit with what came of it')

    def begin(self, parsed):
        """Ask for it. Returns the migration's view."""
        raise NotImplementedError

    def ask(self, parsed):
        """Ask for it, and wait if that was asked for."""
        if parsed.timeout is not None and not parsed.wait:
            raise exceptions.InvalidRequest('--timeout goes with --wait')
        view = self.begin(parsed)
        return self.wait(view, parsed.timeout) if parsed.wait else view

    def wait(self, view, timeout):
        """Wait for the end, with a display if standard error is a terminal. Sets the exit code; returns the last view."""
        with self.display() as display:
            view, timed_out = wait(self.app, view, timeout, display, self.since)
        self.waited = True
        self.code, self.complaint = verdict(view, timed_out, self.aborting)
        return view

    @contextlib.contextmanager
    def display(self):
        """Give the display for --wait."""
        if not self.app.stderr.isatty():
            yield Silent()
            return
        from migrator.cli import progress
        with progress.bars(self.app.stderr) as display:
            yield display

    def below(self, view):
        """Show the timeline of what went wrong."""
        return ['', 'Timeline', *output.timeline(view['events'])] if self.code and view.get('events') else ()


class WaitCommand(MigrationCommand):
    """A command with --wait and --timeout."""

    def get_parser(self, prog_name):
        """Add the two."""
        parser = super().get_parser(prog_name)
        self.add_wait(parser)
        add_timeout(parser)
        return parser


class InstanceWork(WaitCommand):
    """Work on an instance under a request id."""

    def get_parser(self, prog_name):
        """Add --request-id."""
        parser = super().get_parser(prog_name)
        add_request_id(parser)
        return parser


def add_request_id(parser):
    """Add --request-id."""
    parser.add_argument('--request-id', type=arguments.request_id, metavar='TEXT',
                        help='identity of the request: asked again with the same one, what the first asking began is shown')


class Silent:
    """A display that shows nothing."""

    def update(self, views):
        """Take news."""
