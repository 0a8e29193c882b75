"""SIGTERM drains: whoever is told to end in the middle of a migration hands it over, and no migration is lost, undone or done twice.

Real daemons as processes, a real RabbitMQ and MariaDB; only the hypervisors are simulated. The agents' journals prove what ran.
"""
import concurrent.futures
import contextlib
import pathlib
import random
import signal
import sqlite3
import threading
import time
import uuid

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import TERMINAL, Status
from tests import services
from tests.cluster import Cluster
from tests.faults import matrix
from tests.faults.class_fixtures import ClassFixtures
from tests.faults.matrix import FAILS, SUCCEEDS
from tests.faults.outages import FULL
from tests.lab.processes import wait_until

SOURCE, DESTINATION = 'one', 'two'

#: Seconds after which a stop in these tests ends, come what may.
STOP_SECONDS = 15

#: How many requests are under way at once.
CALLERS = 4


class GracefulCase(ClassFixtures):
    """One cloud serves all cases of a class."""

    hosts, conductors, arm, options = (SOURCE, DESTINATION), 2, True, {}
    database = 'mysql'

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database(cls.database)).url]
        options = {'DEFAULT': {'graceful_stop_timeout': STOP_SECONDS}} | cls.options
        cls.cluster = cls.use(Cluster(*urls, hosts=cls.hosts, conductors=cls.conductors, arm=cls.arm, options=options))

    def setUp(self):
        self.cluster.kill_file.unlink(missing_ok=True)
        self.cluster.world.release()
        for daemon in self.cluster.daemons.values():
            if not daemon.running():
                self.cluster.restart(daemon)
        self.cluster.wait_for(lambda: all(h['state'] == 'up' and not h['draining'] for h in self.cluster.api.hosts()), 'all hosts up')

    def tearDown(self):
        """Whoever was told to end in a case, nothing is left that nobody answers for."""
        self.assertEqual([], self.cluster.audited())

    def operations(self, migration_id=None):
        """What the agents' journals say: (operation's id, method, state) of one migration, or of all."""
        found = []
        for host in self.hosts:
            with contextlib.closing(sqlite3.connect(pathlib.Path(self.cluster.folder) / f'{host}-journal.db', timeout=30)) as journal:
                found += journal.execute('SELECT op_id, method, state FROM operation WHERE ? IS NULL OR migration_id = ?',
                                         (migration_id, migration_id)).fetchall()
        return found

    def assert_done_once(self, migration_id):
        """Every step was done once; only the job that the hypervisor was left with may stand there as interrupted."""
        for op_id, method, state in self.operations(migration_id):
            self.assertTrue(op_id.endswith('/1'), f'{op_id} was a repetition')
            self.assertIn(state, ('succeeded', 'interrupted') if method == 'live_migration' else ('succeeded',), op_id)


class TestEveryStep(GracefulCase):
    """Each daemon is told to end at each step of the table, ends in order, and is started again."""

    conductors = 1

    def case(self, course, point, key, victim):
        """Given a guest, when the victim gets SIGTERM at that line, then the migration goes its course as if nothing had been."""
        guest = self.cluster.create(SOURCE)
        if course == FAILS:
            self.cluster.world.inject(SOURCE, 'live_migration', 'fail')
        self.cluster.kill_at(point, key, victim, signal.SIGTERM)
        migration = self.cluster.api.live_migrate(guest, DESTINATION)
        ended = self.cluster.await_death(STOP_SECONDS + 15)
        self.assertEqual((victim, 0), (ended.name, ended.process.returncode), ended.output()[-2000:])
        self.cluster.restart(ended)
        shown = self.cluster.ended(migration)
        self.assertEqual(Status.FAILED if course == FAILS else Status.COMPLETED, shown['status'], shown)
        self.assertEqual([], self.cluster.settled(guest, SOURCE if course == FAILS else DESTINATION), shown)
        self.assertEqual(1, len(self.cluster.world.history(guest, 'live_migration')))
        if course == SUCCEEDS:
            self.assert_done_once(shown['id'])


