"""RPC on a real RabbitMQ: requests to hosts that never were, stopped, died or came back; doubled, late and lost messages."""
import dataclasses
import threading
import time

import fixtures
import kombu.messaging
import testtools

from migrator import exceptions
from migrator.compute.service import ComputeService
from migrator.rpc import compute, conductor, contract, errors, server, transport
from migrator.states import OperationState
from tests import services
from tests.functional import wires
from tests.unit.compute.scripted import ScriptedDriver
from tests.unit.rpc import support

#: The contract with little patience, for requests that are not going to be answered.
HASTY = {name: dataclasses.replace(method, timeout=1) for name, method in contract.COMPUTE.items()}


class RpcTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.url = self.useFixture(services.Broker()).url
        self.transport = self.connect(self.url)
        self.conf = support.make_conf(host=support.new_host(), state_path=self.useFixture(fixtures.TempDir()).path,
                                      compute__report_interval=0.1, compute__heartbeat_interval=0.5)
        self.host = self.conf.host
        self.api = compute.ComputeAPI(self.conf, self.transport)
        self.heard = support.ListeningConductor()

    def connect(self, url):
        way = support.make_transport(url)
        self.addCleanup(way.close)
        return way

    def serve(self, topic, host, endpoint):
        """Serve, and stop at the end of the test; gives a function that stops it earlier."""
        serving = server.make_server(self.transport, topic, host, [endpoint])
        serving.start()
        stopped = threading.Event()

        def stop():
            if not stopped.is_set():
                stopped.set()
                serving.stop()
                serving.wait()
        self.addCleanup(stop)
        return stop

    def listen(self):
        return self.serve(contract.TOPIC_CONDUCTOR, support.new_host(), wires.Listener(self.heard))

    def hasty(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.rpc.contract.COMPUTE', HASTY))
        return compute.ComputeAPI(self.conf, self.transport)

    def report_of(self, migration_id):
        """Give the next report about one migration; other tests' agents may still be telling theirs."""
        while (report := self.heard.next_report()).migration_id != migration_id:
            continue
        return report


class ReachTest(RpcTestCase):

    def test_a_host_that_never_was_is_told_at_once(self):
        self.transport.connect()
        began = time.monotonic()
        self.assertRaises(errors.NotDelivered, self.api.locate_instance, support.new_context(), support.new_host(), 'x', 'm', 1)
        self.assertLess(time.monotonic() - began, 2.0)

    def test_a_stopped_agent_leaves_the_answer_unknown_and_a_late_request_is_not_run_by_its_successor(self):
        endpoint = support.SampleEndpoint()
        stop = self.serve(contract.TOPIC_COMPUTE, self.host, endpoint)
        self.api.locate_instance(support.new_context(), self.host, 'before', 'm', 1)
        stop()
        self.assertRaises(errors.NoAnswer, self.hasty().locate_instance, support.new_context(), self.host, 'too late', 'm', 1)
        self.serve(contract.TOPIC_COMPUTE, self.host, endpoint)
        self.api.locate_instance(support.new_context(), self.host, 'after', 'm', 1)
        self.assertEqual(['before', 'after'], endpoint.calls)

    def test_without_a_conductor_the_api_tier_gets_an_answer_in_words(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.rpc.contract.CONDUCTOR', {
            name: dataclasses.replace(method, timeout=1) for name, method in contract.CONDUCTOR.items()}))
        api = conductor.ConductorAPI(self.conf, self.transport)
        self.assertIn('no conductor', str(self.assertRaises(exceptions.Unavailable, api.hosts)))

    def test_a_broker_that_is_not_there_is_told_in_words_and_in_time(self):
        wire = wires.Wire(self.url)
        wire.close()
        began = time.monotonic()
        api = conductor.ConductorAPI(self.conf, transport.get_transport(self.conf, wire.url))
        self.assertIn('broker', str(self.assertRaises(exceptions.Unavailable, api.hosts)))
        self.assertLess(time.monotonic() - began, transport.CONNECT_SECONDS + 2)

    def test_a_process_that_closes_its_connection_tells_whoever_still_waits(self):
        entered, go = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        class Slow(support.SampleEndpoint):
            @server.exposed(contract.COMPUTE)
            def locate_instance(self, context, instance_uuid, migration_id, epoch):
                entered.set()
                go.wait(30)
        self.serve(contract.TOPIC_COMPUTE, self.host, Slow())
        way = support.make_transport(self.url)
        api, raised = compute.ComputeAPI(self.conf, way), []

        def ask():
            raised.append(self.assertRaises(errors.NoAnswer, api.locate_instance, support.new_context(), self.host, 'x', 'm', 1))
        asking = threading.Thread(target=ask)
        asking.start()
        entered.wait(30)
        way.close()
        asking.join(30)
        self.assertIn('closed its connection', str(raised[0]))

    def test_a_wrong_password_is_told_in_words(self):
        account, _, rest = self.url.rpartition('@')
        api = conductor.ConductorAPI(self.conf, transport.get_transport(self.conf, f'{account}x@{rest}'))
        self.assertIn('ACCESS_REFUSED', str(self.assertRaises(exceptions.Unavailable, api.hosts)))


