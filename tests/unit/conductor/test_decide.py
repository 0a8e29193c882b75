"""What comes next? Every place where a live migration may stand, crossed with everything that may happen to it."""
import dataclasses

from migrator.conductor import stimulus
from migrator.conductor.cursor import AbortCause, Cursor, Direction, Kind, Phase
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Commit
from migrator.states import OperationState, Status
from tests import base
from tests.unit.conductor import positions
from tests.unit.conductor.positions import EVENTS, NOW, POSITIONS, PRE, aborted, at, decide, forward, short

#: How to read the words: positions.short.
TABLE = """
                     due     fit unfit done    failed  broken  alive unknown silent lost    busy abort untouched
queued |             admit   .   .     .       .       .       .     .       .      .       .    CANC .
checking |           call    pre FAIL  .       .       .       .     .       wait   FAIL    wait CANC .
preparing |          poll    .   .     mig     undoD   wait    .     pre~    wait   undoD   wait wait FAIL
preparing, resting | pre     .   .     .       .       .       .     .       .      .       .    undoD .
running |            poll    .   .     observe observe observe .     mig~    wait   observe wait wait+x observe
observing |          observe .   .     .       .       .       .     .       .      .       .    wait+x .
needs operator |     observe .   .     .       .       .       .     .       .      .       .    op+x .
post-copy |          observe .   .     .       .       .       .     .       .      .       .    !    .
finishing D |        poll    .   .     postS   wait    wait    .     postD~  wait   postS+$ wait !    wait
finishing S |        poll    .   .     COMP    wait    wait    .     postS~  wait   COMP+$  wait !    wait
finishing S, last |  poll    .   .     COMP    COMP+$  COMP+$  .     postS~  wait   COMP+$  wait !    COMP+$
finishing, resting | postS   .   .     .       .       .       .     .       .      .       .    !    .
undoing D |          poll    .   .     undoS   wait    wait    .     undoD~  wait   undoS+$ wait !    observe
undoing D, last |    poll    .   .     undoS   undoS+$ undoS+$ .     undoD~  wait   undoS+$ wait !    observe
refused D |          observe .   .     .       .       .       .     .       .      .       .    !    .
refused D, last |    observe .   .     .       .       .       .     .       .      .       .    !    .
undoing S |          poll    .   .     FAIL    wait    wait    .     undoS~  wait   op      wait !    wait
undoing S, last |    poll    .   .     FAIL    op      op      .     undoS~  wait   op      wait !    op
undoing S, stuck |   undoS   .   .     .       .       .       .     .       .      .       .    !    .
ended |              .       .   .     .       .       .       .     .       .      .       .    !    .
"""

#: What the hosts say matters only while it was asked for.
OBSERVED = """
                 source off   dest  copying pcopy mute odd
observing |      undoD  undoD postD wait    wait  wait wait
needs operator | undoD  undoD postD wait    wait  op   op
post-copy |      op     op    postD wait    wait  wait wait
refused D |      wait   wait  postD wait    wait  wait wait
refused D, last | undoS+$ undoS+$ postD wait wait wait wait
"""

#: The same with an abort pending.
ABORTED = """
                     due       fit unfit done    failed  broken  alive unknown silent lost    busy   abort
preparing |          poll      .   .     undoD   undoD   wait    .     undoD   wait   undoD   wait   .
preparing, resting | undoD     .   .     .       .       .       .     .       .      .       .      .
running |            poll+x    .   .     observe observe observe .     observe wait+x observe wait+x .
observing |          observe+x .   .     .       .       .       .     .       .      .       .      .
needs operator |     observe+x .   .     .       .       .       .     .       .      .       .      .
undoing D |          poll      .   .     undoS   wait    wait    .     undoD~  wait   undoS+$ wait   .
undoing S |          poll      .   .     CANC    wait    wait    .     undoS~  wait   op      wait   .
"""

OBSERVED_ABORTED = """
                 source off   dest  copying pcopy mute   odd
observing |      undoD  undoD postD wait+x  wait  wait+x wait
needs operator | undoD  undoD postD wait+x  wait  op+x   op
"""


def read(table):
    """Give {(position, event): word} of a table."""
    head, *rows = table.strip('\n').splitlines()
    events, cells = head.split(), {}
    for row in rows:
        position, _, words = row.partition('|')
        cells.update({(position.strip(), event): word for event, word in zip(events, words.split(), strict=True)})
    return cells


