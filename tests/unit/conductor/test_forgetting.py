"""`instance forget`: the row of a guest that is nowhere goes, and no other; who did it is known, and a guest that is found is back."""
import uuid

import sqlalchemy as sa

from migrator import exceptions
from migrator.conductor.db import catalogue, ledger, tables
from migrator.conductor.db.database import now_ms
from migrator.states import GuestState
from tests.unit.conductor.test_attestation import HASTY
from tests.unit.conductor.test_live_migration import CloudTestCase


class ForgettingCase(CloudTestCase):
    """A guest that was created by migrator at alpha, and was removed there by hand."""

    options = HASTY

    def setUp(self):
        super().setUp()
        self.guest = self.cloud.create('web', 'alpha')

    def undefined(self, files=True):
        """The guest is removed by hand, and the catalogue has it as unknown."""
        self.world.undefine('alpha', self.guest, files)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'unknown', 'it to be unknown')

    def refused(self, kind, words, *arguments):
        before = self.cloud.dump()
        error = self.assertRaises(exceptions.MigratorError, self.api.instance_forget, *arguments)
        self.assertEqual(kind.__name__, error.kind, error)
        self.assertIn(words, str(error))
        self.assertEqual(before, self.cloud.dump())

    def last_event(self):
        return self.api.show(self.api.list({'instance': self.guest})[0]['id'])['events'][-1]

    def off(self, host):
        self.world.host_crash(host)
        self.cloud.kill_agent(host)
        self.cloud.wait_down(host)


class ForgottenTest(ForgettingCase):

    def test_a_guest_that_is_nowhere(self):
        self.undefined()
        said = self.api.instance_forget('web')
        self.assertEqual((self.guest, 'alpha', 'unknown', ['alpha', 'beta'], [], []),
                         tuple(said[k] for k in ('uuid', 'host', 'state', 'asked', 'attested', 'not_asked')))
        self.assertEqual([], self.api.instances())
        self.assertEqual({}, self.cloud.locks())
        event = self.last_event()
        self.assertEqual(('instance_forgotten', 'tester'), (event['what'], event['user']))
        self.assertIn('alpha', event['reason'])
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_forget, 'web')

    def test_one_that_no_workflow_ever_named(self):
        self.world.add_guest('beta', name='db', uuid=(guest := str(uuid.uuid4())))
        self.wait_for(lambda: len(self.api.instances()) == 2, 'it to be known')
        self.world.undefine('beta', guest)
        self.wait_for(lambda: self.api.instance_show('db')['state'] == 'unknown', 'it to be unknown')
        self.api.instance_forget(guest)
        self.assertEqual(['web'], [i['name'] for i in self.api.instances()])

    def test_one_that_is_found_again_is_back(self):
        self.undefined()
        self.api.instance_forget('web')
        self.world.add_guest('beta', uuid=self.guest, name='web')
        self.wait_for(self.api.instances, 'it to be known again')
        self.assertEqual(('beta', 'running'), tuple(self.api.instance_show('web')[k] for k in ('host', 'state')))

    def test_a_silent_host_that_is_attested_to_be_off(self):
        """Given the guest's host is gone, when that is attested, then the guest may be forgotten; if it was not true, it is back."""
        self.off('alpha')
        self.refused(exceptions.HostDown, 'alpha (last heard of at', 'web')
        said = self.api.instance_forget('web', ['alpha', 'alpha'])
        self.assertEqual((['beta'], ['alpha']), (said['asked'], said['attested']))
        self.assertIn('attested to be off: alpha', self.last_event()['reason'])
        self.world.host_up('alpha')
        self.cloud.start_agent('alpha')
        self.wait_for(self.api.instances, 'it to be known again')
        self.assertEqual('alpha', self.api.instance_show('web')['host'])

    def test_a_disabled_silent_host_is_left_out_and_named(self):
        self.undefined()
        self.off('beta')
        self.api.host_disable('beta', 'scrapped')
        said = self.api.instance_forget('web')
        self.assertEqual((['alpha'], ['beta']), (said['asked'], said['not_asked']))