def add_cases(cls):
    """Make a test of every step of both courses, for the agents and for the conductor."""
    for course, role, point, key in matrix.agent_cases():
        if point in ('begun', 'called'):
            def test(self, course=course, role=role, point=point, key=key):
                self.case(course, point, key, SOURCE if role.value == 'source' else DESTINATION)
            setattr(cls, 'test_agent_' + matrix.name_of(course, role.value, key), test)
    for course, point, key in matrix.conductor_cases():
        if point == 'after-commit':
            def test(self, course=course, point=point, key=key):
                self.case(course, point, key, 'conductor-0')
            setattr(cls, 'test_conductor_' + matrix.name_of(course, key), test)
    return cls


add_cases(TestEveryStep)


class TestHandOver(GracefulCase):
    """What is under way when a daemon is told to end."""

    arm, options = False, {'fake': {'migration_seconds': 8}}

    def begin(self):
        """Begin a migration that takes 8 s; returns (guest, migration) once the hypervisor works on it."""
        guest = self.cluster.create(SOURCE)
        migration = self.cluster.api.live_migrate(guest, DESTINATION)
        self.cluster.wait_for(lambda: self.cluster.world.jobs(guest), 'the job')
        return guest, migration

    def test_the_hypervisors_job_goes_on_without_its_agent(self):
        """Given a long migration, when the source's agent ends in order, then the job goes on and its successor finds how it ended."""
        guest, migration = self.begin()
        agent = self.cluster.daemons[SOURCE]
        self.assertEqual(0, agent.terminate(STOP_SECONDS + 15))
        self.assertEqual('active', self.cluster.world.jobs(guest)[0]['state'])
        self.assertEqual('running', self.cluster.api.show(migration['id'])['status'])
        self.cluster.restart(agent)
        shown = self.cluster.ended(migration)
        self.assertEqual((Status.COMPLETED, []), (shown['status'], self.cluster.settled(guest, DESTINATION)), shown)
        self.assertEqual(1, len(self.cluster.world.jobs(guest)))
        self.assert_done_once(migration['id'])
        self.assertIn(('live_migration', 'interrupted'), [(m, s) for _, m, s in self.operations(migration['id'])])

    def test_an_ending_agent_takes_no_work_and_what_comes_waits_for_its_successor(self):
        """Given an agent that drains, when another migration is asked for, then it waits, and is done by the agent's successor."""
        busy = self.cluster.create(SOURCE)
        self.cluster.world.inject(SOURCE, 'stop_instance', 'hang')
        stopping = self.cluster.api.instance_stop(busy)
        self.cluster.wait_for(lambda: self.operations(stopping['id']), 'the operation in the journal')
        guest = self.cluster.create(DESTINATION)
        agent = self.cluster.daemons[SOURCE]
        agent.process.send_signal(signal.SIGTERM)
        self.cluster.wait_for(lambda: self.cluster.api.host_show(SOURCE)['draining'], 'the host drains')
        migration = self.cluster.api.live_migrate(guest, SOURCE)
        self.cluster.wait_for(lambda: 'stopping' in self.cluster.api.show(migration['id'])['reason'], 'the refusal in the timeline')
        self.cluster.world.release()
        self.assertEqual(0, agent.process.wait(STOP_SECONDS + 15))
        self.cluster.restart(agent)
        self.assertEqual(Status.COMPLETED, self.cluster.ended(stopping)['status'])
        shown = self.cluster.ended(migration)
        self.assertEqual((Status.COMPLETED, []), (shown['status'], self.cluster.settled(guest, SOURCE)), shown)

    def test_the_time_for_an_orderly_end_is_limited(self):
        """Given work that hangs, when its agent is told to end, then it ends within its time, and the work counts as interrupted."""
        busy = self.cluster.create(SOURCE)
        self.cluster.world.inject(SOURCE, 'stop_instance', 'hang')
        stopping = self.cluster.api.instance_stop(busy)
        self.cluster.wait_for(lambda: self.operations(stopping['id']), 'the operation in the journal')
        began = time.monotonic()
        agent = self.cluster.daemons[SOURCE]
        self.assertEqual(0, agent.terminate(STOP_SECONDS + 15))
        self.assertGreater(time.monotonic() - began, STOP_SECONDS / 2, 'it was not waited for')
        self.cluster.world.release()
        self.cluster.restart(agent)
        self.assertIn(self.cluster.ended(stopping)['status'], TERMINAL)
        self.assertIn('interrupted', [state for _, _, state in self.operations(stopping['id'])])

    def test_a_second_signal_ends_it_at_once(self):
        """Given an agent that waits for work that hangs, when it is told again, then it ends at once, and nothing is lost."""
        for again in (signal.SIGTERM, signal.SIGINT):
            guest, migration = self.begin()
            busy = self.cluster.create(SOURCE)
            self.cluster.world.inject(SOURCE, 'stop_instance', 'hang')
            stopping = self.cluster.api.instance_stop(busy)
            self.cluster.wait_for(lambda s=stopping: self.operations(s['id']), 'the operation in the journal')
            agent = self.cluster.daemons[SOURCE]
            agent.process.send_signal(signal.SIGTERM)
            self.cluster.wait_for(lambda: self.cluster.api.host_show(SOURCE)['draining'], 'the host drains')
            began = time.monotonic()
            agent.process.send_signal(again)
            self.assertEqual(128 + again, agent.process.wait(10))
            self.assertLess(time.monotonic() - began, 5)
            self.cluster.world.release()
            self.cluster.restart(agent)
            self.cluster.ended(stopping)
            shown = self.cluster.ended(migration)
            self.assertEqual((Status.COMPLETED, []), (shown['status'], self.cluster.settled(guest, DESTINATION)), shown)

    def test_a_disabled_host_takes_nothing_new_and_finishes_what_runs(self):
        """Given a running migration, when its destination is disabled, then it goes on, the next one is refused, and both see why."""
        guest, migration = self.begin()
        other = self.cluster.create(SOURCE)
        self.addCleanup(self.cluster.api.host_enable, DESTINATION)
        self.cluster.api.host_disable(DESTINATION, 'new kernel on Friday')
        error = self.assertRaises_(exceptions.HostDisabled, self.cluster.api.live_migrate, other, DESTINATION)
        self.assertIn('new kernel on Friday', str(error))
        self.assertEqual('new kernel on Friday', self.cluster.api.host_show(DESTINATION)['disabled_reason'])
        shown = self.cluster.ended(migration)
        self.assertEqual((Status.COMPLETED, []), (shown['status'], self.cluster.settled(guest, DESTINATION)), shown)

    def assertRaises_(self, kind, call, *args):
        with self.assertRaises(kind) as caught:
            call(*args)
        return caught.exception