class TableTest(base.TestCase):

    def check(self, table, change=lambda cursor: cursor):
        wrong = []
        for (position, event), expected in read(table).items():
            cursor = change(POSITIONS[position])
            found = short(decide(cursor, event), cursor)
            if found != expected:
                wrong.append(f'{position} + {event}: {found}, expected {expected}')
        self.assertEqual([], wrong)

    def test_every_place_and_event(self):
        self.check(TABLE)
        self.assertEqual(set(POSITIONS), {position for position, _ in read(TABLE)})

    def test_what_the_hosts_say(self):
        self.check(OBSERVED)

    def test_what_nobody_asked_for_is_ignored(self):
        observed = {event for _, event in read(OBSERVED)}
        for position, cursor in POSITIONS.items():
            for event in observed if cursor.phase is not Phase.OBSERVING else ():
                self.assertIs(Kind.IGNORE, decide(cursor, event).kind, (position, event))

    def test_with_an_abort_pending(self):
        self.check(ABORTED, aborted)
        self.check(OBSERVED_ABORTED, aborted)

    def test_the_tables_name_every_event(self):
        self.assertEqual(set(EVENTS), {event for _, event in [*read(TABLE), *read(OBSERVED)]})

    def test_every_decision_gives_its_reason(self):
        for position in POSITIONS:
            for event in EVENTS:
                action = decide(position, event)
                self.assertNotEqual('', action.reason.strip(), (position, event))

    def test_what_refuses_for_too_long_is_given_up_with_its_own_words(self):
        """Given an agent that says why it takes nothing, the operator reads that, and not that the host was silent."""
        for position in ('preparing', 'running', 'finishing D', 'finishing S', 'undoing D', 'undoing S'):
            action = decide(at(position, silent_since=NOW - 60_000), 'busy')
            self.assertEqual(short(decide(position, 'lost'), POSITIONS[position]), short(action, POSITIONS[position]), position)
            self.assertIn('beta has no room', action.reason, position)

    def test_whatever_waits_is_looked_at_again(self):
        for position in POSITIONS:
            for event in EVENTS:
                action = decide(position, event)
                if action.kind not in (Kind.END, Kind.IGNORE, Kind.REFUSE):
                    self.assertGreater(action.wake_in, 0, (position, event))

    def test_what_changes_nothing_keeps_the_cursor(self):
        for position, cursor in POSITIONS.items():
            for event in EVENTS:
                action = decide(position, event)
                if action.kind in (Kind.IGNORE, Kind.REFUSE) and event != 'lost':
                    self.assertEqual(cursor, action.cursor, (position, event))


class NoReturnTest(base.TestCase):

    def test_there_is_only_forward_after_it(self):
        for position, cursor in POSITIONS.items():
            for event in EVENTS:
                action = decide(cursor, event)
                if action.cursor.no_return:
                    self.assertIs(Direction.FORWARD, action.cursor.direction, (position, event))
                    self.assertFalse(action.abort_job, (position, event))
                    self.assertNotIn(action.cursor.status, (Status.FAILED, Status.CANCELLED), (position, event))

    def test_it_is_never_taken_back(self):
        for position, cursor in POSITIONS.items():
            for event in EVENTS:
                if cursor.no_return:
                    self.assertTrue(decide(cursor, event).cursor.no_return, (position, event))

    def test_it_is_passed_by_proof_only(self):
        for position, cursor in POSITIONS.items():
            for event in EVENTS:
                if not cursor.no_return and decide(cursor, event).cursor.no_return:
                    self.assertIn(event, ('dest', 'pcopy'), (position, event))

    def test_a_guest_seen_at_the_source_after_it_waits_for_an_operator(self):
        action = decide('post-copy', 'source')
        self.assertEqual((Kind.WAIT, Status.NEEDS_OPERATOR), (action.kind, action.cursor.status))
        self.assertIn('the guest runs at the source', action.reason)

    def test_the_location_is_committed_with_the_proof_and_only_with_it(self):
        for position in POSITIONS:
            for event in EVENTS:
                action = decide(position, event)
                self.assertEqual(event == 'dest' and at(position).phase is Phase.OBSERVING,
                                 action.commit is Commit.AT_DESTINATION, (position, event))

    def test_an_abort_that_lost_the_race_is_told_so(self):
        action = decide(aborted(at('observing', error='aborted')), 'dest')
        self.assertEqual((Kind.START, ''), (action.kind, action.cursor.error))
        self.assertIn('too late', action.reason)


