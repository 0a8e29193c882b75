"""The audit of arrays: every kind of leftover is named, and what somebody answers for is not."""
import testtools

from migrator.conductor import audit_volumes
from migrator.conductor.audit import Known, Owed
from migrator.conductor.audit_volumes import Volume
from migrator.rpc.traces import Trace
from tests.simulated import wait_for
from tests.unit.conductor.test_volumes import MIB, VolumeCase

DATA, OTHER, MIGRATION, ATTACHMENT = (f'cc31d982-c09c-495b-ae0a-73d37d82ef7{n}' for n in 'abcd')
LUN = f'gold#p1/volume-{DATA}'
VOLUMES = {DATA: Volume('data', 'alpha', 'gold', 'p1', f'volume-{DATA}', True)}
AT_ALPHA = Known(volumes=VOLUMES, attachments=frozenset({ATTACHMENT}))
ITS_LUN = Trace('lun', '', LUN, 'ready', OTHER, 'alpha')

#: What is at alpha besides the volume's LUN, what is at beta, and the findings: (kind, host).
CELLS = {
    'nothing': ((), (), []),
    'its export for a guest': ((Trace('export', '', f'{LUN}:attachment-{ATTACHMENT}'),), (), []),
    'its export for a guest that has it no more': ((Trace('export', '', f'{LUN}:attachment-{OTHER}'),), (), [('export', 'alpha')]),
    'an export for a migration': ((Trace('export', '', f'{LUN}:migration-{MIGRATION}', '', MIGRATION),), (), [('export', 'alpha')]),
    'an export for nobody': ((Trace('export', '', f'{LUN}:backup'),), (), [('export', 'alpha')]),
    'its former LUN': ((), (Trace('lun', '', f'silver#p/volume-{DATA}', 'ready', OTHER),), [('leftover LUN', 'beta')]),
    'a LUN of a migration': ((), (Trace('lun', '', f'silver#p/volume-{DATA}-{MIGRATION[:8]}', 'ready', MIGRATION),),
                             [('leftover LUN', 'beta')]),
    'a LUN of a volume that is gone': ((Trace('lun', '', f'gold#p1/volume-{OTHER}', 'ready', MIGRATION),), (), [('LUN', 'alpha')]),
    'a LUN of somebody else': ((Trace('lun', '', 'gold#p1/backup'),), (), [('LUN', 'alpha')]),
    'an end that nobody heard of': ((Trace('report', '', f'{MIGRATION}/x/1', 'interrupted', MIGRATION),), (), [('report', 'alpha')]),
}


def named(known, at_alpha, at_beta=(), operations=(), lun=(ITS_LUN,)):
    """Compare; gives (kind, host) of each finding."""
    found = audit_volumes.compare(known, {'alpha': [*lun, *at_alpha], 'beta': list(at_beta)}, {'beta': list(operations)})
    for finding in found:
        assert finding.resource and finding.what and finding.todo, finding
    return [(f.kind, f.host) for f in found]


