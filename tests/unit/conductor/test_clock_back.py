"""The database's clock is set back: what was due is done all the same, and what is silent does not look alive."""
import dataclasses

import sqlalchemy as sa
import testtools

from migrator import exceptions
from migrator.conductor import stimulus
from migrator.conductor.cursor import SLACK, Cursor, Kind, Phase, Policy, anchored
from migrator.conductor.db import ledger, tables, views
from migrator.conductor.decide import next_action
from migrator.conductor.workflows.live_migration import LIVE_MIGRATION
from migrator.states import Status
from tests.unit.conductor.test_attestation import AttestationCase

HOUR = 3_600_000
TIMES = ('next_wakeup', 'created_at', 'updated_at', 'finished_at', 'looked_at', 'last_seen', 'at', 'void_at', 'paid_at', 'written_off_at',
         'silent_since', 'deadline')


class AnchoredTest(testtools.TestCase):

    policy = Policy(completion=600.0, lost_after=60.0)
    cursor = Cursor(status=Status.RUNNING, phase=Phase.OPERATION, step='live_migration', begun=('pre_live_migration', 'live_migration'))

    def test_times_that_may_be_are_left_alone(self):
        for now in (HOUR, 2 * HOUR):
            cursor = dataclasses.replace(self.cursor, silent_since=HOUR, deadline=now + 600_000)
            self.assertEqual(cursor, anchored(cursor, now, self.policy))
        self.assertEqual(self.cursor, anchored(self.cursor, 1, self.policy))

    def test_a_time_limit_ends_no_later_than_if_it_began_now(self):
        cursor = dataclasses.replace(self.cursor, deadline=HOUR)
        self.assertEqual(600_001, anchored(cursor, 1, self.policy).deadline)

    def test_a_silence_that_began_before_the_step_ends_in_time(self):
        """Given a silence since an hour ahead, when the clock has come as far as a silence may last, then the host is lost."""
        cursor = dataclasses.replace(self.cursor, silent_since=HOUR)
        first = next_action(LIVE_MIGRATION, cursor, stimulus.Silent('alpha'), 1000, self.policy)
        self.assertEqual((Kind.WAIT, 1000), (first.kind, first.cursor.silent_since))
        later = next_action(LIVE_MIGRATION, first.cursor, stimulus.Silent('alpha'), 61_000, self.policy)
        self.assertIs(Kind.OBSERVE, later.kind)

    def test_nothing_waits_for_longer_than_the_horizon(self):
        policy = Policy(claim=5, poll=30, retry=2, observe=10)
        self.assertEqual(40 + SLACK, policy.horizon)

    def test_heard_of_lately_is_neither_long_ago_nor_far_ahead(self):
        self.assertEqual([False, True, True, False], [views.lately(HOUR, HOUR + ahead, 10) for ahead in (-10_000, -9999, 9999, 10_000)])


class SetBackCase(AttestationCase):

    def set_back(self, milliseconds=HOUR):
        """Set the database's clock back: whatever it has written down lies by so much further ahead of it."""
        with self.cloud.database.engine.begin() as db:
            for table in tables.metadata.sorted_tables:
                for column in (table.c[name] for name in TIMES if name in table.c):
                    db.execute(sa.update(table).where(column > 0).values({column.name: column + milliseconds}))


class SetBackTest(SetBackCase):

    def test_a_migration_goes_on_whose_conductor_waits_for_its_time(self):
        """Given a report that is lost, so that only the clock brings the migration on, when it is set back, then it is on time."""
        guest = self.cloud.create('db', 'alpha')
        self.cloud.lose_reports('beta')
        migration = self.api.live_migrate('db', 'beta')
        self.cloud.wait_call('pre_live_migration')
        self.set_back()
        self.cloud.wait(migration, 'completed')
        self.cloud.assert_clean(guest, 'beta')

    def test_a_debt_is_paid(self):
        view = self.moving('alpha')
        self.api.recover(view['id'], 'alpha')
        self.cloud.wait(view, 'failed')
        self.set_back()
        self.back('alpha')
        self.cloud.wait_debts(0)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'the guest to be known as stopped')

    def test_a_host_that_is_silent_does_not_look_alive(self):
        view = self.moving('alpha')
        self.set_back()
        self.assertEqual('down', self.api.host_show('alpha')['state'])
        self.wait_for(lambda: self.api.host_show('beta')['state'] == 'up', 'beta to be heard of')
        self.api.recover(view['id'], 'alpha')
        self.cloud.wait(view, 'failed')

    def test_an_attestation_holds_until_the_host_is_heard_of(self):
        view = self.moving('alpha')
        self.off('beta')            # so that nothing follows from it yet
        self.api.recover(view['id'], 'alpha')
        self.set_back()

        def dead():
            return self.cloud.database.run(lambda tx: ledger.load(tx, view['id'])).source.dead
        self.assertTrue(dead())
        self.back('alpha')
        self.assertFalse(dead())

    def test_heartbeats_count_though_work_on_the_guest_ended_ahead(self):
        self.set_back()
        self.world.power_off(self.guest)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'the guest to be known as stopped')


class QueueTest(SetBackCase):

    def test_a_request_is_taken_as_soon_as_its_hosts_are_heard_of(self):
        guest = self.cloud.create('db', 'alpha')
        self.set_back()

        def taken():
            try:
                return self.api.live_migrate('db', 'beta')
            except exceptions.HostDown:
                return None
        self.cloud.wait(self.wait_for(taken, 'the hosts to be heard of'), 'completed')
        self.cloud.assert_clean(guest, 'beta')
