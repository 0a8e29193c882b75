"""The compute agent's endpoint: what reaches the driver, in which order, and that aborts are not lost."""
import inspect
import uuid

from migrator import exceptions
from migrator.compute.manager import ComputeManager
from migrator.rpc import contract, facts, traces
from migrator.rpc.steps import Turns
from migrator.states import GuestState, OperationState
from tests.unit.compute.scripted import ManagerTestCase
from tests.unit.rpc import support


class MethodsTest(ManagerTestCase):

    def test_every_method_of_the_contract_is_there_and_exposed(self):
        for name in contract.COMPUTE:
            self.assertTrue(getattr(getattr(self.manager, name), 'exposed', False), name)

    def test_nothing_else_can_be_called(self):
        exposed = {name for name, value in inspect.getmembers(self.manager) if getattr(value, 'exposed', False)}
        self.assertEqual(set(contract.COMPUTE), exposed)

    def test_the_steps_hand_the_plan_to_the_driver_and_report_its_result(self):
        for name, result in (('pre_live_migration', {'made': ['vda']}), ('post_live_migration_at_source', {}),
                             ('rollback_live_migration_at_source', {}), ('rollback_live_migration_at_destination', {})):
            report = self.outcome(name)
            self.assertEqual((OperationState.SUCCEEDED, result), (report.state, report.result), name)
            self.assertIn((name, self.plan), self.driver.calls)

    def test_live_migration_gets_what_was_prepared_and_tells_where_the_guest_is_afterwards(self):
        self.driver.results['locate'] = facts.Location(state=GuestState.ABSENT)
        report = self.outcome('live_migration', prepared={'made': ['vda']})
        self.assertIn(('live_migration', self.plan, {'made': ['vda']}), self.driver.calls)
        self.assertEqual((97, 'absent', 'process-1'), (report.result['downtime_ms'], report.result['location']['state'],
                                                       report.result['location']['process_id']))

    def test_a_failed_live_migration_tells_where_the_guest_is_too(self):
        self.driver.results['live_migration'] = exceptions.DriverError('the connection was reset')
        report = self.outcome('live_migration', prepared={})
        self.assertEqual((OperationState.FAILED, 'DriverError', 'running'),
                         (report.state, report.error_type, report.result['location']['state']))

    def test_a_hypervisor_that_cannot_be_asked_afterwards_does_not_change_the_outcome(self):
        self.driver.results['locate'] = exceptions.DriverError('libvirtd is gone')
        report = self.outcome('live_migration', prepared={})
        self.assertEqual((OperationState.SUCCEEDED, 'unreachable'), (report.state, report.result['location']['state']))

    def test_the_arrived_guest_is_located_where_it_arrived(self):
        self.assertEqual('running', self.outcome('post_live_migration_at_destination').result['location']['state'])

    def test_instances(self):
        instance = str(uuid.uuid4())
        spec = {'uuid': instance, 'name': 'web'}
        for name, arguments in (('create_instance', {'spec': spec}), ('start_instance', {'instance_uuid': instance}),
                                ('stop_instance', {'instance_uuid': instance, 'timeout': 5}),
                                ('delete_instance', {'instance_uuid': instance})):
            self.ask(name, envelope=facts.to_wire(support.envelope(name)), **arguments)
            self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)
        self.assertEqual([('create_instance', facts.from_wire(facts.InstanceSpec, spec)), ('inventory',), ('start_instance', instance),
                          ('stop_instance', instance, 5), ('delete_instance', instance)], self.driver.calls)

    def test_volumes(self):
        attachment = support.attachment(instance_uuid=self.uuid)
        for name, result in (('attach_volume', {'target': 'vdb'}), ('detach_volume', {})):
            self.ask(name, envelope=facts.to_wire(support.envelope(name)), attachment=facts.to_wire(attachment))
            report = self.conductor.next_report()
            self.assertEqual((OperationState.SUCCEEDED, result), (report.state, report.result))
        self.assertEqual([('attach_volume', attachment), ('detach_volume', attachment)], self.driver.calls)

    def test_a_volume_is_attached_in_the_guests_turn(self):
        """While the guest is being stopped its disks are left alone."""
        entered, go = self.driver.hold('stop_instance')
        self.ask('stop_instance', envelope=facts.to_wire(support.envelope('stop_instance')), instance_uuid=self.uuid, timeout=5)
        support.wait_for(entered.is_set)
        self.ask('attach_volume', envelope=facts.to_wire(support.envelope('attach_volume')),
                 attachment=facts.to_wire(support.attachment(instance_uuid=self.uuid)))
        self.assertEqual(['stop_instance'], [call[0] for call in self.driver.calls])
        go.set()
        self.assertEqual([OperationState.SUCCEEDED] * 2, [self.conductor.next_report().state for _ in range(2)])
        self.assertEqual(['stop_instance', 'attach_volume'], [call[0] for call in self.driver.calls])

    def test_questions_are_answered_on_the_spot(self):
        guest = {'uuid': self.uuid}
        self.assertEqual('x86_64', self.ask('check_can_live_migrate_destination', guest=guest)['arch'])
        self.assertEqual('x86_64', self.ask('check_can_live_migrate_source', guest=guest)['arch'])
        self.assertEqual(('running', 'process-1'), (lambda a: (a['state'], a['process_id']))(
            self.ask('locate_instance', instance_uuid=self.uuid, migration_id=self.plan.migration_id, epoch=0)))
        self.assertEqual('unknown', self.ask('get_operation', op_id=support.envelope().op_id)['state'])

    def test_an_audit_comes_in_parts_and_each_trace_once(self):
        found = tuple(traces.Trace('file', what=f'/i/{n:05}') for n in range(2500))
        self.driver.results['audit'] = found[::-1]
        parts, marker = [], ''
        while not parts or marker:
            parts.append(self.ask('audit', marker=marker))
            marker = parts[-1]['more']
        self.assertEqual([1000, 1000, 500], [len(part['traces']) for part in parts])
        self.assertEqual([t.what for t in found], [t['what'] for part in parts for t in part['traces']])

    def test_get_operation_tells_the_outcome(self):
        report = self.outcome('pre_live_migration')
        self.assertEqual(('succeeded', {'made': ['vda']}),
                         (lambda a: (a['state'], a['result']))(self.ask('get_operation', op_id=report.op_id)))

    def test_malformed_requests_are_refused_and_the_driver_is_not_touched(self):
        good = facts.to_wire(support.envelope(migration_id=self.plan.migration_id))
        plan = facts.to_wire(self.plan)
        for name, arguments in (
                ('pre_live_migration', {'envelope': good, 'plan': plan | {'instance_uuid': '../etc'}}),
                ('pre_live_migration', {'envelope': good | {'op_id': 'x'}, 'plan': plan}),
                ('pre_live_migration', {'envelope': None, 'plan': plan}),
                ('live_migration', {'envelope': good, 'plan': plan, 'prepared': 'x'}),
                ('stop_instance', {'envelope': good, 'instance_uuid': self.uuid, 'timeout': True}),
                ('stop_instance', {'envelope': good, 'instance_uuid': self.uuid, 'timeout': -1}),
                ('start_instance', {'envelope': good, 'instance_uuid': 5}),
                *(('attach_volume', {'envelope': good, 'attachment': facts.to_wire(support.attachment()) | wrong}) for wrong in (
                    {'connection': None}, {'volume_id': 'x'}, {'target': '../vdb'}, {'connection': {'uri': 'file:///etc/passwd'}},
                    {'connection': {'uri': 'nbd://array/lun', 'writable': False}})),
                ('detach_volume', {'envelope': good, 'attachment': {'volume_id': self.uuid}}),
                ('locate_instance', {'instance_uuid': 'x', 'migration_id': self.plan.migration_id, 'epoch': 1}),
                ('locate_instance', {'instance_uuid': self.uuid, 'migration_id': 'x', 'epoch': 1}),
                ('locate_instance', {'instance_uuid': self.uuid, 'migration_id': self.plan.migration_id, 'epoch': -1}),
                ('get_operation', {'op_id': '1'}),
                ('abort_live_migration', {'migration_id': 'x', 'instance_uuid': self.uuid}),
                ('check_can_live_migrate_source', {'guest': []})):
            self.assertRaises(exceptions.InvalidRequest, self.ask, name, **arguments)
        self.assertEqual([], self.driver.calls)


