"""Comparison of series, the processor's clock, and the verdicts that decide the exit code."""
import os
import time

from tests import base
from tests.bench import cost, measure, overhead


class TestCompare(base.TestCase):
    """Two series measured in pairs."""

    def test_medians(self):
        """Given pairs with one outlier, then medians decide, and least and most show it."""
        found = measure.compare([5.0, 6.0, 5.5], [5.2, 6.1, 50.0])
        self.assertEqual((5.5, 6.1), (found['bare']['median'], found['orchestrated']['median']))
        self.assertEqual((5.2, 50.0, 3), tuple(found['orchestrated'][name] for name in ('min', 'max', 'count')))
        self.assertAlmostEqual(6.1 / 5.5, found['ratio'])
        self.assertAlmostEqual(0.6, found['added'])
        self.assertAlmostEqual(0.2, found['added_in_pairs'])

    def test_series_of_different_length(self):
        """Given a series with a missing value, then nothing is compared."""
        self.assertRaises(ValueError, measure.compare, [1.0, 2.0], [1.0])


class TestPhases(base.TestCase):
    """Where the time goes."""

    def test_timeline(self):
        """Given a timeline, then each phase lasts until the next entry; what comes twice is added up."""
        moments = [(0, 'check', 'requested', ''), (50, 'pre', 'start', ''), (80, 'live', 'start', ''), (2080, 'live', 'observe', ''),
                   (2100, 'post', 'start', ''), (2150, 'post', 'start', ''), (2200, 'post', 'end', '')]
        found = measure.phases(moments)
        self.assertEqual({'checks': 0.05, 'pre': 0.03, 'live': 2.0, 'observation': 0.02, 'post': 0.1}, found)
        self.assertEqual(2.5, measure.medians([found, found | {'live': 3.0}])['live'])


class TestProcessor(base.TestCase):
    """What processes use."""

    def test_own_work_is_seen(self):
        """Given a process that computes for a while, then its clock moves on; that of nobody stands still."""
        before, until = measure.cpu_seconds(os.getpid()), time.monotonic() + 10
        while measure.cpu_seconds(os.getpid()) == before:
            self.assertLess(time.monotonic(), until)
        self.assertEqual(0.0, measure.cpu_seconds(2 ** 22 + 1))

    def test_above_idle(self):
        """Given an idle rate, then it is subtracted for the time that was measured, and the rest is shared by the events."""
        with measure.Processor({'a': 2 ** 22 + 1}) as processor:
            pass
        processor.seconds, processor.used = 10.0, {'a': 3.0}
        self.assertEqual({'a': 0.3}, processor.rate())
        self.assertEqual({'a': 1.0}, processor.above({'a': 0.1}, 2))


def counted(messages=24, statements=37, commits=8, cpu_seconds=0.1):
    """Make a cost."""
    numbers = {'messages': messages, 'statements': statements, 'commits': commits}
    return numbers | {'all': {name: [number] for name, number in numbers.items()}, 'cpu_seconds': cpu_seconds}


class TestVerdicts(base.TestCase):
    """What counts as within bounds."""

    def passed(self, found):
        """Tell for each verdict whether it passed."""
        return [passed for _words, passed in found]

    def test_budgets(self):
        """Given costs at their budgets, then they pass; one above it does not."""
        self.assertEqual([True] * 3, self.passed(cost.verdicts(counted(26, 40, 12))))
        self.assertEqual([False, False, False], self.passed(cost.verdicts(counted(27, 41, 13))))

    def test_the_worst_migration_counts(self):
        """Given one migration of several that cost more, then that one is judged."""
        alone = counted()
        alone['all']['messages'] = [24, 28, 24]
        self.assertEqual([False, True, True], self.passed(cost.verdicts(alone)))

    def test_others_in_flight(self):
        """Given the same cost with others in flight, then it passes; 20 % more or less is the limit."""
        self.assertEqual([True] * 7, self.passed(cost.verdicts(counted(20, 30, 10), counted(24, 36, 12, 0.12))))
        self.assertEqual([True] * 4 + [False, False, True], self.passed(cost.verdicts(counted(20, 30, 10), counted(20, 37, 7))))
        self.assertEqual([True] * 6 + [False], self.passed(cost.verdicts(counted(20, 30, 10), counted(20, 30, 10, 0.13))))

    def test_without_a_log(self):
        """Given a database without a log, then messages alone are judged."""
        self.assertEqual([True], self.passed(cost.verdicts({'messages': 24, 'all': {'messages': [24]}})))

    def test_times(self):
        """Given times, then short ones are judged by what was added and long ones by the ratio, if they are long."""
        def times(short, long, orchestrated):
            return {'short': measure.compare([1.0], [1.0 + short]), 'long': measure.compare([long], [orchestrated])}
        self.assertEqual([True, True, True], self.passed(overhead.verdicts(times(0.2, 6.0, 6.2))))
        self.assertEqual([False, True, False], self.passed(overhead.verdicts(times(0.4, 6.0, 6.4))))
        self.assertEqual([True, False, True], self.passed(overhead.verdicts(times(0.2, 4.0, 4.1))))
