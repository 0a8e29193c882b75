"""Whatever dies on the way: agents at each step, conductors, hosts that stay away; the migration ends, and what is left is a debt."""
import uuid

import testscenarios

from migrator import exceptions
from migrator.rpc import facts
from migrator.rpc.conductor import AgentToConductorAPI
from migrator.rpc.context import MigratorContext
from migrator.states import OperationState
from tests.unit.conductor.test_live_migration import STEPS, CloudTestCase, host_of

OPERATIONS = STEPS[2:]

#: A host is given up soon: these tests wait for it.
HASTY = {'conductor__host_lost_after': 1.2, 'conductor__poll_interval': 0.5}


class AgentTest(testscenarios.WithScenarios, CloudTestCase):
    """The agent that does a step is killed, before the step took effect or after it, and started again."""

    scenarios = [(f'{method} {when}', {'method': method, 'when': when}) for method in OPERATIONS for when in ('before', 'after')]

    def test_it(self):
        guest, host = self.cloud.create('web', 'alpha'), host_of(self.method)
        if self.when == 'before':
            self.world.inject(host, self.method, 'hang')
        else:
            self.cloud.lose_reports(host)
        moving = self.api.live_migrate('web', 'beta')
        if self.when == 'before':
            self.wait_for(lambda: self.method in {s[3] for s in self.cloud.broker.sent}, 'the step to begin')
            self.wait_for(lambda: self.cloud.agents[host].operations.running(self.method), 'the step to be journaled')
        else:
            self.wait_for(lambda: [c for c in self.world.history(guest, self.method) if c.result in ('ok', 'completed')], 'the effect')
        self.cloud.kill_agent(host)
        self.world.release()
        self.cloud.start_agent(host)
        view = self.cloud.wait(moving, ('completed', 'failed'))
        self.cloud.assert_clean(guest, 'beta' if view['status'] == 'completed' else 'alpha')
        lost = (self.method, self.when) == ('live_migration', 'before')     # the call was not made, and nobody knows: it is taken back
        self.assertEqual('failed' if lost else 'completed', view['status'], view)
        self.cloud.migrate('web', 'alpha' if view['status'] == 'completed' else 'beta')


