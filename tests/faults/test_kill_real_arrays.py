"""Kill any daemon of a volume's migration, or an array, while a client writes to the volume; find what it wrote, and nothing left.

Real daemons as processes, a real broker and database, and three real storage daemons. The lines are those of `volume_matrix` on the
courses that real arrays take: take-overs while the volume is used and at once, a copy, and a move between pools; an array dies while each
step is under way, or is off before the step is begun; and agent, conductor and both arrays die on each side of the marker, while the
array holds the client back. As soon as the volume can be attached a client gets it and writes, until the migration is over and for a
while more; a connection that breaks it makes anew, as the host of a guest does. At the end the migration has ended, one array has the
volume, where the database says, with every write that was acknowledged; nothing is exported, locked, owed or half taken over, and the
audit finds nothing.

All cases run with MIGRATOR_TEST_FULL=1 (`tools/test --full`); otherwise a sample, another one each day. MIGRATOR_TEST_SEED chooses one.
"""
import contextlib
import datetime
import os
import pathlib
import random
import signal
import sys
import threading
import time
import uuid

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.conductor.workflows.model import Role
from migrator.states import TERMINAL, Status
from migrator.volume.records import Records
from tests import services
from tests.cluster import Cluster
from tests.faults import volume_matrix
from tests.faults.class_fixtures import ClassFixtures
from tests.faults.matrix import name_of
from tests.functional.real_arrays import MIB, Client
from tests.lab.array import Array

SEED = os.environ.get('MIGRATOR_TEST_SEED') or datetime.datetime.now(datetime.UTC).date().isoformat()
FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'
#: How many cases a sample has of each victim: either agent, the conductor, each array in mid-step, and off; and of what dies in a switch.
SAMPLE = 2

SOURCE, TARGET = 'east', 'west'
HERE = 'east@a#fast'
#: Where the course leads to, by its name.
THERE = {'async': 'west@b#fast', 'copy': 'west@b#fast', 'sync': 'west@s#fast', 'pools': 'east@a#slow'}
SIZE = 32 * MIB
DATA = random.Random(SEED).randbytes(SIZE)
#: How fast data is copied, or follows, in bytes a second; and where the client has to come first, until an array has died under it.
RATE, SLOW_RATE = 16 * MIB, MIB
#: How long an array has worked on a step when it dies, in seconds.
UNDER_WAY = 0.2
#: Where the loss of an array can only delay: the target is in charge already.
COMMITTED = ('complete_migration_target', 'delete_source_volume')
#: Where the client is waited for before an array dies.
UNDER_CLIENT = 'complete_migration_target'


def sample(victim, cases):
    """Choose the cases of this run for a victim."""
    cases = list(cases)
    return cases if FULL else random.Random(f'{SEED} {victim}').sample(cases, min(SAMPLE, len(cases)))


class User:
    """Has the volume attached to a guest as soon as that can be once it `moves`, and writes to it."""

    def __init__(self, cluster, volume, guest, moves):
        self.client = None
        self._cluster, self._volume, self._guest, self._moves = cluster, volume, guest, moves
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.05) and self.client is None:
            with contextlib.suppress(exceptions.Conflict, exceptions.Unavailable):      # it moves; nobody answers
                if self._moves() and self._attached():
                    uri = self._cluster.api.volume_show(self._volume)['attachments'][0]['uri']
                    self.client = Client(uri, DATA, patience=60)

    def _attached(self):
        """Whether the guest has it; ask for it unless that was done. What was asked for may fail, for whoever should do it may be dead."""
        held = self._cluster.api.volume_show(self._volume)['attachments']
        if not held:
            self._cluster.api.volume_attach(self._volume, self._guest)
        return bool(held) and held[0]['status'] == 'attached'

    def wait_writing(self, more=0):
        """Wait until something was written, or that many blocks more."""
        self._cluster.wait_for(lambda: self.client is not None, 'the attachment', 90)
        wanted = self.client.blocks + more
        self._cluster.wait_for(lambda: self.client.blocks > wanted, 'writes', 60)

    def stop(self):
        """Try no more to have it attached."""
        self._stop.set()
        self._thread.join(60)

    def finish(self):
        """Let go of the volume; returns what must be there."""
        self.stop()
        data = self.client.finish()
        ended = self._cluster.ended(self._cluster.api.volume_detach(self._volume, self._guest))
        if ended['status'] != Status.COMPLETED:
            raise AssertionError(ended)
        return data


