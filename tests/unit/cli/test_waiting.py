"""--wait and watch: every ending has its exit code, and a conductor that is away for a while does not end the wait."""
from migrator import exceptions
from tests.unit.cli.support import MIGRATION, OTHER, Answers, CommandCase, migration
from tests.unit.cli.test_pace import job

AWAY = exceptions.Unavailable('no conductor answered')


class WaitTest(CommandCase):

    def wait(self, *answers, argv=()):
        return self.run_cli('live-migrate', 'web-1', 'host-b', '--wait', *argv, live_migrate=migration('checking'), show=Answers(answers))

    def test_each_ending_has_its_code_and_one_line(self):
        for status, code, word in (('completed', 0, ''), ('failed', 7, 'Failed'), ('cancelled', 8, 'Cancelled'),
                                   ('needs_operator', 9, 'NeedsOperator')):
            result = self.wait(migration('running'), migration(status, error='' if status == 'completed' else 'the disk is full'))
            self.assertEqual(code, result.code, status)
            self.assertIn(status, result.out)
            if word:
                self.assertRegex(result.err, rf'\Amigrator: {word}: [^\n]*the disk is full\n\Z')
                self.assertIn('Timeline', result.out)
            else:
                self.assertEqual('', result.err)

    def test_the_time_is_over(self):
        result = self.wait(migration('running'), argv=('--timeout', '2.5'))
        self.assertEqual((10, 2.5), (result.code, result.seconds))
        self.assertIn('goes on', result.err)

    def test_no_time_at_all_asks_once(self):
        result = self.wait(migration('running'), argv=('--timeout', '0'))
        self.assertEqual((10, 1), (result.code, [call[0] for call in result.calls].count('show')))

    def test_a_conductor_that_comes_back_ends_the_wait_well(self):
        result = self.wait(AWAY, AWAY, migration('completed'))
        self.assertEqual(0, result.code)
        self.assertEqual(1, result.err.count('no answer for the moment'))

    def test_a_conductor_that_stays_away_is_given_up(self):
        result = self.wait(AWAY)
        self.assertEqual(6, result.code)
        self.assertIn('Unavailable', result.err.splitlines()[-1])
        self.assertTrue(60 <= result.seconds < 70, result.seconds)

    def test_questions_become_rarer(self):
        result = self.wait(*[migration('running')] * 20, migration('completed'))
        self.assertGreater(result.seconds, 12)

    def test_an_abort_that_succeeds_is_a_success_and_one_that_came_too_late_a_conflict(self):
        for status, code in (('cancelled', 0), ('completed', 4), ('failed', 7)):
            result = self.run_cli('migration', 'abort', MIGRATION, '--wait', abort=migration(), show=migration(status, error='x'))
            self.assertEqual(code, result.code, status)

    def test_timeout_without_wait_is_wrong_usage(self):
        result = self.run_cli('live-migrate', 'web-1', 'host-b', '--timeout', '3', live_migrate=migration())
        self.assert_refused(result, 2, 'InvalidRequest', '--wait')
        self.assertEqual([], result.calls)


class WatchTest(CommandCase):

    def test_a_line_for_each_change_and_none_for_the_same(self):
        copied = [migration(progress={'memory_total': 100, 'memory_remaining': left}) for left in (100, 99, 50)]
        result = self.run_cli('migration', 'watch', MIGRATION, show=Answers([*copied, migration('completed', reason='done')]))
        self.assertEqual(0, result.code)
        lines = result.out.splitlines()
        self.assertEqual(3, len(lines), lines)
        self.assertIn('web-1  host-a -> host-b  running, 0 % copied, 100 B left: pre_live_migration done', lines[0])
        self.assertIn('50 % copied', lines[1])
        self.assertTrue(lines[2].endswith('completed: done'), lines[2])

    def test_a_line_tells_what_is_done_how_it_goes_and_in_the_end_what_it_cost(self):
        copying = job(40, 2000, iteration=1)
        ended = migration('completed', reason='done', statistics={'downtime_ms': 65, 'memory_processed': 120 << 20})
        result = self.run_cli('migration', 'watch', MIGRATION, show=Answers([migration(progress=copying), ended]))
        running, completed = result.out.splitlines()
        self.assertTrue(running.endswith('  running, copying memory, round 1, 40 % copied, 20 MiB/s, 60 MiB left, about 3.0 s, for 2.0 s: '
                                         'pre_live_migration done'), running)
        self.assertTrue(completed.endswith('completed: done; downtime 65 ms, 120 MiB of memory copied'), completed)

    def test_a_new_round_alone_is_no_line(self):
        rounds = [migration(progress={'active': True, 'memory_total': 100, 'memory_remaining': 50, 'memory_processed': 60, 'iteration': n})
                  for n in range(1, 9)]
        result = self.run_cli('migration', 'watch', MIGRATION, show=Answers([*rounds, migration('completed')]))
        self.assertEqual(2, len(result.out.splitlines()), result.out)

    def test_the_first_that_did_not_complete_gives_the_code(self):
        result = self.run_cli('migration', 'watch', MIGRATION, OTHER, show=Answers([
            migration('completed'), migration('failed', id=OTHER, error='no room')]))
        self.assertEqual(7, result.code)
        self.assertIn('failed: no room', result.out)

    def test_one_that_needs_an_operator_is_watched_on(self):
        result = self.run_cli('migration', 'watch', MIGRATION, show=Answers([migration('needs_operator'), migration('completed')]))
        self.assertEqual(0, result.code)

    def test_the_time_is_over(self):
        result = self.run_cli('migration', 'watch', MIGRATION, '--timeout', 3, show=migration())
        self.assertEqual(10, result.code)
        self.assertEqual(f'migrator: TimedOut: live migration of web-1 (migration {MIGRATION}) goes on; it is running: '
                         'pre_live_migration done\n', result.err)

    def test_nobody_answers_in_time(self):
        result = self.run_cli('migration', 'watch', MIGRATION, '--timeout', 3, show=AWAY)
        self.assertEqual(6, result.code)
