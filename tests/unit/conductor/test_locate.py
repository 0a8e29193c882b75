"""Where is the guest? Every pair of answers that two hosts can give, cell by cell, and what no table may ever say."""
import itertools
import pathlib

import testtools

from migrator.conductor import locate
from migrator.conductor.locate import Verdict
from migrator.rpc.facts import Location
from migrator.states import GuestState, PauseReason

PAGE = pathlib.Path(__file__).parents[3] / 'doc/source/generated/locate.rst'

#: Every answer that can be written down at all, whether or not a hypervisor is known to give it.
ANSWERS = [Location(state, reason, job, persistent) for state, reason, job, persistent in
           itertools.product(GuestState, PauseReason, (False, True), (False, True))]

#: What a host may answer, as patterns: states; reasons; job active; persistent; and how the documentation calls it. `-`: any.
#: `plain` is every reason but those of post-copy.
PLAIN = 'none user io_error other migration'
SOURCE = """
broken     -                                                post_copy_failed           -    -  post-copy broke off
post       running paused incoming off absent unreachable   post_copy                  -    -  post-copy
post-dead  dead                                             post_copy                  -    -  post-copy, then off, attested
run        running                                          plain                      no   -  running
run+j      running                                          plain                      yes  -  running, job
held       paused                                           none user io_error other   no   -  paused
held+j     paused                                           none user io_error other   yes  -  paused, job
hand       paused                                           migration                  no   -  paused by hand-over
hand+j     paused                                           migration                  yes  -  paused by hand-over, job
in         incoming                                         plain                      no   -  incoming
in+j       incoming                                         plain                      yes  -  incoming, job
off        off                                              plain                      no   -  off
off+j      off                                              plain                      yes  -  off, job
absent     absent                                           plain                      no   -  absent
absent+j   absent                                           plain                      yes  -  absent, job
silent     unreachable                                      plain                      no   -  unreachable
silent+j   unreachable                                      plain                      yes  -  unreachable, job
dead       dead                                             plain                      no   -  off, attested
dead+j     dead                                             plain                      yes  -  off, attested, job
"""
DESTINATION = """
broken     -                                                post_copy_failed           -    -    post-copy broke off
post       running paused incoming off absent unreachable   post_copy                  -    -    post-copy
post-dead  dead                                             post_copy                  -    -    post-copy, then off, attested
run        running                                          plain                      -    -    running
held       paused                                           none user io_error other   -    -    paused
hand       paused                                           migration                  -    -    paused by hand-over
in         incoming                                         plain                      -    -    incoming
off        off                                              plain                      -    no   off, not defined
off*       off                                              plain                      -    yes  off, defined
absent     absent                                           plain                      -    -    absent
silent     unreachable                                      plain                      -    -    unreachable
dead       dead                                             plain                      -    -    off, attested
"""

LETTERS = {'S': Verdict.AT_SOURCE, 'O': Verdict.OFF_AT_SOURCE, 'D': Verdict.AT_DESTINATION, 'P': Verdict.POST_COPY,
           'G': Verdict.GONE_WITH_SOURCE, 'B': Verdict.GONE_WITH_BOTH, 'w': Verdict.IN_PROGRESS, '?': Verdict.SILENT,
           'X': Verdict.UNRESOLVED}

#: Rows: what the source says. Columns: what the destination says.
TABLE = """
           broken post post-dead run held hand in  off off* absent silent dead
broken     X      X    X         X   X    X    X   X   X    X      X      X
post       X      P    X         P   P    P    P   P   P    P      P      X
post-dead  X      X    X         X   X    X    X   X   X    X      X      X
run        X      P    X         X   X    S    S   S   S    S      S      S
run+j      X      P    X         w   w    w    w   w   w    w      w      w
held       X      P    X         X   X    S    S   X   X    S      ?      S
held+j     X      P    X         w   w    w    w   w   w    w      w      w
hand       X      P    X         D   D    S    S   X   X    S      ?      X
hand+j     X      P    X         w   w    w    w   w   w    w      w      w
in         X      P    X         D   D    X    X   X   X    X      ?      X
in+j       X      P    X         w   w    w    w   w   w    w      w      w
off        X      P    X         D   D    X    O   X   X    O      ?      X
off+j      X      P    X         w   w    w    w   w   w    w      w      w
absent     X      P    X         D   D    X    X   X   D    X      ?      X
absent+j   X      P    X         w   w    w    w   w   w    w      w      w
silent     X      P    X         D   ?    ?    ?   ?   ?    ?      ?      ?
silent+j   X      P    X         w   w    w    w   w   w    w      w      w
dead       X      X    X         D   D    X    G   X   X    G      ?      B
dead+j     X      X    X         w   w    w    w   w   w    w      w      w
"""


class Pattern:
    """One line of SOURCE or DESTINATION."""

    def __init__(self, line):
        self.name, self.states, self.reasons, self.job, self.persistent, self.words = split(line)

    def fits(self, answer):
        """Tell whether an answer is one of these."""
        return (self.states == '-' or answer.state.value in self.states.split()) \
            and (answer.reason.value or 'none') in (PLAIN if self.reasons == 'plain' else self.reasons).split() \
            and self.job in ('-', 'yes' if answer.job_active else 'no') \
            and self.persistent in ('-', 'yes' if answer.persistent else 'no')


