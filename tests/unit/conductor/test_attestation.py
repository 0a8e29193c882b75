"""`migration recover`, and hosts that somebody attests to be off: what follows, who said it, and what happens when they come back."""
import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import GuestState, PauseReason
from tests.unit.conductor.test_live_migration import CloudTestCase

#: A silent host is waited for in vain soon.
HASTY = {'conductor__host_lost_after': 1.0, 'conductor__poll_interval': 0.5, 'conductor__host_down_after': 1.0}


class AttestationCase(CloudTestCase):

    options = HASTY

    def setUp(self):
        super().setUp()
        self.guest = self.slow_guest('web')

    def moving(self, silent, status='needs_operator'):
        """Given a migration in mid-copy of which one host has fallen silent, until it needs an operator."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.off(silent)
        return self.cloud.wait(migration, status)

    def off(self, host):
        """A host loses its power: its guests and its agent are gone."""
        self.world.host_crash(host)
        self.cloud.kill_agent(host)
        self.cloud.wait_down(host)

    def back(self, host, reboot=True):
        """A host comes back. reboot: with another boot id, as after a loss of power."""
        self.world.host_up(host)
        if reboot:
            with self.cloud.database.engine.begin() as db:      # what it was before; the test's hosts are all this machine
                for table in (tables.attestation, tables.service):
                    db.execute(sa.update(table).where(table.c.host == host).values(host_boot_id='an-earlier-boot'))
        self.cloud.start_agent(host)
        self.cloud.wait_up(host)

    def recovered(self, migration, host=None):
        """Have a migration looked at; gives it as it is once the hosts were asked."""
        asked = self.api.recover(migration['id'], host)

        def answered():
            view = self.api.show(migration['id'])
            return view if view['looked_at'] >= asked['updated_at'] else None
        return self.wait_for(answered, 'the hosts to be asked')

    def event(self, view, what):
        """The one entry of that kind in a timeline."""
        found = [e for e in view['events'] if e['what'] == what]
        self.assertEqual(1, len(found), view['events'])
        return found[0]


class SourceOffTest(AttestationCase):

    def test_who_said_it_is_recorded_with_what_was_known_of_the_host(self):
        view = self.moving('alpha')
        agent = self.api.host_show('alpha')
        view = self.api.recover(view['id'], 'alpha')
        entry = self.event(view, 'assert_dead')
        self.assertEqual('tester', entry['user'])
        self.assertIn(agent['process_id'], entry['reason'])
        [said] = view['attestations']
        self.assertEqual(('alpha', 'tester', agent['process_id'], agent['last_seen'], False),
                         (said['host'], said['user'], said['process_id'], said['last_seen'], said['heard_since']))
        self.assertTrue(said['host_boot_id'])

    def test_the_guest_went_down_with_it(self):
        """Given a source that is off in mid-copy, then the migration fails, the source owes its cleanup, and the destination is clean."""
        view = self.moving('alpha')
        self.api.recover(view['id'], 'alpha')
        view = self.cloud.wait(view, 'failed')
        self.assertIn('went down with its host', view['error'])
        self.assertEqual([('alpha', 'rollback_live_migration_at_source')], [(d['host'], d['action']) for d in view['debts']])
        guest = self.api.instance_show('web')
        self.assertEqual(('alpha', 'unknown', ''), (guest['host'], guest['state'], guest['locked_by']))
        self.assertEqual({'alpha': GuestState.OFF}, self.world.where(self.guest))
        self.assertEqual([], self.world.files(self.guest, 'beta'))
        self.assertEqual({'alpha': 0, 'beta': 0}, self.cloud.places())

    def test_it_comes_back_rebooted(self):
        view = self.moving('alpha')
        self.api.recover(view['id'], 'alpha')
        self.cloud.wait(view, 'failed')
        self.back('alpha')
        self.cloud.wait_debts(0)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'the guest to be known as stopped')
        self.cloud.wait(self.api.instance_start('web'), 'completed')
        self.cloud.assert_clean(self.guest, 'alpha')

    def test_an_abort_does_not_make_it_look_as_if_nothing_had_happened(self):
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.broker.cut('alpha')
        self.api.abort(migration['id'])
        self.world.host_crash('alpha')
        view = self.cloud.wait(migration, 'needs_operator')
        self.cloud.wait_down('alpha')
        self.api.recover(view['id'], 'alpha')
        self.assertIn('went down with its host', self.cloud.wait(view, 'failed')['error'])

    def test_silence_of_the_other_host_still_counts_as_silence(self):
        view = self.moving('alpha')
        self.off('beta')
        self.recovered(view, 'alpha')
        view = self.recovered(view)
        self.assertEqual('needs_operator', view['status'])
        self.assertEqual(view['id'], self.api.instance_show('web')['locked_by'])
        self.back('beta')
        self.cloud.wait(view, 'failed')

    def test_a_guest_paused_at_the_destination_by_the_hand_over_is_left_alone(self):
        """Given a source that is off and a destination that has the guest but never let it run, then nothing is removed or resumed."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.broker.cut('beta')
        self.off('alpha')
        self.world.add_guest('beta', uuid=self.guest, name='web', memory_mib=64)
        self.world.set_state('beta', self.guest, GuestState.PAUSED, PauseReason.MIGRATION)
        self.cloud.broker.mend('beta')
        view = self.cloud.wait(migration, 'needs_operator')
        self.recovered(view, 'alpha')
        view = self.recovered(view)
        self.assertEqual('needs_operator', view['status'])
        self.assertIn('cannot be told', view['reason'])
        self.assertEqual(GuestState.PAUSED, self.world.where(self.guest)['beta'])
        self.world.set_state('beta', self.guest, GuestState.RUNNING)       # the operator lets it run
        self.cloud.wait(view, 'completed')


