"""Where is the volume? The table written out once more, and every pair of answers compared with it."""
import itertools

from migrator.conductor import locate_volume
from migrator.conductor.locate import Verdict
from migrator.conductor.locate_volume import Answer, Said
from migrator.rpc import volume_facts
from migrator.states import LunState
from tests import base

#: S at_source, D at_destination, . silent, ? unresolved. Columns: what the destination says; + is: it is in use.
TABLE = """
            absent partial mirrored complete unreachable dead partial+ mirrored+ complete+
absent      ?      ?       ?        D        .           ?    ?        ?         D
partial     ?      ?       ?        ?        ?           ?    ?        ?         ?
mirrored    ?      ?       ?        ?        ?           ?    ?        ?         ?
complete    S      S       S        S        S           S    ?        ?         ?
unreachable .      .       .        .        .           .    ?        ?         ?
dead        S      S       S        ?        .           ?    ?        ?         ?
"""
WORDS = {'S': Verdict.AT_SOURCE, 'D': Verdict.AT_DESTINATION, '.': Verdict.SILENT, '?': Verdict.UNRESOLVED}
EXPORT, OWN = 'migration-1', ('migration-1', 'copy-1')


def cells():
    """Give (source, destination, verdict) of each cell."""
    head, *rows = TABLE.strip('\n').splitlines()
    for row in rows:
        source, *words = row.split()
        for column, word in zip(head.split(), words, strict=True):
            yield Said(source), Answer(Said(column.rstrip('+')), column.endswith('+')), WORDS[word]


class TableTest(base.TestCase):

    def test_every_pair_of_answers(self):
        """Whether the source is in use makes no difference: nobody but the target may have been told too early."""
        wrong = [(s.value, locate_volume.describe(d), used, expected) for s, d, expected in cells() for used in (False, True)
                 if locate_volume.find(Answer(s, used), d).verdict is not expected]
        self.assertEqual([], wrong)
        self.assertEqual(len(Said) * (len(Said) + 3), len(list(cells())))

    def test_what_is_at_work_is_waited_for(self):
        for source, destination in itertools.product(Said, Said):
            for here, there in ((True, False), (False, True), (True, True)):
                found = locate_volume.find(Answer(source, job_active=here), Answer(destination, job_active=there))
                self.assertIs(Verdict.IN_PROGRESS, found.verdict, (source, destination))

    def test_the_reason_has_both_answers(self):
        found = locate_volume.find(Answer(Said.COMPLETE), Answer(Said.MIRRORED, in_use=True))
        self.assertIn('(source: complete; destination: mirrored, in use)', found.reason)

    def test_it_moves_only_where_the_source_has_let_go_and_the_target_has_all(self):
        """The one verdict from which the source may be removed."""
        ways = [(s, d.state) for s, d, verdict in cells() if verdict is Verdict.AT_DESTINATION]
        self.assertEqual({(Said.ABSENT, Said.COMPLETE)}, set(ways))


class ReadTest(base.TestCase):

    def lun(self, state, *exports):
        return volume_facts.Lun('p', 'v', state, exports=tuple(volume_facts.Export(name, True) for name in exports), locator={'lun': 'v'})

    def test_the_words_of_an_array(self):
        for state, said in ((LunState.ABSENT, Said.ABSENT), (LunState.MAKING, Said.PARTIAL), (LunState.MIRRORING, Said.MIRRORED),
                            (LunState.READY, Said.COMPLETE)):
            answer = locate_volume.read(volume_facts.VolumeLocation(self.lun(state), True), OWN)
            self.assertEqual((said, False, True, {'lun': 'v'}), (answer.state, answer.in_use, answer.job_active, answer.locator))
        self.assertEqual(set(LunState), set(locate_volume.SAID))

    def test_the_migrations_own_export_is_nobody_elses(self):
        for exports, used in (((EXPORT,), False), (OWN, False), ((EXPORT, 'attachment-2'), True), (('attachment-2',), True)):
            location = volume_facts.VolumeLocation(self.lun(LunState.READY, *exports))
            self.assertIs(used, locate_volume.read(location, OWN).in_use)

    def test_nobody_answered(self):
        self.assertEqual(locate_volume.UNREACHABLE, locate_volume.read(volume_facts.VolumeLocation(), OWN))
