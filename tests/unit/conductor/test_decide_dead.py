"""What comes next where a host is off, and where an agent's word is not enough."""
from migrator.conductor import stimulus
from migrator.conductor.cursor import AbortCause, Cursor, Direction, Kind, Phase
from migrator.conductor.workflows import WORKFLOWS
from migrator.rpc.facts import Location
from migrator.states import GuestState, Status
from tests import base
from tests.unit.conductor import positions
from tests.unit.conductor.positions import NOW, aborted, at, decide


class DeadTest(base.TestCase):
    """A host that somebody attests to be off."""

    def test_a_guest_that_went_down_with_its_host_while_it_was_undone_has_failed(self):
        """Given an undo at the source, of an abort or not, when the source is off, then it has failed, with a debt, the guest off."""
        for cursor in (at('undoing S'), aborted(at('undoing S'))):
            action = decide(cursor, stimulus.Silent('alpha', dead=True))
            self.assertEqual((Kind.END, Status.FAILED, (positions.UNDO_SOURCE,), True),
                             (action.kind, action.cursor.status, action.debts, action.guest_lost))
            self.assertEqual('the guest went down with its host; before that: it broke', action.cursor.error)

    def test_a_guest_that_went_down_with_the_source_is_off(self):
        dead = Location(GuestState.DEAD)
        action = decide(aborted(at('observing')), stimulus.Observed(dead, positions.ABSENT))
        self.assertEqual((Kind.START, positions.UNDO_DESTINATION, True, AbortCause.NONE),
                         (action.kind, action.cursor.step, action.guest_lost, action.cursor.abort))

    def test_both_hosts_off_after_the_point_of_no_return_is_no_end(self):
        """Given a guest that ran at the destination, when both hosts are off, then nothing is concluded: it needs an operator."""
        dead = Location(GuestState.DEAD)
        action = decide('post-copy', stimulus.Observed(dead, dead))
        self.assertEqual((Kind.WAIT, Status.NEEDS_OPERATOR, True), (action.kind, action.cursor.status, action.cursor.no_return))
        before = decide('observing', stimulus.Observed(dead, dead))
        self.assertEqual((Kind.END, Status.FAILED, True), (before.kind, before.cursor.status, before.guest_lost))

    def test_the_silence_of_one_step_does_not_count_for_the_next(self):
        action = decide(at('preparing', silent_since=NOW - 59_000), 'done')
        self.assertEqual((Kind.START, positions.MIGRATE, 0), (action.kind, action.cursor.step, action.cursor.silent_since))


class AttachTest(base.TestCase):
    """A volume is taken from the guest before its export ends, whatever the guest's host says of an attempt."""

    WORKFLOW = WORKFLOWS['volume_attach']

    def attaching(self):
        return Cursor(Status.RUNNING, Phase.OPERATION, 'attach_volume', attempt=1, begun=('export_attachment', 'attach_volume'))

    def test_the_guest_lets_go_before_the_export_ends(self):
        action = decide(self.attaching(), 'failed', workflow=self.WORKFLOW)
        self.assertEqual(('detach_volume', Direction.UNDO), (action.cursor.step, action.cursor.direction))
        after = decide(action.cursor, 'done', workflow=self.WORKFLOW)
        self.assertEqual('unexport_attachment', after.cursor.step)

    def test_it_is_detached_even_if_the_agent_says_that_it_touched_nothing(self):
        action = decide(self.attaching(), 'untouched', workflow=self.WORKFLOW)
        self.assertEqual('detach_volume', action.cursor.step)
