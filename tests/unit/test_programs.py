"""The runner of programs: output, failures and time-outs, called from plain and from native threads."""
import sys
import time

from migrator import concurrency, exceptions, programs
from tests import base


class ProgramsTest(base.TestCase):
    """Python stands in for programs."""

    def run_python(self, code, timeout=20):
        return concurrency.run_native(programs.run, [sys.executable, '-c', code], timeout)

    def test_what_it_says_is_returned(self):
        self.assertEqual('grüezi\n' * 50000, self.run_python('import sys; sys.stdout.buffer.write("grüezi\\n".encode() * 50000)'))

    def test_a_failure_is_told_with_its_words(self):
        error = self.assertRaises(exceptions.DriverError, self.run_python, 'import sys; sys.exit("no such image")')
        self.assertIn('no such image', str(error))

    def test_a_failure_without_words_has_its_number(self):
        self.assertIn('7', str(self.assertRaises(exceptions.DriverError, self.run_python, 'import sys; sys.exit(7)')))

    def test_one_that_takes_too_long_is_killed(self):
        began = time.monotonic()
        error = self.assertRaises(exceptions.DriverError, self.run_python, 'import time; time.sleep(60)', 0.3)
        self.assertIn('longer than 0.3 s', str(error))
        self.assertLess(time.monotonic() - began, 30)

    def test_one_that_is_not_there(self):
        error = self.assertRaises(exceptions.DriverError, concurrency.run_native, programs.run, ['no-such-program'], 5)
        self.assertIn('no-such-program', str(error))

    def test_it_reads_nothing_of_ours(self):
        self.assertEqual("b''\n", self.run_python('import sys; print(sys.stdin.buffer.read())'))