class FormTest(RpcTestCase):

    def setUp(self):
        super().setUp()
        self.endpoint = support.SampleEndpoint()
        self.serve(contract.TOPIC_COMPUTE, self.host, self.endpoint)

    def call(self, name, version='1.0', **arguments):
        return self.api._client.call(support.new_context(), name, version, server=self.host, **arguments)

    def test_errors_arrive_by_class_with_their_own_words(self):
        error = self.assertRaises(exceptions.StaleEpoch, self.call, 'locate_instance', instance_uuid='stale', migration_id='m', epoch=1)
        self.assertEqual((exceptions.StaleEpoch, 'epoch 3 is outdated'), (type(error), str(error)))
        self.assertRaises(exceptions.InternalError, self.call, 'locate_instance', instance_uuid='defect', migration_id='m', epoch=1)
        self.assertRaises(exceptions.InternalError, self.call, 'locate_instance', instance_uuid='os-error', migration_id='m', epoch=1)

    def test_unknown_methods_and_versions_are_told_by_name(self):
        self.assertRaises(errors.NoSuchMethod, self.call, 'abort_live_migration', migration_id='a', instance_uuid='b')
        self.assertRaises(errors.UnsupportedVersion, self.call, 'locate_instance', '1.7', instance_uuid='x', migration_id='m', epoch=1)
        self.assertRaises(errors.UnsupportedVersion, self.call, 'locate_instance', '3.0', instance_uuid='x', migration_id='m', epoch=1)
        self.assertEqual([], self.endpoint.calls)

    def test_an_oversized_request_is_refused_by_the_receiver_too(self):
        large = 'x' * contract.MAX_PAYLOAD
        self.assertRaises(exceptions.PayloadTooLarge, self.call, 'locate_instance', instance_uuid=large, migration_id='m', epoch=1)
        answer = 'no error'
        try:  # past our own client's check, as another program would
            self.api._client._client.prepare(server=self.host, version='1.0', timeout=10).call(
                support.new_context(), 'locate_instance', instance_uuid=large, migration_id='m', epoch=1)
        except exceptions.MigratorError as error:
            answer = error.kind
        self.assertEqual(('PayloadTooLarge', []), (answer, self.endpoint.calls))

    def test_a_request_and_its_answer_are_two_messages(self):
        self.call('locate_instance', instance_uuid='warm', migration_id='m', epoch=1)
        sent = []
        publish = kombu.messaging.Producer.publish

        def counted(producer, body, *args, **kwargs):
            sent.append(body)
            return publish(producer, body, *args, **kwargs)
        self.useFixture(fixtures.MonkeyPatch('kombu.messaging.Producer.publish', counted))
        self.call('locate_instance', instance_uuid='x', migration_id='m', epoch=1)
        self.assertEqual(2, len(sent))


