"""The agents' half of call-then-spawn: accepted once, judged in order, reported until somebody has heard."""
import os
import threading
import uuid

import fixtures
import testtools

from migrator import exceptions
from migrator.rpc import errors, facts
from migrator.rpc.agent import OperationServer
from migrator.rpc.journal import Journal
from migrator.states import OperationState
from tests.unit.rpc import support


class AgentTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'journal.db')
        self.conductor = support.ListeningConductor()
        self.now = 100.0
        self.start()

    def start(self, size=3, process_id='process-1', report_interval=0.02):
        self.journal = Journal(self.path)
        self.addCleanup(self.journal.close)
        self.server = OperationServer(self.journal, self.conductor, 'host-a', process_id, 'boot-1', size, report_interval,
                                      clock=lambda: self.now)
        self.addCleanup(self.server.stop)
        self.server.start()

    def restart(self, **values):
        self.server.stop()
        self.journal.close()
        self.start(process_id='process-2', **values)

    def blocked(self, envelope=None, method='pre_live_migration'):
        """Start an operation that runs until the event that is returned is set."""
        go, begun = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        def work():
            begun.set()
            go.wait(support.DEADLINE)
            return {'done': True}
        self.server.accept(envelope or support.envelope(), method, {}, work)
        self.assertTrue(begun.wait(support.DEADLINE))
        return go


