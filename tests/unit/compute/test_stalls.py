"""The agent's look after guests that stand still because a volume does not answer."""
import uuid

import fixtures
import testtools

from migrator import exceptions
from migrator.compute.stalls import LONGEST_PAUSE, StallWatch
from migrator.rpc.steps import Turns
from tests.unit.compute.scripted import ScriptedDriver
from tests.unit.rpc import support

START = 1_700_000_000                    # 2023-11-14T22:13:20Z


class StallsTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.driver = ScriptedDriver()
        self.addCleanup(lambda: [gate.set() for gate in self.driver.gates.values()])
        self.turns = Turns()
        self.now = 100.0
        self.uuid = str(uuid.uuid4())
        self.watch = StallWatch(self.driver, self.turns, 2.0, clock=lambda: self.now, wall=lambda: START + self.now)

    def look(self, *stalled, why='', after=2.0):
        """Look `after` seconds later, when these guests stand still and a try would answer `why`; waits for the end of all tries."""
        self.now += after
        self.driver.results.update(stalled=stalled, resume_stalled=why)
        self.watch.look()
        support.wait_for(lambda: not self.watch._helped, 'the end of all tries')

    def tries(self):
        """How often the driver was asked to let a guest go on."""
        return sum(call[0] == 'resume_stalled' for call in self.driver.calls)

    def note(self):
        """What is said of the guest."""
        return self.watch.notes().get(self.uuid, '')

    def test_nothing_is_said_or_done_while_no_guest_stands_still(self):
        self.look()
        self.assertEqual(({}, 0), (self.watch.notes(), self.tries()))

    def test_a_guest_is_tried_until_it_goes_on_and_both_are_told(self):
        for _ in range(3):
            self.look(self.uuid, why='the export does not answer')
        self.assertEqual('stands still since 2023-11-14T22:15:02Z: the export does not answer', self.note())
        self.look(self.uuid)
        self.assertEqual('stood still from 2023-11-14T22:15:02Z to 2023-11-14T22:15:08Z: the export does not answer', self.note())
        self.look()
        self.assertEqual(4, self.tries())
        self.assertEqual(1, self.log.output.count('does not answer\n') - self.log.output.count('stood still'))

    def test_what_it_waits_for_may_change(self):
        self.look(self.uuid, why='connection refused')
        self.look(self.uuid, why='no such export')
        self.assertIn('no such export', self.note())

    def test_a_guest_that_somebody_else_lets_go_on_is_told_too(self):
        self.look(self.uuid, why='connection refused')
        self.look()
        self.assertIn('stood still from', self.note())

    def test_a_guest_that_stalls_again_soon_is_tried_less_often(self):
        """Given an array that answers and has no room, the guest is not resumed every two seconds for ever."""
        for _ in range(120):
            self.look(self.uuid)
        self.assertGreater(20, self.tries())
        self.assertLess(4, self.tries())

    def test_a_stall_of_long_ago_does_not_count(self):
        for _ in range(3):
            self.look(self.uuid)
            self.look()
            self.look(after=LONGEST_PAUSE)
        self.assertEqual(3, self.tries())

    def test_a_guest_that_something_is_done_with_is_left_alone(self):
        with self.turns.of(self.uuid):
            self.look(self.uuid)
        self.assertEqual(0, self.tries())
        self.look(self.uuid)
        self.assertEqual(1, self.tries())

    def test_nothing_is_done_with_a_guest_that_is_being_helped(self):
        entered, go = self.driver.hold('resume_stalled')
        self.driver.results['stalled'] = (self.uuid,)
        self.watch.look()
        support.wait_for(entered.is_set)
        with self.turns.if_free(self.uuid) as free:
            self.assertFalse(free)
        self.watch.look()
        go.set()
        support.wait_for(lambda: not self.watch._helped)
        self.assertEqual(1, self.tries())

    def test_an_error_of_one_guest_does_not_keep_another_waiting(self):
        other = str(uuid.uuid4())
        self.look(self.uuid, other, why=exceptions.DriverError('libvirt says no'))
        self.assertEqual(2, self.tries())
        self.assertIn('libvirt says no', self.note())
        self.look(self.uuid, other)
        self.assertIn('stood still', self.note())

    def test_a_defect_of_the_driver_does_not_end_the_tries(self):
        self.look(self.uuid, why=KeyError('no such key'))
        self.assertIn('Traceback', self.log.output)
        self.look(self.uuid)
        self.assertIn('stood still', self.note())

    def test_a_hypervisor_that_cannot_be_asked_says_nothing_about_guests(self):
        self.look(self.uuid, why='connection refused')
        before = self.note()
        self.driver.results['stalled'] = exceptions.DriverError('libvirtd is gone')
        self.assertRaises(exceptions.DriverError, self.watch.look)
        self.assertEqual(before, self.note())

    def test_it_looks_by_itself_until_it_is_stopped_whatever_it_sees(self):
        self.driver.results['stalled'] = exceptions.DriverError('libvirtd is gone')
        watch = StallWatch(self.driver, self.turns, 0.01)
        watch.start()
        support.wait_for(lambda: len(self.driver.calls) > 3)
        self.driver.results.update(stalled=(self.uuid,))
        support.wait_for(lambda: 'stood still' in watch.notes().get(self.uuid, ''))
        watch.stop()
        self.assertEqual(1, self.log.output.count('libvirtd is gone'))
