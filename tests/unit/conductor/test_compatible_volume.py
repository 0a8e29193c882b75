"""May this volume move? Each reason against it, from what both arrays say."""
import dataclasses

from migrator.conductor.compatible_volume import reasons
from migrator.conductor.volume_agents import new_plan, target_of
from migrator.rpc import volume_facts as vf
from migrator.states import LunState
from tests import base

MIB = 1 << 20
MIGRATION, VOLUME = 'c0ffee00-0000-4000-8000-000000000001', 'c0ffee00-0000-4000-8000-000000000002'


class Row:
    """A volume's row, as far as it matters."""

    id, host, backend, pool, lun, size = VOLUME, 'one', 'a', 'fast', f'volume-{VOLUME}', 16 * MIB


PLAN = new_plan(MIGRATION, Row, 'two', 'b', 'slow', {})
LUN = vf.Lun('fast', Row.lun, LunState.READY, Row.size)
SOURCE = vf.VolumeSourceFacts('fake', array_id='east', lun=LUN)
TARGET = vf.VolumeTargetFacts('fake', types=('gold',), array_id='west', pool=vf.Pool('slow', 64 * MIB, 32 * MIB))


def lun(**changes):
    """What the source says if its LUN is otherwise."""
    return {'source': dataclasses.replace(SOURCE, lun=dataclasses.replace(LUN, **changes))}


def target(**changes):
    """What the target says if it is otherwise."""
    return {'target': dataclasses.replace(TARGET, **changes)}


class ReasonsTest(base.TestCase):

    def against(self, source=SOURCE, target=TARGET, plan=PLAN, **options):
        return reasons(source, target, plan, options)

    def test_nothing_is_against_it(self):
        self.assertEqual((), self.against())
        self.assertEqual((), self.against(new_type='gold'))

    def test_its_own_export_is_no_reason(self):
        """For the checks are repeated, and an earlier conductor may have come further."""
        self.assertEqual((), self.against(**lun(exports=(vf.Export(PLAN.export, True, 1),))))

    def test_each_reason_is_told_in_words(self):
        for words, changes in (
                ('does not answer: no power', {'source': vf.VolumeSourceFacts(offline='no power')}),
                ('has no LUN', {'source': vf.VolumeSourceFacts('fake')}),
                ('has no LUN', lun(state=LunState.ABSENT)),
                ('still being fetched', lun(state=LunState.MIRRORING)),
                ('is not whole', lun(state=LunState.MAKING)),
                ('2 snapshots', lun(snapshots=2)),
                ('exported as attachment-1', lun(exports=(vf.Export('attachment-1', True),))),
                ('only 16777216 were to be moved', lun(size=32 * MIB)),
                ('two@b does not answer: fire', target(offline='fire')),
                ('has no pool slow', target(pool=None)),
                ('1048576 bytes free, the volume needs 16777216', target(pool=vf.Pool('slow', 64 * MIB, MIB))),
                ('cannot be made at two@b: a LUN of somebody', target(occupied='a LUN of somebody')),
                ('does not serve volumes of the type silk', {'new_type': 'silk'})):
            self.assertIn(words, '; '.join(self.against(**changes)))

    def test_all_reasons_at_once(self):
        self.assertEqual(3, len(self.against(**lun(snapshots=1), **target(occupied='x'), new_type='silk')))

    def test_a_source_that_wants_tls(self):
        """Given exports that want TLS, then the target must have certificates; whether it has is not known of one that does not answer."""
        source = dataclasses.replace(SOURCE, tls=True)
        said, = self.against(source=source)
        self.assertIn('the exports of one@a#fast want TLS, and the agent of two@b has no tls_credentials', said)
        self.assertEqual((), self.against(source=source, **target(tls=True)))
        self.assertEqual((), self.against(**target(tls=True)))
        self.assertEqual(1, len(self.against(source=source, **target(offline='fire'))))

    def test_one_pool_of_one_array_by_two_names(self):
        """Given two agents that serve the same array, then moving within a pool is refused, and between its pools it is not."""
        same = dataclasses.replace(SOURCE, array_id='west')
        self.assertEqual((), self.against(source=same))
        within = new_plan(MIGRATION, Row, 'two', 'b', 'fast', {})
        self.assertIn('the same pool of one array', self.against(source=same, plan=within)[0])


class PlanTest(base.TestCase):

    def test_the_name_of_the_lun_follows_from_volume_and_migration(self):
        self.assertEqual(vf.LunRef('two', 'b', 'slow', f'volume-{VOLUME}-c0ffee00'), target_of(PLAN))
        self.assertEqual(PLAN, new_plan(MIGRATION, Row, 'two', 'b', 'slow', {}))

    def test_another_type_is_had_by_a_copy_alone(self):
        self.assertTrue(new_plan(MIGRATION, Row, 'two', 'b', 'slow', {'new_type': 'gold'}).force_host_copy)
        asked = new_plan(MIGRATION, Row, 'two', 'b', 'slow', {'force_host_copy': True, 'verification': 'full', 'bandwidth': MIB})
        self.assertEqual((True, 'full', MIB), (asked.force_host_copy, asked.verification, asked.bandwidth))
