"""The volume agent's endpoint: what reaches the driver and the copier, in which order, and that cancellations are not lost."""
import dataclasses
import inspect
import types

import fixtures

from migrator import exceptions
from migrator.rpc import contract, facts
from migrator.rpc import volume_facts as vf
from migrator.states import LunState, OperationState
from migrator.volume.copying import End
from migrator.volume.plans import target_of
from tests.unit.rpc import support
from tests.unit.volume import samples
from tests.unit.volume.samples import MIB
from tests.unit.volume.scripted import ManagerTestCase


class MethodsTest(ManagerTestCase):

    def test_every_method_of_the_contract_is_there_and_nothing_else_can_be_called(self):
        exposed = {name for name, value in inspect.getmembers(self.manager) if getattr(value, 'exposed', False)}
        self.assertEqual(set(contract.VOLUME), exposed)

    def test_the_life_of_a_volume(self):
        lun = {'lun': facts.to_wire(self.source)}
        spec = vf.VolumeSpec(samples.VOLUME, self.source, 32 * MIB)
        attachment = vf.VolumeAttachment(samples.ATTACHMENT, samples.VOLUME, self.source, True, True)
        export = attachment.export
        for name, arguments, call, result in (
                ('create_volume', {'spec': facts.to_wire(spec)}, ('create', 'slow', 'volume-1', 32 * MIB, samples.MIGRATION),
                 {'locator': {'lun': 'volume-1'}}),
                ('extend_volume', {**lun, 'size': 64 * MIB}, ('extend', 'slow', 'volume-1', 64 * MIB), {}),
                ('export_attachment', {'attachment': facts.to_wire(attachment)}, ('export', 'slow', 'volume-1', export, True),
                 {'connection': {'uri': f'nbd://a:1/{export}', 'writable': True, 'size': 32 * MIB, 'tls': False}}),
                ('unexport_attachment', {'attachment': facts.to_wire(attachment)}, ('unexport', 'slow', 'volume-1', export, True),
                 {}),
                ('delete_volume', lun, ('delete', 'slow', 'volume-1', ''), {})):
            report = self.outcome(name, **arguments)
            self.assertEqual((OperationState.SUCCEEDED, result), (report.state, report.result), name)
            self.assertEqual(call, self.old.script.calls[-1], name)
        self.assertEqual([], self.new.script.calls)

    def test_the_source_is_asked_first_and_may_decline(self):
        self.assertEqual({'moved': False, 'model_update': {}}, self.outcome('migrate_volume').result)
        self.old.script.results['migrate_volume'] = (True, {'locator': {'lun': 'x'}})
        self.assertEqual({'moved': True, 'model_update': {'locator': {'lun': 'x'}}}, self.outcome('migrate_volume', attempt=2).result)
        there = vf.Lun('slow', 'volume-1', LunState.READY, 32 * MIB, owner=samples.MIGRATION)
        self.assertEqual(('migrate_volume', there, self.plan.target), self.old.script.calls[-1])

    def test_a_driver_that_raises_has_not_declined(self):
        self.new.script.results['migrate_volume_target'] = exceptions.DriverError('the array hiccuped')
        report = self.outcome('migrate_volume_target')
        self.assertEqual((OperationState.FAILED, 'DriverError', 'the array hiccuped'), (report.state, report.error_type, report.error))

    def test_the_source_is_exported_writable_for_a_take_over_and_read_only_for_a_copy(self):
        for forced in (False, True):
            plan = facts.to_wire(samples.plan(source=self.source, force_host_copy=forced))
            said = self.outcome('export_volume', attempt=int(forced) + 1, plan=plan).result['connection']
            self.assertEqual((not forced, ('export', 'slow', 'volume-1', self.plan.export, not forced)),
                             (said['writable'], self.old.script.calls[-1]))
        self.outcome('unexport_volume')
        self.outcome('delete_source_volume')
        self.assertEqual([('unexport', 'slow', 'volume-1', self.plan.export, False), ('delete', 'slow', 'volume-1', '')],
                         self.old.script.calls[-2:])

    def test_a_take_over_and_its_completion(self):
        report = self.outcome('migrate_volume_target')
        locator = {'lun': self.plan.target.lun}
        self.assertEqual({'moved': True, 'migration_async': True, 'model_update': {'locator': locator}}, report.result)
        self.assertEqual((samples.CONNECTION, self.plan.target), self.new.script.calls[-1][2:])
        self.assertEqual([samples.MIGRATION], self.manager.jobs())
        self.assertEqual(40, self.ask('volume_progress', migration_id=samples.MIGRATION)['done'])
        self.assertEqual({'model_update': {}}, self.outcome('complete_migration_target').result)
        self.assertEqual(([], False), (self.manager.jobs(), self.ask('volume_progress', migration_id=samples.MIGRATION)['active']))

    def test_a_take_over_is_held_to_the_limit_of_its_plan_and_to_later_ones(self):
        """Given a plan with a limit, then the driver gets it; when it is changed while the data follows, then the mirror's is, not a
        copy's; and a completion that is begun again brings the limit that the plan has by then."""
        self.plan = dataclasses.replace(self.plan, bandwidth=7 * MIB)
        self.outcome('migrate_volume_target')
        self.assertEqual(7 * MIB, self.new.script.calls[-1][3].bandwidth)
        self.assertTrue(self.ask('set_copy_rate', migration_id=samples.MIGRATION, bytes_per_second=3 * MIB))
        self.assertEqual((('set_mirror_rate', 'fast', self.plan.target.lun, 3 * MIB), []), (self.new.script.calls[-1], self.copying.rates))
        self.plan = dataclasses.replace(self.plan, bandwidth=MIB)
        self.outcome('complete_migration_target')
        self.assertEqual(MIB, self.new.script.calls[-1][1].bandwidth)

    def test_the_rate_of_a_take_over_whose_array_tells_only_how_far_it_is(self):
        now = [0.0]
        self.manager._mirrors._paces._clock = lambda: now[0]
        self.outcome('migrate_volume_target')
        self.new.script.results['progress'] = vf.Progress(True, 100 * MIB, 10 * MIB)
        self.assertEqual(0, self.ask('volume_progress', migration_id=samples.MIGRATION)['rate'])
        now[0], self.new.script.results['progress'] = 2.0, vf.Progress(True, 100 * MIB, 30 * MIB)
        self.assertEqual(10 * MIB, self.ask('volume_progress', migration_id=samples.MIGRATION)['rate'])

    def test_an_array_that_returns_only_with_all_the_data(self):
        """Given a source that moves a volume by itself, or a target that takes it over at once, when that takes a while, then it has the
        plan's limit, which can be changed, and tells how far it is; and nothing is on its way any more when it returns."""
        self.plan = dataclasses.replace(self.plan, bandwidth=7 * MIB)
        self.new.script.results['migrate_volume_target'] = (True, False, {})
        for epoch, (array, name) in enumerate(((self.old, 'migrate_volume'), (self.new, 'migrate_volume_target')), 1):
            entered, go = array.script.hold(name)
            self.begin(name, epoch=epoch)
            support.wait_for(entered.is_set)
            self.assertEqual(7 * MIB, array.script.calls[-1][-1].bandwidth)
            self.assertEqual(40, self.ask('volume_progress', migration_id=samples.MIGRATION)['done'])
            self.assertTrue(self.ask('set_copy_rate', migration_id=samples.MIGRATION, bytes_per_second=3 * MIB))
            self.assertEqual(('set_mirror_rate', 'fast', self.plan.target.lun, 3 * MIB), self.new.script.calls[-1])
            go.set()
            self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)
            self.assertEqual([], self.manager.jobs())

    def assert_interrupted(self, array, name):
        """When what an array is asked to do is cancelled, then it gives up, and after that it is not even asked any more."""
        entered, _go = array.script.hold(name)
        self.begin(name)
        support.wait_for(entered.is_set)
        self.assertTrue(self.ask('cancel_volume_job', migration_id=samples.MIGRATION))
        report = self.conductor.next_report()
        self.assertEqual((OperationState.FAILED, 'MigrationAborted', []), (report.state, report.error_type, self.manager.jobs()))
        asked = array.script.did().count(name)
        self.assertEqual('MigrationAborted', self.outcome(name, attempt=2).error_type)
        self.assertEqual(asked, array.script.did().count(name))
        self.assertFalse(self.ask('cancel_volume_job', migration_id=samples.MIGRATION))

    def test_a_source_that_moves_a_volume_is_interrupted(self):
        self.assert_interrupted(self.old, 'migrate_volume')

    def test_a_target_that_takes_it_over_at_once_is_interrupted(self):
        self.assert_interrupted(self.new, 'migrate_volume_target')

    def test_a_completion_is_not_interrupted(self):
        """Given a take-over that is being completed, when a cancellation comes late, it goes on: the volume is the target's by then."""
        self.outcome('migrate_volume_target')
        entered, go = self.new.script.hold('complete_migration_target')
        self.begin('complete_migration_target')
        support.wait_for(entered.is_set)
        self.assertFalse(self.ask('cancel_volume_job', migration_id=samples.MIGRATION))
        go.set()
        self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)
        self.assertNotIn('interrupt', self.new.script.did())

    def test_a_take_over_that_is_undone(self):
        self.outcome('migrate_volume_target')
        self.outcome('cancel_migration_target')
        self.assertEqual(('cancel_migration_target', self.plan.target), self.new.script.calls[-1])
        self.assertEqual([], self.manager.jobs())

    def test_a_host_copy(self):
        target = self.plan.target
        self.assertEqual({'locator': {'lun': target.lun}}, self.outcome('create_target_volume').result)
        self.assertEqual(('create', 'fast', target.lun, 32 * MIB, samples.MIGRATION), self.new.script.calls[-1])
        self.assertEqual({'bytes': 7, 'seconds': 0.5}, self.outcome('copy_volume').result)
        self.assertEqual({'digest': 'd', 'how': 'sampled'}, self.outcome('verify_volume').result)
        ends = (End(samples.CONNECTION.uri, 'beta@old#slow/volume-1'),
                End(f'nbd://a:1/{self.plan.copy_export}', f'beta@new#fast/{target.lun}'))
        self.assertEqual([('copy', *ends, 0, False), ('verify', *ends, 'sampled', 0), ('forget', samples.MIGRATION)],
                         self.copying.script.calls)
        self.assertEqual(('unexport', 'fast', target.lun, self.plan.copy_export, True), self.new.script.calls[-1])
        self.assertEqual([], self.old.script.calls, 'the copy must not touch the source but through its export')

    def test_a_copy_from_an_array_that_wants_tls(self):
        """Given exports that want TLS, then they are read with the certificates of the backend that they are copied to, else with those of
        the agent; whoever has none of both says so when it is asked. An end that wants none gets none."""
        tls = dataclasses.replace(samples.CONNECTION, uri=samples.CONNECTION.uri.replace('nbd:', 'nbds:'), tls=True)
        self.plan = dataclasses.replace(self.plan, connection=tls)
        for own, common, used in (('', '', ''), ('', '/agent', '/agent'), ('/backend', '/agent', '/backend')):
            self.manager = self.make_manager('process-1', common)
            self.new.conf = types.SimpleNamespace(tls_credentials=own)
            said = self.ask('check_can_migrate_volume_target', plan=facts.to_wire(self.plan))
            self.assertEqual(bool(used), said['tls'])
            ends = self.manager._ends(self.new, self.plan, target_of(self.plan))
            self.assertEqual([(tls.uri, used), (f'nbd://a:1/{self.plan.copy_export}', '')], [(end.uri, end.credentials) for end in ends])

    def test_a_source_says_whether_its_exports_want_tls(self):
        for own in ('', '/backend'):
            self.old.conf = types.SimpleNamespace(tls_credentials=own)
            self.assertEqual(bool(own), self.ask('check_can_migrate_volume_source', plan=facts.to_wire(self.plan))['tls'])

    def test_nothing_is_copied_into_what_another_made(self):
        self.new.script.results['show'] = vf.Lun('fast', self.plan.target.lun, LunState.READY, 32 * MIB, owner=samples.VOLUME)
        report = self.outcome('copy_volume')
        self.assertEqual(('PreconditionFailed', []), (report.error_type, self.copying.script.calls))

    def test_a_copy_that_differs_keeps_its_export_and_checkpoint_for_the_undo(self):
        self.copying.script.results['verify'] = exceptions.DriverError('differs at byte 5')
        self.assertEqual('DriverError', self.outcome('verify_volume').error_type)
        self.assertNotIn('unexport', self.new.script.did())
        self.assertNotIn('forget', self.copying.script.did())

    def test_removing_the_copy_forgets_its_checkpoint_first(self):
        self.outcome('delete_target_volume')
        self.assertEqual(['forget'], self.copying.script.did())
        self.assertEqual([('unexport', 'fast', self.plan.target.lun, self.plan.copy_export, True),
                          ('delete', 'fast', self.plan.target.lun, samples.MIGRATION)], self.new.script.calls[-2:])

    def test_removing_what_another_made_is_left_to_the_driver_to_refuse(self):
        self.new.script.results['show'] = vf.Lun('fast', self.plan.target.lun, LunState.READY, 32 * MIB, owner=samples.VOLUME)
        self.outcome('delete_target_volume')
        self.assertNotIn('unexport', self.new.script.did())
        self.assertEqual(('delete', 'fast', self.plan.target.lun, samples.MIGRATION), self.new.script.calls[-1])

    def test_steps_that_need_the_source_refuse_a_plan_without_its_connection(self):
        plan = facts.to_wire(samples.plan(source=self.source))
        for name in ('migrate_volume_target', 'copy_volume', 'verify_volume'):
            self.assertRaises(exceptions.InvalidRequest, self.begin, name, plan=plan)

    def test_what_is_meant_for_others_or_malformed_is_refused_and_no_driver_is_touched(self):
        good = facts.to_wire(samples.envelope('delete_volume'))
        here = facts.to_wire(self.source)
        for name, arguments in (
                ('delete_volume', {'lun': {**here, 'host': 'gamma'}}), ('delete_volume', {'lun': {**here, 'backend': 'none'}}),
                ('delete_volume', {'lun': {**here, 'lun': '../x'}}), ('extend_volume', {'lun': here, 'size': 1000}),
                ('extend_volume', {'lun': here, 'size': True}), ('migrate_volume', {'plan': facts.to_wire(samples.plan())}),
                ('create_volume', {'spec': {}}), ('export_attachment', {'attachment': None})):
            self.assertRaises(exceptions.InvalidRequest, self.ask, name, envelope=good, **arguments)
        for name, arguments in (
                ('locate_volume', {'lun': here, 'migration_id': 'x', 'epoch': 1}),
                ('locate_volume', {'lun': here, 'migration_id': samples.MIGRATION, 'epoch': -1}),
                ('set_copy_rate', {'migration_id': samples.MIGRATION, 'bytes_per_second': -1}), ('get_operation', {'op_id': 'x'}),
                ('cancel_volume_job', {'migration_id': '../x'}), ('volume_progress', {'migration_id': 5})):
            self.assertRaises(exceptions.InvalidRequest, self.ask, name, **arguments)
        self.assertEqual(([], []), (self.old.script.calls, self.new.script.calls))