class MidCopyTest(CloudTestCase):

    options = HASTY

    def test_a_job_that_outlives_its_agent_is_found_again(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.restart_agent('alpha')
        self.wait_for(lambda: 'the migration job is at work' in self.api.show(moving['id'])['reason'], 'the job to be seen')
        self.world.finish_job(guest)
        self.cloud.wait(moving, 'completed')
        self.cloud.assert_clean(guest, 'beta')

    def test_it_can_be_aborted_without_the_agent_that_began_it(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.restart_agent('alpha')
        self.cloud.wait_up('alpha')
        self.api.abort(moving['id'])
        self.cloud.wait(moving, 'cancelled')
        self.cloud.assert_clean(guest, 'alpha')

    def test_the_source_cut_off_until_the_guest_has_moved(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.broker.cut('alpha')
        self.world.finish_job(guest)
        view = self.cloud.wait(moving, 'completed', timeout=30)
        self.assertEqual({('alpha', 'post_live_migration_at_source')}, {(d['host'], d['action']) for d in view['debts']})
        self.cloud.assert_clean(guest, 'beta')
        self.cloud.broker.mend('alpha')
        self.cloud.wait_debts(0)
        self.assertEqual([], self.world.leftovers(guest))
        self.cloud.assert_clean(guest, 'beta')

    def test_the_source_cut_off_for_long_while_it_copies(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.broker.cut('alpha')
        view = self.cloud.wait(moving, 'needs_operator')
        self.assertIn('unreachable', view['reason'])
        self.assertEqual(moving['id'], self.api.instance_show('slow')['locked_by'])
        self.cloud.broker.mend('alpha')
        self.cloud.wait(moving, 'running')
        self.world.finish_job(guest)
        self.cloud.wait(moving, 'completed')
        self.cloud.assert_clean(guest, 'beta')


class ConductorTest(CloudTestCase):

    def test_stopped_in_mid_migration(self):
        guest = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(guest)
        self.cloud.stop_conductor()
        self.world.finish_job(guest)
        self.cloud.add_conductor()
        self.cloud.wait(moving, 'completed')
        self.cloud.assert_clean(guest, 'beta')

    def test_killed_before_it_sends_what_it_stored(self):
        guest = self.cloud.create('web', 'alpha')
        for method in ('check_can_live_migrate_destination', 'live_migration', 'post_live_migration_at_source'):
            there = self.api.instance_show('web')['host']
            self.cloud.kill_before_sending(method)
            moving = self.api.live_migrate('web', 'beta' if there == 'alpha' else 'alpha')
            self.wait_for(lambda: not self.cloud.conductors, f'the conductor to die before it sends {method}')
            self.cloud.add_conductor()
            self.cloud.wait(moving, 'completed')
            self.cloud.assert_clean(guest, moving['destination_host'])

    def test_two_share_the_work_and_one_goes(self):
        self.cloud.add_conductor()
        guests = [self.cloud.create(f'web-{n}', 'alpha') for n in range(4)]
        moving = [self.api.live_migrate(guest, 'beta') for guest in guests]
        self.cloud.kill_conductor()
        for migration in moving:
            self.cloud.wait(migration, 'completed')
        for guest in guests:
            self.cloud.assert_clean(guest, 'beta')

    def test_no_conductor_while_the_agents_finish(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'pre_live_migration', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.cloud.wait(moving, 'preparing')
        self.cloud.kill_conductor()
        self.world.release()
        self.wait_for(lambda: self.world.history(guest, 'pre_live_migration'), 'the destination to be prepared')
        self.cloud.add_conductor()
        self.cloud.wait(moving, 'completed')
        self.cloud.assert_clean(guest, 'beta')


class DebtTest(CloudTestCase):

    options = HASTY

    def setUp(self):
        super().setUp()
        self.guest = self.cloud.create('web', 'alpha')

    def test_a_destination_that_dies_while_it_prepares(self):
        self.world.inject('beta', 'pre_live_migration', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.wait_for(lambda: self.cloud.agents['beta'].operations.running('pre_live_migration'), 'the step to begin')
        self.cloud.kill_agent('beta')
        view = self.cloud.wait(moving, 'failed', timeout=30)
        self.assertEqual([('beta', 'rollback_live_migration_at_destination')], [(d['host'], d['action']) for d in view['debts']])
        self.cloud.assert_clean(self.guest, 'alpha')        # the lock is released, the guest may be used
        self.cloud.wait(self.api.instance_stop('web', timeout=0), 'completed')
        before = self.cloud.dump()
        raised = self.assertRaises(exceptions.DebtOutstanding, self.api.instance_start, 'web')
        self.assertIn('rollback_live_migration_at_destination at beta', str(raised))
        self.assertEqual(before, self.cloud.dump())
        self.world.release()
        self.cloud.start_agent('beta')
        self.cloud.wait_debts(0)
        self.cloud.wait(self.api.instance_start('web'), 'completed')
        self.cloud.assert_clean(self.guest, 'alpha')

    def test_a_source_that_dies_after_the_switch_owes_its_cleanup(self):
        self.world.inject('alpha', 'post_live_migration_at_source', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.wait_for(lambda: self.cloud.agents['alpha'].operations.running('post_live_migration_at_source'), 'the step to begin')
        self.cloud.kill_agent('alpha')
        self.world.release()
        self.cloud.wait(moving, 'completed', timeout=30)
        self.assertEqual(['alpha'], [d.host for d in self.cloud.debts()])
        self.cloud.assert_clean(self.guest, 'beta')
        self.assertIn('alpha', ' '.join(self.world.leftovers(self.guest)))
        self.cloud.start_agent('alpha')
        self.cloud.wait_debts(0)
        self.assertEqual([], self.world.leftovers(self.guest))
        self.cloud.assert_clean(self.guest, 'beta')

    def owe(self):
        """Make a debt at a host that is away."""
        self.world.inject('beta', 'pre_live_migration', 'hang')
        moving = self.api.live_migrate('web', 'beta')
        self.wait_for(lambda: self.cloud.agents['beta'].operations.running('pre_live_migration'), 'the step to begin')
        self.cloud.kill_agent('beta')
        self.cloud.wait(moving, 'failed', timeout=30)
        self.cloud.wait_debts(1)

    def test_a_debt_that_fails_is_tried_again_under_a_new_operation(self):
        self.owe()
        self.world.release()
        self.world.inject('beta', 'rollback_live_migration_at_destination', 'fail', times=2)
        self.cloud.start_agent('beta')
        self.cloud.wait_debts(0)
        called = self.world.history(self.guest, 'rollback_live_migration_at_destination', 'beta')
        self.assertEqual(['DriverError', 'DriverError', 'ok'], [c.result for c in called])

    def test_the_catalogue_forgets_a_guest_whose_removal_was_owed(self):
        """Given a creation that failed on a host that went away, when the host is back, then what it made is removed, and its row."""
        self.world.inject('beta', 'start_instance', 'hang')
        guest = str(uuid.uuid4())
        made = self.api.instance_create('beta', {'uuid': guest, 'name': 'new', 'disks': [{'target': 'vda', 'size': 1 << 20}]})
        self.wait_for(lambda: self.cloud.agents['beta'].operations.running('start_instance'), 'the step to begin')
        self.cloud.kill_agent('beta')
        view = self.cloud.wait(made, 'failed', timeout=30)
        self.assertEqual({'stop_instance', 'delete_instance'}, {d['action'] for d in view['debts']})
        self.world.release()
        self.cloud.start_agent('beta')
        self.cloud.wait_debts(0)
        self.assertEqual(({}, []), (self.world.where(guest), self.world.files(guest)))
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_show, guest)

    def test_debts_of_one_migration_do_not_stand_in_each_others_way(self):
        """Given two cleanups that fail for long, the first of them tried more often by then, when they can be done, then both are paid."""
        self.world.inject('alpha', 'start_instance', 'fail-after')
        self.world.inject('alpha', 'stop_instance', 'fail', times=9)
        self.world.inject('alpha', 'delete_instance', 'fail', times=6)
        guest = str(uuid.uuid4())
        made = self.api.instance_create('alpha', {'uuid': guest, 'name': 'new', 'disks': [{'target': 'vda', 'size': 1 << 20}]})
        view = self.cloud.wait(made, 'failed', timeout=60)
        self.assertEqual({'stop_instance', 'delete_instance'}, {d['action'] for d in view['debts']})
        self.cloud.wait_debts(0, timeout=60)
        self.assertEqual(({}, []), (self.world.where(guest), self.world.files(guest)))

    def test_a_report_for_a_debt_that_is_not_there(self):
        moved = self.cloud.migrate('web', 'beta')
        before = self.cloud.dump()
        AgentToConductorAPI(self.cloud.conf('alpha'), self.cloud.transport).operation_finished(
            MigratorContext(overwrite=False), facts.Report(op_id=f'{uuid.uuid4()}/post_live_migration_at_source/1',
                                                           migration_id=moved['id'], host='alpha', state=OperationState.SUCCEEDED))
        self.assertEqual(before, self.cloud.dump())