class TestLettingGo(GracefulCase):
    """A conductor has less time for its end than an agent has for its answer."""

    arm, options = False, {'DEFAULT': {'graceful_stop_timeout': 6}}

    def test_a_conductor_lets_go_of_what_an_agent_does_not_answer(self):
        """Given a conductor that waits for a frozen agent, when it ends in order, then another one takes the migration up."""
        guest = self.cluster.create(SOURCE)
        frozen = self.cluster.daemons[DESTINATION]
        frozen.pause()
        self.addCleanup(frozen.resume)
        migration = self.cluster.api.live_migrate(guest, DESTINATION)['id']
        conductors = {self.cluster.daemons[f'conductor-{n}'] for n in range(2)}
        first = self.cluster.wait_for(lambda: next((c for c in conductors if migration in c.output()), None), 'whoever took it')
        second, = conductors - {first}
        self.assertEqual(0, first.terminate(STOP_SECONDS + 15))
        self.assertRegex(first.output(), f'left to other conductors: .*{migration}')
        self.cluster.wait_for(lambda: migration in second.output(), 'the other one at work on it')
        frozen.resume()
        shown = self.cluster.ended({'id': migration})
        self.assertEqual((Status.COMPLETED, []), (shown['status'], self.cluster.settled(guest, DESTINATION)), shown)


