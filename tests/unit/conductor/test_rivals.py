"""Two machines with one host's name are told from an agent that was restarted, and nothing is begun there while both are heard of."""
import sqlalchemy as sa
import testscenarios

from migrator import exceptions
from migrator.conductor import rivals
from migrator.conductor.db import hosts, inspect, schema, tables, views
from migrator.conductor.db.database import Database
from migrator.conductor.inventory import Inventory
from migrator.conductor.volume_inventory import VolumeInventory
from migrator.rpc import facts, volume_facts
from migrator.states import AgentKind
from tests import base
from tests.unit.conductor.test_live_migration import CloudTestCase


class HeardTest(testscenarios.WithScenarios, base.TestCase):
    """Heartbeats of processes, with the time that passes between them."""

    scenarios = [(kind.value, {'kind': kind}) for kind in AgentKind]

    def setUp(self):
        super().setUp()
        self.database = Database('sqlite://')
        self.addCleanup(self.database.dispose)
        schema.upgrade(self.database)
        self.inventory = {AgentKind.COMPUTE: Inventory, AgentKind.VOLUME: VolumeInventory}[self.kind](self.database)
        self.taken = {AgentKind.COMPUTE: {'resync': False}, AgentKind.VOLUME: {'ended': [], 'unknown': []}}[self.kind]
        self.clock = {}

    def passes(self, seconds):
        """Time passes, for the database and for every process."""
        past = {column: sa.case((column > 0, column - int(seconds * 1000)), else_=0) for column in (
            tables.service.c.last_seen, tables.service.c.rival_since, tables.service.c.rival_seen)}
        self.database.run(lambda tx: tx.execute(sa.update(tables.service).values({c.name: value for c, value in past.items()})))
        self.clock = {process: moment + seconds for process, moment in self.clock.items()}

    def beats(self, process, boot='', at=None):
        """A heartbeat of a process that runs on a machine of its own unless `boot` says otherwise. at: its clock when it was sent."""
        now = self.clock.setdefault(process, 1000.0 + 1000 * len(self.clock))
        said = {'host': 'alpha', 'process_id': process, 'host_boot_id': boot or f'boot of {process}', 'sequence': int(1 + now * 10),
                'monotonic': now if at is None else at}
        return self.inventory.heartbeat(
            volume_facts.VolumeHeartbeat(**said, backends=(volume_facts.Backend('gold'),)) if self.kind is AgentKind.VOLUME else
            facts.Heartbeat(**said, full=True, facts=facts.Host(hypervisor_name='h')))

    def row(self):
        return self.database.run(lambda tx: hosts.listing(tx, 'alpha', self.kind))[0]

    def refused(self, process, **more):
        error = self.assertRaises(exceptions.HostDoubled, self.beats, process, **more)
        self.assertIn('two agents call themselves alpha', str(error))

    def assert_one(self, process):
        """One agent is known, this one."""
        self.assertEqual((process, ''), (self.row().process_id, rivals.conflict(self.row())))

    def test_a_restart_is_none(self):
        """Given a process and then others in its place, and never a former one again, then there is one agent, the latest."""
        for process in ('p-1', 'p-2', 'p-3'):
            for _ in range(30):
                self.beats(process)
                self.passes(5)
                self.assert_one(process)

    def test_a_restart_with_heartbeats_that_were_on_their_way_is_none(self):
        """Given heartbeats that a process sent before it ended, when they come after its successor's, even doubled and much later, then
        there is one agent."""
        self.beats('p-1')
        ended = self.clock['p-1']
        self.passes(5)
        self.beats('p-2')
        for _ in range(40):
            for sent in (ended - 20, ended - 1, ended):
                self.assertEqual(self.taken, self.beats('p-1', at=sent))
                self.assert_one('p-2')
            self.passes(5)
            self.beats('p-2')

    def two(self):
        """Two processes on two machines tell for a minute; that they are two is known at the end of it and not before."""
        self.beats('p-1')
        self.beats('p-2')
        self.beats('p-1')
        for _ in range(11):
            self.passes(5)
            self.beats('p-2')
            self.beats('p-1')
            self.assert_one('p-2')
        self.passes(5)
        self.refused('p-1')
        self.beats('p-2')

    def test_two_machines(self):
        """Given two processes on two machines that both go on to tell, then the older one is refused, the host is shown with both, named
        by the audit, and takes no work."""
        self.two()
        words = views.host_view(self.row(), 20)['conflict']
        self.assertIn('processes p-2 and p-1', words)
        self.assertIn(words, hosts.obstacle(self.database.run(lambda tx: hosts.get_many(tx, ['alpha'], self.kind)).values(), 4))
        named = 'alpha (volume agent)' if self.kind is AgentKind.VOLUME else 'alpha'
        self.assertEqual({named: words}, self.database.run(lambda tx: inspect.read(tx, 0)).doubled)

    def test_the_older_one_is_left(self):
        """Given two machines with one name, when the newcomer is silent for a minute, then the other one is the agent again."""
        self.two()
        for _ in range(7):          # the test itself may take some time, which passes for the database, too
            self.passes(5)
            self.refused('p-1')
        self.passes(25)
        self.beats('p-1')
        self.assert_one('p-1')
        self.passes(5)
        self.beats('p-1')
        self.assert_one('p-1')

    def test_the_newcomer_is_left(self):
        """Given two machines with one name, when the older one is silent for a minute, then the newcomer is the only agent."""
        self.two()
        for number in range(12):
            if number < 7:
                self.assertIn('two agents', rivals.conflict(self.row()))
            self.passes(5)
            self.beats('p-2')
        self.assert_one('p-2')

    def test_two_on_one_machine(self):
        """Given a process that tells after its successor by the clock of the machine that both run on, then that is certain at once."""
        self.clock = {'p-1': 100.0, 'p-2': 100.0}
        self.beats('p-1', 'boot')
        self.passes(5)
        self.beats('p-2', 'boot')
        self.assertEqual(self.taken, self.beats('p-1', 'boot', at=101.0))
        self.assert_one('p-2')
        self.passes(5)
        self.refused('p-1', boot='boot')
        self.passes(5)
        self.beats('p-2', 'boot')
        self.assertIn('p-2 and p-1', rivals.conflict(self.row()))
        for _ in range(13):
            self.passes(5)
            self.beats('p-2', 'boot')
        self.assert_one('p-2')

    def test_the_successor_is_restarted_meanwhile(self):
        """Given two machines with one name, when the agent of one is restarted, then they are told apart still."""
        self.beats('p-1')
        for process in ('p-2', 'p-3'):
            for _ in range(6):
                self.beats(process)
                self.beats('p-1')
                self.passes(5)
        self.refused('p-1')
        self.assertEqual('p-3', self.row().process_id)