class TakenBackTest(AttestationCase):

    options = {**HASTY, 'conductor__host_lost_after': 60.0}

    def test_a_source_that_answers_while_it_is_undone_is_not_said_to_be_gone(self):
        """Given a source that is attested to be off and is not, when it is heard while the migration is undone, then the error says so."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.broker.cut('alpha')
        self.world.fail_job(self.guest)
        self.cloud.wait_down('alpha')
        self.world.inject('beta', 'rollback_live_migration_at_destination', 'hang')
        self.api.recover(migration['id'], 'alpha')
        self.wait_for(lambda: self.cloud.agents['beta'].operations.running('rollback_live_migration_at_destination'), 'the undo to begin')
        self.cloud.broker.mend('alpha')
        self.cloud.wait_up('alpha')
        self.world.release()
        view = self.cloud.wait(migration, 'failed')
        self.assertIn('went down with its host', view['error'])
        self.assertIn('since then the host has answered', view['error'])
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'running', 'it to be known as running')
        self.cloud.assert_clean(self.guest, 'alpha')


class BothOffTest(AttestationCase):

    def lost(self, prepare=lambda: None):
        """Given a migration in mid-copy whose hosts both lose their power, when both are attested to be off; gives it when it has ended."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        prepare()
        for host in ('alpha', 'beta'):
            self.off(host)
        for host in ('beta', 'alpha'):
            self.api.recover(migration['id'], host)
        return self.cloud.wait(migration, 'failed')

    def arrive(self):
        """The guest arrives before the power goes, and no conductor hears of it."""
        self.cloud.broker.cut('alpha')
        self.cloud.broker.cut('beta')
        self.world.finish_job(self.guest)
        self.wait_for(lambda: self.world.where(self.guest).get('beta') == GuestState.RUNNING, 'the guest at beta')

    def refused(self, *hosts):
        self.wait_for(lambda: {d.host for d in self.cloud.debts() if d.refused} == set(hosts), f'refused at {hosts}')

    def test_it_ends_and_says_that_nobody_knows(self):
        view = self.lost()
        self.assertIn('both hosts are off', view['error'])
        self.assertEqual({('alpha', 'rollback_live_migration_at_source'), ('beta', 'rollback_live_migration_at_destination')},
                         {(d['host'], d['action']) for d in view['debts']})
        guest = self.api.instance_show('web')
        self.assertEqual(('alpha', 'unknown', '', 2), tuple(guest[k] for k in ('host', 'state', 'locked_by', 'debts')))
        self.assertEqual(({'alpha': 0, 'beta': 0}, {}), (self.cloud.places(), self.cloud.locks()))
        self.assertEqual({'alpha': GuestState.OFF}, self.world.where(self.guest))
        self.assertTrue(view['needs_attention'])
        self.assertEqual({'tester'}, {a['user'] for a in view['attestations']})

    def test_both_are_back_and_the_guest_never_left(self):
        self.lost()
        self.back('beta')
        self.back('alpha')
        self.cloud.wait_debts(0)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'it to be known as stopped')
        self.cloud.wait(self.api.instance_start('web'), 'completed')
        self.cloud.assert_clean(self.guest, 'alpha')

    def test_the_source_alone_is_back_and_waits_for_the_destination_s_word(self):
        """Given the source is back first, then nothing goes on there until the destination is, and the host is not kept from other work."""
        self.lost()
        self.back('alpha')
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'it to be known as stopped')
        self.cloud.create('db', 'alpha')            # sweeps have passed: a guest was made and started
        self.assertEqual([''], [d.tried_by for d in self.cloud.debts() if d.host == 'alpha'])
        self.assertRaises(exceptions.DebtOutstanding, self.api.instance_start, 'web')
        [there] = self.api.debts({'host': 'beta'})
        self.api.debt_write_off(there['id'], 'beta was scrapped')
        self.wait_for(lambda: not self.api.debts({'host': 'alpha'}), 'alpha to have paid')
        self.cloud.wait(self.api.instance_start('web'), 'completed')

    def test_neither_was_off_and_the_guest_runs_at_the_destination(self):
        """Given a source that the hand-over left paused, and a guest that runs at the destination, then nothing is resumed."""
        def prepare():
            self.arrive()
            self.world.add_guest('alpha', uuid=self.guest, name='web', disks=(), memory_mib=64)
            self.world.set_state('alpha', self.guest, GuestState.PAUSED, PauseReason.MIGRATION)
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        prepare()
        self.cloud.wait_down('alpha')
        self.cloud.wait_down('beta')
        for host in ('alpha', 'beta'):
            self.api.recover(migration['id'], host)
        self.cloud.wait(migration, 'failed')
        self.cloud.broker.mend('alpha')
        self.wait_for(lambda: self.api.host_show('alpha')['state'] == 'up', 'alpha to be heard of')
        self.cloud.create('db', 'alpha')
        self.cloud.broker.mend('beta')
        self.refused('beta')
        self.assertEqual({'alpha': GuestState.PAUSED, 'beta': GuestState.RUNNING}, self.world.where(self.guest))
        self.assertRaises(exceptions.DebtOutstanding, self.api.instance_stop, 'web')
        self.world.undefine('alpha', self.guest)
        self.wait_for(lambda: self.api.instance_show('web')['host'] == 'beta', 'it to be known at beta')
        self.assertEqual('running', self.api.instance_show('web')['state'])

    def test_it_had_arrived_and_went_down_there(self):
        """Given the only copy is at the destination, off, then nothing of it is removed, and the inventory and the debts say so."""
        self.lost(self.arrive)
        self.cloud.broker.mend('alpha')
        self.cloud.broker.mend('beta')
        self.back('alpha')
        self.back('beta')
        self.refused('beta')
        self.assertEqual({'beta': GuestState.OFF}, self.world.where(self.guest))
        self.assertNotEqual([], self.world.files(self.guest, 'beta'))
        self.assertRaises(exceptions.NotPossible, self.api.instance_start, 'web')       # alpha does not know it
        self.assertRaises(exceptions.DebtOutstanding, self.api.instance_stop, 'web')


