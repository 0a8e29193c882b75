"""audit on the command line: one list, and an exit code that tells findings from hosts that were not asked."""
import json

from tests.unit.cli.support import CommandCase

FOUND = {'kind': 'lock', 'host': '', 'resource': 'instance:x', 'what': 'held by nobody', 'todo': 'delete it'}
OWED = {'id': 'd', 'host': 'host-a', 'instance_uuid': 'x', 'action': 'post', 'reason': 'it was silent'}
DOWN = {'host': 'host-b', 'why': 'last heard of yesterday'}


class AuditTest(CommandCase):

    def audit(self, *argv, findings=(), debts=(), not_audited=(), audited=('host-a',)):
        return self.run_cli('audit', *argv, audit={'findings': list(findings), 'debts': list(debts), 'not_audited': list(not_audited),
                                                   'audited': list(audited), 'left_off': 0})

    def test_exit_codes(self):
        self.assertEqual([0, 0, 11, 12, 11], [self.audit(**said).code for said in (
            {}, {'debts': [OWED]}, {'findings': [FOUND]}, {'not_audited': [DOWN]}, {'findings': [FOUND], 'not_audited': [DOWN]})])

    def test_a_clean_audit_says_how_much_was_looked_at(self):
        for count, words in ((0, 'no host was'), (1, '1 host was'), (3, '3 hosts were')):
            result = self.audit(audited=[f'host-{number}' for number in range(count)])
            self.assertEqual(('', f'migrator: {words} audited, nothing was found\n'), (result.out, result.err))

    def test_one_list_for_machines(self):
        result = self.audit('--host', 'host-a', '-f', 'json', findings=[FOUND], debts=[OWED], not_audited=[DOWN])
        self.assertEqual([('audit', 'host-a')], result.calls)
        self.assertEqual(['lock', 'debt', 'not audited'], [row['kind'] for row in json.loads(result.out)])
        self.assertEqual(FOUND, {key.lower(): value for key, value in json.loads(result.out)[0].items()})