class AcceptTest(AgentTestCase):

    def test_a_new_request_is_acknowledged_runs_and_is_reported(self):
        envelope = support.envelope()
        report = self.server.accept(envelope, 'pre_live_migration', {}, lambda: {'size': 7})
        self.assertEqual((envelope.op_id, OperationState.RUNNING, 'host-a', 'process-1', 'boot-1'),
                         (report.op_id, report.state, report.host, report.process_id, report.host_boot_id))
        told = self.conductor.next_report()
        self.assertEqual((envelope.op_id, envelope.migration_id, OperationState.SUCCEEDED, {'size': 7}),
                         (told.op_id, told.migration_id, told.state, told.result))
        support.wait_for(lambda: self.journal.get(envelope.op_id).reported)

    def test_it_stands_in_the_journal_before_it_runs(self):
        envelope, seen = support.envelope(), []
        self.server.accept(envelope, 'pre_live_migration', {}, lambda: seen.append(self.journal.get(envelope.op_id).state))
        self.conductor.next_report()
        self.assertEqual([OperationState.RUNNING], seen)

    def test_a_doubled_request_runs_once_and_gets_the_present_state(self):
        envelope, runs = support.envelope(), []
        go = threading.Event()
        self.addCleanup(go.set)

        def work():
            runs.append(1)
            go.wait(support.DEADLINE)
        for _ in range(3):
            self.assertEqual(OperationState.RUNNING, self.server.accept(envelope, 'pre_live_migration', {'plan': 1}, work).state)
        go.set()
        self.conductor.next_report()
        again = self.server.accept(envelope, 'pre_live_migration', {'plan': 1}, work)
        self.assertEqual((OperationState.SUCCEEDED, [1]), (again.state, runs))

    def test_copies_that_arrive_together_run_once(self):
        envelope, runs, reports = support.envelope(), [], []
        barrier = threading.Barrier(8)

        def send():
            barrier.wait(support.DEADLINE)
            reports.append(self.server.accept(envelope, 'pre_live_migration', {}, lambda: runs.append(1)))
        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(support.DEADLINE)
        self.conductor.next_report()
        self.assertEqual((8, [1]), (len(reports), runs))

    def test_an_op_id_cannot_be_used_for_another_request(self):
        envelope = support.envelope()
        self.server.accept(envelope, 'pre_live_migration', {'plan': 1}, dict)
        for method, arguments in (('pre_live_migration', {'plan': 2}), ('live_migration', {'plan': 1})):
            self.assertRaises(exceptions.InvalidRequest, self.server.accept, envelope, method, arguments, self.fail)

    def test_a_conductor_of_a_later_version_may_repeat_what_an_earlier_one_began(self):
        """Given a plan and a disk that have new fields since, when they say nothing, then it is the same request; else it is another."""
        disk = facts.Disk(target='vda', path='/instances/x/vda.qcow2')
        plan = facts.to_wire(facts.Plan(migration_id=support.envelope().migration_id, instance_uuid=str(uuid.uuid4()), source_host='a',
                                        destination_host='b', disks=(disk,), copy=('vda',)))
        newer = {'throttled': False, 'volumes': [], 'cpu_model': '', 'numa': {}, 'weight': 0, 'zone': None}
        envelope, runs = support.envelope(), []
        self.server.accept(envelope, 'pre_live_migration', {'plan': plan}, lambda: runs.append(1))
        self.conductor.next_report()
        again = {**plan, **newer, 'disks': [{**plan['disks'][0], **newer}]}
        report = self.server.accept(envelope, 'pre_live_migration', {'plan': again, 'later': ''}, lambda: runs.append(2))
        self.assertEqual((OperationState.SUCCEEDED, [1]), (report.state, runs))
        for other in ({**again, 'throttled': True}, {**again, 'copy': []}, {**again, 'disks': [{**again['disks'][0], 'numa': {'0': 1}}]},
                      {**again, 'disks': [*again['disks'], {}]}):
            self.assertRaises(exceptions.InvalidRequest, self.server.accept, envelope, 'pre_live_migration', {'plan': other}, dict)
        self.assertEqual([1], runs)

    def test_a_request_from_an_older_epoch_is_refused(self):
        new = support.envelope(epoch=5)
        self.server.accept(new, 'pre_live_migration', {}, dict)
        old = support.envelope(migration_id=new.migration_id, epoch=4, attempt=2)
        self.assertRaises(exceptions.StaleEpoch, self.server.accept, old, 'pre_live_migration', {}, self.fail)
        same = support.envelope(migration_id=new.migration_id, epoch=5, attempt=3)
        self.assertEqual(OperationState.RUNNING, self.server.accept(same, 'pre_live_migration', {}, dict).state)

    def test_a_late_attempt_at_a_debt_is_refused_and_other_debts_are_not(self):
        """Given a debt's second attempt, when its first one comes late, then it is outdated; each other debt counts for itself."""
        migration, debt, other = (str(uuid.uuid4()) for _ in range(3))

        def attempt(owner, number):
            return facts.Envelope(op_id=f'{owner}/stop_instance/{number}', migration_id=migration, epoch=7)
        self.server.accept(attempt(debt, 12), 'stop_instance', {}, dict)
        self.conductor.next_report()
        for late in (1, 9, 11):
            error = self.assertRaises(exceptions.StaleEpoch, self.server.accept, attempt(debt, late), 'stop_instance', {}, self.fail)
            self.assertIn('has seen attempt 12', str(error))
        for timely in (attempt(debt, 13), attempt(other, 1)):
            self.assertEqual(OperationState.RUNNING, self.server.accept(timely, 'stop_instance', {}, dict).state)

    def test_epochs_of_different_migrations_are_not_compared(self):
        self.server.accept(support.envelope(epoch=5), 'pre_live_migration', {}, dict)
        self.assertEqual(OperationState.RUNNING, self.server.accept(support.envelope(epoch=1), 'pre_live_migration', {}, dict).state)

    def test_a_late_request_is_refused_by_the_agents_own_clock(self):
        late = support.envelope(not_after=99.9)
        self.assertRaises(exceptions.RequestExpired, self.server.accept, late, 'pre_live_migration', {}, self.fail)
        self.assertEqual(OperationState.UNKNOWN, self.server.get(late.op_id).state)
        timely = support.envelope(not_after=100.1)
        self.assertEqual(OperationState.RUNNING, self.server.accept(timely, 'pre_live_migration', {}, dict).state)

    def test_a_request_for_another_process_is_refused(self):
        self.assertRaises(exceptions.WrongProcess, self.server.accept, support.envelope(process_id='process-0'), 'x', {}, self.fail)
        meant = support.envelope(process_id='process-1')
        self.assertEqual(OperationState.RUNNING, self.server.accept(meant, 'pre_live_migration', {}, dict).state)

    def test_a_full_agent_refuses_and_keeps_no_trace(self):
        gates = [self.blocked() for _ in range(3)]
        fourth = support.envelope()
        self.assertRaises(exceptions.AgentBusy, self.server.accept, fourth, 'pre_live_migration', {}, self.fail)
        gates[0].set()
        self.conductor.next_report()
        support.wait_for(lambda: len(self.server.running()) == 2)
        self.assertEqual(OperationState.RUNNING, support.wait_for(lambda: self.accepted(fourth)).state)

    def accepted(self, envelope):
        try:
            return self.server.accept(envelope, 'pre_live_migration', {}, dict)
        except exceptions.AgentBusy:  # the thread has done its work but not left yet
            return None

    def test_a_draining_agent_refuses_what_is_new_and_answers_for_what_is_known(self):
        envelope = support.envelope()
        go = self.blocked(envelope)
        self.server.drain()
        self.assertRaises(exceptions.AgentDraining, self.server.accept, support.envelope(), 'pre_live_migration', {}, self.fail)
        self.assertEqual(OperationState.RUNNING, self.server.accept(envelope, 'pre_live_migration', {}, self.fail).state)
        go.set()
        self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)

    def test_draining_is_told_before_a_wrong_process_and_that_before_a_stale_epoch(self):
        self.server.accept(support.envelope(migration_id='4' * 8 + '-4444-4444-4444-' + '4' * 12, epoch=9), 'pre_live_migration', {}, dict)
        wrong = support.envelope(migration_id='4' * 8 + '-4444-4444-4444-' + '4' * 12, attempt=2, epoch=1, process_id='x', not_after=1.0)
        self.assertRaises(exceptions.WrongProcess, self.server.accept, wrong, 'pre_live_migration', {}, self.fail)
        self.server.drain()
        self.assertRaises(exceptions.AgentDraining, self.server.accept, wrong, 'pre_live_migration', {}, self.fail)

    def test_an_unknown_operation_is_unknown(self):
        op_id = f'{uuid.uuid4()}/live_migration/1'
        self.assertEqual((op_id, OperationState.UNKNOWN), (self.server.get(op_id).op_id, self.server.get(op_id).state))


