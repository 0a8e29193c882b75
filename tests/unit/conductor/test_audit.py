"""The audit: every kind of leftover is named, and what somebody answers for is not."""
import dataclasses
import time
import uuid
from unittest import mock

import sqlalchemy as sa
import testtools

from migrator import exceptions
from migrator.conductor import audit
from migrator.conductor.audit import Instance, Known, Lock, Owed
from migrator.conductor.db import debts, tables
from migrator.rpc import steps
from migrator.rpc.compute import ComputeAPI
from migrator.rpc.journal import Operation
from migrator.rpc.traces import Trace
from migrator.states import GuestState, OperationState
from tests.simulated import SHARED
from tests.unit.conductor.test_live_migration import CloudTestCase

GUEST, OTHER, MIGRATION = (f'cc31d982-c09c-495b-ae0a-73d37d82ef7{n}' for n in 'abc')
PRIVATE = {'alpha': frozenset({'disk-a', 'shared'}), 'beta': frozenset({'disk-b', 'shared'})}
AT_ALPHA = Known(instances={GUEST: Instance('web', 'alpha')}, storage=PRIVATE)
RUNS = Trace('domain', GUEST, 'web', 'running')

#: What is at alpha besides the guest, what is at beta, and the findings: (kind, host).
CELLS = {
    'nothing': ((), (), []),
    'its own files': ((Trace('file', GUEST, '/i/x', storage='disk-a', host='alpha'),), (), []),
    'its files on shared storage': ((), (Trace('file', GUEST, '/s/x', storage='shared', host='alpha'),), []),
    'a domain that is off elsewhere': ((), (Trace('domain', GUEST, 'web', 'off'),), [('leftover domain', 'beta')]),
    'a second copy': ((), (RUNS,), [('two copies running', 'alpha, beta')]),
    'a domain being received': ((), (Trace('domain', OTHER, 'db', 'incoming'),), [('leftover domain', 'beta')]),
    'a guest that is found next': ((), (Trace('domain', OTHER, 'db', 'running'),), []),
    'a file of an ended migration': ((), (Trace('file', GUEST, '/i/x', migration_id=MIGRATION, storage='disk-b'),), [('file', 'beta')]),
    'files where the guest is not': ((), (Trace('file', GUEST, '/i/x', storage='disk-b', host='beta'),), [('file', 'beta')]),
    'files of nobody': ((Trace('file', OTHER, '/i/y', storage='disk-a'),), (), [('file', 'alpha')]),
    'a marker with the wrong host': ((Trace('file', GUEST, '/s/x', storage='shared', host='beta'),), (), [('file', 'alpha')]),
    'a note': ((Trace('note', GUEST, '/n/x', migration_id=MIGRATION),), (), [('note', 'alpha')]),
    'a job': ((Trace('job', GUEST, 'web'),), (), [('job', 'alpha')]),
    'a temporary file of the guest': ((Trace('temporary', GUEST, '/i/x/tmp', storage='disk-a'),), (), [('temporary file', 'alpha')]),
    'a temporary note': ((), (Trace('temporary', OTHER, '/n/.migrator-tmp-x', migration_id=MIGRATION),), [('temporary file', 'beta')]),
    'an end that nobody heard of': ((Trace('report', '', f'{MIGRATION}/x/1', 'interrupted', MIGRATION),), (), [('report', 'alpha')]),
    'an export of nobody': ((), (Trace('export', OTHER, 'nbd/x'),), [('export', 'beta')]),
}


def named(known, at_alpha, at_beta, operations=()):
    """Compare, with the guest running at alpha; gives (kind, host) of each finding."""
    found = audit.compare(known, {'alpha': [RUNS, *at_alpha], 'beta': list(at_beta)}, {'beta': list(operations)})
    for finding in found:
        assert finding.resource and finding.what and finding.todo, finding
    return [(f.kind, f.host) for f in found]


