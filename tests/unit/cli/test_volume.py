"""migrator volume: what is asked of the conductor, what is shown, and what is refused before anything is sent."""
import json

from migrator import exceptions
from tests.unit.cli.support import INSTANCE, MIGRATION, OTHER, Answers, CommandCase, migration

GIB = 1 << 30
VOLUME = 'd0c0ffee-0000-4000-8000-000000000001'


def volume(name='data', **values):
    """A volume's view as a conductor gives it."""
    return {'id': VOLUME, 'name': name, 'size': 4 * GIB, 'type': 'fast', 'multiattach': False, 'pool': 'alpha@gold#p1', 'host': 'alpha',
            'lun': f'volume-{VOLUME}', 'locator': {}, 'status': 'available', 'migration_status': 'none', 'error': '', 'locked_by': '',
            'debts': 0, 'attachments': [], 'created_at': '2026-01-31T12:00:00.123Z', 'updated_at': '2026-01-31T12:00:00.123Z', **values}


def work(kind='volume_create', status='running', **values):
    """A workflow on a volume."""
    return migration(status, **{'kind': kind, 'resource': 'volume', 'instance_uuid': '', 'instance_name': '', 'volume_id': VOLUME,
                                'volume_name': 'data', 'source_host': 'alpha', 'destination_host': '', **values})


def moving(status='running', **values):
    """A migration of a volume."""
    return work('volume_migration', status, **{'from': 'alpha@gold#p1', 'to': 'beta@silver#p2', 'way': '', 'why': '', **values})


ATTACHED = {'id': OTHER, 'instance_uuid': INSTANCE, 'instance_name': 'web-1', 'host': 'beta', 'target': 'vdb', 'read_only': True,
            'status': 'attached', 'uri': 'nbd://a/b', 'created_at': ''}


class ListTest(CommandCase):

    def test_a_list_fits_a_line(self):
        found = [volume(), volume('log', status='in-use', attachments=[ATTACHED])]
        result = self.run_cli('volume', 'list', '--backend', 'alpha@gold', '--status', 'in-use', volumes=found)
        self.assertEqual([('volumes', {'backend': 'alpha@gold', 'status': 'in-use'}, 1000, None)], result.calls)
        self.assertIn('web-1', result.out)
        self.assertLessEqual(max(map(len, result.out.splitlines())), 120)

    def test_nothing(self):
        self.assertIn('there are no volumes', self.run_cli('volume', 'list', volumes=[]).err)
        self.assertIn('no such volumes', self.run_cli('volume', 'list', '--type', 'fast', volumes=[]).err)
        self.assertEqual(2, self.run_cli('volume', 'list', '--status', 'lost').code)

    def test_one_with_who_has_it_and_the_way_that_its_migration_took(self):
        last = {'id': MIGRATION, 'status': 'completed', 'reason': '', 'progress': {}, 'from': 'alpha@gold#p1', 'to': 'beta@silver#p2',
                'way': 'host copy', 'why': 'a host copy was asked for'}
        result = self.run_cli('volume', 'show', 'data', volume_show=volume(status='in-use', attachments=[ATTACHED], migration=last))
        self.assertIn('web-1 on beta as vdb, read-only', result.out)
        for words in ('from alpha@gold#p1 to beta@silver#p2', 'by host copy', '(a host copy was asked for)'):
            self.assertIn(words, result.out)
        self.assertLessEqual(max(map(len, result.out.splitlines())), 120)
        self.assertEqual(volume(), json.loads(self.run_cli('volume', 'show', 'data', '-f', 'json', volume_show=volume()).out))

    def test_not_there(self):
        refused = self.run_cli('volume', 'show', 'x', volume_show=exceptions.VolumeNotFound('there is no volume x'))
        self.assert_refused(refused, 3, 'VolumeNotFound', 'no volume x')


