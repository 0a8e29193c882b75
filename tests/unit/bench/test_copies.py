"""How the benchmark of copies judges."""
import fixtures

from tests import base
from tests.bench import __main__ as command
from tests.bench import copies


def case(seconds=1.0, of_nbdcopy=1.0, of_dd=4.0, allocated=100, data=100):
    return {'tools': {'host copy': {'median': seconds}}, 'of_nbdcopy': of_nbdcopy, 'of_dd': of_dd, 'allocated': allocated, 'data': data}


class VerdictsTest(base.TestCase):

    def passed(self, **cases):
        return [passed for _, passed in copies.verdicts(**{'full': case(), 'sparse': case(), 'delayed': case(), **cases})]

    def test_on_the_bounds_everything_passes(self):
        within = {'of_nbdcopy': 0.9}
        self.assertEqual([True] * 6, self.passed(full=case(**within), sparse=case(1.25, allocated=105, **within), delayed=case(**within)))

    def test_each_bound_is_one_of_its_own(self):
        worse = ({'full': case(of_nbdcopy=0.89)}, {'sparse': case(of_nbdcopy=0.89)}, {'delayed': case(of_nbdcopy=0.89)},
                 {'sparse': case(1.26)}, {'sparse': case(allocated=106)}, {'delayed': case(of_dd=3.9)})
        for number, cases in enumerate(worse):
            self.assertEqual([other != number for other in range(6)], self.passed(**cases))


class RoundsTest(base.TestCase):

    def test_each_tool_copies_once_in_a_round_and_who_begins_changes(self):
        orders = [copies._turned(copies.TOOLS, number) for number in range(4)]
        self.assertEqual(set(copies.TOOLS), {order[0] for order in orders})
        for order in orders:
            self.assertEqual(sorted(copies.TOOLS), sorted(order))

    def test_a_ratio_is_of_rounds_and_not_of_medians(self):
        """Given a machine that becomes ten times slower, when it is compared round by round, then the trend falls out."""
        times = {'host copy': [1.0, 5.0, 10.0], 'nbdcopy': [2.0, 10.0, 20.0]}
        self.assertEqual(2.0, copies._ratio(times, 'nbdcopy'))


class CommandTest(base.TestCase):

    def test_the_defaults(self):
        read = command.parser().parse_args(['copy'])
        self.assertEqual((256, 2.0, False), (read.size, read.delay, read.realtime))

    def test_nothing_cannot_be_measured(self):
        for options in (['--size', '0'], ['--rounds', '0']):
            self.assertEqual(2, self.assertRaises(SystemExit, command.main, ['copy', *options]).code)

    def test_without_the_programs_it_does_not_run(self):
        self.useFixture(fixtures.EnvironmentVariable('PATH', str(self.temp_dir)))
        self.assertEqual(2, command.main(['copy']))