class TestRollingRestart(GracefulCase):
    """All daemons are restarted, one after the other, while sixty migrations go on."""

    hosts, arm = ('one', 'two', 'three', 'four'), False
    options = {'conductor': {'max_migrations_per_host': 60, 'host_lost_after': 60}, 'compute': {'driver': 'fake', 'max_operations': 200},
               'fake': {'migration_seconds': 60}}
    guests, going_on = 80, 60

    def test_nothing_is_lost_failed_or_done_twice(self):
        """Given sixty migrations, and new ones as they end, when two conductors and four agents are restarted, then all complete, once."""
        guests = [str(uuid.uuid4()) for _ in range(self.guests)]
        self.cluster.world.add_guests([{'host': self.hosts[n % 4], 'uuid': guest, 'memory_mib': 64} for n, guest in enumerate(guests)])
        self.cluster.wait_for(lambda: len(self.cluster.rows(tables.instance)) == self.guests, 'the guests in the catalogue')
        over, load = threading.Event(), Load(self.cluster, self.hosts, guests, self.going_on)
        feeding = threading.Thread(target=load.keep_up, args=(over,), daemon=True)
        feeding.start()
        self.cluster.wait_for(lambda: load.going_on() >= self.going_on, f'{self.going_on} migrations', 120)
        for daemon in list(self.cluster.daemons.values()):
            self.cluster.wait_for(lambda: load.going_on() >= self.going_on // 2, 'many migrations', 120)
            self.assertEqual(0, daemon.terminate(STOP_SECONDS + 15))
            self.cluster.restart(daemon)
        over.set()
        feeding.join(60)
        self.assertFalse(feeding.is_alive(), 'requests are still under way')
        wait_until(lambda: not load.going_on(), 180, 'the end of all migrations', interval=0.2)
        rows = [r for r in self.cluster.rows(tables.migration) if r.kind == 'live_migration']
        self.assertEqual(sorted(load.asked), sorted(r.request_id for r in rows), 'one request, one migration')
        self.assertEqual([], [(r.id, r.status, r.error) for r in rows if r.status != Status.COMPLETED or r.direction != 'forward'])
        for row in rows:
            self.assert_done_once(row.id)
        self.assertEqual(len(rows), len(self.cluster.world.jobs()), 'the hypervisors migrated as often as it was asked for')
        self.assertEqual([], self.cluster.world.check())
        print(f'{len(rows)} migrations, {len(self.cluster.daemons)} daemons restarted')


if FULL:
    class TestEveryStepOnPostgreSQL(TestEveryStep):
        """The same on PostgreSQL."""

        database = 'postgresql'

    class TestHandOverOnPostgreSQL(TestHandOver):
        """The same on PostgreSQL."""

        database = 'postgresql'

    class TestRollingRestartOnPostgreSQL(TestRollingRestart):
        """The same on PostgreSQL."""

        database = 'postgresql'


class Load:
    """Asks for migrations of guests that have none, so that a number of them goes on."""

    def __init__(self, cluster, hosts, guests, number):
        self.cluster, self.hosts, self.guests, self.number = cluster, hosts, guests, number
        self.asked = []
        self._random = random.Random(20)

    def rows(self):
        """The live migrations."""
        return [r for r in self.cluster.rows(tables.migration) if r.kind == 'live_migration']

    def going_on(self):
        """How many have not ended."""
        return len([r for r in self.rows() if r.status not in TERMINAL])

    def keep_up(self, over):
        """Ask, until `over` is set."""
        while not over.wait(0.3):
            moving = {r.instance_uuid for r in self.rows() if r.status not in TERMINAL}
            idle = [r for r in self.cluster.rows(tables.instance) if r.uuid not in moving and r.state == 'running']
            self._random.shuffle(idle)
            with concurrent.futures.ThreadPoolExecutor(CALLERS) as callers:
                list(callers.map(self.ask, idle[:max(0, self.number - len(moving))]))

    def ask(self, guest):
        """Ask for one migration, again under the same id as long as no conductor answers; refusals of the moment are no requests."""
        destination = self._random.choice([h for h in self.hosts if h != guest.host])
        request_id = str(uuid.uuid4())
        for _ in range(10):
            try:
                self.cluster.api.live_migrate(guest.uuid, destination, request_id=request_id)
            except exceptions.Unavailable:
                continue
            except exceptions.Conflict:
                return
            self.asked.append(request_id)
            return
        raise AssertionError('no conductor answered ten requests')
