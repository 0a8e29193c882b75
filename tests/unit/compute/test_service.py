"""The compute agent as a whole, over the in-memory transport: start, requests, an orderly end and what its successor tells."""
import threading
import time

import fixtures
import testtools

from migrator import exceptions
from migrator.compute.service import ComputeService, load_driver
from migrator.rpc import compute, conductor, contract, facts, server
from migrator.rpc.beating import LEAST_PATIENCE
from migrator.states import OperationState
from tests.unit.compute.scripted import ScriptedDriver
from tests.unit.rpc import support


class ConductorEndpoint:
    """The conductor's side of namespace `agent`, which listens."""

    target = server.target(contract.AGENT_VERSION, contract.AGENT_NAMESPACE)

    def __init__(self, heard):
        self.heard = heard

    @server.exposed(contract.AGENT)
    def operation_finished(self, context, report):
        self.heard.operation_finished(context, facts.from_wire(facts.Report, report))

    @server.exposed(contract.AGENT)
    def heartbeat(self, context, heartbeat):
        return self.heard.heartbeat(context, facts.from_wire(facts.Heartbeat, heartbeat))


class ServiceTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.service.MIGRATION_GRACE', 0.1))
        self.transport = support.make_transport()
        self.heard = support.ListeningConductor()
        listening = server.make_server(self.transport, contract.TOPIC_CONDUCTOR, support.new_host(), [ConductorEndpoint(self.heard)])
        listening.start()
        self.addCleanup(listening.wait)
        self.addCleanup(listening.stop)
        self.conf = support.make_conf(host=support.new_host(), state_path=self.useFixture(fixtures.TempDir()).path,
                                      compute__heartbeat_interval=0.2, compute__report_interval=0.1)
        self.driver = ScriptedDriver()
        self.addCleanup(lambda: [gate.set() for gate in self.driver.gates.values()])
        self.api = compute.ComputeAPI(self.conf, self.transport)

    def service(self):
        agent = ComputeService(self.conf, self.transport, self.driver)
        agent.start()
        return agent

    def test_an_operation_from_request_to_report_and_a_heartbeat(self):
        agent = self.service()
        self.addCleanup(agent.stop)
        plan = support.plan()
        envelope = support.envelope('pre_live_migration', plan.migration_id, process_id=agent.process_id)
        acknowledged = self.api.pre_live_migration(support.new_context(), self.conf.host, envelope, plan)
        self.assertEqual((OperationState.RUNNING, agent.process_id), (acknowledged.state, acknowledged.process_id))
        told = self.heard.next_report()
        self.assertEqual((envelope.op_id, {'made': ['vda']}), (told.op_id, told.result))
        support.wait_for(lambda: [h for h in self.heard.heartbeats if h.host == self.conf.host and h.full])

    def test_it_waits_for_a_hypervisor_that_comes_late(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.service.FIRST_PAUSE', 0.02))
        self.driver.results['start'] = exceptions.DriverError('no libvirtd')
        agent = ComputeService(self.conf, self.transport, self.driver)
        self.addCleanup(agent.stop)
        starting = threading.Thread(target=agent.start, daemon=True)
        starting.start()
        support.wait_for(lambda: len(self.driver.calls) > 1)
        self.driver.results['start'] = None
        starting.join(support.DEADLINE)
        self.assertFalse(starting.is_alive())
        self.assertEqual(OperationState.UNKNOWN, self.api.get_operation(
            support.new_context(), self.conf.host, support.envelope().op_id).state)

    def test_an_ending_agent_says_so_finishes_short_work_and_leaves_a_migration(self):
        agent = self.service()
        plan, other = support.plan(), support.plan()
        migrating, go = self.driver.hold('live_migration')
        preparing, prepared = self.driver.hold('pre_live_migration')
        self.api.live_migration(support.new_context(), self.conf.host, support.envelope('live_migration', plan.migration_id), plan, {})
        self.api.pre_live_migration(support.new_context(), self.conf.host,
                                    support.envelope('pre_live_migration', other.migration_id), other)
        support.wait_for(lambda: migrating.is_set() and preparing.is_set())
        stopping = threading.Thread(target=agent.stop, daemon=True)
        stopping.start()
        support.wait_for(lambda: [h for h in self.heard.heartbeats if h.draining])
        third = support.plan()
        self.assertRaises(exceptions.AgentDraining, self.api.pre_live_migration, support.new_context(), self.conf.host,
                          support.envelope('pre_live_migration', third.migration_id), third)
        prepared.set()
        stopping.join(support.DEADLINE)
        self.assertFalse(stopping.is_alive())
        told = self.heard.next_report()
        self.assertEqual((other.migration_id, OperationState.SUCCEEDED), (told.migration_id, told.state))
        go.set()
        self.driver = ScriptedDriver()
        successor = self.service()
        self.addCleanup(successor.stop)
        told = self.heard.next_report()
        self.assertEqual((plan.migration_id, OperationState.INTERRUPTED, successor.process_id),
                         (told.migration_id, told.state, told.process_id))

    def test_a_heartbeat_that_a_dying_conductor_took_along_is_followed_by_another_in_time(self):
        """Given a conductor that takes a heartbeat and never answers, then the next one comes within a second or so, and says all."""
        taken, answer = threading.Event(), threading.Event()
        self.addCleanup(answer.set)
        original = self.heard.heartbeat

        def take_along(context, heartbeat):
            if not taken.is_set():
                taken.set()
                self.when = time.monotonic()
                answer.wait(support.DEADLINE)
            return original(context, heartbeat)
        self.useFixture(fixtures.MonkeyPatch('tests.unit.rpc.support.ListeningConductor.heartbeat',
                                             lambda _self, context, beat: take_along(context, beat)))
        agent = self.service()
        self.addCleanup(agent.stop)
        following = support.wait_for(lambda: self.heard.heartbeats)[0]
        self.assertEqual((2, True), (following.sequence, following.full))
        self.assertLess(time.monotonic() - self.when, 3 * conductor.LEAST_PATIENCE)
        answer.set()            # late: nobody waits for it any more
        support.wait_for(lambda: [h for h in self.heard.heartbeats if h.sequence > 3])
        self.assertNotIn('Traceback', self.log.output)

    def test_the_patience_with_a_heartbeat_follows_from_the_interval(self):
        """Given any interval, then one lost heartbeat and the next fit well into the time after which the conductors miss a host."""
        for interval, patience in ((0.2, 1.0), (5.0, 5.0), (120.0, contract.AGENT['heartbeat'].timeout)):
            self.assertEqual(patience, conductor.heartbeat_patience(interval))
        defaults = support.make_conf()
        interval = defaults.compute.heartbeat_interval
        slow_hypervisor = max(LEAST_PATIENCE, interval)         # each heartbeat waits so long for it at most
        self.assertLess(interval + conductor.heartbeat_patience(interval) + slow_hypervisor, defaults.conductor.host_down_after)

    def test_a_driver_or_a_host_name_that_cannot_be_is_refused_in_words(self):
        self.conf.set_override('driver', 'nonsense', group='compute')
        self.assertIn('nonsense', str(self.assertRaises(exceptions.InvalidRequest, load_driver, self.conf, 'h')))
        self.conf.set_override('host', '../x')
        self.assertRaises(exceptions.InvalidRequest, ComputeService, self.conf, self.transport, self.driver)

    def test_agents_tell_the_conductor_in_its_namespace(self):
        up = conductor.AgentToConductorAPI(self.conf, self.transport)
        beat = facts.Heartbeat(host='h', sequence=1)
        self.assertEqual({'resync': False}, up.heartbeat(support.new_context(), beat))
        self.assertEqual(beat, self.heard.heartbeats[-1])
