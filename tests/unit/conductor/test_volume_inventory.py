"""What heartbeats of volume agents teach: which backends there are, beside the compute agent of the same host; and how copies get on."""
import dataclasses

import sqlalchemy as sa
from oslo_messaging import rpc

from migrator import exceptions
from migrator.conductor import places
from migrator.conductor.db import backends, hosts, reservations, schema, tables, volumes
from migrator.conductor.db.database import Database, now_ms
from migrator.conductor.inventory import Inventory
from migrator.conductor.versions import AgentVersions
from migrator.conductor.volume_inventory import VolumeInventory
from migrator.conductor.volume_manager import VolumeAgentEndpoint, VolumeEndpoint
from migrator.rpc import contract, facts, volume_facts
from migrator.states import AgentKind
from tests import base

ID = '11111111-1111-4111-8111-111111111111'
MIGRATION = '22222222-2222-4222-8222-222222222222'
GIB = 1 << 30


def backend(name='gold', pools=(('p1', 10 * GIB, 4 * GIB),), **more):
    """A backend as its agent tells of it."""
    return volume_facts.Backend(**{'name': name, 'driver': 'qsd', 'types': ('fast',), 'array_id': f'array-{name}',
                                   'pools': tuple(volume_facts.Pool(*pool) for pool in pools), **more})


class VolumeCase(base.TestCase):
    """A database, and heartbeats into it."""

    def setUp(self):
        super().setUp()
        self.database = Database(f'sqlite:///{self.temp_dir}/m.db')
        self.addCleanup(self.database.dispose)
        schema.upgrade(self.database)
        self.versions = AgentVersions(self.database, 60, contract.VOLUME_VERSION, AgentKind.VOLUME)
        self.inventory = VolumeInventory(self.database, 30.0, self.versions)
        self.number = 0

    def beat(self, *found, host='alpha', process='v-1', sequence=None, **more):
        """A volume agent's heartbeat."""
        self.number = sequence or self.number + 1
        self.inventory.heartbeat(volume_facts.VolumeHeartbeat(
            host=host, process_id=process, sequence=self.number, monotonic=float(self.number), backends=found, rpc_version='1.0', **more))

    def listing(self):
        """What is known of backends."""
        return self.database.run(backends.listing)

    def run_(self, work):
        """One transaction."""
        return self.database.run(work)


