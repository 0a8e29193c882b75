"""Live migrations from request to end on simulated hosts: success, failure of each step, abort in every state, guests that misbehave."""
import testscenarios

from migrator import exceptions
from migrator.conductor.db import ledger
from migrator.states import GuestState, PauseReason
from tests import base
from tests.simulated import SHARED, Cloud

STEPS = ('check_can_live_migrate_destination', 'check_can_live_migrate_source', 'pre_live_migration', 'live_migration',
         'post_live_migration_at_destination', 'post_live_migration_at_source')


def host_of(method):
    """Name the host at which a method is called in a migration from alpha to beta."""
    return 'beta' if method.endswith('destination') or method == 'pre_live_migration' else 'alpha'


class CloudTestCase(base.TestCase):

    hosts = ('alpha', 'beta')
    options = {}

    def setUp(self):
        super().setUp()
        self.cloud = self.useFixture(Cloud(self.hosts, **self.options))
        self.api, self.world = self.cloud.api, self.cloud.world

    def slow_guest(self, name='slow', host='alpha', **spec):
        """A guest whose migration does not end by itself: it dirties memory faster than it is copied."""
        return self.cloud.create(name, host, cmdline='dirty_mib=4096', memory_mib=256, **spec)


class SuccessTest(CloudTestCase):

    def test_there_and_back_three_times(self):
        guest = self.cloud.create('web', 'alpha', disks=2)
        written = 0
        for _ in range(3):
            for host in ('beta', 'alpha'):
                view = self.cloud.migrate('web', host)
                self.cloud.assert_clean(guest, host)
                self.assertEqual(('', [], True), (view['error'], view['debts'], view['no_return']))
                self.assertGreater(self.world.writes(guest), written)
                written = self.world.writes(guest)

    def test_shared_storage_right_after_creation(self):
        guest = self.cloud.create('web', 'alpha', shared=True)
        self.cloud.migrate('web', 'beta')
        self.cloud.assert_clean(guest, 'beta')
        self.assertEqual(1, len(self.world.files(guest)))

    def test_the_timeline_names_each_step_with_its_reason(self):
        self.cloud.create('web', 'alpha')
        view = self.cloud.migrate('web', 'beta')
        self.assertEqual(['checking', 'preparing', 'running', 'running', 'finishing', 'finishing', 'completed'],
                         [e['status'] for e in view['events']])
        self.assertEqual([*STEPS[:1], *STEPS[2:]], list(dict.fromkeys(e['step'] for e in view['events'])))
        self.assertTrue(all(e['reason'] for e in view['events']))
        self.assertEqual(('tester', view['request_id']), (view['events'][0]['user'], view['events'][0]['request_id']))
        self.assertLess(0, view['statistics']['elapsed_ms'])

    def test_each_of_the_seeds_methods_once_and_nothing_from_agent_to_agent(self):
        self.cloud.create('web', 'alpha')
        self.wait_for(lambda: self.api.instance_show('web')['disks'], 'its disks to be known')
        self.cloud.broker.sent.clear()
        self.cloud.migrate('web', 'beta')
        sent = [s for s in self.cloud.broker.sent if s[1] == 'migrator-compute']
        self.assertEqual({'conductor'}, {s[0].split('-')[0] for s in sent})
        for method in STEPS:
            self.assertEqual([host_of(method)], [s[2] for s in sent if s[3] == method], method)

    def test_a_paused_guest_stays_paused(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.set_state('alpha', guest, GuestState.PAUSED, PauseReason.USER)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'paused', 'the pause to be known')
        self.cloud.migrate('web', 'beta')
        self.assertEqual({'beta': GuestState.PAUSED}, self.world.where(guest))
        self.assertEqual(('beta', 'paused'), tuple(self.api.instance_show('web')[k] for k in ('host', 'state')))

    def test_force_complete(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.wait(moving, 'running')
        self.api.force_complete(moving['id'])
        view = self.cloud.wait(moving, 'completed')
        self.assertIn('force_complete', [e['what'] for e in view['events']])
        self.cloud.assert_clean(guest, 'beta')


class SilentSourceTest(CloudTestCase):

    #: Nobody gives the source up while the test asks.
    options = {'conductor__host_lost_after': 600.0}

    def test_force_complete_while_the_source_is_down(self):
        """Given a migration whose source is known to be down, then forcing it is refused at once, by name, and not noted."""
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.wait(moving, 'running')
        self.cloud.kill_agent('alpha')
        self.cloud.wait_down('alpha')
        refused = self.assertRaises(exceptions.HostDown, self.api.force_complete, moving['id'])
        self.assertIn('host alpha is down: last heard of at 20', str(refused))
        self.assertNotIn('force_complete', [e['what'] for e in self.api.show(moving['id'])['events']])


class FailureTest(testscenarios.WithScenarios, CloudTestCase):
    """Each step fails, before it took effect and after. Posts are repeated; before the switch everything is undone."""

    scenarios = [(f'{method} {action}', {'method': method, 'action': action}) for method in STEPS for action in ('fail', 'fail-after')
                 if not (method.startswith('check') and action == 'fail-after')]

    def test_it(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject(host_of(self.method), self.method, self.action)
        view = self.cloud.wait(self.api.live_migrate('web', 'beta'))
        moved = self.method.startswith('post') or (self.method, self.action) == ('live_migration', 'fail-after')
        self.assertEqual('completed' if moved else 'failed', view['status'], view)
        self.cloud.assert_clean(guest, 'beta' if moved else 'alpha')
        if moved:
            self.assertEqual('', view['error'])
        else:
            self.assertIn(f'{self.method} failed at {host_of(self.method)}', view['error'])
        self.cloud.migrate('web', 'alpha' if moved else 'beta')     # nothing stands in the way of the next one


class StubbornTest(CloudTestCase):
    """Steps that never succeed while they are tried."""

    options = {'conductor__step_attempts': 3, 'conductor__poll_interval': 0.3}

    def setUp(self):
        super().setUp()
        self.guest = self.cloud.create('web', 'alpha')

    def test_a_post_step_becomes_a_debt_and_is_paid(self):
        for method in ('post_live_migration_at_source', 'post_live_migration_at_destination'):
            host = host_of(method)
            self.world.inject(host, method, 'fail', times=-1)
        view = self.cloud.migrate('web', 'beta')
        self.assertEqual({'post_live_migration_at_source', 'post_live_migration_at_destination'}, {d['action'] for d in view['debts']})
        self.assertTrue(view['needs_attention'])
        self.assertEqual(2, self.api.instance_show('web')['debts'])
        self.assertEqual([view['id']], [m['id'] for m in self.api.list({'needs_attention': True})])
        self.world.release()
        self.cloud.wait_debts(0)
        self.cloud.assert_clean(self.guest, 'beta')
        self.assertFalse(self.api.show(view['id'])['needs_attention'])

    def test_an_undo_at_the_destination_becomes_a_debt_and_is_paid(self):
        self.world.inject('alpha', 'live_migration', 'fail')
        self.world.inject('beta', 'rollback_live_migration_at_destination', 'fail', times=-1)
        view = self.cloud.migrate('web', 'beta', 'failed')
        self.assertEqual(['rollback_live_migration_at_destination'], [d['action'] for d in view['debts']])
        self.cloud.assert_clean(self.guest, 'alpha')
        before = self.cloud.dump('debt', 'service')
        raised = self.assertRaises(exceptions.DebtOutstanding, self.api.live_migrate, 'web', 'beta')
        self.assertIn('rollback_live_migration_at_destination at beta', str(raised))
        self.assertEqual(before, self.cloud.dump('debt', 'service'))
        self.world.release()
        self.cloud.wait_debts(0)
        self.assertEqual([], self.world.leftovers(self.guest))
        self.cloud.migrate('web', 'beta')
        self.cloud.assert_clean(self.guest, 'beta')

    def test_a_vital_undo_waits_for_an_operator_and_heals_itself(self):
        self.world.inject('alpha', 'live_migration', 'fail')
        self.world.inject('alpha', 'rollback_live_migration_at_source', 'fail', times=-1)
        moving = self.api.live_migrate('web', 'beta')
        view = self.cloud.wait(moving, 'needs_operator')
        self.assertTrue(view['needs_attention'])
        self.assertEqual(moving['id'], self.api.instance_show('web')['locked_by'])
        self.assertIn('rollback_live_migration_at_source', view['reason'])
        first = view
        view = self.wait_for(lambda: (now := self.api.show(moving['id']))['attempt'] >= first['attempt'] + 3 and now, 'three more tries')
        self.assertEqual(('needs_operator', first['reason']), (view['status'], view['reason']))
        self.assertEqual(len(first['events']), len(view['events']))        # the reason is the same: the tries are counted
        self.world.host_down('alpha')
        self.world.release()                                               # now it fails for another reason
        view = self.wait_for(lambda: (now := self.api.show(moving['id']))['reason'] != first['reason'] and now, 'another reason')
        self.assertEqual((len(first['events']) + 1, view['reason']), (len(view['events']), view['events'][-1]['reason']))
        self.world.host_up('alpha')
        self.cloud.wait(moving, 'failed')
        self.cloud.assert_clean(self.guest, 'alpha')


class AbortTest(CloudTestCase):

    def aborted(self, migration, guest):
        """Abort, and assert that all is as it was."""
        self.api.abort(migration['id'])
        self.world.release()
        view = self.cloud.wait(migration, 'cancelled')
        self.assertEqual(('aborted on request', True), (view['error'], view['abort_requested']))
        self.assertIn('tester', {e['user'] for e in view['events'] if 'abort' in e['reason']})
        self.cloud.assert_clean(guest, 'alpha')
        self.cloud.migrate(guest, 'beta')
        return view

    def test_checking(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'check_can_live_migrate_destination', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'checking')
        self.aborted(moving, guest)
        self.assertEqual(1, len(self.world.history(guest, 'pre_live_migration')))        # of the one after it

    def test_preparing(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'pre_live_migration', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'preparing')
        self.aborted(moving, guest)
        self.assertEqual(1, len(self.world.history(guest, 'live_migration')))

    def test_running(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.api.abort(moving['id'])
        self.api.abort(moving['id'])        # twice is once
        self.cloud.wait(moving, 'cancelled')
        self.cloud.assert_clean(guest, 'alpha')

    def test_running_before_the_job_exists(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('alpha', 'live_migration', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'running')
        self.api.abort(moving['id'])
        self.wait_for(lambda: 'abort_live_migration' in {s[3] for s in self.cloud.broker.sent}, 'the agent to be told')
        self.world.release()
        view = self.cloud.wait(moving, ('cancelled', 'completed'))
        self.cloud.assert_clean(guest, 'alpha' if view['status'] == 'cancelled' else 'beta')

    def test_finishing_is_too_late(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'post_live_migration_at_destination', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'finishing')
        raised = self.assertRaises(exceptions.TooLate, self.api.abort, moving['id'])
        self.assertIn('point of no return', str(raised))
        self.world.release()
        self.assertFalse(self.cloud.wait(moving, 'completed')['abort_requested'])
        self.cloud.assert_clean(guest, 'beta')

    def test_an_abort_that_comes_too_late_for_the_hypervisor(self):
        guest = self.slow_guest()
        self.world.inject('alpha', 'abort_live_migration', 'fail', times=-1)
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.api.abort(moving['id'])
        self.world.finish_job(guest)
        view = self.cloud.wait(moving, 'completed')
        self.assertIn('too late', ' '.join(e['reason'] for e in view['events']))
        self.cloud.assert_clean(guest, 'beta')


class TimeLimitTest(CloudTestCase):

    options = {'conductor__completion_timeout': 1, 'conductor__poll_interval': 0.2}

    def test_a_guest_that_does_not_converge(self):
        guest = self.slow_guest(disks=0)
        view = self.cloud.migrate('slow', 'beta', 'failed')
        self.assertIn('longer than its time limit', view['error'])
        self.cloud.assert_clean(guest, 'alpha')


class LengthOfTimeLimitTest(CloudTestCase):

    options = {'conductor__completion_timeout': 100}

    def test_only_what_is_copied_counts(self):
        """Given guests with one disk each, shared or not, when they move, then memory and the copied disk are allowed 2 GiB's time each."""
        for name, shared, limit in (('near', False, 400), ('far', True, 200)):
            self.cloud.create(name, 'alpha', shared=shared)
            moved = self.cloud.migrate(name, 'beta')
            row = self.cloud.database.run(lambda tx, m=moved: ledger.load(tx, m['id']))
            self.assertEqual((limit, 0 if shared else 1), (row.policy.completion, len(row.row.plan['copy'])))


class MisbehaviourTest(CloudTestCase):

    def test_a_guest_that_powers_itself_off_keeps_its_disks(self):
        guest = self.slow_guest(disks=2)
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.world.power_off(guest)
        view = self.cloud.wait(moving, 'failed')
        self.assertIn('the guest stopped at the source', view['error'])
        self.cloud.assert_clean(guest, 'alpha', 'stopped')
        self.assertEqual(2, len(self.world.files(guest, 'alpha')))
        self.cloud.wait(self.api.instance_start('slow'), 'completed')
        self.cloud.assert_clean(guest, 'alpha')

    def test_a_hand_over_that_was_not_finished_is_taken_back(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.world.fail_job(guest, leave_paused=True, leave_incoming=True)
        self.cloud.wait(moving, 'failed')
        self.cloud.assert_clean(guest, 'alpha')

    def test_files_of_a_stranger_at_the_destination(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.add_file('beta', '/instances', guest, 'notes.txt')
        view = self.cloud.migrate('web', 'beta', 'failed')
        self.assertIn('notes.txt', view['error'])
        self.assertEqual(1, len(self.world.files(guest, 'beta')))

    def test_files_of_a_stranger_that_come_after_the_check(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'pre_live_migration', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'preparing')
        self.world.add_file('beta', '/instances', guest, 'vda.qcow2')
        self.world.release()
        view = self.cloud.wait(moving, 'failed')
        self.assertIn('that this migration did not make', view['error'])
        self.assertEqual(['vda.qcow2'], [f['name'] for f in self.world.files(guest, 'beta')])
        self.assertEqual([], self.world.history(guest, 'rollback_live_migration_at_destination'))

    def test_a_guest_of_that_uuid_at_the_destination(self):
        guest = self.cloud.create('web', 'alpha', shared=True)
        self.world.add_guest('beta', guest, on=False, disks=(self.world.disk(guest, SHARED),))
        view = self.cloud.migrate('web', 'beta', 'failed')
        self.assertIn('a guest of this uuid is off here', view['error'])
        self.assertEqual({'alpha': GuestState.RUNNING, 'beta': GuestState.OFF}, self.world.where(guest))

    def test_no_room_at_the_destination(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.add_guest('beta', memory_mib=65536)
        view = self.cloud.migrate('web', 'beta', 'failed')
        self.assertIn('the destination has 0 MiB free', view['error'])
        self.cloud.assert_clean(guest, 'alpha')
