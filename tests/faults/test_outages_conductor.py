"""A conductor stands still for longer than its claim, another one takes over, and then it wakes up."""
import contextlib
import signal

from migrator.conductor.db import tables
from migrator.rpc.context import MigratorContext
from migrator.states import Status
from tests.faults import matrix
from tests.faults.outages import DESTINATION, FULL, SOURCE, Fleet, OutageCase, journal


class FrozenCases:
    """Freezes whichever conductor comes to a point first."""

    own_broker = own_database = False

    def freeze_at(self, point, key):
        """Given a migration whose conductor freezes at this line, when it wakes up after another one has ended it, nothing changes."""
        fleet = Fleet(self.cluster, ())
        guest = fleet.late
        self.cluster.kill_file.write_text(f'{point} {key} * {int(signal.SIGSTOP)}')
        fleet.ask_late()
        frozen = self.cluster.wait_for(self.frozen, f'conductor at {point} {key}')
        try:
            ended = fleet.await_end(40)[guest]
            before = self.memory(ended.id)
        finally:
            frozen.resume()
        self.await_awake(frozen)
        self.assertEqual(before, self.memory(ended.id), 'what woke up late changed something')
        self.assertEqual(Status.COMPLETED.value, ended.status, ended.reason)
        self.check(fleet, {guest: ended})

    def frozen(self):
        """The conductor that reached its point."""
        for name, daemon in self.cluster.daemons.items():
            with contextlib.suppress(FileNotFoundError):
                (self.cluster.folder / f'reached-by-{name}').unlink()
                return daemon
        return None

    def await_awake(self, daemon):
        """Wait until a conductor that woke up answers, and for its sweep, so that it has done what it had in its hands."""
        context = MigratorContext(overwrite=False)
        self.cluster.api._client.call(context, 'hosts', '1.0', server=daemon.name)
        self.endure(1.0, None)

    def memory(self, migration_id):
        """What database and journals hold of a migration."""
        rows = [tuple(r) for r in self.cluster.rows(tables.migration) if r.id == migration_id]
        events = [tuple(r) for r in self.cluster.rows(tables.event) if r.migration_id == migration_id]
        return rows, events, [[o for o in journal(self.cluster, host) if o[0].startswith(migration_id)] for host in (SOURCE, DESTINATION)]


POINTS = [(point, key) for point in matrix.CONDUCTOR_POINTS for key in
          ('start:pre_live_migration', 'start:live_migration', 'observe:live_migration', 'start:post_live_migration_at_source')
          if (point, key) != ('after-send', 'observe:live_migration')]


def add_cases(cls):
    """Make a test of every point."""
    for point, key in cls.points:
        def test(self, point=point, key=key):
            self.freeze_at(point, key)
        setattr(cls, 'test_' + matrix.name_of(point, key), test)
    return cls


@add_cases
class TestFrozen(FrozenCases, OutageCase):
    """Between the claim and the commit, between the commit and the message, and after the message."""

    points = POINTS


@add_cases
class TestFrozenOnPostgreSQL(FrozenCases, OutageCase):
    """The lines at which the transaction is open or has just ended, where the databases differ; all lines with MIGRATOR_TEST_FULL=1."""

    database = 'postgresql'
    points = [(point, key) for point, key in POINTS if FULL or (point != 'after-send' and key == 'start:live_migration')]
