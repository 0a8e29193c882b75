"""The audit: every kind of leftover is named, and what somebody answers for is not."""
import uuid

import sqlalchemy as sa
import testtools

from migrator import exceptions
from migrator.conductor import audit
from migrator.conductor.audit import Instance, Known, Lock, Owed
from migrator.conductor.db import tables
from migrator.rpc.traces import Trace
from migrator.states import GuestState
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

    def test_a_host_that_is_down_is_not_audited(self):
        self.cloud.kill_agent('beta')
        self.cloud.wait_down('beta')
        said = self.api.audit()
        self.assertEqual((['alpha'], ['beta']), (said['audited'], [h['host'] for h in said['not_audited']]))