class OutcomeTest(AgentTestCase):

    def outcome(self, work):
        self.server.accept(support.envelope(), 'pre_live_migration', {}, work)
        return self.conductor.next_report()

    def test_a_typed_error_is_told_by_name(self):
        def work():
            raise exceptions.DestinationNotEmpty('/var/lib/x is there')
        report = self.outcome(work)
        self.assertEqual((OperationState.FAILED, 'DestinationNotEmpty', '/var/lib/x is there', {}),
                         (report.state, report.error_type, report.error, report.result))

    def test_facts_of_an_error_travel_with_it(self):
        def work():
            error = exceptions.DriverError('broken')
            error.facts = {'location': {'state': 'running'}}
            raise error
        self.assertEqual({'location': {'state': 'running'}}, self.outcome(work).result)

    def test_a_defect_is_an_internal_error_with_a_traceback_in_the_log(self):
        def work():
            return {}['nothing']
        report = self.outcome(work)
        self.assertEqual((OperationState.FAILED, 'InternalError', "KeyError: 'nothing'"), (report.state, report.error_type, report.error))
        self.assertIn('Traceback', self.log.output)

    def test_a_result_that_is_no_json_or_too_large_is_a_failure(self):
        self.assertEqual('InvalidRequest', self.outcome(lambda: {'x': object()}).error_type)
        self.assertEqual('PayloadTooLarge', self.outcome(lambda: {'x': 'y' * (1 << 20)}).error_type)