class RealKillCases(ClassFixtures):
    """One cloud serves all cases of a class: an agent with the array `a`, one with `b`, and a guest on a simulated hypervisor."""

    rate = RATE

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database('mysql')).url]
        cls.arrays = {name: cls.use(Array(name, ('fast', 'slow'))) for name in 'abs'}
        made = {name: {'driver': 'qsd', 'pools': ','.join(f'{pool}:{path}' for pool, path in array.pools.items()), 'format': 'raw',
                       'qmp_socket': array.socket, 'listen_address': array.address, 'listen_port': array.port, 'array_timeout': 5,
                       'array_patience': 15, 'take_over': 'sync' if name == 's' else 'async'} for name, array in cls.arrays.items()}
        cls.cluster = cls.use(Cluster(*urls, hosts=('one',), arm=True, arrays={
            SOURCE: {'a': made['a']}, TARGET: {name: made[name] for name in 'bs'}}))
        cls.guest = cls.cluster.create('one')
        sys.stderr.write(f'{cls.__name__}: {"all cases" if FULL else f"sample of MIGRATOR_TEST_SEED={SEED}"}\n')

    def setUp(self):
        self.api = self.cluster.api
        self.cluster.kill_file.unlink(missing_ok=True)
        for reached in self.cluster.folder.glob('reached-by-*'):
            reached.unlink()
        for daemon in self.cluster.daemons.values():        # of a case that failed
            if not daemon.running():
                self.cluster.restart(daemon)
            daemon.resume()
        self.cluster.wait_for(lambda: all(b['state'] == 'up' for b in self.api.backends()), 'all arrays up')
        self.name = f'data-{uuid.uuid4().hex[:8]}'
        made = self.cluster.ended(self.api.volume_create(self.name, SIZE, HERE))
        self.assertEqual(Status.COMPLETED, made['status'], made)
        self.volume = made['volume_id']
        with open(self.file(), 'r+b') as stream:
            stream.write(DATA)

    def file(self):
        """Where the catalogue has the volume's data."""
        row = self.api.volume_show(self.name)
        array, _, pool = row['pool'].partition('@')[2].partition('#')
        return pathlib.Path(self.arrays[array].pools[pool]) / f'{row["lun"]}.raw'

    def ask(self, course):
        """Ask for the migration, again and again as a caller without an answer would; returns it."""
        options = {'force_host_copy': course.name == 'copy', 'bandwidth': self.rate}
        return self.api.volume_migrate(self.name, THERE[course.name], options=options, request_id=f'once-{self.name}')

    def asked(self):
        """The migration that was asked for, None before it is known."""
        return next((m for m in self.api.list({'kind': 'volume_migration'}) if m['request_id'] == f'once-{self.name}'), None)

    def begin(self, course):
        """Ask in a thread, for whoever should answer may die of it. Returns the User who waits for the volume."""
        def ask():
            with contextlib.suppress(exceptions.Unavailable):
                self.ask(course)
        threading.Thread(target=ask, daemon=True).start()
        user = User(self.cluster, self.name, self.guest, self.asked)
        self.addCleanup(user.stop)
        return user

    def daemon_case(self, course, point, key, victim):
        """Have a daemon die at a line, start it again, and look at the end."""
        self.cluster.kill_at(point, key, victim)
        user = self.begin(course)
        died = self.cluster.await_death(60)
        self.assertEqual(victim, died.name)
        self.cluster.restart(died)
        expected = TERMINAL if point == 'called' else {Status.COMPLETED}        # a check without an answer may refuse
        self.finish(course, user, expected)

    def array_case(self, course, step, name):
        """Have an array die while a step is under way, and under the client if there can be one by then; start it again at once."""
        self.cluster.kill_at('after-send', f'start:{step}', 'conductor-0', 0)       # no signal: it only says when it was there
        self.rate = SLOW_RATE if step == UNDER_CLIENT else RATE
        user = self.begin(course)
        self.cluster.wait_for((self.cluster.folder / 'reached-by-conductor-0').exists, f'the conductor at {step}', 60)
        if step == UNDER_CLIENT:
            user.wait_writing()
            self.assertEqual('migrating_attachable', self.api.volume_show(self.name)['migration_status'], 'it was too fast')
        time.sleep(UNDER_WAY)                           # whatever the array does then is what it dies of
        self.arrays[name].restart()
        if step == UNDER_CLIENT:
            self.cluster.wait_for(self.unlimited, 'the end of the limit', 60)
        self.finish(course, user, {Status.COMPLETED} if step in COMMITTED else TERMINAL)

    def off_case(self, course, step, name):
        """Have an array be off, and told as offline, while a step that is stored is to be begun; start it again later."""
        self.cluster.kill_at('after-commit', f'start:{step}', 'conductor-0', signal.SIGSTOP)
        user = self.begin(course)
        self.cluster.wait_for((self.cluster.folder / 'reached-by-conductor-0').exists, f'the conductor at {step}', 60)
        self.arrays[name].kill()
        self.cluster.daemons['conductor-0'].resume()
        backend = f'{TARGET if name in "bs" else SOURCE}@{name}'
        self.cluster.wait_for(lambda: self.api.backend_show(backend)['state'] == 'offline', 'the array offline')
        self.arrays[name].start()
        self.finish(course, user, {Status.COMPLETED} if step in COMMITTED else TERMINAL)

    def switch_case(self, point, victim):
        """Have the agent of the target stand still at a point of the switch, and whoever is the victim die there under the client."""
        course = volume_matrix.ASYNC
        self.cluster.kill_at(point, 'switch', TARGET, signal.SIGSTOP)
        self.rate = SLOW_RATE
        user = self.begin(course)
        user.wait_writing()
        self.cluster.wait_for(self.unlimited, 'the end of the limit', 60)
        self.cluster.wait_for((self.cluster.folder / f'reached-by-{TARGET}').exists, f'the agent at {point}', 60)
        self.assertEqual(volume_matrix.SWITCH_POINTS[point], self.marked())
        if victim in self.arrays:
            self.arrays[victim].restart()
        else:
            self.cluster.daemons[victim].kill()
            self.cluster.restart(self.cluster.daemons[victim])
        if victim != TARGET:
            self.cluster.daemons[TARGET].resume()
        self.finish(course, user, {Status.COMPLETED})

    def marked(self):
        """Whether the record at the target says that the local file is complete."""
        record, = (r for r in Records(self.arrays['b'].pools).all() if self.volume in r.name)
        return record.mirror is not None and record.mirror.local_is_complete

    def unlimited(self):
        """Let the data follow as fast as it can; whether the array has heard of it, which may not be back yet."""
        with contextlib.suppress(exceptions.AgentError, exceptions.Unavailable):
            return self.api.set_bandwidth(self.asked()['id'], 0)
        return None

    def finish(self, course, user, expected):
        """Wait for the end, have the client write a little more and let go, and look at everything."""
        ended = self.cluster.ended(self.ask(course), timeout=120)
        self.assertEqual(self.asked()['id'], ended['id'], 'one request, one migration')
        self.assertIn(ended['status'], expected, ended)
        user.wait_writing(more=5)
        data = user.finish()
        at = THERE[course.name] if ended['status'] == Status.COMPLETED else HERE
        self.assertEqual([], self.settled(at), ended)
        self.assertTrue(self.file().read_bytes() == data, f'the data is not what was written: {ended}')
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_delete(self.name))['status'])
        self.assertEqual([set()] * 3, [self.files(array) for array in self.arrays.values()])

    def files(self, array):
        """What an array has of this volume."""
        return {f'{pool}/{name}' for pool in array.pools for name in array.files(pool) if self.volume in name}

    def settled(self, at):
        """Give the violations once what is owed is paid: at once if there are none."""
        try:
            self.cluster.wait_for(lambda: not self.violations(at), 'no violation', 30)
        except Exception:
            return self.violations(at)
        return []

    def violations(self, at):
        """Say in words what is not as it must be."""
        shown = self.api.volume_show(self.name)
        found = [] if shown['pool'] == at else [f'the catalogue has it at {shown["pool"]}, not at {at}']
        luns = {name: [r for r in Records(array.pools).all() if self.volume in r.name] for name, array in self.arrays.items()}
        files = {name: self.files(array) for name, array in self.arrays.items()}
        array, _, pool = at.partition('@')[2].partition('#')
        if files != {**{name: set() for name in self.arrays}, array: {f'{pool}/{shown["lun"]}.{end}' for end in ('lun', 'raw')}}:
            found.append(f'there are the files {files}')
        owed = [debt for debt in self.cluster.rows(tables.debt) if debt.paid_at is None]
        audit = self.api.audit()
        left = {'exports': [(name, file) for name, array in self.arrays.items() for file in array.exports()],
                'recorded exports': [r for records in luns.values() for r in records if r.exports],
                'take-overs': [r for records in luns.values() for r in records if r.mirror is not None],
                'jobs of arrays': [job for array in self.arrays.values() for job in array.ask('query-jobs')],
                'locks': self.cluster.rows(tables.resource_lock), 'debts': owed,
                'places': [s for s in self.cluster.rows(tables.service) if s.places],
                'findings of the audit': audit['findings'] + audit['debts'] + audit['not_audited']}
        return found + [f'{what} are left: {rows}' for what, rows in left.items() if rows]