class RequestTest(CloudTestCase):

    def test_nothing_is_begun_at_a_host_of_two(self):
        """Given a host with two agents, then requests that concern it are refused in words and the audit names it, until one is gone."""
        self.cloud.create('web', 'alpha')
        self.set_rival(now=True)
        for ask in (lambda: self.api.live_migrate('web', 'beta'), lambda: self.api.instance_stop('web'), lambda: self.api.instance_create(
                'alpha', {'uuid': '11111111-1111-4111-8111-111111111111', 'name': 'new'})):
            self.assertIn('two agents call themselves alpha', str(self.assertRaises(exceptions.HostDoubled, ask)))
        self.assertIn('two agents', self.api.host_show('alpha')['conflict'])
        self.assertEqual([('two agents', 'alpha')], [(f['kind'], f['host']) for f in self.api.audit()['findings']])
        self.set_rival(now=False)
        self.cloud.migrate('web', 'beta')

    def set_rival(self, now):
        """Write down that another process was heard of until now, or long ago."""
        seen = self.cloud.database.run(lambda tx: hosts.listing(tx, 'alpha'))[0].now - (0 if now else 100_000)
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.update(tables.service).where(tables.service.c.host == 'alpha').values(
                rival_process_id='p-x', rival_since=seen - 70_000, rival_seen=seen))
