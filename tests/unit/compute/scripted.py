"""A compute driver that does what a test says, and a manager around it."""
import os

import fixtures
import testtools

from migrator import concurrency
from migrator.compute.driver import ComputeDriver
from migrator.compute.manager import ComputeManager
from migrator.rpc import facts, server
from migrator.rpc.agent import OperationServer
from migrator.rpc.journal import Journal
from migrator.states import GuestState
from tests.unit.rpc import support


class ScriptedDriver(ComputeDriver):
    """Does nothing; notes every call, and waits or fails where a test says so."""

    def __init__(self, conf=None, host=''):
        super().__init__(conf, host)
        self.calls = []
        self.results = {}                 # method -> what it returns, or an exception to raise
        self.gates = {}                   # method -> Event that it waits for
        self.entered = {}                 # method -> Event that it sets
        self.guests = {}

    def hold(self, method):
        """Let `method` wait; gives the event that says that it was entered, and the one that lets it go on.

        Both are native, as the driver's thread may be: a test looks at the first with `is_set` and never waits on it.
        """
        self.gates[method], self.entered[method] = concurrency.native_event(), concurrency.native_event()
        return self.entered[method], self.gates[method]

    def _do(self, method, *args, default=None):
        self.calls.append((method, *args))
        if method in self.gates:
            self.entered[method].set()
            self.gates[method].wait(support.DEADLINE)
        result = self.results.get(method, default)
        if isinstance(result, Exception):
            raise result
        return result

    def start(self):
        self._do('start')

    def stop(self):
        self._do('stop')

    def host_facts(self):
        return self._do('host_facts', default=facts.Host(cpus=4))

    def inventory(self):
        return self._do('inventory', default=tuple(self.guests.values()))

    def audit(self):
        return self._do('audit', default=())

    def locate(self, instance_uuid):
        return self._do('locate', instance_uuid, default=facts.Location(state=GuestState.RUNNING))

    def progress(self, instance_uuid):
        return self._do('progress', instance_uuid, default=facts.Job(active=True, iteration=2))

    def check_can_live_migrate_destination(self, guest):
        return self._do('check_can_live_migrate_destination', guest, default=facts.DestinationFacts(arch='x86_64'))

    def check_can_live_migrate_source(self, guest):
        return self._do('check_can_live_migrate_source', guest, default=facts.SourceFacts(arch='x86_64'))

    def pre_live_migration(self, plan):
        return self._do('pre_live_migration', plan, default={'made': ['vda']})

    def live_migration(self, plan, prepared):
        return self._do('live_migration', plan, prepared, default={'downtime_ms': 97})

    def abort_live_migration(self, instance_uuid):
        return self._do('abort_live_migration', instance_uuid, default=False)

    def force_complete_live_migration(self, instance_uuid):
        return self._do('force_complete_live_migration', instance_uuid, default=True)

    def post_live_migration_at_destination(self, plan):
        return self._do('post_live_migration_at_destination', plan, default={})

    def post_live_migration_at_source(self, plan):
        return self._do('post_live_migration_at_source', plan, default={})

    def rollback_live_migration_at_source(self, plan):
        return self._do('rollback_live_migration_at_source', plan, default={})

    def rollback_live_migration_at_destination(self, plan):
        return self._do('rollback_live_migration_at_destination', plan, default={})

    def create_instance(self, spec):
        return self._do('create_instance', spec, default={})

    def start_instance(self, instance_uuid):
        return self._do('start_instance', instance_uuid, default={})

    def stop_instance(self, instance_uuid, timeout):
        return self._do('stop_instance', instance_uuid, timeout, default={})

    def delete_instance(self, instance_uuid):
        return self._do('delete_instance', instance_uuid, default={})

    def attach_volume(self, attachment):
        return self._do('attach_volume', attachment, default={'target': 'vdb'})

    def stalled(self):
        return self._do('stalled', default=())

    def resume_stalled(self, instance_uuid):
        return self._do('resume_stalled', instance_uuid, default='')

    def detach_volume(self, attachment):
        return self._do('detach_volume', attachment, default={})


class ManagerTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.host = support.new_host()
        self.driver = ScriptedDriver()
        self.addCleanup(lambda: [gate.set() for gate in self.driver.gates.values()])
        self.conductor = support.ListeningConductor()
        self.journal = Journal(os.path.join(self.useFixture(fixtures.TempDir()).path, 'journal.db'))
        self.addCleanup(self.journal.close)
        self.operations = OperationServer(self.journal, self.conductor, self.host, 'process-1', 'boot-1', 8, 0.05)
        self.addCleanup(self.operations.stop)
        self.operations.start()
        self.manager = ComputeManager(self.driver, self.operations, self.journal, 'process-1')
        self.plan = support.plan()
        self.uuid = self.plan.instance_uuid

    def ask(self, name, **arguments):
        """Call a method as the dispatcher does; gives its answer. Raises the typed error."""
        try:
            return getattr(self.manager, name)(support.new_context(), **arguments)
        except server.rpc.dispatcher.ExpectedException as expected:
            raise expected.exc_info[1] from None

    def begin(self, name, attempt=1, epoch=1, plan=None, **arguments):
        plan = plan or self.plan
        envelope = support.envelope(name, plan.migration_id, epoch, attempt)
        return facts.from_wire(facts.Report, self.ask(name, envelope=facts.to_wire(envelope), plan=facts.to_wire(plan), **arguments))

    def outcome(self, name, **values):
        self.begin(name, **values)
        return self.conductor.next_report()
