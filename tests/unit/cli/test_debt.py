"""migrator debt: what is listed, and what giving one up asks for."""
import json

from migrator import exceptions
from tests.unit.cli.support import INSTANCE, MIGRATION, OTHER, CommandCase


def debt(**values):
    """A debt's view as a conductor gives it."""
    return {'id': OTHER, 'host': 'host-a', 'instance_uuid': INSTANCE, 'instance_name': 'web-1', 'migration_id': MIGRATION,
            'action': 'post_live_migration_at_source', 'reason': 'host-a does not answer', 'refused': False, 'state': 'open', 'attempts': 1,
            'created_at': '2026-01-31T12:00:00.123Z', 'written_off_at': '', 'written_off_by': '', 'written_off_why': '', **values}


WRITTEN_OFF = debt(state='written off', written_off_at='2026-02-01T12:00:00.123Z', written_off_by='alice', written_off_why='scrapped')


class DebtTest(CommandCase):

    def test_a_list_tells_what_is_open_and_what_is_not(self):
        debts = [debt(), debt(refused=True, state='refused'), WRITTEN_OFF]
        result = self.run_cli('debt', 'list', '--host', 'host-a', '-f', 'csv', '-c', 'state', debts=debts)
        self.assertEqual([('debts', {'host': 'host-a'}, 1000, None)], result.calls)
        self.assertEqual(['open', 'refused', 'written off'], [line.strip('"') for line in result.out.splitlines()[1:]])

    def test_nothing_owed_is_said(self):
        result = self.run_cli('debt', 'list', debts=[])
        self.assertEqual((0, ''), (result.code, result.out))
        self.assertIn('no host owes anything', result.err)
        self.assertEqual('migrator: host-a owes nothing\n', self.run_cli('debt', 'list', '--host', 'host-a', debts=[]).err)
        self.assertEqual('[]\n', self.run_cli('debt', 'list', '-f', 'json', debts=[]).out)

    def test_machines_are_told_the_state_in_each_format(self):
        for form in ('json', 'yaml', 'csv'):
            self.assertIn('written off', self.run_cli('debt', 'list', '-f', form, debts=[WRITTEN_OFF]).out)
        self.assertEqual('written off\n', self.run_cli('debt', 'list', '-f', 'value', '-c', 'state', debts=[WRITTEN_OFF]).out)

    def test_giving_one_up_shows_the_record(self):
        result = self.run_cli('debt', 'write-off', OTHER, '--reason', 'scrapped', '-f', 'json', debt_write_off=WRITTEN_OFF)
        self.assertEqual((0, [('debt_write_off', OTHER, 'scrapped')]), (result.code, result.calls))
        self.assertEqual(('alice', 'scrapped'), tuple(json.loads(result.out)[name] for name in ('written_off_by', 'written_off_why')))

    def test_a_second_reason_is_not_dropped_in_silence(self):
        again = self.run_cli('debt', 'write-off', OTHER, '--reason', 'sold', debt_write_off=WRITTEN_OFF)
        words = 'migrator: alice wrote it off at 2026-02-01 12:00:00Z; that reason holds: scrapped\n'
        self.assertEqual((0, words), (again.code, again.err))
        self.assertEqual('', self.run_cli('debt', 'write-off', OTHER, '--reason', 'scrapped', debt_write_off=WRITTEN_OFF).err)

    def test_no_reason_and_no_id(self):
        self.assertEqual(2, self.run_cli('debt', 'write-off', OTHER).code)
        self.assertEqual(2, self.run_cli('debt', 'write-off', 'web-1', '--reason', 'scrapped').code)

    def test_a_host_that_is_heard_of(self):
        result = self.run_cli('debt', 'write-off', OTHER, '--reason', 'scrapped', debt_write_off=exceptions.HostUp('host-a is not off'))
        self.assert_refused(result, 4, 'HostUp', 'host-a is not off')
