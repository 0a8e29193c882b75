"""What a reviewer broke: ids used twice, agents that refuse for ever, hosts disabled meanwhile, guests that nobody knows at present."""
import dataclasses
import types
import uuid

import fixtures
import sqlalchemy as sa

from migrator import exceptions
from migrator.compute.drivers.fake.driver import FakeDriver
from migrator.conductor.db import tables
from migrator.conductor.db.database import now_ms
from migrator.conductor.requests import Requests
from migrator.rpc import context, facts
from migrator.rpc.conductor import AgentToConductorAPI
from migrator.states import OperationState
from tests import base
from tests.unit.conductor.test_live_migration import CloudTestCase


class RequestIdTest(CloudTestCase):

    def test_an_id_is_good_for_one_request(self):
        """Given an id that moved one guest, when it comes with another guest, host or wish, then it is refused and nothing happens."""
        self.cloud.create('web', 'alpha')
        other = self.cloud.create('db', 'alpha')
        self.cloud.wait(self.api.live_migrate('web', 'beta', request_id='req-1'), 'completed')
        for ask in (lambda: self.api.live_migrate('db', 'beta', request_id='req-1'),
                    lambda: self.api.live_migrate('web', 'alpha', request_id='req-1'),
                    lambda: self.api.instance_stop('web', request_id='req-1')):
            self.assertIn('req-1', str(self.assertRaises(exceptions.InvalidRequest, ask)))
        self.cloud.assert_clean(other, 'alpha')


class OddDiskTest(CloudTestCase):

    def test_a_path_that_no_plan_takes_is_refused_by_the_checks(self):
        """Given a found guest whose disk's path libvirt keeps as somebody wrote it, then it is refused in words, and nothing is held."""
        guest = self.cloud.create('web', 'alpha')
        answer = FakeDriver.check_can_live_migrate_source

        def odd(driver, wanted):
            told = answer(driver, wanted)
            return dataclasses.replace(told, disks=tuple(dataclasses.replace(d, path='/instances//web/vda.qcow2') for d in told.disks))
        self.useFixture(fixtures.MockPatchObject(FakeDriver, 'check_can_live_migrate_source', odd))
        said = self.api.live_migrate('web', 'beta', options={'dry_run': True})
        self.assertEqual((False, True), (said['possible'], '/instances//web' in str(said['reasons'])))
        self.assertIn('/instances//web', self.cloud.migrate('web', 'beta', 'failed')['error'])
        self.cloud.assert_clean(guest, 'alpha')


class RefusingAgentTest(CloudTestCase):

    options = {'conductor__host_lost_after': 1.0}

    def test_a_destination_that_takes_no_work_ends_the_migration(self):
        """Given an agent that answers but is stopping, then the migration is given up after host_lost_after, and its undo is a debt."""
        guest = self.cloud.create('web', 'alpha')
        self.cloud.agents['beta'].operations.drain()
        ended = self.cloud.migrate('web', 'beta', 'failed')
        self.assertEqual(['rollback_live_migration_at_destination'], [d['action'] for d in ended['debts']])
        self.assertEqual({}, self.cloud.locks())
        self.assertEqual('running', self.world.where(guest)['alpha'])


class DisabledMeanwhileTest(CloudTestCase):

    options = {'conductor__max_migrations_per_host': 1}

    def test_what_is_queued_is_not_sent_to_a_host_that_was_disabled(self):
        """Given a queued migration, when its destination is disabled, then it fails with that reason and nothing was begun."""
        guests = [self.cloud.create(f'web-{n}', 'alpha') for n in range(2)]
        self.world.inject('beta', 'pre_live_migration', 'hang', times=-1)
        moving = [self.api.live_migrate(guest, 'beta') for guest in guests]
        self.api.host_disable('beta', 'new disks')
        self.world.release()
        self.cloud.wait(moving[0], 'completed')
        self.assertIn('new disks', self.cloud.wait(moving[1], 'failed')['error'])
        self.cloud.assert_clean(guests[1], 'alpha')


class UnknownGuestTest(CloudTestCase):

    def test_a_guest_that_its_host_does_not_know_is_not_deleted(self):
        """Given a guest that its host does not list, then neither it nor its row may be deleted: it may run elsewhere."""
        guest = self.cloud.create('web', 'alpha', start=False)
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.update(tables.instance).values(state='unknown', host='nowhere'))
            db.execute(sa.insert(tables.service).values(
                host='nowhere', process_id='p', last_seen=now_ms() + 1000, facts={}, enabled=True, disabled_reason='', places=0))
        self.assertRaises(exceptions.NotPossible, self.api.instance_delete, guest)
        self.assertEqual('unknown', self.api.instance_show(guest)['state'])

    def test_no_guest_is_made_while_a_debt_names_its_uuid(self):
        """Given a debt of a guest that is gone, then a new one of its uuid is refused until the debt is paid."""
        known = str(uuid.uuid4())
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.insert(tables.debt).values(
                id=str(uuid.uuid4()), host='gone', instance_uuid=known, migration_id=str(uuid.uuid4()), action='delete_instance',
                arguments={}, reason='it was silent', attempt=1, next_wakeup=2 ** 50, created_at=1))
        error = self.assertRaises(exceptions.DebtOutstanding, self.api.instance_create, 'alpha',
                                  {'uuid': known, 'name': 'web', 'memory_mib': 64})
        self.assertIn('delete_instance at gone', str(error))