class WorkTest(CommandCase):

    def test_what_is_asked_for(self):
        for argv, name, call in (
                (('create', 'data', '--size', '4G'), 'volume_create', ('data', 4 * GIB, '', '', False, None)),
                (('create', 'data', '--size', '512', '--pool', 'alpha@gold#p1', '--type', 'fast', '--multiattach', '--request-id', 'r'),
                 'volume_create', ('data', 512, 'alpha@gold#p1', 'fast', True, 'r')),
                (('extend', 'data', '8G'), 'volume_extend', ('data', 8 * GIB, None)),
                (('delete', VOLUME.upper()), 'volume_delete', (VOLUME, None)),
                (('attach', 'data', 'web-1', '--target', 'vdc', '--read-only'), 'volume_attach',
                 ('data', 'web-1', {'target': 'vdc', 'read_only': True}, None)),
                (('detach', 'data', 'web-1'), 'volume_detach', ('data', 'web-1', {'assert_dead': False}, None)),
                (('detach', 'data', 'web-1', '--assert-dead'), 'volume_detach', ('data', 'web-1', {'assert_dead': True}, None))):
            result = self.run_cli('volume', *argv, **{name: work(name)})
            self.assertEqual((0, [(name, *call)]), (result.code, result.calls), result.err)
            self.assertIn('data', result.out)

    def test_waited_for(self):
        """Given an attachment that fails, when it is waited for, then the exit code says so, and the words say of what."""
        failed = work('volume_attach', 'failed', error='attach_volume: no', instance_name='web-1')
        result = self.run_cli('volume', 'attach', 'data', 'web-1', '--wait', volume_attach=work('volume_attach', instance_name='web-1'),
                              show=Answers([work('volume_attach', instance_name='web-1'), failed]))
        self.assertEqual(7, result.code, result.err)
        self.assertIn('attach volume of data with web-1', result.err)

    def test_refused_here(self):
        for argv in (('create', 'data'), ('create', 'data', '--size', '1000'), ('create', 'data', '--size', 'much'),
                     ('extend', 'data', '0'), ('attach', 'data'), ('migrate', 'data', 'b@s', '--verify', 'never'),
                     ('migrate', 'data', 'b@s', '--dry-run', '--wait')):
            self.assertEqual((2, []), (lambda r: (r.code, r.calls))(self.run_cli('volume', *argv)), argv)

    def test_refused_there(self):
        result = self.run_cli('volume', 'delete', 'data', volume_delete=exceptions.VolumeInUse('volume data is attached to web-1'))
        self.assert_refused(result, 4, 'VolumeInUse', 'attached to web-1')


class MigrateTest(CommandCase):

    options = {'force_host_copy': False, 'lock_volume': False, 'new_type': '', 'verification': 'sampled', 'bandwidth': 0, 'dry_run': False}

    def test_asked_for_and_shown(self):
        result = self.run_cli('volume', 'migrate', 'data', 'beta@silver', volume_migrate=moving())
        self.assertEqual([('volume_migrate', 'data', 'beta@silver', None, self.options)], result.calls)
        for words in ('volume migration', 'alpha@gold#p1', 'beta@silver#p2', 'at work'):
            self.assertIn(words, result.out)
        self.assertNotIn('Instance', result.out)

    def test_every_option(self):
        result = self.run_cli('volume', 'migrate', 'data', 'beta@silver#p2', '--force-host-copy', '--lock-volume', '--type', 'slow',
                              '--verify', 'full', '--bandwidth', '100', volume_migrate=moving())
        self.assertEqual({'force_host_copy': True, 'lock_volume': True, 'new_type': 'slow', 'verification': 'full',
                          'bandwidth': 100 << 20, 'dry_run': False}, result.calls[0][-1])

    def test_a_dry_run_tells_the_ways(self):
        found = {'dry_run': True, 'possible': True, 'reasons': [], 'volume_id': VOLUME, 'volume_name': 'data', 'from': 'alpha@gold#p1',
                 'to': 'beta@silver#p2', 'size': GIB, 'type': '', 'ways': ['source driver: alpha@gold is asked to move it', 'host copy']}
        result = self.run_cli('volume', 'migrate', 'data', 'beta@silver', '--dry-run', volume_migrate=found)
        self.assertEqual((0, {**self.options, 'dry_run': True}), (result.code, result.calls[0][-1]))
        self.assertIn('source driver: alpha@gold is asked to move it', result.out)

    def test_how_it_goes_and_which_way_it_went(self):
        copying = moving(progress={'active': True, 'total': 4 * GIB, 'done': GIB, 'rate': 512 << 20, 'ready': False})
        done = moving('completed', way='host copy', why='a host copy was asked for')
        result = self.run_cli('migration', 'watch', MIGRATION, show=Answers([copying, done]))
        self.assertIn('data  alpha@gold#p1 -> beta@silver#p2  running, copying, ', result.out)
        self.assertIn('25 % copied, 512 MiB/s, 3 GiB left, about 6.0 s', result.out)
        shown = self.run_cli('migration', 'show', MIGRATION, show=done)
        self.assertIn('host copy', shown.out)
        self.assertIn('a host copy was asked for', shown.out)

    def test_lists_of_volumes(self):
        result = self.run_cli('migration', 'list', '--volume', 'data', list=[moving(progress={'active': True, 'total': 100, 'done': 40})])
        self.assertEqual([('list', {'volume': 'data', 'kind': 'volume_migration'}, 100, None)], result.calls)
        self.assertIn('40 %', result.out)
        self.assertLessEqual(max(map(len, result.out.splitlines())), 120)
        everything = self.run_cli('migration', 'list', '--all-kinds', list=[moving(), work('volume_attach', instance_name='web-1')])
        self.assertIn('data with web-1', everything.out)
        self.assertLessEqual(max(map(len, everything.out.splitlines())), 140)

    def test_another_rate(self):
        result = self.run_cli('migration', 'set-bandwidth', MIGRATION, '50', set_bandwidth=moving())
        self.assertEqual((0, [('set_bandwidth', MIGRATION, 50 << 20)]), (result.code, result.calls))
