"""Agents that have forgotten everything, and hosts whose clocks are minutes apart."""
import os

from migrator.states import Status
from tests.faults import matrix, points
from tests.faults.outages import DESTINATION, FULL, SOURCE, OutageCase


class TestEmptyJournal(OutageCase):
    """An agent dies, and what it remembers is gone when it comes back. Without its journal only the hypervisors can tell."""

    own_broker = own_database = False
    conductors = 1

    def case(self, course, role, point, key):
        """Run one case: the agent dies at this point of this operation, and its journal with it."""
        host = SOURCE if role.value == 'source' else DESTINATION
        guest = self.cluster.create(SOURCE)
        if course == matrix.FAILS:
            self.cluster.world.inject(SOURCE, 'live_migration', 'fail')
        self.cluster.kill_at(point, key, host)
        migration = self.cluster.api.live_migrate(guest, DESTINATION)
        died = self.cluster.await_death()
        for suffix in ('', '-wal', '-shm'):
            (self.cluster.folder / f'{host}-journal.db{suffix}').unlink(missing_ok=True)
        self.cluster.restart(died)
        ended = self.cluster.ended(migration)
        at = DESTINATION if ended['status'] == Status.COMPLETED else SOURCE
        self.assertEqual([], self.settled(guest, at), ended)
        self.assertLessEqual(len(self.cluster.world.jobs(guest)), 1, 'the hypervisor migrated it more than once')
        if course == matrix.FAILS:
            self.assertEqual(Status.FAILED, ended['status'], ended['reason'])
        elif key != 'live_migration' or point != 'begun':       # a hypervisor's call that an agent died over is not made a second time
            self.assertEqual(Status.COMPLETED, ended['status'], ended['reason'])
        self.check_logs()


def add_cases(cls):
    """Make a test of every operation of the table, dead while it ran and dead before it was reported."""
    table = matrix.TABLE
    operations = [(matrix.SUCCEEDS, step.on, step.name) for step in table.operations]
    operations += [(matrix.FAILS, table.step(method).undo.on, method) for method in table.undo_order]
    for course, role, key in operations:
        for point in ('begun', 'recorded'):
            def test(self, course=course, role=role, point=point, key=key):
                self.case(course, role, point, key)
            setattr(cls, 'test_' + matrix.name_of(role.value, point, key), test)
    return cls


add_cases(TestEmptyJournal)


class TestClocks(OutageCase):
    """Every daemon has another time of day, and hosts have been up for different times; then the times of day jump."""

    own_broker = own_database = False
    SHIFTS = {SOURCE: (-600, 86400), DESTINATION: (420, 0), 'conductor-0': (300, 3600), 'conductor-1': (-180, 7200)}

    def setUp(self):
        for name, shift in self.SHIFTS.items():
            self.set_clock(name, *shift)
        for daemon in self.cluster.daemons.values():
            if points.CLOCK_FILE not in daemon.env:
                daemon.kill()
                daemon.env[points.CLOCK_FILE] = str(self.clock(daemon.name))
        super().setUp()

    def clock(self, name):
        """The file that a daemon's clock is read from."""
        return self.cluster.folder / f'{name}.clock'

    def set_clock(self, name, wall, uptime):
        """Set by how many seconds a daemon's time of day, and its host's time since its start, differ from the machine's."""
        fresh = self.cluster.folder / 'clock.new'
        fresh.write_text(f'{wall} {uptime}')
        os.replace(fresh, self.clock(name))

    def test_hosts_apart_by_minutes(self):
        """Given clocks that are minutes apart, when guests are moved, then all end well."""
        self.outage(lambda: None, lambda: None, 2)
        self.check_apart()

    def test_clocks_jump_in_mid_migration(self):
        """Given migrations at every step, when each clock jumps by minutes, forwards or back, then all end well."""
        def jump():
            for name, (wall, uptime) in self.SHIFTS.items():
                self.set_clock(name, -wall, uptime)
        self.outage(jump, lambda: None, 4)

    def check_apart(self):
        """The daemons did live in other times: it stands in their logs."""
        hours = {name: daemon.output().splitlines()[-1][:16] for name, daemon in self.cluster.daemons.items()}
        self.assertEqual(len(hours), len(set(hours.values())), hours)


if FULL:
    class TestEmptyJournalWithPostgreSQL(TestEmptyJournal):
        """The same with PostgreSQL."""

        database = 'postgresql'

    class TestClocksWithPostgreSQL(TestClocks):
        """The same with PostgreSQL."""

        database = 'postgresql'
