"""migrator instance forget: what is sent, what is shown, and what is said of hosts that were not asked."""
import json

from migrator import exceptions
from tests.unit.cli.support import INSTANCE, CommandCase, instance


def forgotten(**values):
    """The answer of a conductor."""
    return {**instance(state='unknown'), 'asked': ['host-a', 'host-b'], 'attested': [], 'not_asked': [], **values}


class InstanceForgetTest(CommandCase):

    def test_it_is_shown_as_it_was_with_who_was_asked(self):
        result = self.run_cli('instance', 'forget', 'web-1', instance_forget=forgotten())
        self.assertEqual((0, [('instance_forget', 'web-1', [])], ''), (result.code, result.calls, result.err))
        for words in ('web-1', INSTANCE, 'unknown', 'host-b'):
            self.assertIn(words, result.out)

    def test_hosts_that_are_off(self):
        result = self.run_cli('instance', 'forget', INSTANCE, '--assert-dead', 'host-c', '--assert-dead', 'host-d', '-f', 'json',
                              instance_forget=forgotten(attested=['host-c', 'host-d']))
        self.assertEqual([('instance_forget', INSTANCE, ['host-c', 'host-d'])], result.calls)
        self.assertEqual(['host-c', 'host-d'], json.loads(result.out)['attested'])

    def test_who_was_left_out_is_named(self):
        result = self.run_cli('instance', 'forget', 'web-1', instance_forget=forgotten(not_asked=['host-x', 'host-y']))
        self.assertEqual((0, 'migrator: not asked, for they are disabled and silent: host-x, host-y\n'), (result.code, result.err))

    def test_refusals(self):
        self.assertEqual(2, self.run_cli('instance', 'forget').code)
        self.assertEqual(2, self.run_cli('instance', 'forget', 'web-1', '--assert-dead', 'no host/').code)
        refused = self.run_cli('instance', 'forget', 'web-1', instance_forget=exceptions.NotPossible('host-b has it'))
        self.assert_refused(refused, 4, 'NotPossible', 'host-b has it')
