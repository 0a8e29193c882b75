"""What --wait and watch draw in a terminal: bars for memory and disk, how it goes, and the end; and that a pipe sees none of it."""
import io

import fixtures

from migrator.cli.main import App
from tests.unit.cli.support import MIGRATION, Answers, Clock, CommandCase, Conductor, migration
from tests.unit.cli.test_pace import job

MIB = 1 << 20


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


class BarsTest(CommandCase):

    def setUp(self):
        super().setUp()
        for name, value in (('TERM', 'xterm'), ('COLUMNS', '120'), ('LINES', '40'), ('NO_COLOR', None), ('FORCE_COLOR', None)):
            self.useFixture(fixtures.EnvironmentVariable(name, value))

    def run_in_terminal(self, *argv, out=None, err=None, **answers):
        out, err, clock = out or Terminal(), err or Terminal(), Clock()
        code = App(Conductor(answers), stdout=out, stderr=err, clock=clock.time, sleep=clock.sleep).run(list(argv))
        return code, out.getvalue(), err.getvalue()

    def test_watch_draws_both_bars_the_pace_and_the_end(self):
        running = migration(progress=job(25, 1000, disk_total=200 * MIB, disk_remaining=100 * MIB, dirty_rate=5 * MIB, iteration=3,
                                         downtime_ms=80))
        code, out, _err = self.run_in_terminal('migration', 'watch', MIGRATION, show=Answers([
            running, migration('completed', progress=running['progress'], reason='all is well', statistics={'downtime_ms': 97})]))
        self.assertEqual(0, code)
        for words in ('web-1', 'host-a → host-b', 'running: copying the disk', '25 %', '25 MiB of 100 MiB', '50 %', '100 MiB of 200 MiB',
                      '41 % copied', '25 MiB/s', '175 MiB left', 'about 8.8 s', '5 MiB/s written by the guest', 'expected downtime 80 ms',
                      '100 MiB of 100 MiB', 'all is well', 'downtime 97 ms'):
            self.assertIn(words, out)

    def test_wait_draws_on_standard_error_and_leaves_standard_output_to_the_result(self):
        answers = {'live_migrate': migration(), 'show': Answers([migration(progress=job(40, 1000)), migration('completed')])}
        code, out, err = self.run_in_terminal('live-migrate', 'web-1', 'host-b', '--wait', '-f', 'json', out=io.StringIO(), **answers)
        self.assertEqual(0, code)
        self.assertIn('40 MiB of 100 MiB', err)
        self.assertTrue(out.startswith('{') and '\x1b' not in out, out)

    def test_wait_is_silent_without_a_terminal(self):
        answers = {'live_migrate': migration(), 'show': Answers([migration(progress=job(40, 1000)), migration('completed')])}
        self.assertEqual('', self.run_in_terminal('live-migrate', 'web-1', 'host-b', '--wait', err=io.StringIO(), **answers)[2])

    def test_markup_and_control_characters_from_elsewhere_are_only_text(self):
        view = migration('failed', error='no [red]room\x1b]0;owned\x07', instance_name='a[bold]b')
        code, out, _err = self.run_in_terminal('migration', 'watch', MIGRATION, show=view)
        self.assertEqual(7, code)
        self.assertIn('no [red]room', out)
        self.assertIn('a[bold]b', out)
        self.assertNotIn('\x1b]0;', out)
        self.assertNotIn('\x07', out)

    def test_no_bar_before_anything_is_known_and_none_after_a_failure(self):
        for view in (migration(), migration('failed', progress=job(40, 1000))):
            _code, out, _err = self.run_in_terminal('migration', 'watch', MIGRATION, '--timeout', '0', show=view)
            self.assertNotIn('%', out)
