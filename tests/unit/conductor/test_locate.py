"""Where is the guest? Every pair of answers that two hosts can give, and what no table may ever say."""
import itertools

import testtools

from migrator.conductor import locate
from migrator.conductor.locate import Verdict
from migrator.rpc.facts import Location
from migrator.states import GuestState, PauseReason

#: What a host may answer. `+j`: a migration job is active. off*: defined there for good.
ANSWERS = {
    'run': Location(GuestState.RUNNING), 'run+j': Location(GuestState.RUNNING, job_active=True),
    'run/post': Location(GuestState.RUNNING, PauseReason.POST_COPY, job_active=True),
    'user': Location(GuestState.PAUSED, PauseReason.USER), 'user+j': Location(GuestState.PAUSED, PauseReason.USER, job_active=True),
    'io': Location(GuestState.PAUSED, PauseReason.IO_ERROR), 'io+j': Location(GuestState.PAUSED, PauseReason.IO_ERROR, job_active=True),
    'other': Location(GuestState.PAUSED, PauseReason.OTHER),
    'hand': Location(GuestState.PAUSED, PauseReason.MIGRATION),
    'hand+j': Location(GuestState.PAUSED, PauseReason.MIGRATION, job_active=True),
    'post+j': Location(GuestState.PAUSED, PauseReason.POST_COPY, job_active=True),
    'pfail': Location(GuestState.PAUSED, PauseReason.POST_COPY_FAILED),
    'in': Location(GuestState.INCOMING), 'in+j': Location(GuestState.INCOMING, job_active=True),
    'off': Location(GuestState.OFF), 'off*': Location(GuestState.OFF, persistent=True),
    'absent': Location(GuestState.ABSENT),
    '???': Location(GuestState.UNREACHABLE), 'dead': Location(GuestState.DEAD)}

LETTERS = {'S': Verdict.AT_SOURCE, 'O': Verdict.OFF_AT_SOURCE, 'D': Verdict.AT_DESTINATION, 'P': Verdict.POST_COPY,
           'G': Verdict.GONE_WITH_SOURCE, 'w': Verdict.IN_PROGRESS, '?': Verdict.SILENT, 'X': Verdict.UNRESOLVED}

#: Rows: what the source says. Columns: what the destination says.
TABLE = """
          run   run+j run/post pfail user  io    other hand  in    in+j  off   off*  absent ??? dead
run       X     X     P        X     X     X     X     S     S     S     S     S     S      S      S
run+j     w     w     P        X     w     w     w     w     w     w     w     w     w      w      w
user      X     X     P        X     X     X     X     S     S     S     X     X     S      ?      S
user+j    w     w     P        X     w     w     w     w     w     w     w     w     w      w      w
io        X     X     P        X     X     X     X     S     S     S     X     X     S      ?      S
io+j      w     w     P        X     w     w     w     w     w     w     w     w     w      w      w
other     X     X     P        X     X     X     X     S     S     S     X     X     S      ?      S
hand      D     D     P        X     D     D     D     S     S     S     X     X     S      ?      X
hand+j    w     w     P        X     w     w     w     w     w     w     w     w     w      w      w
post+j    P     P     P        X     P     P     P     P     P     P     P     P     P      P      X
pfail     X     X     X        X     X     X     X     X     X     X     X     X     X      X      X
off       D     D     P        X     D     D     D     X     O     O     X     X     O      ?      X
off*      D     D     P        X     D     D     D     X     O     O     X     X     O      ?      X
absent    D     D     P        X     D     D     D     X     X     X     X     D     X      ?      X
???       D     D     P        X     ?     ?     ?     ?     ?     ?     ?     ?     ?      ?      ?
in        D     D     P        X     D     D     D     X     X     X     X     X     X      ?      X
dead      D     D     X        X     D     D     D     X     G     G     X     X     G      ?      X
"""


def cells():
    """Read the table: (source, destination, verdict) for each cell."""
    head, *rows = TABLE.strip('\n').splitlines()
    columns = head.split()
    for row in rows:
        name, *letters = row.split()
        yield from ((name, column, LETTERS[letter]) for column, letter in zip(columns, letters, strict=True))


class TableTest(testtools.TestCase):

    def test_every_cell(self):
        wrong = []
        for source, destination, expected in cells():
            found = locate.find(ANSWERS[source], ANSWERS[destination])
            if found.verdict is not expected:
                wrong.append(f'source {source}, destination {destination}: {found.verdict}, expected {expected}')
        self.assertEqual([], wrong)

    def test_the_table_is_whole(self):
        self.assertEqual(17 * 15, len(list(cells())))

    def test_every_reason_shows_both_answers(self):
        for source, destination, _ in cells():
            reason = locate.find(ANSWERS[source], ANSWERS[destination]).reason
            self.assertIn(f'source: {locate.describe(ANSWERS[source])}', reason)
            self.assertIn(f'destination: {locate.describe(ANSWERS[destination])}', reason)

    def test_an_answer_in_words(self):
        self.assertEqual('paused (migration), job active', locate.describe(ANSWERS['hand+j']))
        self.assertEqual('absent', locate.describe(ANSWERS['absent']))