class FenceTest(ManagerTestCase):

    def test_a_request_that_was_sent_before_the_guest_was_looked_for_is_refused_after_it(self):
        """Found by the model check: a late live_migration would move a guest whose migration is being undone."""
        late = support.envelope('live_migration', migration_id=self.plan.migration_id, epoch=3)
        self.ask('locate_instance', instance_uuid=self.uuid, migration_id=self.plan.migration_id, epoch=4)
        self.assertRaises(exceptions.StaleEpoch, self.ask, 'live_migration', envelope=facts.to_wire(late),
                          plan=facts.to_wire(self.plan), prepared={})
        self.assertEqual([], [c for c in self.driver.calls if c[0] == 'live_migration'])

    def test_a_call_that_the_hypervisor_does_not_show_yet_counts_as_an_active_job(self):
        entered, go = self.driver.hold('live_migration')
        self.begin('live_migration', prepared={})
        support.wait_for(entered.is_set)
        said = self.ask('locate_instance', instance_uuid=self.uuid, migration_id=self.plan.migration_id, epoch=9)
        self.assertTrue(said['job_active'])
        go.set()
        self.conductor.next_report()


class TurnsTest(ManagerTestCase):

    def test_steps_of_one_guest_run_one_after_another_and_questions_do_not_wait(self):
        entered, go = self.driver.hold('pre_live_migration')
        self.begin('pre_live_migration')
        support.wait_for(entered.is_set)
        self.begin('rollback_live_migration_at_destination')
        said = self.ask('locate_instance', instance_uuid=self.uuid, migration_id=self.plan.migration_id, epoch=0)
        self.assertEqual('running', said['state'])
        self.assertNotIn('rollback_live_migration_at_destination', [call[0] for call in self.driver.calls])
        go.set()
        self.assertIn('pre_live_migration', self.conductor.next_report().op_id)
        self.assertIn('rollback_live_migration_at_destination', self.conductor.next_report().op_id)

    def test_guests_do_not_wait_for_each_other(self):
        entered, go = self.driver.hold('pre_live_migration')
        self.begin('pre_live_migration')
        support.wait_for(entered.is_set)
        other = support.plan()
        report = self.outcome('rollback_live_migration_at_destination', plan=other)
        self.assertEqual((other.migration_id, OperationState.SUCCEEDED), (report.migration_id, report.state))
        go.set()

    def test_what_was_overtaken_while_it_waited_does_not_run(self):
        entered, go = self.driver.hold('post_live_migration_at_source')
        self.begin('post_live_migration_at_source', plan=support.plan(instance_uuid=self.uuid))
        support.wait_for(entered.is_set)
        self.begin('pre_live_migration', epoch=3)
        self.begin('rollback_live_migration_at_destination', epoch=4)
        go.set()
        states = {r.op_id.split('/')[1]: (r.state, r.error_type) for r in (self.conductor.next_report() for _ in range(3))}
        self.assertEqual((OperationState.FAILED, 'StaleEpoch'), states['pre_live_migration'])
        self.assertEqual((OperationState.SUCCEEDED, ''), states['rollback_live_migration_at_destination'])
        self.assertNotIn('pre_live_migration', [call[0] for call in self.driver.calls])

    def test_pre_after_a_newer_rollback_is_refused(self):
        self.outcome('rollback_live_migration_at_destination', epoch=5)
        self.assertRaises(exceptions.StaleEpoch, self.begin, 'pre_live_migration', epoch=4)

    def test_a_turn_that_nobody_wants_is_forgotten(self):
        turns = Turns()
        with turns.of('a'), turns.of('b'):
            self.assertEqual({'a', 'b'}, set(turns._turns))
        self.assertEqual({}, turns._turns)


