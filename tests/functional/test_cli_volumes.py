"""`migrator volume` and `migrator backend` against real daemons with simulated hypervisors and arrays, RabbitMQ and MariaDB."""
from tests.functional.test_cli import CommandLineCase

GIB = 1 << 30


class VolumeCommandsTest(CommandLineCase):

    hosts = ('host',)
    arrays = {'one': {'gold': {'types': 'premium', 'take_over': 'no'}}, 'two': {'silver': {'types': 'premium,cheap'}}}

    def done(self, *argv):
        """Run a command that waits; it must have succeeded. Returns the migration's view."""
        view = self.view(*argv, '--wait', '--timeout', '60')
        self.assertEqual('completed', view['status'], view)
        return view

    def test_the_life_of_a_volume(self):
        """Given two arrays, when a volume is made, attached, detached, migrated there and back, and deleted, then each command says so by
        its output and exit code, and nothing is left over."""
        self.assertEqual(['one@gold', 'two@silver'], [backend['name'] for backend in self.view('backend', 'list')])
        self.assertEqual('up', self.view('backend', 'show', 'one@gold')['state'])
        self.done('instance', 'create', 'web', '--host', 'host', '--disk', 'target=vda,size=1M')
        self.done('volume', 'create', 'data', '--size', '64M', '--type', 'premium', '--pool', 'one@gold')
        made = self.view('volume', 'show', 'data')
        self.assertEqual(('available', 64 << 20, 'one@gold'), (made['status'], made['size'], made['pool'].partition('#')[0]))
        self.done('volume', 'attach', 'data', 'web')
        self.assertEqual(['web'], [a['instance_name'] for a in self.view('volume', 'list', '--status', 'in-use')[0]['attachments']])
        for argv, words in ((('migrate', 'data', 'two@silver'), 'attached to web'), (('delete', 'data'), 'attached to web')):
            code, out, err = self.migrator('volume', *argv)
            self.assertEqual((4, ''), (code, out), err)
            self.assertIn(words, err)
        self.done('volume', 'detach', 'data', 'web')
        self.done('volume', 'extend', 'data', '128M')
        self.assertEqual(3, len(self.view('volume', 'migrate', 'data', 'two@silver', '--dry-run')['ways']))
        there = self.done('volume', 'migrate', 'data', 'two@silver')
        self.assertEqual('target driver, data follows', there['way'])
        back = self.done('volume', 'migrate', 'data', 'one@gold')
        self.assertEqual(('host copy', 'the source array does not move it by itself, and the target array does not take it over'),
                         (back['way'], back['why']))
        shown = self.view('volume', 'show', made['id'])
        self.assertEqual((made['id'], made['pool'].partition('#')[0], 'success', back['id'], 128 << 20), (
            shown['id'], shown['pool'].partition('#')[0], shown['migration_status'], shown['migration']['id'], shown['size']))
        self.assertEqual([back['id'], there['id']], [view['id'] for view in self.view('migration', 'list', '--volume', 'data')])
        self.assertEqual([], self.view('audit'))
        self.done('volume', 'delete', 'data')
        self.assertEqual((3, ''), self.migrator('volume', 'show', 'data')[:2])

    def test_a_migration_that_fails_says_why(self):
        """Given a volume and a pool that is too small for it, when they are to come together, then the exit code and the words say so."""
        self.done('volume', 'create', 'data', '--size', '1G', '--pool', 'one@gold')
        code, out, err = self.migrator('volume', 'extend', 'data', '9000T')
        self.assertEqual((4, ''), (code, out))
        self.assertIn('NoRoom', err)
        self.assertEqual(GIB, self.view('volume', 'show', 'data')['size'])