class AbortTest(base.TestCase):

    def test_a_refusal_says_why(self):
        self.assertIn('point of no return', decide('finishing D', 'abort').reason)
        self.assertIn('ended already: completed', decide('ended', 'abort').reason)
        self.assertIn('undone already', decide('undoing S', 'abort').reason)
        create = Cursor(Status.PREPARING, Phase.OPERATION, 'create_instance', begun=('create_instance',), attempt=1)
        action = decide(create, 'abort', workflow=WORKFLOWS['instance_create'])
        self.assertEqual((Kind.REFUSE, 'instance_create cannot be aborted'), (action.kind, action.reason))

    def test_before_anything_was_done_it_ends_at_once_and_touches_nothing(self):
        for position in ('queued', 'checking'):
            action = decide(position, 'abort')
            self.assertEqual((Kind.END, Status.CANCELLED, 'aborted on request'),
                             (action.kind, action.cursor.status, action.cursor.error))

    def test_while_the_destination_prepares_it_waits_for_the_answer_and_undoes(self):
        action = decide('preparing', 'abort')
        self.assertEqual((Kind.WAIT, AbortCause.USER), (action.kind, action.cursor.abort))
        action = decide(action.cursor, 'done')
        self.assertEqual((Kind.START, positions.UNDO_DESTINATION), (action.kind, action.cursor.step))
        action = decide(action.cursor, 'done')      # nothing began at the source, so nothing is undone there
        self.assertEqual((Kind.END, Status.CANCELLED, 'aborted on request'), (action.kind, action.cursor.status, action.cursor.error))

    def test_a_running_one_is_told_to_stop_until_it_does(self):
        action = decide('running', 'abort')
        self.assertEqual((True, positions.POLICY.retry), (action.abort_job, action.wake_in))
        action = decide(action.cursor, 'due')
        self.assertEqual((Kind.POLL, True, positions.POLICY.retry), (action.kind, action.abort_job, action.wake_in))
        action = decide(action.cursor, 'failed')
        self.assertEqual(Kind.OBSERVE, action.kind)
        action = decide(action.cursor, 'source')
        self.assertEqual(('aborted on request', positions.UNDO_DESTINATION), (action.cursor.error, action.cursor.step))
        self.assertEqual(Status.CANCELLED, self.to_the_end(action).cursor.status)

    def to_the_end(self, action):
        while action.kind is not Kind.END:
            action = decide(action.cursor, 'done')
        return action

    def test_twice_is_once(self):
        once = decide('running', 'abort').cursor
        self.assertIs(Kind.IGNORE, decide(once, 'abort').kind)

    def test_a_user_may_abort_what_its_time_limit_aborts(self):
        self.assertIs(AbortCause.USER, decide(aborted(at('running'), AbortCause.TIMEOUT), 'abort').cursor.abort)


class DeadlineTest(base.TestCase):

    def test_it_begins_with_the_hypervisors_work(self):
        policy = dataclasses.replace(positions.POLICY, completion=100)
        self.assertEqual(NOW + 100_000, decide('preparing', 'done', policy=policy).cursor.deadline)
        self.assertEqual(0, decide('preparing', 'done').cursor.deadline)

    def test_it_aborts_and_the_end_is_failed(self):
        action = decide(at('running', deadline=NOW), 'due')
        self.assertEqual((Kind.POLL, AbortCause.TIMEOUT, True), (action.kind, action.cursor.abort, action.abort_job))
        action = decide(decide(action.cursor, 'failed').cursor, 'source')
        action = decide(decide(action.cursor, 'done').cursor, 'done')
        self.assertEqual((Kind.END, Status.FAILED), (action.kind, action.cursor.status))
        self.assertIn('longer than its time limit', action.cursor.error)

    def test_it_is_not_missed_by_a_long_poll(self):
        self.assertEqual(5, decide(at('running', deadline=NOW + 5000, silent_since=1), 'alive').wake_in)

    def test_it_means_nothing_after_the_point_of_no_return(self):
        action = decide(at('finishing D', deadline=NOW - 1), 'due')
        self.assertEqual((AbortCause.NONE, False), (action.cursor.abort, action.abort_job))