def split(line):
    """Split a line into its six columns; two spaces or more are between them."""
    return [cell.strip() for cell in line.split('  ') if cell.strip()]


def patterns(text):
    """Read SOURCE or DESTINATION."""
    return [Pattern(line) for line in text.strip().splitlines()]


def cells():
    """Read the table: (source, destination) -> verdict, by the names of patterns."""
    head, *rows = TABLE.strip('\n').splitlines()
    columns = head.split()
    return {(name, column): LETTERS[letter] for name, *letters in map(str.split, rows)
            for column, letter in zip(columns, letters, strict=True)}


def sorted_out(text):
    """Give the answers by the name of their pattern. An answer that fits no pattern, or two, is an error."""
    found = {pattern.name: [] for pattern in patterns(text)}
    for answer in ANSWERS:
        [pattern] = [p for p in patterns(text) if p.fits(answer)]
        found[pattern.name].append(answer)
    return found


class TableTest(testtools.TestCase):
    """The whole space of answers, and the verdict that is written down for each pair."""

    def test_each_answer_fits_exactly_one_pattern_and_no_pattern_is_empty(self):
        for text in (SOURCE, DESTINATION):
            for answer in ANSWERS:
                self.assertEqual(1, len([p for p in patterns(text) if p.fits(answer)]), answer)
            self.assertEqual(len(ANSWERS), sum(map(len, sorted_out(text).values())))
            self.assertNotIn([], sorted_out(text).values())

    def test_the_table_has_each_pair_of_patterns_once(self):
        wanted = itertools.product([p.name for p in patterns(SOURCE)], [p.name for p in patterns(DESTINATION)])
        self.assertEqual(sorted(wanted), sorted(cells()))

    def test_every_combination_has_the_verdict_that_is_written_down(self):
        table, sources, destinations = cells(), sorted_out(SOURCE), sorted_out(DESTINATION)
        wrong, seen = [], 0
        for (source, destination), expected in table.items():
            for here, there in itertools.product(sources[source], destinations[destination]):
                seen += 1
                found = locate.find(here, there).verdict
                if found is not expected:
                    wrong.append(f'source {here}, destination {there}: {found}, expected {expected}')
        self.assertEqual([], wrong)
        self.assertEqual(len(ANSWERS) ** 2, seen)

    def test_the_documentation_has_all_of_it(self):
        """Given the page that the tool prints from the code, when it is read, then it says what is written down here."""
        head, *rows = PAGE.read_text().split('   * - ')[1:]
        columns = [cell.strip() for cell in head.split('\n     - ')][1:]
        printed = {}
        for row in rows:
            name, *verdicts = (cell.strip() for cell in row.split('\n     - '))
            printed.update({(name, column): verdict for column, verdict in zip(columns, verdicts, strict=True)})
        here = {p.name: p.words for p in patterns(SOURCE)}
        there = {p.name: p.words for p in patterns(DESTINATION)}
        self.assertEqual({(here[s], there[d]): verdict.value for (s, d), verdict in cells().items()}, printed)

    def test_every_reason_shows_both_answers(self):
        for source, destination in itertools.product(ANSWERS, ANSWERS):
            reason = locate.find(source, destination).reason
            self.assertIn(f'source: {locate.describe(source)}', reason)
            self.assertIn(f'destination: {locate.describe(destination)}', reason)

    def test_an_answer_in_words(self):
        self.assertEqual('paused (migration), job active', locate.describe(Location(GuestState.PAUSED, PauseReason.MIGRATION, True)))
        self.assertEqual('absent', locate.describe(Location(GuestState.ABSENT)))


class PropertiesTest(testtools.TestCase):
    """What must hold for any two answers whatever, also those that no hypervisor is known to give."""

    def setUp(self):
        super().setUp()
        self.pairs = [(s, d, locate.find(s, d).verdict) for s, d in itertools.product(ANSWERS, ANSWERS)]

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

    def test_gone_with_both_only_if_nobody_can_answer(self):
        for source, destination in self.only(Verdict.GONE_WITH_BOTH):
            self.assertEqual((GuestState.DEAD, GuestState.DEAD), (source.state, destination.state))

    def test_with_a_dead_destination_only_what_never_left_the_source_goes_on(self):
        for source, destination, verdict in self.pairs:
            if destination.state is GuestState.DEAD and verdict in (Verdict.AT_SOURCE, Verdict.OFF_AT_SOURCE):
                never_left = source.state is GuestState.RUNNING or source.reason is not PauseReason.MIGRATION
                self.assertTrue(never_left and source.state in (GuestState.RUNNING, GuestState.PAUSED), (source, destination))
            if destination.state is GuestState.DEAD:
                self.assertNotEqual(Verdict.AT_DESTINATION, verdict, (source, destination))