def add_cases(cls):
    """Make a test of every line at which a daemon may die, and of every step at which an array may."""
    courses = volume_matrix.REAL_COURSES
    agents, arrays = list(volume_matrix.agent_cases(courses)), list(volume_matrix.array_cases(courses))
    for role, victim in ((Role.SOURCE, SOURCE), (Role.DESTINATION, TARGET)):
        for course, _, point, key in sample(victim, (case for case in agents if case[1] is role)):
            def test(self, course=course, point=point, key=key, victim=victim):
                self.daemon_case(course, point, key, victim)
            setattr(cls, 'test_agent_' + name_of(course.name, role.value, point, key), test)
    for course, point, key in sample('conductor', volume_matrix.conductor_cases(courses)):
        def test(self, course=course, point=point, key=key):
            self.daemon_case(course, point, key, 'conductor-0')
        setattr(cls, 'test_conductor_' + name_of(course.name, point, key), test)
    for array in 'abs':
        for course, step, _ in sample(array, (case for case in arrays if case[1] != UNDER_CLIENT and case[2] == array)):
            def test(self, course=course, step=step, array=array):
                self.array_case(course, step, array)
            setattr(cls, 'test_array_' + name_of(course.name, array, step), test)
        for course, step, _ in sample(f'{array} off', (case for case in arrays if case[2] == array)):
            def test(self, course=course, step=step, array=array):
                self.off_case(course, step, array)
            setattr(cls, 'test_off_' + name_of(course.name, array, step), test)
    for point, victim in sample('switch', volume_matrix.switch_cases((TARGET, 'conductor-0', 'a', 'b'))):
        def test(self, point=point, victim=victim):
            self.switch_case(point, victim)
        setattr(cls, 'test_switch_' + name_of(point, victim), test)
    return cls


@add_cases
class TestKillRealArrays(RealKillCases):
    """The cases on MariaDB."""

    def test_the_target_dies_under_the_client(self):
        """Each day: the array through which everything is read and written, while the data follows."""
        self.array_case(volume_matrix.ASYNC, UNDER_CLIENT, 'b')

    def test_the_source_dies_under_the_client(self):
        """Each day: the array from which the rest of the data is fetched, and to which everything is written as well."""
        self.array_case(volume_matrix.ASYNC, UNDER_CLIENT, 'a')