class CompareTest(testtools.TestCase):

    def test_every_kind_is_named(self):
        for name, (at_alpha, at_beta, expected) in CELLS.items():
            self.assertEqual(expected, named(AT_ALPHA, at_alpha, at_beta), name)

    def test_what_a_workflow_is_at_work_on_is_no_finding(self):
        known = Known(instances=AT_ALPHA.instances, storage=PRIVATE, busy=frozenset({GUEST, OTHER}), live=frozenset({MIGRATION}))
        for name, (at_alpha, at_beta, _) in CELLS.items():
            self.assertEqual([], named(known, at_alpha, at_beta), name)

    def test_what_a_debt_names_is_no_finding_but_two_copies_are(self):
        owed = tuple(Owed('d', host, guest, MIGRATION, 'a', 'r', False) for host in ('alpha', 'beta') for guest in (GUEST, OTHER))
        known = Known(instances=AT_ALPHA.instances, storage=PRIVATE, debts=owed)
        for name, (at_alpha, at_beta, expected) in CELLS.items():
            self.assertEqual([e for e in expected if e[0] == 'two copies running'], named(known, at_alpha, at_beta), name)

    def test_a_debt_excuses_only_its_own_host(self):
        known = Known(instances=AT_ALPHA.instances, storage=PRIVATE, debts=(Owed('d', 'alpha', GUEST, MIGRATION, 'a', 'r', False),))
        self.assertEqual([('leftover domain', 'beta')], named(known, (), (Trace('domain', GUEST, 'web', 'off'),)))

    def test_a_debt_that_was_paid_meanwhile_excuses_what_was_seen_before(self):
        """Given a debt that is paid after its host has answered, then what it was about is no finding by the second reading either."""
        debt = Owed('debt', 'beta', GUEST, MIGRATION, 'a', 'r', False)
        before, after = (dataclasses.replace(AT_ALPHA, **change) for change in ({'debts': (debt,)}, {'settled': (debt,)}))
        seen = {'alpha': [RUNS], 'beta': [Trace('domain', GUEST, 'web', 'off')]}
        self.assertEqual((), audit.confirmed(before, after, lambda known: audit.compare(known, seen, {'beta': ['debt/a/1']})))
        self.assertEqual(['leftover domain', 'operation'],
                         [f.kind for f in audit.confirmed(AT_ALPHA, AT_ALPHA, lambda known: audit.compare(
                             known, seen, {'beta': ['debt/a/1']}))])

    def test_only_what_is_wrong_by_both_readings(self):
        """Given a guest that another host took over, or that was found, while the hosts were asked, then nothing is said of it."""
        moved = dataclasses.replace(AT_ALPHA, instances={GUEST: Instance('web', 'beta')})
        found = dataclasses.replace(AT_ALPHA, instances=AT_ALPHA.instances | {OTHER: Instance('db', 'beta')})
        for before, after, beta in ((AT_ALPHA, moved, []), (moved, AT_ALPHA, [RUNS]), (AT_ALPHA, found, [])):
            self.assertEqual((), audit.confirmed(before, after, lambda known, beta=beta: audit.compare(
                known, {'alpha': [] if beta else [RUNS], 'beta': beta}, {})))
        self.assertEqual(['guest missing'], [f.kind for f in audit.confirmed(found, found, lambda known: audit.compare(
            known, {'alpha': [RUNS], 'beta': []}, {}))])

    def test_counters_of_places(self):
        said = audit.compare(Known(places={'alpha': (1, 1), 'beta': (2, 1), 'gamma': (0, 1)}), {}, {})
        self.assertEqual([('places', 'beta'), ('places', 'gamma')], [(f.kind, f.host) for f in said])
        self.assertIn('2 places', said[0].what)
        self.assertIn('to 1', said[0].todo)

    def test_a_missing_guest_only_where_its_host_answered(self):
        self.assertEqual(['guest missing'], [f.kind for f in audit.compare(AT_ALPHA, {'alpha': []}, {})])
        self.assertEqual((), audit.compare(AT_ALPHA, {'beta': []}, {}))

    def test_operations_locks_and_refused_debts(self):
        known = Known(instances=AT_ALPHA.instances, live=frozenset({MIGRATION}), locks=(
            Lock('instance:1', MIGRATION, 'running', True), Lock('instance:2', OTHER, 'failed', False),
            Lock('instance:3', OTHER, '', False)),
            debts=(Owed('debt', 'beta', OTHER, OTHER, 'post', 'it runs', True), Owed('other', 'beta', OTHER, OTHER, 'post', 'x', False)))
        found = named(known, (), (), (f'{MIGRATION}/live_migration/1', 'debt/post/2', f'{GUEST}/live_migration/1'))
        self.assertEqual([('operation', 'beta'), ('lock', ''), ('lock', ''), ('debt refused', 'beta')], found)