class BothOffLaterTest(AttestationCase):

    options = {**HASTY, 'conductor__host_lost_after': 60.0}       # neither is given up by itself

    def test_in_another_step_there_is_a_way_on_already(self):
        """Given a guest that is proven at the destination, when both hosts are off, then the rest is owed, and it is completed."""
        self.world.inject('beta', 'post_live_migration_at_destination', 'hang')
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.world.finish_job(self.guest)
        self.wait_for(lambda: self.cloud.agents['beta'].operations.running('post_live_migration_at_destination'), 'the step to begin')
        for host in ('alpha', 'beta'):
            self.off(host)
        self.world.release()
        for host in ('alpha', 'beta'):
            self.api.recover(migration['id'], host)
        view = self.cloud.wait(migration, 'completed')
        self.assertEqual({'alpha', 'beta'}, {d['host'] for d in view['debts']})
        self.assertEqual('beta', self.api.instance_show('web')['host'])
        self.back('alpha')
        self.back('beta')
        self.cloud.wait_debts(0)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'it to be known as stopped')
        self.cloud.assert_clean(self.guest, 'beta', 'stopped')


class SourceOffAfterTheSwitchTest(AttestationCase):

    def arrived(self):
        """Given a source that falls silent as the guest arrives, paused by a user: so that it needs to be heard."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.broker.cut('alpha')
        self.world.finish_job(self.guest)
        self.wait_for(lambda: self.world.where(self.guest).get('beta') == GuestState.RUNNING, 'the guest at beta')
        self.world.set_state('beta', self.guest, GuestState.PAUSED, PauseReason.USER)
        view = self.cloud.wait(migration, 'needs_operator')
        self.cloud.wait_down('alpha')
        return view

    def test_the_location_is_committed_and_the_source_owes(self):
        view = self.arrived()
        self.api.recover(view['id'], 'alpha')
        view = self.cloud.wait(view, 'completed')
        self.assertEqual([('alpha', 'post_live_migration_at_source')], [(d['host'], d['action']) for d in view['debts']])
        self.assertEqual(('beta', 'paused'), tuple(self.api.instance_show('web')[k] for k in ('host', 'state')))
        self.cloud.broker.mend('alpha')
        self.cloud.wait_debts(0)
        self.assertEqual([], self.world.leftovers(self.guest))

    def test_a_second_copy_that_runs_is_never_destroyed(self):
        """Given a source that was not off and runs the guest, then its debt is refused for good, and nothing is done to the guest."""
        view = self.arrived()
        self.api.recover(view['id'], 'alpha')
        self.cloud.wait(view, 'completed')
        self.world.add_guest('alpha', uuid=self.guest, name='web', disks=(), memory_mib=64)
        self.cloud.broker.mend('alpha')
        [owed] = self.wait_for(lambda: [d for d in self.cloud.debts() if d.refused], 'the debt to be refused')
        self.assertIn('running at alpha', owed.reason)
        self.assertEqual(GuestState.RUNNING, self.world.where(self.guest)['alpha'])
        self.assertTrue(self.api.show(view['id'])['needs_attention'])
        self.assertRaises(exceptions.DebtOutstanding, self.api.instance_stop, 'web')
        for ask in (lambda: self.api.live_migrate('web', 'alpha'), lambda: self.api.instance_start('web')):
            # As soon as a heartbeat of alpha has told of the copy, that is said first.
            self.assertRaises((exceptions.DebtOutstanding, exceptions.SeenElsewhere), ask)


class DestinationOffTest(AttestationCase):

    options = {**HASTY, 'conductor__host_lost_after': 60.0}       # it is never given up by itself

    def test_the_guest_goes_on_at_the_source_and_the_destination_owes(self):
        self.world.inject('beta', 'pre_live_migration', 'hang')
        migration = self.api.live_migrate('web', 'beta')
        self.wait_for(lambda: self.cloud.agents['beta'].operations.running('pre_live_migration'), 'the step to begin')
        self.off('beta')
        self.world.release()
        self.api.recover(migration['id'], 'beta')
        view = self.cloud.wait(migration, 'failed')
        self.assertEqual([('beta', 'rollback_live_migration_at_destination')], [(d['host'], d['action']) for d in view['debts']])
        self.cloud.assert_clean(self.guest, 'alpha')
        self.back('beta')
        self.cloud.wait_debts(0)
        self.assertEqual([], self.world.leftovers(self.guest))

    def test_a_silence_is_counted_and_forgotten(self):
        """Given a source that does not answer, then it is told for how long and what follows; when it is back, neither."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.assertEqual(0, self.api.show(migration['id'])['silent_seconds'])
        self.cloud.broker.cut('alpha')
        self.wait_for(lambda: self.api.show(migration['id'])['silent_seconds'] >= 1, 'the silence to be counted')
        self.assertIn('it needs an operator after 60 s', self.api.show(migration['id'])['reason'])
        self.cloud.broker.mend('alpha')
        self.wait_for(lambda: not self.api.show(migration['id'])['silent_seconds'], 'the silence to be forgotten')
        self.world.finish_job(self.guest)
        self.assertEqual(0, self.cloud.wait(migration, 'completed')['silent_seconds'])
        self.cloud.assert_clean(self.guest, 'beta')

    def test_a_guest_that_may_have_run_there_is_not_resumed(self):
        """Given a source paused by the hand-over and a destination that is off, then the source is not resumed until it is known."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.broker.cut('alpha')
        self.world.fail_job(self.guest, leave_paused=True)
        self.off('beta')
        self.cloud.broker.mend('alpha')
        self.cloud.wait_up('alpha')
        self.wait_for(lambda: 'destination: unreachable' in self.recovered(migration)['reason'], 'both to be asked')
        self.recovered(migration, 'beta')
        view = self.cloud.wait(migration, 'needs_operator')
        self.assertIn('cannot be told', view['reason'])
        self.assertEqual({'alpha': GuestState.PAUSED}, self.world.where(self.guest))
        self.back('beta')           # it says that it does not have the guest
        self.cloud.wait(view, 'failed')
        self.cloud.assert_clean(self.guest, 'alpha')


class RefusalTest(AttestationCase):

    def test_recover_alone_looks_now_and_records_who_asked(self):
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        view = self.api.recover(migration['id'])
        self.assertEqual(('tester', 'running'), (self.event(view, 'recover')['user'], view['status']))
        self.world.finish_job(self.guest)
        self.cloud.wait(migration, 'completed')
        self.cloud.assert_clean(self.guest, 'beta')

    def test_it_answers_before_the_hosts_do(self):
        """Given a host that takes its time, the request is answered at once; what was asked is told apart from what was known before."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.restart_agent('alpha')
        self.wait_for(lambda: 'the migration job is at work' in self.api.show(migration['id'])['reason'], 'the job to be seen')
        before = self.recovered(migration)
        self.world.inject('alpha', 'locate', 'hang')
        asked = self.api.recover(migration['id'])
        self.assertLessEqual(before['looked_at'], asked['looked_at'])
        self.assertLess(asked['looked_at'], asked['updated_at'])
        self.world.release()
        self.wait_for(lambda: self.api.show(migration['id'])['looked_at'] >= asked['updated_at'], 'the answers')
        self.world.finish_job(self.guest)
        self.cloud.wait(migration, 'completed')
        self.cloud.assert_clean(self.guest, 'beta')

    def refused(self, kind, migration_id, host=None):
        before = self.cloud.dump('migration')       # its progress goes on by itself
        error = self.assertRaises(kind, self.api.recover, migration_id, host)
        self.assertEqual(before, self.cloud.dump('migration'))
        return str(error)

    def test_a_host_that_is_heard_of_is_not_off(self):
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.assertIn('beta is not off', self.refused(exceptions.HostUp, migration['id'], 'beta'))
        self.assertIn('does not concern gamma', self.refused(exceptions.NotPossible, migration['id'], 'gamma'))
        self.assertRaises(exceptions.InvalidRequest, self.api.recover, migration['id'], 'no host/')
        self.assertRaises(exceptions.MigrationNotFound, self.api.recover, self.guest)

    def test_a_migration_that_has_ended(self):
        migration = self.cloud.wait(self.api.list({'instance': 'web'})[0], 'completed')
        self.assertIn('has ended already', self.refused(exceptions.TooLate, migration['id']))

    def test_evidence_wins_over_the_attestation(self):
        """Given a source that was attested to be off and is heard of before anything is decided, then later it is silent, not off."""
        view = self.moving_cut()
        self.off('beta')                             # so that the attestation alone decides nothing
        self.api.recover(view['id'], 'alpha')
        self.world.host_down('alpha')                # its agent lives, and cannot tell where the guest is
        self.cloud.broker.mend('alpha')
        self.wait_for(lambda: self.api.show(view['id'])['attestations'][0]['heard_since'], 'alpha to be heard')
        self.cloud.broker.cut('alpha')
        self.world.host_up('alpha')
        self.cloud.wait_down('alpha')
        self.back('beta')
        view = self.recovered(view)
        self.assertEqual('needs_operator', view['status'])
        self.assertIn('source: unreachable', view['reason'])
        self.cloud.broker.mend('alpha')
        self.cloud.wait(view, 'failed')
        self.cloud.assert_clean(self.guest, 'alpha')

    def moving_cut(self):
        """Given a migration whose source does not answer, though it works."""
        migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.cloud.broker.cut('alpha')
        view = self.cloud.wait(migration, 'needs_operator')
        self.cloud.wait_down('alpha')
        return view
