"""migration recover on the command line: what is asked for, and what the exit code says."""
from migrator import exceptions
from tests.unit.cli.support import MIGRATION, CommandCase, migration

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

    def test_a_host_that_is_heard_of(self):
        result = self.run_cli('migration', 'recover', MIGRATION, '--assert-dead', 'host-a', recover=exceptions.HostUp('host-a is not off'))
        self.assert_refused(result, 4, 'HostUp', 'host-a is not off')