class HeartbeatTest(VolumeCase):

    def test_backends_are_known_as_they_were_told(self):
        """Given two agents, when each has told of its backends, then all are known by name, and what is not there any more is gone."""
        self.beat(backend('gold'), backend('bronze', offline='the array does not answer'))
        self.beat(backend('silver'), host='beta', process='v-2', sequence=1)
        self.assertEqual(['alpha@bronze', 'alpha@gold', 'beta@silver'], [place.name for place in self.listing()])
        self.assertEqual(backend('gold'), self.listing()[1].backend)
        self.assertEqual('the array does not answer', self.listing()[0].backend.offline)
        self.beat(backend('gold'), sequence=7)
        self.assertEqual(['alpha@gold', 'beta@silver'], [place.name for place in self.listing()])

    def test_a_hosts_two_agents_are_two(self):
        """Given a compute agent and a volume agent of one host, then neither's heartbeats change what is known of the other."""
        Inventory(self.database).heartbeat(facts.Heartbeat(host='alpha', process_id='c-1', sequence=1, full=True, monotonic=9.0,
                                                           facts=facts.Host(hypervisor_name='h')))
        self.beat(backend())
        compute = self.run_(lambda tx: hosts.get_many(tx, ['alpha']))['alpha']
        volume = self.run_(lambda tx: hosts.get_many(tx, ['alpha'], AgentKind.VOLUME))['alpha']
        self.assertEqual(('c-1', 'v-1'), (compute.process_id, volume.process_id))
        self.assertEqual(('h', True), (compute.facts['hypervisor_name'], 'backends' in volume.facts))
        self.assertTrue(self.run_(lambda tx: hosts.set_enabled(tx, 'alpha', False, 'moved', AgentKind.VOLUME)))
        self.assertTrue(self.run_(lambda tx: hosts.get_many(tx, ['alpha']))['alpha'].enabled)
        self.assertEqual(['alpha'], [row.host for row in self.run_(hosts.listing)])

    def test_late_and_doubled_ones_change_nothing(self):
        self.beat(backend('gold'), sequence=5)
        self.beat(backend('old'), sequence=4)
        self.beat(backend('twice'), sequence=5)
        self.assertEqual(['alpha@gold'], [place.name for place in self.listing()])
        self.beat(backend('new'), process='v-2', sequence=1)
        self.beat(backend('gold'), sequence=6)                 # of the process before
        self.assertEqual(['alpha@new'], [place.name for place in self.listing()])

    def test_a_new_process_wakes_what_waits_for_it(self):
        """Given a workflow that waits for the volume agent of alpha, and one that waits for its compute agent, when a new process of the
        volume agent is heard of, then the first is due, the second is not."""
        self.beat(backend())
        other = MIGRATION.replace('2', '3')
        self.insert(MIGRATION, source_agent='volume')
        self.insert(other, source_agent='compute')
        self.beat(backend(), process='v-2', sequence=1)
        rows = {row.id: row for row in self.run_(lambda tx: tx.execute(sa.select(tables.migration, now_ms().label('now'))).all())}
        self.assertLessEqual(rows[MIGRATION].next_wakeup, rows[MIGRATION].now)
        self.assertGreater(rows[other].next_wakeup, rows[other].now)

    def test_progress_is_that_of_either_side(self):
        """Given a copy that runs at its destination, when that agent tells of it, then it is known; what a stranger tells is not."""
        self.insert(MIGRATION, source_agent='volume', source_host='beta', destination_host='alpha', destination_agent='volume')
        told = facts.to_wire(volume_facts.Progress(active=True, total=100, done=40, rate=7))
        self.beat(backend(), host='gamma', process='v-3', progress={MIGRATION: told})
        self.assertEqual({}, self.progress())
        self.beat(backend(), progress={MIGRATION: told})
        self.assertEqual((40, 100), (self.progress()['done'], self.progress()['total']))

    def test_an_agent_hears_which_of_its_copies_have_ended(self):
        """Given an agent that keeps checkpoints of a live migration, of one that has ended, and of one that was purged, then it hears of
        both, apart; one that keeps nothing, and a late one, hear of none."""
        ended, purged = (MIGRATION.replace('2', digit) for digit in '34')
        self.insert(MIGRATION)
        self.insert(ended, status='failed', finished_at=1)
        beat = volume_facts.VolumeHeartbeat(host='alpha', process_id='v-1', sequence=5, copies=(MIGRATION, ended, purged))
        self.assertEqual({'ended': [ended], 'unknown': [purged]}, self.inventory.heartbeat(beat))
        nothing = {'ended': [], 'unknown': []}
        self.assertEqual(nothing, self.inventory.heartbeat(beat))
        self.assertEqual(nothing, self.inventory.heartbeat(dataclasses.replace(beat, sequence=6, copies=())))
        self.assertRaises(exceptions.InvalidRequest, facts.from_wire, volume_facts.VolumeHeartbeat,
                          facts.to_wire(dataclasses.replace(beat, copies=('../../journal',))))

    def test_the_oldest_agent_of_the_kind_counts(self):
        self.beat(backend())
        self.versions.refresh()
        self.assertEqual('1.0', self.versions.lowest())
        self.inventory.heartbeat(volume_facts.VolumeHeartbeat(host='old', process_id='o', sequence=1, rpc_version='0.9'))
        self.assertEqual(contract.first_of(contract.VOLUME_VERSION), self.versions.lowest())

    def test_what_was_promised_of_a_pool_is_shown_until_it_is_seen_there(self):
        """Given work that was promised room, then that counts; once the work has ended, until the array was looked
        at after that; and a report that was asked for before, and came late, changes nothing."""
        self.beat(backend())
        now = self.run_(lambda tx: tx.execute(sa.select(now_ms())).scalar())
        self.insert(MIGRATION, status='completed', finished_at=now - 5000)
        other = MIGRATION.replace('2', '3')
        self.insert(other)
        for work, size in ((MIGRATION, GIB), (other, 2 * GIB)):
            self.run_(lambda tx, w=work, s=size: reservations.insert(tx, w, 'alpha', 'gold', 'p1', s))
        self.assertEqual(3 * GIB, self.promised())
        for sequence, looked in ((50, 50.0 - 20), (60, 60.0)):
            self.beat(backend(), sequence=sequence, looked=looked)
            self.assertEqual(3 * GIB if looked < sequence else 2 * GIB, self.promised())
        self.run_(lambda tx: tx.execute(sa.delete(tables.migration).where(tables.migration.c.id == other)))
        self.assertEqual(0, self.promised())

    def promised(self):
        """What is promised of the pool."""
        return self.listing()[0].promised['p1']

    def insert(self, migration_id, **values):
        """A workflow that waits for an agent."""
        row = {'id': migration_id, 'kind': 'live_migration', 'source_host': 'alpha', 'request_id': migration_id,
               'request': {}, 'policy': {}, 'plan': {}, 'facts': {}, 'progress': {},
               'status': 'running', 'phase': 'operation', 'direction': 'forward', 'begun': [],
               'next_wakeup': 2 ** 52, 'created_at': 1, 'updated_at': 1, **values}
        self.run_(lambda tx: tx.execute(sa.insert(tables.migration).values(**row)))

    def progress(self):
        """What is known of how the migration gets on."""
        return self.run_(lambda tx: tx.execute(sa.select(tables.migration.c.progress).where(tables.migration.c.id == MIGRATION)).scalar())