class ReportTest(AgentTestCase):

    def test_a_report_is_repeated_until_it_is_acknowledged(self):
        self.conductor.failing = errors.NoAnswer('nobody')
        envelope = support.envelope()
        self.server.accept(envelope, 'pre_live_migration', {}, lambda: {'n': 1})
        support.wait_for(lambda: self.conductor.attempts >= 3, 'the third attempt')
        self.assertFalse(self.journal.get(envelope.op_id).reported)
        self.conductor.failing = None
        self.assertEqual({'n': 1}, self.conductor.next_report().result)
        support.wait_for(lambda: self.journal.get(envelope.op_id).reported)

    def test_an_acknowledged_report_is_not_repeated(self):
        self.server.accept(support.envelope(), 'pre_live_migration', {}, dict)
        self.conductor.next_report()
        second = support.envelope()
        self.server.accept(second, 'pre_live_migration', {}, dict)
        self.assertEqual(second.op_id, self.conductor.next_report().op_id)
        self.assertEqual(2, self.conductor.attempts)

    def test_one_report_that_is_refused_for_ever_holds_up_no_other(self):
        bad, good = support.envelope(), support.envelope()
        self.conductor.refused = {bad.op_id: exceptions.InternalError('cannot')}
        self.server.accept(bad, 'pre_live_migration', {}, dict)
        support.wait_for(lambda: self.conductor.attempts >= 2)
        self.conductor.failing = errors.NotDelivered('no broker')
        self.server.accept(good, 'pre_live_migration', {}, dict)
        support.wait_for(lambda: self.journal.get(good.op_id).state is OperationState.SUCCEEDED)
        self.conductor.failing = None
        self.assertEqual(good.op_id, self.conductor.next_report().op_id)
        self.assertFalse(self.journal.get(bad.op_id).reported)

    def test_an_operation_that_the_conductor_does_not_know_counts_as_acknowledged(self):
        envelope = support.envelope()
        self.conductor.refused = {envelope.op_id: exceptions.MigrationNotFound('never heard of it')}
        self.server.accept(envelope, 'pre_live_migration', {}, dict)
        support.wait_for(lambda: self.journal.get(envelope.op_id) and self.journal.get(envelope.op_id).reported)
        self.assertEqual(1, self.conductor.attempts)

    def test_an_outcome_that_the_conductor_refuses_for_good_is_told_once(self):
        for refusal in (exceptions.WrongHost('it was sent to beta'), exceptions.InvalidRequest('no such step')):
            envelope = support.envelope()
            before = self.conductor.attempts
            self.conductor.refused = {envelope.op_id: refusal}
            self.server.accept(envelope, 'pre_live_migration', {}, dict)
            support.wait_for(lambda known=envelope.op_id: self.journal.get(known) and self.journal.get(known).reported)
            self.server.accept(support.envelope(), 'pre_live_migration', {}, dict)
            self.conductor.next_report()
            self.assertEqual(before + 2, self.conductor.attempts)
            self.assertEqual(1, self.log.output.count(f'refuses the outcome of {envelope.op_id}, which is not told again'))

    def test_a_success_of_one_report_sends_the_waiting_ones(self):
        self.restart(report_interval=3600)
        self.conductor.failing = errors.NoAnswer('nobody')
        first = support.envelope()
        self.server.accept(first, 'pre_live_migration', {}, dict)
        support.wait_for(lambda: self.conductor.attempts == 1)
        self.conductor.failing = None
        self.server.accept(support.envelope(), 'pre_live_migration', {}, dict)
        self.assertIn(first.op_id, {self.conductor.next_report().op_id, self.conductor.next_report().op_id})


class RestartTest(AgentTestCase):

    def test_what_was_not_acknowledged_is_reported_by_the_next_process(self):
        self.conductor.failing = errors.NotDelivered('no broker')
        envelope = support.envelope()
        self.server.accept(envelope, 'pre_live_migration', {}, lambda: {'n': 2})
        support.wait_for(lambda: self.conductor.attempts)
        self.conductor.failing = None
        self.restart()
        told = self.conductor.next_report()
        self.assertEqual((envelope.op_id, OperationState.SUCCEEDED, {'n': 2}, 'process-2'),
                         (told.op_id, told.state, told.result, told.process_id))

    def test_what_ran_is_reported_as_interrupted_and_does_not_run_again(self):
        envelope = support.envelope()
        go = self.blocked(envelope)
        self.restart()
        self.assertEqual(OperationState.INTERRUPTED, self.conductor.next_report().state)
        again = self.server.accept(envelope, 'pre_live_migration', {}, self.fail)
        self.assertEqual(OperationState.INTERRUPTED, again.state)
        go.set()

    def test_epochs_are_remembered(self):
        new = support.envelope(epoch=8)
        self.server.accept(new, 'pre_live_migration', {}, dict)
        self.conductor.next_report()
        self.restart()
        old = support.envelope(migration_id=new.migration_id, epoch=7, attempt=2)
        self.assertRaises(exceptions.StaleEpoch, self.server.accept, old, 'pre_live_migration', {}, self.fail)

    def test_what_ends_after_the_agent_was_told_to_leave_is_not_recorded_as_done(self):
        envelope = support.envelope(method='live_migration')
        go = self.blocked(envelope, 'live_migration')
        self.server.drain()
        self.assertTrue(self.server.wait_idle(1, ignored=('live_migration',)))
        self.assertFalse(self.server.wait_idle(0.01))
        self.server.stop()
        go.set()
        support.wait_for(lambda: not self.server.running())
        self.assertEqual(OperationState.RUNNING, self.journal.get(envelope.op_id).state)
        self.restart()
        self.assertEqual(OperationState.INTERRUPTED, self.conductor.next_report().state)

    def test_a_report_reads_back_from_the_wire(self):
        report = self.server.accept(support.envelope(), 'pre_live_migration', {}, dict)
        self.assertEqual(report, facts.from_wire(facts.Report, facts.to_wire(report)))