class RetryTest(base.TestCase):

    def test_a_post_step_is_tried_again_with_growing_pauses_and_then_named_as_a_debt(self):
        cursor, pauses = at('finishing S'), []
        action = decide(cursor, 'failed')
        while action.kind is Kind.WAIT:
            self.assertEqual(Phase.RESTING, action.cursor.phase)
            pauses.append(action.wake_in)
            again = decide(action.cursor, 'due')
            self.assertEqual((Kind.START, action.cursor.attempt + 1), (again.kind, again.cursor.attempt))
            action = decide(again.cursor, 'failed')
        self.assertEqual([2, 4], pauses)
        self.assertEqual((Kind.END, Status.COMPLETED, (positions.POST_SOURCE,)), (action.kind, action.cursor.status, action.debts))
        self.assertIn('no luck', action.reason)

    def test_silence_does_not_use_up_attempts(self):
        silent = dataclasses.replace(at('finishing S'), failures=7, silent_since=NOW - 10)
        self.assertIs(Kind.WAIT, decide(silent, 'failed').kind)

    def test_pauses_grow_up_to_the_poll_interval(self):
        self.assertEqual(positions.POLICY.poll, decide(at('undoing S, stuck', phase=Phase.OPERATION, failures=40), 'failed').wake_in)

    def test_an_interrupted_preparation_is_repeated_and_a_failed_one_undone(self):
        self.assertIs(Phase.RESTING, decide('preparing', 'broken').cursor.phase)
        self.assertEqual(positions.UNDO_DESTINATION, decide('preparing', 'failed').cursor.step)
        last = decide(at('preparing', attempt=3), 'broken')
        self.assertEqual(positions.UNDO_DESTINATION, last.cursor.step)

    def test_a_vital_undo_is_never_a_debt(self):
        for event in EVENTS:
            for position in ('undoing S', 'undoing S, last', 'undoing S, stuck'):
                self.assertEqual((), decide(position, event).debts, (position, event))

    def test_a_vital_undo_that_fails_waits_for_an_operator_and_heals_itself(self):
        stuck = decide('undoing S, last', 'failed')
        self.assertEqual((Kind.WAIT, Status.NEEDS_OPERATOR), (stuck.kind, stuck.cursor.status))
        again = decide(stuck.cursor, 'due')
        self.assertEqual((Kind.START, Status.NEEDS_OPERATOR, 4), (again.kind, again.cursor.status, again.cursor.attempt))
        healed = decide(again.cursor, 'done')
        self.assertEqual((Kind.END, Status.FAILED, 'it broke'), (healed.kind, healed.cursor.status, healed.cursor.error))

    def test_a_host_that_answers_again_is_not_lost(self):
        silent = decide('running', 'silent')
        self.assertEqual(NOW, silent.cursor.silent_since)
        self.assertEqual(0, decide(silent.cursor, 'alive').cursor.silent_since)

    def test_the_first_reason_is_kept(self):
        action = decide(decide('preparing', 'failed').cursor, 'failed')
        self.assertEqual('pre_live_migration: no luck', action.cursor.error)