@dataclasses.dataclass
class Settings:
    """What an endpoint looks at."""

    host_down_after: float = 60.0


class BackendViewTest(VolumeCase):

    def setUp(self):
        super().setUp()
        self.api = VolumeEndpoint(self.database, Settings())

    def volume(self, number, size, pool='p1'):
        """A volume's row."""
        self.run_(lambda tx: volumes.insert(tx, ID.replace('1', str(number)), name=f'v{number}', size=size, host='alpha', backend='gold',
                                            pool=pool, lun=f'volume-{number}', status='available'))

    def test_a_backend_with_its_room(self):
        """Given a backend with two pools and volumes in one, then it is shown with what its volumes come to, for itself and each pool."""
        self.beat(backend(pools=(('p1', 10 * GIB, 4 * GIB), ('p2', GIB, GIB))))
        self.volume(2, GIB)
        self.volume(3, 2 * GIB)
        view = self.api.backend_show(None, backend='alpha@gold')
        self.assertEqual(('alpha@gold', 'up', 'qsd', ['fast'], 2), tuple(view[k] for k in ('name', 'state', 'driver', 'types', 'volumes')))
        self.assertEqual((11 * GIB, 5 * GIB), (view['total'], view['free']))
        self.assertEqual([('alpha@gold#p1', 2, 3 * GIB), ('alpha@gold#p2', 0, 0)],
                         [(pool['name'], pool['volumes'], pool['allotted']) for pool in view['pools']])
        self.assertEqual([view], self.api.backends(None))

    def test_why_one_is_no_use(self):
        self.beat(backend(offline='connection refused'))
        view = self.api.backends(None)[0]
        self.assertEqual(('offline', 'connection refused'), (view['state'], view['why']))
        self.assertEqual('down', VolumeEndpoint(self.database, Settings(0.0)).backends(None)[0]['state'])

    def test_one_that_there_is_not(self):
        self.beat(backend())
        for name in ('alpha@silver', 'beta@gold'):
            self.assertIs(exceptions.BackendNotFound, self.refused(name))
        self.assertIs(exceptions.InvalidRequest, self.refused('gold'))

    def refused(self, name):
        """By which error it is refused."""
        return self.assertRaises(rpc.ExpectedException, self.api.backend_show, None, backend=name).exc_info[0]

    def test_what_an_agent_sends_is_checked(self):
        endpoint = VolumeAgentEndpoint(self.inventory)
        beat = facts.to_wire(volume_facts.VolumeHeartbeat(host='alpha', process_id='v-1', sequence=1, backends=(backend(),)))
        self.assertEqual({'ended': [], 'unknown': []}, endpoint.volume_heartbeat(None, heartbeat=beat))
        self.assertEqual(['alpha@gold'], [view['name'] for view in self.api.backends(None)])


class PlacesTest(base.TestCase):

    def test_names_are_read_and_written(self):
        self.assertEqual(('alpha', 'gold'), places.backend_of('alpha@gold'))
        self.assertEqual(('alpha', 'gold', 'p1'), places.pool_of('alpha@gold#p1'))
        self.assertEqual(('alpha', 'gold', ''), places.pool_of('alpha@gold'))
        self.assertEqual(('alpha@gold#p1', 'alpha@gold'), (places.name_of('alpha', 'gold', 'p1'), places.name_of('alpha', 'gold')))

    def test_what_is_none_is_refused(self):
        for text in ('', 'gold', '@gold', 'alpha@', 'alpha@gold#', 'alpha@go/ld', 'al pha@gold', 'alpha@gold#p/1', None, 7):
            self.assertRaises(exceptions.InvalidRequest, places.pool_of, text)
        self.assertRaises(exceptions.InvalidRequest, places.backend_of, 'alpha@gold#p1')
