"""Kill any daemon at any line of a live migration, start it again, and find one running guest in the right place and nothing left.

Real daemons as processes, a real RabbitMQ and a real database; only the hypervisors are simulated. Each case is one line of `matrix`:
given a running guest and a cloud of one conductor and two agents, when a daemon dies with SIGKILL at that line, is started again and
the migration ends, then the guest runs once, at the host that the database names, and no file, domain, lock, place or debt is left.
"""
import contextlib
import threading

from migrator import exceptions
from migrator.states import Status
from tests import services
from tests.cluster import Cluster
from tests.faults import matrix
from tests.faults.class_fixtures import ClassFixtures
from tests.faults.matrix import FAILS

SOURCE, DESTINATION = 'one', 'two'


class KillCases(ClassFixtures):
    """One cloud serves all cases of a class; a case that leaves a daemon dead gets it started again by the next one."""

    database = 'mysql'

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database(cls.database)).url]
        cls.cluster = cls.use(Cluster(*urls, hosts=(SOURCE, DESTINATION), arm=True))

    def setUp(self):
        self.cluster.kill_file.unlink(missing_ok=True)
        self.cluster.world.release()
        for daemon in self.cluster.daemons.values():
            if not daemon.running():
                self.cluster.restart(daemon)
        self.cluster.wait_for(lambda: all(h['state'] == 'up' for h in self.cluster.api.hosts()), 'both hosts up')

    def tearDown(self):
        """Whatever was killed in a case, nothing is left that nobody answers for."""
        self.assertEqual([], self.cluster.audited())

    def case(self, course, point, key, victim):
        """Run one case."""
        guest = self.cluster.create(SOURCE)
        if course == FAILS:
            self.cluster.world.inject(SOURCE, 'live_migration', 'fail')
        self.cluster.kill_at(point, key, victim)
        ended = self.migrate_through_death(guest, victim)
        at = DESTINATION if ended['status'] == Status.COMPLETED else SOURCE
        self.check_course(course, point, key, ended)
        self.assertEqual([], self.settled(guest, at), ended)
        jobs = self.cluster.world.jobs(guest)
        self.assertLessEqual(len(jobs), 1, f'the hypervisor migrated it more than once: {jobs}')

    def migrate_through_death(self, guest, victim):
        """Ask for the migration, wait until the victim has died, start it again, ask again as a caller without an answer would."""
        asking = threading.Thread(target=self.ask_and_forget, args=(guest,), daemon=True)
        asking.start()
        died = self.cluster.await_death()
        self.assertEqual(victim, died.name)
        self.cluster.restart(died)
        migration = self.cluster.api.live_migrate(guest, DESTINATION, request_id=f'once-{guest}')
        ended = self.cluster.ended(migration)
        found = self.cluster.api.list({'instance': guest, 'kind': 'live_migration'})
        self.assertEqual([ended['id']], [m['id'] for m in found], 'one request, one migration')
        return ended

    def ask_and_forget(self, guest):
        """Ask for the migration; whoever is killed may be the one who should answer, so no answer is as good as one."""
        with contextlib.suppress(exceptions.Unavailable):
            self.cluster.api.live_migrate(guest, DESTINATION, request_id=f'once-{guest}')

    def settled(self, guest, at):
        """Give the violations once the catalogue's heartbeats have settled: at once if there are none."""
        try:
            self.cluster.wait_for(lambda: not self.cluster.violations(guest, at), 'no violation', 5)
        except Exception:
            return self.cluster.violations(guest, at)
        return []

    def check_course(self, course, point, key, ended):
        """A death changes the course only where the work of the dead cannot be known or the check went unanswered."""
        self.assertTrue(ended['reason'], 'an end without a reason')
        if course == FAILS:
            self.assertEqual(Status.FAILED, ended['status'], ended)
        elif key.startswith('check_can') or (key == 'live_migration' and point in ('accepted', 'begun')):
            # A check without an answer refuses; a hypervisor's call that an agent died over is not made a second time.
            self.assertIn(ended['status'], (Status.COMPLETED, Status.FAILED), ended)
        else:
            self.assertEqual(Status.COMPLETED, ended['status'], ended)


def add_agent_cases(cls):
    """Make a test of every line at which an agent may die."""
    for course, role, point, key in matrix.agent_cases():
        def test(self, course=course, role=role, point=point, key=key):
            self.case(course, point, key, SOURCE if role.value == 'source' else DESTINATION)
        setattr(cls, 'test_agent_' + matrix.name_of(role.value, point, key), test)
    return cls


def add_conductor_cases(cls):
    """Make a test of every line at which the conductor may die."""
    for course, point, key in matrix.conductor_cases():
        def test(self, course=course, point=point, key=key):
            self.case(course, point, key, 'conductor-0')
        setattr(cls, 'test_conductor_' + matrix.name_of(course, point, key), test)
    return cls


@add_agent_cases
@add_conductor_cases
class TestKill(KillCases):
    """Every case on MariaDB."""


@add_conductor_cases
class TestKillOnPostgreSQL(KillCases):
    """The conductor's cases, which depend on the database, on PostgreSQL."""

    database = 'postgresql'


class TestRequestLost(KillCases):
    """The conductor dies with the request in its hands."""

    def test_repeated_request_after_a_lost_answer(self):
        """Given a request whose answer never came, when it is asked again by its request_id, then there is one migration, and it ends."""
        guest = self.cluster.create(SOURCE)
        self.cluster.kill_at('after-commit', f'call:{matrix.TABLE.checks[0].name}', 'conductor-0')
        ended = self.migrate_through_death(guest, 'conductor-0')
        self.assertEqual((Status.COMPLETED, []), (ended['status'], self.settled(guest, DESTINATION)))