class OutcomeTest(base.TestCase):

    def test_an_error_of_the_hypervisor_is_only_a_hint(self):
        action = decide(decide('running', 'failed').cursor, 'dest')
        self.assertEqual((Kind.START, positions.POST_DESTINATION, ''), (action.kind, action.cursor.step, action.cursor.error))

    def test_a_success_of_the_hypervisor_is_only_a_hint(self):
        action = decide(decide('running', 'done').cursor, 'source')
        self.assertEqual(positions.UNDO_DESTINATION, action.cursor.step)
        self.assertIn('runs at the source', action.cursor.error)

    def test_a_guest_that_stopped_is_noted_as_stopped(self):
        action = decide('observing', 'off')
        self.assertEqual((True, Kind.START), (action.guest_off, action.kind))
        self.assertIn('stopped at the source', action.cursor.error)
        self.assertFalse(decide('observing', 'source').guest_off)

    def test_a_host_that_stays_silent_brings_in_the_operator_and_its_return_heals(self):
        first = decide('observing', 'mute')
        self.assertIs(Status.RUNNING, first.cursor.status)
        self.assertTrue(first.reason.endswith('; needs an operator after 60 s'), first.reason)
        mute = decide(at('observing', silent_since=NOW - 60_000), 'mute')
        self.assertNotIn('after 60 s', mute.reason)
        self.assertEqual((Kind.WAIT, Status.NEEDS_OPERATOR), (mute.kind, mute.cursor.status))
        self.assertIs(Kind.OBSERVE, decide(mute.cursor, 'due').kind)
        self.assertIs(Status.RUNNING, decide(mute.cursor, 'copying').cursor.status)
        self.assertIs(Status.UNDOING, decide(mute.cursor, 'source').cursor.status)
        self.assertIs(Status.FINISHING, decide(mute.cursor, 'dest').cursor.status)

    def test_a_contradiction_is_looked_at_twice(self):
        first = decide('observing', 'odd')
        self.assertEqual((Kind.WAIT, Status.RUNNING), (first.kind, first.cursor.status))
        self.assertIs(Status.NEEDS_OPERATOR, decide(first.cursor, 'odd').cursor.status)

    def test_what_changed_nothing_is_not_undone(self):
        stranger = stimulus.Finished(OperationState.FAILED, 'files stand in the way', untouched=True)
        action = decide('preparing', stranger)
        self.assertEqual((Kind.END, Status.FAILED), (action.kind, action.cursor.status))
        self.assertIn('files stand in the way', action.cursor.error)

    def test_what_an_earlier_attempt_may_have_done_is_undone(self):
        stranger = stimulus.Finished(OperationState.FAILED, 'files stand in the way', untouched=True)
        self.assertEqual(positions.UNDO_DESTINATION, decide(forward(PRE, Status.PREPARING, attempt=2), stranger).cursor.step)

    def test_a_clearing_that_is_refused_is_a_question_to_the_hosts(self):
        """Given an undo that finds the guest at the destination, when the hosts say so too, then it is forward that the migration goes."""
        asked = decide('undoing D', 'untouched')
        self.assertIs(Kind.OBSERVE, asked.kind)
        self.assertEqual((), asked.debts)
        proven = decide(asked.cursor, 'dest')
        self.assertEqual(('postD', Commit.AT_DESTINATION, (), True, Direction.FORWARD),
                         (short(proven, asked.cursor), proven.commit, proven.debts, proven.cursor.no_return, proven.cursor.direction))
        arriving = decide(asked.cursor, 'pcopy').cursor
        self.assertEqual((True, 'live_migration', Direction.FORWARD), (arriving.no_return, arriving.step, arriving.direction))
        self.assertEqual('postD', short(decide(arriving, 'dest'), arriving))

    def test_a_clearing_that_is_refused_for_no_such_reason_is_tried_again_and_then_owed(self):
        """Given that the guest is at the source all the same, then the original goes on, and what is left there has a name."""
        cursor, words = POSITIONS['undoing D'], []
        for _ in range(3):
            asked = decide(cursor, 'untouched')
            action = decide(asked.cursor, 'source')
            words.append(short(action, asked.cursor))
            cursor = decide(action.cursor, 'due').cursor if action.kind is Kind.WAIT else action.cursor
        self.assertEqual(['wait', 'wait', 'undoS+$'], words)

    def test_a_clearing_that_is_refused_with_a_contradiction_needs_an_operator(self):
        cursor = decide(decide('undoing D', 'untouched').cursor, 'odd').cursor
        self.assertIs(Status.NEEDS_OPERATOR, decide(cursor, 'odd').cursor.status)

    def test_a_half_made_guest_is_forgotten_with_its_disks(self):
        begun = Cursor(Status.RUNNING, Phase.OPERATION, 'start_instance', begun=('create_instance', 'start_instance'), attempt=1)
        workflow = WORKFLOWS['instance_create']
        undo = decide(begun, 'failed', workflow=workflow)
        self.assertEqual('stop_instance', undo.cursor.step)
        removed = decide(undo.cursor, 'done', workflow=workflow)
        self.assertEqual(('delete_instance', Commit.STOPPED), (removed.cursor.step, removed.commit))
        self.assertIs(Commit.DELETED, decide(removed.cursor, 'done', workflow=workflow).commit)

    def test_work_without_checks_begins_with_its_first_operation(self):
        action = decide('queued', 'due', workflow=WORKFLOWS['instance_stop'])
        self.assertEqual((Kind.ADMIT, 'stop_instance', Phase.OPERATION), (action.kind, action.cursor.step, action.cursor.phase))
