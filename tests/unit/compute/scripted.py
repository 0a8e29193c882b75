"""A compute driver that does what a test says, and a manager around it."""
import os

import fixtures
import testtools

from migrator.compute.driver import ComputeDriver
from migrator.compute.manager import ComputeManager
from migrator.rpc import facts, server
from migrator.rpc.agent import OperationServer
from migrator.rpc.journal import Journal
from migrator.states import GuestState
from tests.unit.rpc import support
from tests.unit.script import Script


class ScriptedDriver(Script, ComputeDriver):
    """Does nothing; notes every call, and waits or fails where a test says so."""

    def __init__(self, conf=None, host=''):
        Script.__init__(self)
        ComputeDriver.__init__(self, conf, host)
        self.guests = {}

    def start(self):
        self.do('start')

    def stop(self):
        self.do('stop')

    def host_facts(self):
        return self.do('host_facts', default=facts.Host(cpus=4))

    def inventory(self):
        return self.do('inventory', default=tuple(self.guests.values()))

    def audit(self):
        return self.do('audit', default=())

    def locate(self, instance_uuid):
        return self.do('locate', instance_uuid, default=facts.Location(state=GuestState.RUNNING))

    def progress(self, instance_uuid):
        return self.do('progress', instance_uuid, default=facts.Job(active=True, iteration=2))

    def check_can_live_migrate_destination(self, guest):
        return self.do('check_can_live_migrate_destination', guest, default=facts.DestinationFacts(arch='x86_64'))

    def check_can_live_migrate_source(self, guest):
        return self.do('check_can_live_migrate_source', guest, default=facts.SourceFacts(arch='x86_64'))

    def pre_live_migration(self, plan):
        return self.do('pre_live_migration', plan, default={'made': ['vda']})

    def live_migration(self, plan, prepared):
        return self.do('live_migration', plan, prepared, default={'downtime_ms': 97})

    def abort_live_migration(self, instance_uuid):
        return self.do('abort_live_migration', instance_uuid, default=False)

    def force_complete_live_migration(self, instance_uuid):
        return self.do('force_complete_live_migration', instance_uuid, default=True)

    def post_live_migration_at_destination(self, plan):
        return self.do('post_live_migration_at_destination', plan, default={})

    def post_live_migration_at_source(self, plan):
        return self.do('post_live_migration_at_source', plan, default={})

    def rollback_live_migration_at_source(self, plan):
        return self.do('rollback_live_migration_at_source', plan, default={})

    def rollback_live_migration_at_destination(self, plan):
        return self.do('rollback_live_migration_at_destination', plan, default={})

    def create_instance(self, spec):
        return self.do('create_instance', spec, default={})

    def start_instance(self, instance_uuid):
        return self.do('start_instance', instance_uuid, default={})

    def stop_instance(self, instance_uuid, timeout):
        return self.do('stop_instance', instance_uuid, timeout, default={})

    def delete_instance(self, instance_uuid):
        return self.do('delete_instance', instance_uuid, default={})

    def attach_volume(self, attachment):
        return self.do('attach_volume', attachment, default={'target': 'vdb'})

    def stalled(self):
        return self.do('stalled', default=())

    def resume_stalled(self, instance_uuid):
        return self.do('resume_stalled', instance_uuid, default='')

    def detach_volume(self, attachment):
        return self.do('detach_volume', attachment, default={})


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