class QuestionsTest(ManagerTestCase):

    def test_what_a_target_offers(self):
        self.new.script.results['show'] = vf.Lun('fast', self.plan.target.lun)
        said = facts.from_wire(vf.VolumeTargetFacts, self.ask('check_can_migrate_volume_target', plan=facts.to_wire(self.plan)))
        self.assertEqual(vf.VolumeTargetFacts('scripted', '', (), ('scripted',), 'a-1', vf.Pool('fast', 100 * MIB, 60 * MIB)), said)

    def test_a_target_that_is_occupied_unless_by_this_migration(self):
        question = {'plan': facts.to_wire(self.plan)}
        self.assertEqual('', self.ask('check_can_migrate_volume_target', **question)['occupied'])
        self.new.script.results['show'] = vf.Lun('fast', self.plan.target.lun, LunState.READY)
        self.assertIn(self.plan.target.lun, self.ask('check_can_migrate_volume_target', **question)['occupied'])

    def test_a_pool_that_is_not_there(self):
        self.new.script.results['pools'] = (vf.Pool('other'),)
        self.assertIsNone(self.ask('check_can_migrate_volume_target', plan=facts.to_wire(self.plan))['pool'])

    def test_arrays_that_do_not_answer_are_told_as_offline(self):
        for script in (self.old.script, self.new.script):
            script.results['pools'] = script.results['show'] = exceptions.DriverError('no answer')
        for name in ('check_can_migrate_volume_target', 'check_can_migrate_volume_source'):
            self.assertEqual('no answer', self.ask(name, plan=facts.to_wire(self.plan))['offline'])

    def test_an_array_that_keeps_silent_is_told_of_before_the_conductor_gives_up(self):
        """Given arrays that take longer for each thing than the conductor waits for all, when a volume is asked about, then the agent says
        in time that the array is silent; that is no answer about the volume."""
        brief = {name: dataclasses.replace(method, timeout=0.3) for name, method in contract.VOLUME.items()}
        self.useFixture(fixtures.MonkeyPatch('migrator.rpc.contract.VOLUME', brief))
        self.old.script.hold('show')
        self.new.script.hold('show')
        for name in ('check_can_migrate_volume_target', 'check_can_migrate_volume_source'):
            self.assertIn('the array does not answer', self.ask(name, plan=facts.to_wire(self.plan))['offline'])
        error = self.assertRaises(exceptions.DriverError, self.ask, 'locate_volume', lun=facts.to_wire(self.source),
                                  migration_id=samples.MIGRATION, epoch=4)
        self.assertIn('the array does not answer', str(error))

    def test_what_the_volume_is_at_its_source(self):
        said = facts.from_wire(vf.VolumeSourceFacts, self.ask('check_can_migrate_volume_source', plan=facts.to_wire(self.plan)))
        self.assertEqual((('plain',), 'volume-1', ''), (said.types, said.lun.name, said.offline))

    def test_locating_asks_the_array_and_refuses_what_is_older(self):
        said = self.ask('locate_volume', lun=facts.to_wire(self.source), migration_id=samples.MIGRATION, epoch=4)
        self.assertEqual((LunState.READY, False, 'process-1'), (said['lun']['state'], said['job_active'], said['process_id']))
        self.assertRaises(exceptions.StaleEpoch, self.begin, 'migrate_volume', epoch=3)
        self.assertNotIn('migrate_volume', self.old.script.did())

    def test_while_a_driver_moves_the_data_a_job_is_active(self):
        entered, go = self.new.script.hold('migrate_volume_target')
        self.begin('migrate_volume_target')
        support.wait_for(entered.is_set)
        target = vf.LunRef('beta', 'new', 'fast', self.plan.target.lun)
        self.assertTrue(self.ask('locate_volume', lun=facts.to_wire(target), migration_id=samples.MIGRATION, epoch=1)['job_active'])
        self.assertFalse(self.ask('locate_volume', lun=facts.to_wire(target), migration_id=self.new_id(), epoch=1)['job_active'])
        go.set()
        self.conductor.next_report()

    def test_an_array_that_cannot_be_asked_says_nothing_about_the_volume(self):
        self.old.script.results['show'] = exceptions.DriverError('no answer')
        self.assertRaises(exceptions.DriverError, self.ask, 'locate_volume', lun=facts.to_wire(self.source),
                          migration_id=samples.MIGRATION, epoch=1)

    def test_an_audit_names_luns_and_exports_with_their_migrations(self):
        exports = (vf.Export(self.plan.export, True), vf.Export('attachment-5'))
        self.old.script.results['list'] = (vf.Lun('slow', 'volume-1', LunState.READY, owner=samples.MIGRATION, exports=exports),)
        found = [(t['kind'], t['what'], t['migration_id']) for t in self.ask('audit', marker='')['traces']]
        self.assertEqual([('export', 'old#slow/volume-1:attachment-5', ''),
                          ('export', f'old#slow/volume-1:{self.plan.export}', samples.MIGRATION),
                          ('lun', 'old#slow/volume-1', samples.MIGRATION)], found)

    def test_an_audit_fails_when_an_array_does_not_answer(self):
        self.new.script.results['list'] = exceptions.DriverError('no answer')
        self.assertRaises(exceptions.DriverError, self.ask, 'audit', marker='')

    def test_get_operation_tells_the_outcome(self):
        report = self.outcome('migrate_volume')
        self.assertEqual('succeeded', self.ask('get_operation', op_id=report.op_id)['state'])