class AbortTest(ManagerTestCase):

    def abort(self):
        return self.ask('abort_live_migration', migration_id=self.plan.migration_id, instance_uuid=self.uuid)

    def test_a_running_job_is_cancelled(self):
        self.driver.results['abort_live_migration'] = True
        self.assertTrue(self.abort())
        self.assertEqual([('abort_live_migration', self.uuid)], self.driver.calls)

    def test_an_abort_before_the_migration_begins_keeps_it_from_beginning(self):
        self.assertFalse(self.abort())
        report = self.outcome('live_migration', prepared={})
        self.assertEqual((OperationState.FAILED, 'MigrationAborted'), (report.state, report.error_type))
        self.assertNotIn('live_migration', [call[0] for call in self.driver.calls])

    def test_an_abort_is_remembered_by_the_next_process(self):
        self.abort()
        self.manager = ComputeManager(self.driver, self.operations, self.journal, 'process-2')
        self.assertEqual('MigrationAborted', self.outcome('live_migration', prepared={}).error_type)

    def test_an_abort_while_the_job_is_being_set_up_is_carried_out_as_soon_as_the_job_appears(self):
        entered, go = self.driver.hold('live_migration')
        self.begin('live_migration', prepared={})
        support.wait_for(entered.is_set)
        self.assertFalse(self.abort())
        self.assertFalse(self.abort())
        self.driver.results['abort_live_migration'] = True  # now there is a job
        support.wait_for(lambda: self.manager._aborting == set(), 'the abort')
        self.assertEqual(1, len([c for c in self.driver.calls[3:] if c[0] == 'abort_live_migration']))
        self.driver.results['live_migration'] = exceptions.MigrationAborted()
        go.set()
        self.assertEqual('MigrationAborted', self.conductor.next_report().error_type)

    def test_looking_for_the_job_ends_with_the_migration(self):
        entered, go = self.driver.hold('live_migration')
        self.begin('live_migration', prepared={})
        support.wait_for(entered.is_set)
        self.abort()
        go.set()
        self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)
        support.wait_for(lambda: self.manager._aborting == set(), 'the end of the search')

    def test_an_abort_of_one_migration_does_not_touch_the_next_of_the_same_guest(self):
        self.abort()
        report = self.outcome('live_migration', plan=support.plan(instance_uuid=self.uuid), prepared={})
        self.assertEqual(OperationState.SUCCEEDED, report.state)

    def test_force_complete_tells_whether_a_job_ran(self):
        for answer in (True, False):
            self.driver.results['force_complete_live_migration'] = answer
            self.assertIs(answer, self.ask('force_complete_live_migration', migration_id=self.plan.migration_id, instance_uuid=self.uuid))
