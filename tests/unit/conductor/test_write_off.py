"""Debts of a host that never comes back: listed, given up with a record, and named by the audit should it come back after all."""
import uuid

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db import ledger, tables
from migrator.conductor.db.database import now_ms
from migrator.states import GuestState
from tests.unit.conductor.test_attestation import AttestationCase


class WriteOffCase(AttestationCase):
    """A guest that runs at beta; alpha was lost before it could clear what it had of it, and owes that."""

    def setUp(self):
        super().setUp()
        self.world.inject('alpha', 'post_live_migration_at_source', 'hang')
        self.migration = self.api.live_migrate('web', 'beta')
        self.cloud.wait_job(self.guest)
        self.world.finish_job(self.guest)
        self.wait_for(lambda: self.cloud.agents['alpha'].operations.running('post_live_migration_at_source'), 'the step to begin')
        self.off('alpha')
        self.world.release()                            # or it hangs when it pays, had it died before it came to the driver
        self.cloud.wait(self.migration, 'completed')
        [self.debt] = self.api.debts()


class WriteOffTest(WriteOffCase):

    def test_a_debt_is_listed_with_its_guest_and_host(self):
        self.assertEqual(('alpha', 'web', self.migration['id'], 'post_live_migration_at_source', 'open', ''),
                         tuple(self.debt[name] for name in ('host', 'instance_name', 'migration_id', 'action', 'state', 'written_off_at')))
        self.assertNotIn('post_live_migration', self.debt['reason'])
        self.assertEqual([self.debt], self.api.debts({'host': 'alpha'}))
        self.assertEqual([], self.api.debts({'host': 'beta'}))
        self.assertEqual([], self.api.debts(marker=self.debt['id']))

    def test_the_guest_is_free_and_the_record_stays(self):
        """Given a guest that may not be started while a debt names it, when that is written off, then it may."""
        self.cloud.wait(self.api.instance_stop('web', timeout=0), 'completed')
        self.assertRaises(exceptions.DebtOutstanding, self.api.instance_start, 'web')
        written = self.api.debt_write_off(self.debt['id'], 'alpha was scrapped')
        self.cloud.wait(self.api.instance_start('web'), 'completed')
        self.assertEqual(('written off', 'tester', 'alpha was scrapped'),
                         tuple(written[name] for name in ('state', 'written_off_by', 'written_off_why')))
        self.assertEqual([written], self.api.debts())
        view = self.api.show(self.migration['id'])
        entry = self.event(view, 'debt_written_off')
        self.assertEqual(('tester', [], False), (entry['user'], view['debts'], view['needs_attention']))
        self.assertIn('alpha was scrapped', entry['reason'])
        self.assertIn('post_live_migration_at_source at alpha', entry['reason'])

    def test_twice_is_once(self):
        first = self.api.debt_write_off(self.debt['id'], 'alpha was scrapped')
        self.assertEqual(first, self.api.debt_write_off(self.debt['id'], 'once more'))
        self.event(self.api.show(self.migration['id']), 'debt_written_off')

    def test_the_host_comes_back_after_all(self):
        """Given a debt that was written off, when its host is back, then nothing is done behind anybody's back, and the audit tells."""
        self.api.debt_write_off(self.debt['id'], 'alpha was scrapped')
        self.back('alpha')
        found = self.api.audit()
        self.assertEqual([], found['debts'])
        told = {f['kind'] for f in found['findings'] if 'written off by tester: alpha was scrapped' in f['what'] and f['host'] == 'alpha'}
        self.assertEqual({'file'}, told, found['findings'])
        self.assertNotEqual([], self.world.files(self.guest, 'alpha'))
        self.assertEqual({'beta': GuestState.RUNNING}, self.world.where(self.guest))

    def test_a_purge_keeps_it(self):
        self.api.debt_write_off(self.debt['id'], 'alpha was scrapped')
        self.cloud.database.run(lambda tx: ledger.purge(tx, 0))
        self.assertEqual(1, len(self.api.debts()))


class RefusedTest(WriteOffCase):

    def test_a_host_that_is_up_pays(self):
        self.back('alpha')
        self.assertRaises((exceptions.HostUp, exceptions.TooLate), self.api.debt_write_off, self.debt['id'], 'no patience')
        self.cloud.wait_debts(0)
        self.assertRaises(exceptions.TooLate, self.api.debt_write_off, self.debt['id'], 'no patience')
        self.cloud.assert_clean(self.guest, 'beta')

    def test_what_there_is_not_and_what_has_no_reason(self):
        self.assertRaises(exceptions.DebtNotFound, self.api.debt_write_off, str(uuid.uuid4()), 'scrapped')
        self.assertRaises(exceptions.InvalidRequest, self.api.debt_write_off, self.debt['id'], '')
        self.assertRaises(exceptions.InvalidRequest, self.api.debt_write_off, 'no-uuid', 'scrapped')
        self.assertEqual('', self.api.debts()[0]['written_off_at'])

    def test_a_refusal_for_good_may_be_written_off_though_the_host_is_up(self):
        """Given a host that is heard of and a debt that it refused, then somebody may answer for it; not for a guest's permanence."""
        def write(table, **values):
            self.cloud.database.run(lambda tx: tx.execute(sa.update(table).values(values)))
        write(tables.service, last_seen=now_ms())
        self.assertRaises(exceptions.HostUp, self.api.debt_write_off, self.debt['id'], 'installed anew')
        write(tables.debt, refused=True)
        self.assertEqual('tester', self.api.debt_write_off(self.debt['id'], 'installed anew')['written_off_by'])
        write(tables.debt, action='post_live_migration_at_destination', written_off_at=None)
        self.assertRaises(exceptions.NotPossible, self.api.debt_write_off, self.debt['id'], 'why not')