class TurnsTest(ManagerTestCase):

    def test_an_attachment_does_not_wait_for_the_completion(self):
        """Seed 001: attachable from the commit on, while data is on its way."""
        entered, go = self.new.script.hold('complete_migration_target')
        self.begin('complete_migration_target')
        support.wait_for(entered.is_set)
        where = vf.LunRef('beta', 'new', 'fast', self.plan.target.lun)
        attachment = vf.VolumeAttachment(samples.ATTACHMENT, samples.VOLUME, where)
        report = self.outcome('export_attachment', attachment=facts.to_wire(attachment))
        self.assertEqual((OperationState.SUCCEEDED, 'export_attachment'), (report.state, report.op_id.split('/')[1]))
        go.set()
        self.assertEqual('complete_migration_target', self.conductor.next_report().op_id.split('/')[1])

    def test_other_steps_of_one_lun_wait(self):
        entered, go = self.new.script.hold('create')
        self.begin('create_target_volume')
        support.wait_for(entered.is_set)
        self.begin('delete_target_volume', epoch=2)
        self.assertNotIn('delete', self.new.script.did())
        go.set()
        for _ in range(2):
            self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)
        did = self.new.script.did()
        self.assertLess(did.index('create'), did.index('delete'))


class CancelTest(ManagerTestCase):

    def cancel(self):
        return self.ask('cancel_volume_job', migration_id=samples.MIGRATION)

    def test_a_copy_that_runs_is_ended(self):
        entered, _go = self.copying.script.hold('copy')
        self.begin('copy_volume')
        support.wait_for(entered.is_set)
        self.assertTrue(self.ask('set_copy_rate', migration_id=samples.MIGRATION, bytes_per_second=5 * MIB))
        self.assertEqual(3, self.ask('volume_progress', migration_id=samples.MIGRATION)['done'])
        self.assertTrue(self.cancel())
        self.assertEqual('MigrationAborted', self.conductor.next_report().error_type)

    def test_a_copy_that_has_not_begun_does_not_begin_in_the_next_process_either(self):
        self.assertFalse(self.cancel())
        self.manager = self.make_manager('process-2')
        self.assertEqual('MigrationAborted', self.outcome('copy_volume').error_type)
        self.assertEqual([], self.copying.script.calls)

    def test_a_copy_that_is_about_to_begin_is_ended_as_soon_as_it_appears(self):
        entered, go = self.new.script.hold('export')
        copying, _go = self.copying.script.hold('copy')
        self.begin('copy_volume')
        support.wait_for(entered.is_set)
        self.assertFalse(self.cancel())
        go.set()
        self.assertEqual('MigrationAborted', self.conductor.next_report().error_type)
        self.assertTrue(copying.is_set())
        support.wait_for(lambda: self.manager._cancelling == set())

    def test_removing_the_copy_ends_it_instead_of_waiting_for_it(self):
        entered, _go = self.copying.script.hold('copy')
        self.begin('copy_volume')
        support.wait_for(entered.is_set)
        self.begin('delete_target_volume', epoch=2)
        ended = {r.op_id.split('/')[1]: r.error_type for r in (self.conductor.next_report() for _ in range(2))}
        self.assertEqual({'copy_volume': 'MigrationAborted', 'delete_target_volume': ''}, ended)

    def test_an_outdated_request_to_remove_ends_nothing(self):
        entered, go = self.copying.script.hold('copy')
        self.begin('copy_volume', epoch=5)
        support.wait_for(entered.is_set)
        self.assertRaises(exceptions.StaleEpoch, self.begin, 'delete_target_volume', epoch=4)
        go.set()
        self.assertEqual(OperationState.SUCCEEDED, self.conductor.next_report().state)
