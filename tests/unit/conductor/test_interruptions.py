"""Which interruptions count: those after which a step had come no further than before."""
import dataclasses

from migrator.conductor import stimulus
from migrator.conductor.cursor import Cursor, Kind, Phase
from migrator.conductor.decide import next_action
from migrator.conductor.interruptions import NAME, counted, idle
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION
from migrator.states import OperationState, Status
from tests import base
from tests.unit.conductor.positions import NOW, POLICY

BROKEN = stimulus.Finished(OperationState.INTERRUPTED, 'the agent ended while it ran')


class CountedTest(base.TestCase):

    def walk(self, *results, step='copy_volume', known=()):
        """Count one interruption after the other; gives how many in a row brought nothing, each time."""
        known, found = dict(known), []
        for result in results:
            known[NAME] = counted(known, step, result)
            found.append(idle(known, step))
        return found

    def test_only_those_in_a_row_that_brought_nothing(self):
        self.assertEqual([0, 0, 1, 2, 0], self.walk({'done': 10}, {'done': 20}, {'done': 20}, {'done': 5}, {'done': 21}))
        self.assertEqual([1, 2, 0, 1], self.walk({}, {'done': 0}, {'done': 1}, {}))

    def test_what_an_agent_says_is_believed_only_where_it_can_be_read(self):
        self.assertEqual([1, 2, 3], self.walk({'done': '9'}, {'done': None}, {'done': -1}))

    def test_each_step_has_its_own(self):
        known = {NAME: counted({}, 'copy_volume', {'done': 10})}
        self.assertIsNone(idle(known, 'verify_volume'))
        self.assertEqual([1], self.walk({'done': 0}, step='verify_volume', known=known))


class DecisionTest(base.TestCase):

    def decided(self, step, attempt, known):
        """What follows an interruption: RESTING, or the undo."""
        cursor = Cursor(Status.RUNNING, Phase.OPERATION, step, attempt=attempt, begun=('export_volume', 'create_target_volume', step))
        return next_action(VOLUME_MIGRATION, cursor, BROKEN, NOW, dataclasses.replace(POLICY, copy_attempts=2), known)

    def test_a_copy_is_given_up_by_what_it_brings_and_not_by_its_attempts(self):
        for attempt, count, goes_on in ((1, 0, True), (99, 0, True), (99, 1, True), (2, 2, False), (99, 7, False)):
            action = self.decided('copy_volume', attempt, {NAME: {'step': 'copy_volume', 'done': 7, 'idle': count}})
            self.assertEqual(goes_on, action.cursor.phase is Phase.RESTING, (attempt, count))
            self.assertEqual(Kind.WAIT if goes_on else Kind.START, action.kind)

    def test_what_begins_anew_each_time_is_given_up_by_its_attempts(self):
        for attempt in (POLICY.step_attempts - 1, POLICY.step_attempts):
            action = self.decided('verify_volume', attempt, {NAME: {'step': 'verify_volume', 'done': 7, 'idle': 0}})
            self.assertEqual(attempt < POLICY.step_attempts, action.cursor.phase is Phase.RESTING)