class PropertiesTest(testtools.TestCase):
    """What must hold for any two answers whatever, also those that no hypervisor is known to give."""

    def setUp(self):
        super().setUp()
        answers = [Location(state, reason, job, persistent) for state, reason, job, persistent in
                   itertools.product(GuestState, PauseReason, (False, True), (False, True))]
        self.pairs = [(s, d, locate.find(s, d).verdict) for s, d in itertools.product(answers, answers)]

    def only(self, *verdicts):
        found = [(s, d) for s, d, verdict in self.pairs if verdict in verdicts]
        self.assertNotEqual([], found)
        return found

    def test_nothing_is_undone_while_the_destination_runs_it(self):
        for source, destination in self.only(Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE):
            self.assertNotEqual(GuestState.RUNNING, destination.state, (source, destination))

    def test_nothing_is_undone_where_the_guest_may_have_lived_at_the_destination(self):
        for source, destination in self.only(Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE):
            lived = destination.state is GuestState.PAUSED and destination.reason is not PauseReason.MIGRATION
            self.assertFalse(lived, (source, destination))

    def test_at_the_destination_only_by_proof_of_life_there(self):
        for source, destination in self.only(Verdict.AT_DESTINATION):
            alive = destination.state in (GuestState.RUNNING, GuestState.PAUSED)
            handed_over_for_good = (source.state, destination.state, destination.persistent) == (GuestState.ABSENT, GuestState.OFF, True)
            self.assertTrue(alive or handed_over_for_good, (source, destination))

    def test_at_the_destination_never_while_the_source_may_run_it(self):
        for source, destination in self.only(Verdict.AT_DESTINATION):
            self.assertNotEqual(GuestState.RUNNING, source.state, (source, destination))
            self.assertFalse(source.job_active, (source, destination))

    def test_an_unreachable_destination_never_proves_anything_about_itself(self):
        for source, destination, verdict in self.pairs:
            if destination.state is GuestState.UNREACHABLE and verdict is Verdict.AT_SOURCE:
                self.assertEqual(GuestState.RUNNING, source.state, (source, destination))
            if destination.state is GuestState.UNREACHABLE:
                self.assertNotIn(verdict, (Verdict.AT_DESTINATION, Verdict.OFF_AT_SOURCE), (source, destination))

    def test_an_unreachable_source_is_no_evidence_of_absence(self):
        for source, destination, verdict in self.pairs:
            if source.state is GuestState.UNREACHABLE:
                self.assertNotIn(verdict, (Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE), (source, destination))
                if verdict is Verdict.AT_DESTINATION:
                    self.assertEqual(GuestState.RUNNING, destination.state, (source, destination))

    def test_a_paused_source_is_resumed_only_when_the_destination_has_answered(self):
        for source, destination in self.only(Verdict.AT_SOURCE):
            if source.state is not GuestState.RUNNING:
                self.assertEqual(GuestState.PAUSED, source.state)
                self.assertNotEqual(GuestState.UNREACHABLE, destination.state, (source, destination))

    def test_nothing_final_while_a_job_is_active_at_the_source(self):
        for source, destination, verdict in self.pairs:
            if source.job_active and verdict in (Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE, Verdict.AT_DESTINATION):
                self.assertNotIn(source.state, (GuestState.RUNNING, GuestState.PAUSED), (source, destination))

    def test_post_copy_is_never_turned_back(self):
        for source, destination, verdict in self.pairs:
            if {PauseReason.POST_COPY, PauseReason.POST_COPY_FAILED} & {source.reason, destination.reason}:
                self.assertIn(verdict, (Verdict.POST_COPY, Verdict.UNRESOLVED), (source, destination))

    def test_a_dead_source_is_no_evidence_that_the_guest_lives_there(self):
        for source, destination, verdict in self.pairs:
            if source.state is GuestState.DEAD:
                self.assertNotIn(verdict, (Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE), (source, destination))

    def test_gone_with_the_source_only_if_the_destination_says_that_it_never_ran_there(self):
        for source, destination in self.only(Verdict.GONE_WITH_SOURCE):
            self.assertEqual(GuestState.DEAD, source.state)
            self.assertIn(destination.state, (GuestState.ABSENT, GuestState.INCOMING))

    def test_with_a_dead_destination_only_what_never_left_the_source_goes_on(self):
        for source, destination, verdict in self.pairs:
            if destination.state is GuestState.DEAD and verdict in (Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE):
                never_left = source.state is GuestState.RUNNING or source.reason is not PauseReason.MIGRATION
                self.assertTrue(never_left and source.state in (GuestState.RUNNING, GuestState.PAUSED), (source, destination))
            if destination.state is GuestState.DEAD:
                self.assertNotEqual(Verdict.AT_DESTINATION, verdict, (source, destination))
