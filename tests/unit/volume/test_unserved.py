"""When a LUN is tried again that could not be served."""
from migrator.volume.drivers.qsd.unserved import LONGEST_PAUSE, Unserved
from tests import base

KEY = 'fast', 'vol'


class UnservedTest(base.TestCase):
    """With a clock that the test moves."""

    def setUp(self):
        super().setUp()
        self.now = 0.0
        self.unserved = Unserved(lambda: self.now)

    def test_the_pause_grows_up_to_the_longest(self):
        tried = []
        self.unserved.failed(KEY, 'silent')
        while self.now < 200:
            self.now += 1
            if self.unserved.due():
                tried.append(self.now)
                self.unserved.failed(KEY, 'silent')
        self.assertEqual([2, 6, 14, 30, 60, 90], tried[:6])
        self.assertEqual({LONGEST_PAUSE}, {b - a for a, b in zip(tried[4:], tried[5:], strict=False)})

    def test_what_is_new_is_told_once(self):
        self.assertEqual([True, False, True], [self.unserved.failed(KEY, why) for why in ('silent', 'silent', 'gone')])
        self.assertEqual([True, False], [self.unserved.served(KEY) for _ in range(2)])
        self.assertEqual([], self.unserved.due())