class AgentTest(RpcTestCase):
    """The real agent in this process, with a driver of the tests' own."""

    def agent(self, url=None):
        agent = ComputeService(self.conf, self.connect(url or self.url), self.driver)
        agent.start()
        self.addCleanup(agent.stop)
        return agent

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.service.MIGRATION_GRACE', 0.1))
        self.driver = ScriptedDriver()
        self.addCleanup(lambda: [gate.set() for gate in self.driver.gates.values()])
        self.plan = support.plan()
        self.envelope = support.envelope('pre_live_migration', self.plan.migration_id)

    def send(self, envelope=None):
        return self.api.pre_live_migration(support.new_context(), self.host, envelope or self.envelope, self.plan)

    def runs(self):
        return len([call for call in self.driver.calls if call[0] == 'pre_live_migration'])

    def test_doubled_requests_run_once(self):
        self.listen()
        self.agent()
        entered, go = self.driver.hold('pre_live_migration')
        states = []
        threads = [threading.Thread(target=lambda: states.append(self.send().state)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(support.DEADLINE)
        self.assertEqual([OperationState.RUNNING] * 5, states)
        support.wait_for(entered.is_set)
        go.set()
        self.assertEqual(OperationState.SUCCEEDED, self.report_of(self.plan.migration_id).state)
        self.assertEqual((OperationState.SUCCEEDED, 1), (self.send().state, self.runs()))

    def test_a_report_that_nobody_hears_is_repeated_until_somebody_does(self):
        stop = self.listen()  # makes the queue
        stop()
        self.useFixture(fixtures.MonkeyPatch('migrator.rpc.contract.AGENT', {
            name: dataclasses.replace(method, timeout=0.5) for name, method in contract.AGENT.items()}))
        self.agent()
        self.send()
        support.wait_for(lambda: 'is not acknowledged yet' in self.log.output)
        self.listen()
        self.assertEqual(self.envelope.op_id, self.report_of(self.plan.migration_id).op_id)
        support.wait_for(lambda: self.api.get_operation(support.new_context(), self.host, self.envelope.op_id).state.finished)

    def test_one_operation_costs_four_messages(self):
        self.listen()
        self.conf.set_override('heartbeat_interval', 3600, group='compute')
        agent = self.agent()
        support.wait_for(lambda: [h for h in self.heard.heartbeats if h.process_id == agent.process_id])
        self.api.get_operation(support.new_context(), self.host, self.envelope.op_id)
        sent = []
        publish = kombu.messaging.Producer.publish

        def counted(producer, body, *args, **kwargs):
            sent.append(str(body))
            return publish(producer, body, *args, **kwargs)
        self.useFixture(fixtures.MonkeyPatch('kombu.messaging.Producer.publish', counted))
        self.send()
        self.report_of(self.plan.migration_id)
        support.wait_for(lambda: len(sent) >= 4)
        self.assertEqual(4, len(sent), sent)

    def test_an_agent_that_was_cut_off_reports_and_answers_again_when_the_broker_returns(self):
        self.listen()
        wire = wires.Wire(self.url)
        self.addCleanup(wire.close)
        self.agent(wire.url)
        entered, go = self.driver.hold('pre_live_migration')
        self.send()
        support.wait_for(entered.is_set)
        wire.cut()
        go.set()
        support.wait_for(lambda: 'is not acknowledged yet' in self.log.output, timeout=40)
        wire.mend()
        while (report := self.heard.reports.get(timeout=40)).op_id != self.envelope.op_id:
            continue
        self.assertEqual(OperationState.SUCCEEDED, report.state)
        self.assertEqual(OperationState.SUCCEEDED, support.wait_for(self.answered, timeout=30).state)
        self.assertEqual(1, self.runs())

    def answered(self):
        try:
            return self.hasty().get_operation(support.new_context(), self.host, self.envelope.op_id)
        except errors.NoAnswer:
            return None


class ProcessTest(RpcTestCase):
    """The agent as a process, under each model of concurrency."""

    mode = 'threading'

    def setUp(self):
        super().setUp()
        self.listen()
        self.process = wires.AgentProcess(self.url, self.host, self.useFixture(fixtures.TempDir()).path, self.mode)
        self.addCleanup(self.process.kill)
        self.process.start()
        self.plan = support.plan()
        self.envelope = support.envelope('live_migration', self.plan.migration_id)

    def migrate(self):
        return self.api.live_migration(support.new_context(), self.host, self.envelope, self.plan, {})

    def begun(self):
        return support.wait_for(lambda: f'live_migration {self.plan.migration_id}' in self.process.calls(), 'the migration')

    def test_the_journal_survives_a_sudden_death(self):
        before = self.migrate()
        self.begun()
        self.process.kill()
        self.process.start()
        told = self.report_of(self.plan.migration_id)
        self.assertEqual((self.envelope.op_id, OperationState.INTERRUPTED), (told.op_id, told.state))
        self.assertNotEqual(before.process_id, told.process_id)
        self.assertEqual(before.host_boot_id, told.host_boot_id)
        self.assertEqual(OperationState.INTERRUPTED, self.migrate().state)
        older = dataclasses.replace(self.envelope, op_id=f'{self.plan.migration_id}/live_migration/2', epoch=0)
        self.assertRaises(exceptions.StaleEpoch, self.api.live_migration, support.new_context(), self.host, older, self.plan, {})
        self.assertEqual(1, len(self.process.calls()))

    def test_it_answers_while_the_hypervisor_blocks(self):
        self.migrate()
        self.begun()
        began = time.monotonic()
        for _ in range(10):
            self.api.locate_instance(support.new_context(), self.host, self.plan.instance_uuid, self.plan.migration_id, 1)
        self.assertLess(time.monotonic() - began, 1.0)
        support.wait_for(lambda: [h for h in self.heard.heartbeats if self.plan.migration_id in h.progress], 'progress')
        self.process.go()
        told = self.report_of(self.plan.migration_id)
        self.assertEqual((OperationState.SUCCEEDED, 'running'), (told.state, told.result['location']['state']))

    def test_a_signal_ends_it_in_order_and_does_not_wait_for_a_migration(self):
        self.migrate()
        self.begun()
        self.assertEqual(0, self.process.end())
        self.assertTrue([h for h in self.heard.heartbeats if h.host == self.host and h.draining])
        self.assertIn('has ended', self.process.said())
        self.process.start()
        self.assertEqual(OperationState.INTERRUPTED, self.report_of(self.plan.migration_id).state)

    def test_a_second_agent_of_the_same_host_is_refused_in_one_line(self):
        second = wires.AgentProcess(self.url, self.host, self.process.folder, self.mode)
        second.start(wait=False)
        self.assertEqual(1, second.process.wait(30))
        self.assertIn(f'migrator-compute: another process ({self.process.process.pid}) uses', second.said())
        self.assertEqual(OperationState.UNKNOWN, self.api.get_operation(support.new_context(), self.host, self.envelope.op_id).state)

    def test_log_lines_name_the_request_and_the_migration(self):
        self.migrate()
        self.begun()
        self.process.go()
        self.report_of(self.plan.migration_id)
        self.assertIn('[req req-test mig mig-test] ', self.process.said())


class EventletProcessTest(ProcessTest):
    """The same under eventlet, the default."""

    mode = 'eventlet'
