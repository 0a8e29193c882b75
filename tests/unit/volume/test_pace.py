"""The rate of mirrors."""
from migrator.rpc.volume_facts import Progress
from migrator.volume.pace import WINDOW, Paces
from tests import base


class PacesTest(base.TestCase):
    """With a clock that the test moves."""

    def setUp(self):
        super().setUp()
        self.now = 100.0
        self.paces = Paces(lambda: self.now)

    def rate(self, done, seconds=0.0, **more):
        """What is told when so much is done, so many seconds later."""
        self.now += seconds
        return self.paces.with_rate('m', Progress(True, 10_000, done, **more)).rate

    def test_it_is_known_from_the_second_time_on(self):
        self.assertEqual([0, 50, 50], [self.rate(1000), self.rate(1100, 2), self.rate(1100)])

    def test_it_is_that_of_the_last_seconds(self):
        self.rate(0)
        for number in range(1, 11):
            self.rate(number * 1000, WINDOW / 10)
        self.assertEqual(500, self.rate(10_000))
        for _ in range(10):
            last = self.rate(10_000, WINDOW / 10)
        self.assertEqual(0, last)

    def test_a_mirror_that_begins_anew(self):
        self.rate(0)
        self.rate(5000, 1)
        self.assertEqual([0, 70], [self.rate(100, 1), self.rate(170, 1)])

    def test_what_an_array_says_itself_is_left(self):
        self.rate(0)
        self.assertEqual(7, self.rate(5000, 1, rate=7))

    def test_a_mirror_that_is_over_is_forgotten(self):
        self.rate(0)
        self.paces.forget('m')
        self.paces.forget('m')
        self.assertEqual(0, self.rate(5000, 1))
        self.assertEqual(0, self.paces.with_rate('n', Progress()).rate)