class ReportTest(CloudTestCase):

    def refused(self, error, report):
        """Assert that a report is refused and changes nothing."""
        agent = AgentToConductorAPI(self.cloud.conf('beta'), self.cloud._connect('stranger', self.cloud.conf('stranger')))
        before = self.cloud.dump()
        self.assertRaises(error, agent.operation_finished, context.MigratorContext(overwrite=False), report)
        self.assertEqual(before, self.cloud.dump())

    def test_a_report_of_a_host_that_was_not_asked_is_refused(self):
        """Given a running preparation at beta, when alpha reports its end, then that is refused and beta's own word counts."""
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'pre_live_migration', 'hang', times=-1)
        migration = self.cloud.wait(self.api.live_migrate('web', 'beta'), 'preparing')
        for host, step, error in (('alpha', 'pre_live_migration', exceptions.WrongHost), ('gamma', 'live_migration', exceptions.WrongHost),
                                  ('beta', 'start_instance', exceptions.InvalidRequest)):
            self.refused(error, facts.Report(op_id=f'{migration["id"]}/{step}/1', migration_id=migration['id'], host=host,
                                             state=OperationState.FAILED, error='so there'))
        self.world.release()
        self.cloud.wait(migration, 'completed')
        self.cloud.assert_clean(guest, 'beta')

    def test_a_debt_is_not_paid_by_another_host(self):
        """Given a cleanup that beta owes, when alpha reports it as done, then that is refused and beta still owes it."""
        debt, migration = str(uuid.uuid4()), str(uuid.uuid4())
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.insert(tables.debt).values(
                id=debt, host='beta', instance_uuid=str(uuid.uuid4()), migration_id=migration, action='delete_instance',
                arguments={}, reason='it was silent', attempt=1, next_wakeup=2 ** 50, created_at=1))
        self.refused(exceptions.WrongHost, facts.Report(op_id=f'{debt}/delete_instance/1', migration_id=migration, host='alpha',
                                                        state=OperationState.SUCCEEDED))
        self.assertEqual([debt], [d.id for d in self.cloud.debts()])

    def test_a_report_that_is_no_end_is_refused(self):
        """Given a running preparation, when a report says that it runs, then it is refused and the migration goes on."""
        guest = self.cloud.create('web', 'alpha')
        self.world.inject('beta', 'pre_live_migration', 'hang', times=-1)
        migration = self.cloud.wait(self.api.live_migrate('web', 'beta'), 'preparing')
        report = facts.Report(op_id=f'{migration["id"]}/pre_live_migration/1', migration_id=migration['id'], host='beta',
                              state=OperationState.RUNNING)
        self.refused(exceptions.InvalidRequest, report)
        self.world.release()
        self.cloud.wait(migration, 'completed')
        self.cloud.assert_clean(guest, 'beta')


class SeenElsewhereTest(CloudTestCase):

    def test_what_runs_elsewhere_is_not_started_moved_or_deleted(self):
        """Given a guest of alpha that beta says it runs, then all that could make a second copy or lose the good one is refused."""
        guest = self.cloud.create('web', 'alpha', start=False)
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.update(tables.instance).values(sighted_host='gamma', sighted_state='running'))
        self.assertEqual({'host': 'gamma', 'state': 'running'}, self.api.instance_show('web')['sighting'])
        for ask in (lambda: self.api.instance_start('web'), lambda: self.api.instance_delete('web'),
                    lambda: self.api.live_migrate('web', 'beta'), lambda: self.api.live_migrate('web', 'beta', options={'dry_run': True})):
            error = self.assertRaises(exceptions.SeenElsewhere, ask)
            self.assertIn('web is running on gamma, the catalogue has it stopped on alpha', str(error))
        self.assertEqual({}, self.cloud.locks())
        self.cloud.assert_clean(guest, 'alpha', 'stopped')


class SilenceTest(base.TestCase):

    def test_what_was_silent_while_nobody_listened_is_not_down(self):
        """Given a host last heard of long ago, then a conductor that has just begun to listen refuses nothing for it, and later does."""
        now = [100.0]
        requests = Requests(None, None, types.SimpleNamespace(host_down_after=6.0), lambda: now[0])
        alpha = types.SimpleNamespace(kind='compute', host='alpha', enabled=True, now=60_000, last_seen=50_000, rival_process_id='')
        rows = {'alpha': alpha}
        self.assertRaises(exceptions.HostDown, requests.usable, 'alpha', rows)
        requests.listening()
        requests.usable('alpha', rows)
        now[0] += 6.1
        self.assertRaises(exceptions.HostDown, requests.usable, 'alpha', rows)