class CompareTest(testtools.TestCase):

    def test_every_kind_is_named(self):
        for name, (at_alpha, at_beta, expected) in CELLS.items():
            self.assertEqual(expected, named(AT_ALPHA, at_alpha, at_beta), name)

    def test_a_volume_whose_lun_is_gone(self):
        self.assertEqual([('volume missing', 'alpha')], named(AT_ALPHA, (), lun=()))
        self.assertEqual([], named(Known(volumes={DATA: Volume('d', 'alpha', 'gold', 'p1', 'x', False)}), (), lun=()), 'never made')
        self.assertEqual((), audit_volumes.compare(AT_ALPHA, {'beta': []}, {}), 'alpha was not heard')

    def test_what_a_workflow_is_at_work_on_is_no_finding(self):
        known = Known(volumes=VOLUMES, live=frozenset({MIGRATION, OTHER}), busy_volumes=frozenset({DATA}))
        for name, (at_alpha, at_beta, _) in CELLS.items():
            if name not in ('an export for nobody', 'a LUN of somebody else', 'a LUN of a volume that is gone'):
                self.assertEqual([], named(known, at_alpha, at_beta), name)
        self.assertEqual([], named(known, (), lun=()))

    def test_what_a_debt_names_is_no_finding_at_its_host(self):
        """Given a debt of beta's volume agent, then what it names there is none, and the same elsewhere is."""
        at_beta = CELLS['its former LUN'][1]
        for debt, expected in ((Owed('d', 'beta', '', MIGRATION, 'a', 'r', False, 'volume', DATA), []),
                               (Owed('d', 'alpha', '', MIGRATION, 'a', 'r', False, 'volume', DATA), [('leftover LUN', 'beta')]),
                               (Owed('d', 'beta', '', MIGRATION, 'a', 'r', False, 'compute', DATA), [('leftover LUN', 'beta')])):
            self.assertEqual(expected, named(Known(volumes=VOLUMES, debts=(debt,)), (), at_beta))

    def test_one_that_was_written_off_is_told_of(self):
        debt = Owed('d', 'beta', '', MIGRATION, 'delete_source_volume', 'written off by alice: sold', False, 'volume', DATA)
        found = audit_volumes.compare(Known(volumes=VOLUMES, written_off=(debt,)), {'beta': list(CELLS['its former LUN'][1])}, {})
        self.assertIn('written off by alice: sold', found[0].what)

    def test_an_operation_of_nobody(self):
        self.assertEqual([('operation', 'beta')], named(AT_ALPHA, (), operations=[f'{OTHER}/copy_volume/1']))


class CloudTest(VolumeCase):

    def named(self):
        """(kind, host) of what the audit finds; every agent answers."""
        said = self.api.audit()
        self.assertEqual(([], ['alpha', 'beta']), (said['not_audited'], said['audited']))
        return [(f['kind'], f['host']) for f in said['findings']]

    def driver(self, host, name):
        """The driver of a backend."""
        return self.cloud.volumes.agents[host].backends.get(name).driver()

    def test_nothing_is_found_while_and_after_volumes_are_used(self):
        """Given a volume that is attached, and one that was migrated, then nothing is found; nor while one is being moved."""
        self.cloud.create('web', 'beta')
        self.make()
        self.cloud.wait(self.api.volume_attach('data', 'web'), 'completed')
        self.make('log')
        self.world.inject('beta@silver', 'migrate_volume_target', 'hang')
        work = self.api.volume_migrate('log', 'beta@silver')
        wait_for(lambda: self.api.show(work['id'])['step'] == 'migrate_volume_target', 'the take-over begun')
        self.assertEqual([], self.named())
        self.world.release()
        self.cloud.wait(work, 'completed')
        self.assertEqual([], self.named())

    def test_what_was_planted_and_what_was_taken(self):
        """Given a LUN and an export that nobody answers for, and a volume whose LUN somebody removed, then all three are named."""
        self.make()
        gone = self.make('gone', pool='beta@silver#fast')
        self.driver('alpha', 'gold').create('slow', 'backup', MIB, '')
        self.driver('alpha', 'gold').export('slow', 'backup', 'mine', False)
        self.driver('beta', 'silver').delete('fast', gone['lun'])
        self.assertEqual({('LUN', 'alpha'), ('export', 'alpha'), ('volume missing', 'beta')}, set(self.named()))
        self.assertEqual({'beta'}, {f['host'] for f in self.api.audit('beta')['findings']})

    def test_an_array_that_does_not_answer_is_not_audited(self):
        self.make()
        self.world.kill('alpha@gold')
        said = self.api.audit()
        self.assertEqual(([], ['alpha']), (said['findings'], [entry['host'] for entry in said['not_audited']]))
        self.assertIn('its volume agent: ', said['not_audited'][0]['why'])
