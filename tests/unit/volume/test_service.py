"""The volume agent as a whole, over the in-memory transport: start, a request, heartbeats and an orderly end."""
import threading

import fixtures
import testtools

from migrator.rpc import contract, facts, server, volume
from migrator.rpc import volume_facts as vf
from migrator.states import OperationState
from migrator.volume.backends import Backend, Backends
from migrator.volume.service import VolumeService
from tests.unit.rpc import support
from tests.unit.volume import samples
from tests.unit.volume.samples import MIB
from tests.unit.volume.scripted import ScriptedArray


class ConductorEndpoint:
    """The conductor's side of namespace `agent`, which listens."""

    target = server.target(contract.AGENT_VERSION, contract.AGENT_NAMESPACE)

    def __init__(self, heard):
        self.heard = heard

    @server.exposed(contract.AGENT)
    def operation_finished(self, context, report):
        self.heard.operation_finished(context, facts.from_wire(facts.Report, report))

    @server.exposed(contract.AGENT)
    def volume_heartbeat(self, context, heartbeat):
        self.heard.heartbeat(context, facts.from_wire(vf.VolumeHeartbeat, heartbeat))


class ServiceTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.transport = support.make_transport()
        self.heard = support.ListeningConductor()
        listening = server.make_server(self.transport, contract.TOPIC_CONDUCTOR, support.new_host(), [ConductorEndpoint(self.heard)])
        listening.start()
        self.addCleanup(listening.wait)
        self.addCleanup(listening.stop)
        self.conf = support.make_conf(host=support.new_host(), state_path=self.useFixture(fixtures.TempDir()).path,
                                      volume__heartbeat_interval=0.2, volume__report_interval=0.1)
        self.array = ScriptedArray()
        self.addCleanup(self.array.script.release)
        self.api = volume.VolumeAPI(self.conf, self.transport)
        self.where = vf.LunRef(self.conf.host, 'old', 'slow', 'volume-1')

    def service(self):
        agent = VolumeService(self.conf, self.transport, Backends([Backend('old', self.array)]))
        agent.start()
        return agent

    def test_an_operation_from_request_to_report_and_a_heartbeat(self):
        agent = self.service()
        self.addCleanup(agent.stop)
        spec = vf.VolumeSpec(samples.VOLUME, self.where, 32 * MIB)
        acknowledged = self.api.create_volume(support.new_context(), self.conf.host, samples.envelope('create_volume'), spec)
        self.assertEqual((OperationState.RUNNING, agent.process_id), (acknowledged.state, acknowledged.process_id))
        told = self.heard.next_report()
        self.assertEqual((OperationState.SUCCEEDED, {'locator': {'lun': 'volume-1'}}), (told.state, told.result))
        beat = support.wait_for(lambda: [h for h in self.heard.heartbeats if h.host == self.conf.host])[0]
        self.assertEqual([('old', '')], [(b.name, b.offline) for b in beat.backends])

    def test_an_ending_agent_leaves_the_completion_to_the_array_and_its_successor_tells_so(self):
        agent = self.service()
        entered, _go = self.array.script.hold('complete_migration_target')
        plan = samples.plan_between(vf.LunRef('alpha', 'x', 'slow', 'volume-1'), self.where)
        self.api.complete_migration_target(support.new_context(), self.conf.host, samples.envelope('complete_migration_target'), plan)
        support.wait_for(entered.is_set)
        stopping = threading.Thread(target=agent.stop, daemon=True)
        stopping.start()
        stopping.join(support.DEADLINE)
        self.assertFalse(stopping.is_alive())
        self.assertEqual('stop', self.array.script.did()[-1])
        self.assertTrue([h for h in self.heard.heartbeats if h.draining])
        self.array.script.release()
        self.array = ScriptedArray()
        successor = self.service()
        self.addCleanup(successor.stop)
        told = self.heard.next_report()
        self.assertEqual((OperationState.INTERRUPTED, successor.process_id), (told.state, told.process_id))