class RefusedTest(ForgettingCase):

    def test_a_guest_that_is_there_in_whatever_state(self):
        self.refused(exceptions.NotPossible, 'alpha has it (web)', 'web')
        self.world.set_state('alpha', self.guest, GuestState.OFF)
        self.wait_for(lambda: self.api.instance_show('web')['state'] == 'stopped', 'it to be known as stopped')
        self.refused(exceptions.NotPossible, 'alpha has it (web)', 'web')

    def test_its_disks_are_left(self):
        self.undefined(files=False)
        self.refused(exceptions.NotPossible, 'alpha has files of it (/instances/', 'web')

    def test_it_is_off_at_a_host_where_nobody_looked_for_it(self):
        self.undefined()
        self.world.add_guest('beta', uuid=self.guest, name='renamed', on=False)
        self.refused(exceptions.NotPossible, 'beta has it (renamed)', 'web')

    def test_what_a_workflow_is_at_work_on(self):
        slow = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(slow)
        error = self.assertRaises(exceptions.ResourceLocked, self.api.instance_forget, 'slow')
        self.assertIn(moving['id'], str(error))
        self.assertEqual(moving['id'], self.api.instance_show('slow')['locked_by'])

    def test_what_a_cleanup_is_owed_for(self):
        self.undefined()
        made = self.api.list()[0]['id']
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.insert(tables.debt).values(
                id=str(uuid.uuid4()), host='beta', instance_uuid=self.guest, migration_id=made,
                action='delete_instance', arguments={}, next_wakeup=now_ms() + 60_000, created_at=1))
        self.refused(exceptions.DebtOutstanding, 'cleanup', 'web')

    def test_silence_of_any_host_that_is_in_use_and_of_the_guest_s_own_one(self):
        self.undefined()
        self.off('beta')
        self.refused(exceptions.HostDown, 'beta (last heard of at', 'web')
        self.off('alpha')
        self.api.host_disable('alpha', 'scrapped')
        self.refused(exceptions.HostDown, 'alpha (last heard of at', 'web', ['beta'])

    def test_a_host_that_is_up_and_cannot_tell(self):
        self.undefined()
        self.world.host_down('beta')
        self.refused(exceptions.NotPossible, 'not every host could be asked for instance web: beta: ', 'web')

    def test_a_host_that_is_heard_of_is_not_off(self):
        self.undefined()
        self.refused(exceptions.HostUp, 'beta is not off', 'web', ['beta'])
        self.refused(exceptions.HostNotFound, 'gamma', 'web', ['gamma'])
        self.refused(exceptions.InvalidRequest, 'no host/', 'web', ['no host/'])
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_forget, 'nobody')


class MeanwhileTest(ForgettingCase):
    """What happens between the hosts' answers and the removal."""

    def setUp(self):
        super().setUp()
        self.undefined()
        [conductor] = self.cloud.conductors.values()
        self.inspection = conductor.forgetting.inspection
        self.asked = self.inspection.ask

    def meanwhile(self, write):
        """Have something written after the last host has answered."""
        def ask(context, row):
            answer = self.asked(context, row)
            if row.host == 'beta':
                self.cloud.database.run(write)
            return answer
        self.inspection.ask = ask

    def test_a_host_tells_of_it(self):
        """Written where the removal reads, for the next heartbeat of beta, which does not have it, would take it back."""
        several = catalogue.several

        def told(tx, uuids):
            catalogue.update(tx, self.guest, sighted_host='beta', sighted_state='running')
            return several(tx, uuids)
        self.patch(catalogue, 'several', told)
        error = self.assertRaises(exceptions.NotPossible, self.api.instance_forget, 'web')
        self.assertIn('changed while the hosts were asked', str(error))
        self.patch(catalogue, 'several', several)
        self.assertEqual('unknown', self.api.instance_show('web')['state'])

    def test_work_on_it_begins(self):
        self.meanwhile(lambda tx: ledger.lock(tx, catalogue.resource(self.guest), 'somebody'))
        self.assertRaises(exceptions.ResourceLocked, self.api.instance_forget, 'web')
        self.assertEqual('somebody', self.api.instance_show('web')['locked_by'])

    def test_work_on_it_begins_at_the_same_moment(self):
        """Given a lock that the transaction cannot see yet, then the database decides, and the row stays."""
        several = catalogue.several

        def blind(tx, uuids):
            rows = several(tx, uuids)
            ledger.lock(tx, catalogue.resource(self.guest), 'somebody')
            return rows
        self.patch(catalogue, 'several', blind)
        self.assertRaises(exceptions.ResourceLocked, self.api.instance_forget, 'web')
        self.patch(catalogue, 'several', several)
        self.assertEqual('unknown', self.api.instance_show('web')['state'])

    def test_an_attested_host_is_heard_of(self):
        self.off('alpha')
        self.meanwhile(lambda tx: tx.execute(
            sa.update(tables.service).where(tables.service.c.host == 'alpha').values(last_seen=now_ms())))
        self.assertRaises(exceptions.HostUp, self.api.instance_forget, 'web', ['alpha'])
        self.assertEqual('unknown', self.api.instance_show('web')['state'])

    def test_somebody_else_forgot_it(self):
        self.meanwhile(lambda tx: catalogue.delete(tx, self.guest))
        self.assertRaises(exceptions.InstanceNotFound, self.api.instance_forget, 'web')
