"""migration recover on the command line: what is asked for, and what the exit code says."""
import json

from migrator import exceptions
from tests.unit.cli.support import MIGRATION, Answers, CommandCase, migration

SAID = {'host': 'host-a', 'user': 'alice', 'at': '2026-01-31T12:00:00.123Z', 'last_seen': '', 'host_boot_id': '', 'process_id': '',
        'heard_since': False}


class RecoverTest(CommandCase):

    def test_a_look_now(self):
        result = self.run_cli('migration', 'recover', MIGRATION, recover=migration('running'))
        self.assertEqual((0, [('recover', MIGRATION, None)]), (result.code, result.calls))

    def test_a_host_that_is_off_and_what_came_of_it(self):
        view = migration('failed', error='the guest went down with its host', attestations=[SAID])
        result = self.run_cli('migration', 'recover', MIGRATION, '--assert-dead', 'host-a', '--wait', recover=migration(), show=view)
        self.assertEqual((7, ('recover', MIGRATION, 'host-a')), (result.code, result.calls[0]))
        self.assertIn('host-a is off, said alice at 2026-01-31 12:00:00Z', result.out)
        self.assertIn('went down with its host', result.err)

    def test_still_in_need_of_an_operator(self):
        result = self.run_cli('migration', 'recover', MIGRATION, '--wait', recover=migration(), show=migration('needs_operator'))
        self.assertEqual(9, result.code)

    def test_the_wait_is_for_an_answer_to_this_question(self):
        """Given a migration that needs an operator, that it still does counts once the hosts were asked for this request, not before."""
        stuck = migration('needs_operator', reason='old', updated_at='2026-01-31T12:00:05.000Z', looked_at='2026-01-31T12:00:01.000Z')
        later = [{**stuck, 'reason': reason, 'looked_at': f'2026-01-31T12:00:{looked}.000Z'}
                 for reason, looked in (('asked again', '01'), ('asked before', '04'), ('new', '05'))]
        result = self.run_cli('migration', 'recover', MIGRATION, '--wait', recover=stuck, show=Answers([stuck, *later]))
        self.assertEqual((9, 4), (result.code, [call[0] for call in result.calls].count('show')))
        self.assertIn('NeedsOperator: live migration of web-1', result.err)
        self.assertIn(': new', result.err)

    def test_without_waiting_it_says_where_the_answer_will_be(self):
        result = self.run_cli('migration', 'recover', MIGRATION, recover=migration('needs_operator'))
        self.assertEqual(0, result.code)
        self.assertIn(f'The hosts are being asked; `migrator migration show {MIGRATION}`', result.out)

    def test_show_says_for_how_long_an_answer_is_missing_and_what_follows(self):
        view = migration(reason='host-a does not answer; needs an operator after 60 s', silent_seconds=12)
        shown = self.run_cli('migration', 'show', MIGRATION, show=view)
        self.assertIn('needs an operator after 60 s (no answer for 12 s so far)', shown.out)
        told = self.run_cli('migration', 'show', MIGRATION, '-f', 'json', show=view)
        self.assertEqual((view['reason'], 12), tuple(json.loads(told.out)[name] for name in ('reason', 'silent_seconds')))

    def test_a_host_that_is_heard_of(self):
        result = self.run_cli('migration', 'recover', MIGRATION, '--assert-dead', 'host-a', recover=exceptions.HostUp('host-a is not off'))
        self.assert_refused(result, 4, 'HostUp', 'host-a is not off')