class CloudTest(CloudTestCase):

    options = {'conductor__host_down_after': 1.0}

    def kinds(self, **arguments):
        return sorted((f['kind'], f['host']) for f in self.api.audit(**arguments)['findings'])

    def test_nothing_before_during_and_after_migrations(self):
        self.cloud.create('web', 'alpha')
        self.cloud.create('shared', 'alpha', shared=True)
        slow = self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait_job(slow)
        self.assertEqual([], self.kinds())
        self.world.finish_job(slow)
        self.cloud.wait(moving, 'completed')
        for name in ('web', 'shared'):
            self.cloud.migrate(name, 'beta')
        self.assertEqual({'findings': [], 'debts': [], 'not_audited': [], 'audited': ['alpha', 'beta'], 'left_off': 0}, self.api.audit())

    def test_each_leftover_that_is_planted_is_named(self):
        guest = self.cloud.create('web', 'alpha')
        self.world.add_file('beta', '/instances', guest, 'vda.qcow2', f'migration:{MIGRATION}')
        self.world.add_file('alpha', SHARED, str(uuid.uuid4()), 'vda.qcow2')
        self.world.add_guest('beta', uuid=guest, name='web', on=False)
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.insert(tables.resource_lock).values(resource='instance:x', migration_id=MIGRATION, mode='exclusive'))
        self.assertEqual([('file', 'alpha'), ('file', 'beta'), ('leftover domain', 'beta'), ('lock', '')], self.kinds())
        self.assertEqual([('file', 'beta'), ('file', 'beta'), ('leftover domain', 'beta')], self.kinds(host='beta'))
        self.world.set_state('beta', guest, GuestState.RUNNING)
        self.assertIn(('two copies running', 'alpha, beta'), self.kinds())
        self.assertRaises(exceptions.HostNotFound, self.api.audit, 'gamma')

    def test_places_that_leaked(self):
        """Given a host's counter of places that is higher than the migrations that hold one, it is named; a migration's own is not."""
        self.slow_guest()
        moving = self.api.live_migrate('slow', 'beta')
        self.cloud.wait(moving, 'running')
        self.assertEqual([], self.kinds())
        self.set_places('beta', 2)
        self.assertEqual([('places', 'beta')], self.kinds())
        self.assertEqual([], self.kinds(host='alpha'))
        self.set_places('beta', 1)
        self.assertEqual([], self.kinds())

    def set_places(self, host, number):
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.update(tables.service).where(tables.service.c.host == host).values(places=number))

    def test_a_temporary_file_and_an_end_that_nobody_heard_of(self):
        """Given a file that was being made when its agent died, and an operation whose end no conductor acknowledged, both are named."""
        guest = self.cloud.create('web', 'alpha')
        self.world.add_file('alpha', '/instances', guest, '.migrator-tmp-vda.qcow2')
        journal = self.cloud.agents['beta']._journal
        journal.begin(Operation(f'{MIGRATION}/pre_live_migration/1', MIGRATION, 1, 'pre_live_migration', 'x', 'y'))
        journal.finish(f'{MIGRATION}/pre_live_migration/1', OperationState.INTERRUPTED)
        self.assertEqual([('temporary file', 'alpha')], self.kinds())           # it may still be told
        with mock.patch.object(journal, '_clock', lambda: time.time() + steps.UNHEARD_SECONDS):
            self.assertEqual([('report', 'beta'), ('temporary file', 'alpha')], self.kinds())

    def test_a_debt_that_is_paid_while_the_hosts_are_asked(self):
        """Given a host that answers just before it pays a debt, then what the debt was about is no finding."""
        guest = self.cloud.create('web', 'alpha')
        self.world.add_file('beta', '/instances', guest, 'vda.qcow2', f'migration:{MIGRATION}')
        with self.cloud.database.engine.begin() as db:
            db.execute(sa.insert(tables.debt).values(
                id=OTHER, host='beta', instance_uuid=guest, migration_id=MIGRATION, action='post', arguments={}, next_wakeup=1 << 60,
                created_at=1))
        original = ComputeAPI.audit

        def answer_and_pay(compute, context, host, marker):
            part = original(compute, context, host, marker)
            if host == 'beta':
                self.cloud.database.run(lambda tx: debts.paid(tx, OTHER))
            return part
        with mock.patch.object(ComputeAPI, 'audit', answer_and_pay):
            self.assertEqual([], self.kinds())
        self.assertEqual([('file', 'beta')], self.kinds())

    def test_a_host_that_is_down_is_not_audited(self):
        self.cloud.kill_agent('beta')
        self.cloud.wait_down('beta')
        said = self.api.audit()
        self.assertEqual((['alpha'], ['beta']), (said['audited'], [h['host'] for h in said['not_audited']]))
