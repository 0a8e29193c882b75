"""Kill any daemon at any line of a volume's migration, start it again, and find one volume in the right place and nothing left.

Real daemons as processes, a real RabbitMQ and a real database; only the arrays are simulated. Each case is one line of `volume_matrix`:
given a volume with data and a cloud of one conductor and two volume agents, when a daemon dies with SIGKILL at that line, is started
again and the migration ends, then one array has one LUN of the volume, with its data, where the database says; and no export,
lock, place or debt is left.

All cases run with MIGRATOR_TEST_FULL=1 (`tools/test --full`); otherwise a sample, another one each day. MIGRATOR_TEST_SEED chooses one.
"""
import contextlib
import datetime
import os
import random
import sys
import threading
import uuid

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import Status
from tests import services
from tests.cluster import Cluster
from tests.faults import volume_matrix
from tests.faults.class_fixtures import ClassFixtures
from tests.faults.matrix import name_of

SEED = os.environ.get('MIGRATOR_TEST_SEED') or datetime.datetime.now(datetime.UTC).date().isoformat()
FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'
#: How many agents' and how many conductors' cases a sample has.
SAMPLE = 20

SOURCE, TARGET = 'east', 'west'
ARRAYS = {SOURCE: {'mover': {'moves': True}, 'plain': {}},
          TARGET: {'sync': {'take_over': 'sync'}, 'async': {'take_over': 'async'}, 'none': {'take_over': 'no'}}}
SIZE = 4 << 20
#: A pattern, one byte for each block of 4 KiB.
DATA = bytes(range(1, 251)) * 4


def sample(cases):
    """Choose the cases of this run."""
    cases = list(cases)
    return cases if FULL else random.Random(SEED).sample(cases, min(SAMPLE, len(cases)))


class VolumeKillCases(ClassFixtures):
    """One cloud serves all cases of a class; a case that leaves a daemon dead gets it started again by the next one."""

    database = 'mysql'

    @classmethod
    def setUpClass(cls):
        urls = [cls.use(services.Broker()).url, cls.use(services.Database(cls.database)).url]
        cls.cluster = cls.use(Cluster(*urls, hosts=(), arm=True, arrays=ARRAYS))
        sys.stderr.write(f'{cls.__name__}: {"all cases" if FULL else f"sample of MIGRATOR_TEST_SEED={SEED}"}\n')

    def setUp(self):
        self.cluster.kill_file.unlink(missing_ok=True)
        self.arrays, self.api = self.cluster.arrays, self.cluster.api
        self.arrays.release()
        for daemon in self.cluster.daemons.values():
            if not daemon.running():
                self.cluster.restart(daemon)
        self.cluster.wait_for(lambda: all(b['state'] == 'up' for b in self.api.backends()), 'all arrays up')

    def case(self, course, point, key, victim):
        """Run one case."""
        here, there = f'{SOURCE}@{course.source}', f'{TARGET}@{course.target}'
        self.name = f'data-{uuid.uuid4().hex[:8]}'
        made = self.cluster.ended(self.api.volume_create(self.name, SIZE, f'{here}#fast'))
        self.assertEqual(Status.COMPLETED, made['status'], made)
        self.arrays.put(here, 'fast', f'volume-{made["volume_id"]}', DATA)
        if course.fails:
            self.arrays.inject('*', *course.fails, -1)
        self.cluster.kill_at(point, key, victim)
        ended = self.migrate_through_death(there, victim)
        self.assertTrue(ended['reason'], 'an end without a reason')
        if point == 'called' and key.startswith('check_can'):       # a check without an answer may refuse
            self.assertIn(ended['status'], (Status.COMPLETED, Status.FAILED), ended)
        else:
            self.assertEqual(course.status, ended['status'], ended)
        moved = ended['status'] == Status.COMPLETED
        self.assertEqual([], self.settled(made['volume_id'], there if moved else here, ended), ended)
        self.arrays.release()
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_delete(self.name))['status'])

    def migrate_through_death(self, there, victim):
        """Ask for the migration, wait until the victim has died, start it again, ask again as a caller without an answer would."""
        request = f'once-{self.id()}'[-100:]

        def ask():
            with contextlib.suppress(exceptions.Unavailable):
                self.api.volume_migrate(self.name, f'{there}#slow', request_id=request)
        threading.Thread(target=ask, daemon=True).start()
        try:
            died = self.cluster.await_death()
        except Exception as error:
            raise AssertionError(f'{error}: {self.api.list({"kind": "volume_migration"})[:1]}') from error
        self.assertEqual(victim, died.name)
        self.cluster.restart(died)
        ended = self.cluster.ended(self.api.volume_migrate(self.name, f'{there}#slow', request_id=request))
        found = [m['id'] for m in self.api.list({'kind': 'volume_migration'}) if m['request_id'] == request]
        self.assertEqual([ended['id']], found, 'one request, one migration')
        return ended

    def settled(self, volume_id, where, ended):
        """Give the violations once the debts are paid and the reports heard: at once if there are none."""
        try:
            self.cluster.wait_for(lambda: not self.violations(volume_id, where, ended), 'no violation', 10)
        except Exception:
            return self.violations(volume_id, where, ended)
        return []

    def violations(self, volume_id, where, ended):
        """Say in words what is not as it must be."""
        moved = ended['status'] == Status.COMPLETED
        pool, lun = ('slow', f'volume-{volume_id}-{ended["id"][:8]}') if moved else ('fast', f'volume-{volume_id}')
        row = next(row for row in self.cluster.rows(tables.volume) if row.id == volume_id)
        found = []
        if (f'{row.host}@{row.backend}', row.pool, row.lun) != (where, pool, lun):
            found.append(f'the catalogue has it at {row.host}@{row.backend}#{row.pool} as {row.lun}')
        if row.migration_status != ('success' if moved else 'error'):
            found.append(f'its migration is said to be {row.migration_status}')
        luns = [known[:3] for known in self.arrays.luns() if volume_id in known[2]]
        if luns != [(where, pool, lun)]:
            found.append(f'there are the LUNs {luns}')
        elif self.arrays.content(where, pool, lun)[:len(DATA)] != DATA:
            found.append('its data is not what was written')
        owed = [debt for debt in self.cluster.rows(tables.debt) if debt.paid_at is None]
        exports = [known for known in self.arrays.exports() if volume_id in known[1]]
        left = {'exports': exports, 'locks': self.cluster.rows(tables.resource_lock), 'debts': owed,
                'places': [s for s in self.cluster.rows(tables.service) if s.places]}
        return found + [f'{what} are left: {rows}' for what, rows in left.items() if rows]


def add_cases(cls):
    """Make a test of every line at which an agent, or the conductor, may die."""
    for course, role, point, key in sample(volume_matrix.agent_cases()):
        def test(self, course=course, role=role, point=point, key=key):
            self.case(course, point, key, SOURCE if role.value == 'source' else TARGET)
        setattr(cls, 'test_agent_' + name_of(course.name, role.value, point, key), test)
    for course, point, key in sample(volume_matrix.conductor_cases()):
        def test(self, course=course, point=point, key=key):
            self.case(course, point, key, 'conductor-0')
        setattr(cls, 'test_conductor_' + name_of(course.name, point, key), test)
    return cls


@add_cases
class TestKillVolumes(VolumeKillCases):
    """The cases on MariaDB."""
