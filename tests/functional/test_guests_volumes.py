"""Volumes that move between real arrays while real guests use them: through real daemons, as an API tier asks for it.

What a guest was told to be written is compared with the LUN itself, and all the rest of it byte by byte with what was there before.
"""
import functools
import os
import pathlib

from migrator import exceptions
from tests.cloud_case import CloudCase
from tests.lab.disk import read_records

MIB = 1 << 20
#: What guests write lies below; random data from there on.
DATA_AT = 16 * MIB
#: How fast the host of the source's array sends until a test has seen what it needs: all data of a take-over takes longer than a guest
#: is waited for.
RATE = '32mbit'


class VolumeCase(CloudCase):
    """A volume of random data at the array `old`; `near` is of the same agent, `far` of another one."""

    arguments = {'arrays': {'store': {'old': 'beta', 'near': 'svc'}, 'depot': {'far': 'svc'}}}
    targets = {'near': 'store@near#slow', 'far': 'depot@far#fast', 'here': 'store@old#slow'}
    size = 48 * MIB

    def setUp(self):
        super().setUp()
        self.arrays = self.cloud.arrays
        self.data = os.urandom(self.size - DATA_AT)
        self.do(self.api.volume_create(f'volume-{os.urandom(4).hex()}', self.size, 'store@old#fast'))
        self.volume, = (volume['id'] for volume in self.api.volumes())
        self.source = self.file()
        with open(self.source, 'r+b') as file:
            file.seek(DATA_AT)
            file.write(self.data)

    def do(self, migration):
        """Wait for work to end well; returns it as `show` does."""
        ended = self.cloud.ended(migration)
        self.assertEqual('completed', ended['status'], ended)
        return ended

    def show(self):
        """The volume as users see it."""
        return self.api.volume_show(self.volume)

    def file(self):
        """Where the LUN is on disk that the catalogue names."""
        shown = self.show()
        backend, _, pool = shown['pool'].partition('@')[2].partition('#')
        return pathlib.Path(self.arrays[backend].pools[pool]) / f'{shown["lun"]}.raw'

    def slow(self):
        """Let the data take its time, until `fast`."""
        beta = self.cloud.hosts['beta']
        link = beta.run(['ip', '-o', 'route', 'get', self.lab.svc.ip]).stdout.split(' dev ')[1].split()[0]
        beta.run(['tc', 'qdisc', 'replace', 'dev', link, 'root', 'tbf', 'rate', RATE, 'burst', '64kb', 'latency', '400ms'])
        self.fast = functools.partial(beta.run, ['tc', 'qdisc', 'del', 'dev', link, 'root'], check=False)
        self.addCleanup(self.fast)

    def writer(self):
        """A guest at alpha that will write to the volume as soon as it has it."""
        return self.cloud.boot_without_writing('alpha', disks=[{'target': 'vda', 'size': 8 * MIB}], device='vdb')

    def attachable(self, target):
        """Ask for a migration, and wait until the volume can be attached while its data is on its way. Returns the migration."""
        migration = self.api.volume_migrate(self.volume, self.targets[target])
        self.wait_for(lambda: self.show()['migration_status'] == 'migrating_attachable', 'a volume that can be attached')
        return migration

    def attached_on_the_way(self, guest, target):
        """The same, and attach it. Returns the migration."""
        migration = self.attachable(target)
        self.do(self.api.volume_attach(self.volume, guest.uuid))
        guest.console.wait_written(2, 30)
        self.assertEqual(('in-use', 'migrating_attachable'), (self.show()['status'], self.show()['migration_status']), 'it was too fast')
        return migration

    def finish(self, guest, migration, target):
        """Let the data come, wait for the end, let the guest write on, take the volume from it, and look at all of it."""
        self.fast()
        self.do(migration)
        self.assertEqual('success', self.show()['migration_status'])
        written = guest.console.last_written()
        self.wait_for(lambda: guest.console.last_written() > written, 'a guest that writes on')
        written = guest.console.last_written()      # before the look at the disk, for the guest goes on
        read_records(self.file(), 'raw').check(written)
        self.assertNotIn('write error', guest.console.text())
        self.do(self.api.volume_detach(self.volume, guest.uuid))
        read_records(self.file(), 'raw').check(guest.console.last_written())
        self.assert_at(target)

    def assert_at(self, target):
        """The volume is at the target under its old id, with its data, and nothing is left anywhere else."""
        shown = self.show()
        self.assertEqual((self.targets[target], self.volume, 'available', ''),
                         (shown['pool'], shown['id'], shown['status'], shown['locked_by']))
        with open(self.file(), 'rb') as file:
            file.seek(DATA_AT)
            self.assertTrue(file.read() == self.data, 'the data differs')
        self.wait_for(lambda: not self.source.exists(), 'the removal of the source')
        luns = [name for array in self.arrays.values() for pool in array.pools for name in array.files(pool) if name.endswith('.raw')]
        self.assertEqual([self.file().name], luns)
        self.assertEqual(dict.fromkeys(self.arrays, []), {name: array.exports() for name, array in self.arrays.items()})
        self.assertEqual([], self.cloud._in_database())
        self.do(self.api.volume_delete(self.volume))


class TakeOver(VolumeCase):
    """Seed 001: the target's array takes the volume over."""

    size = 160 * MIB

    def test_a_guest_writes_while_the_data_is_on_its_way_within_one_agent(self):
        """Given an available volume, when it is attached before its data has come, every write and all the data are at the target."""
        self.slow()
        guest = self.writer()
        self.finish(guest, self.attached_on_the_way(guest, 'near'), 'near')

    def test_a_guest_writes_while_the_data_is_on_its_way_between_two_agents(self):
        self.slow()
        guest = self.writer()
        self.finish(guest, self.attached_on_the_way(guest, 'far'), 'far')

    def test_a_volume_that_nobody_wants_meanwhile(self):
        ended = self.do(self.api.volume_migrate(self.volume, self.targets['far']))
        self.assertNotIn('copy_volume', [event['step'] for event in ended['events']])
        self.assert_at('far')

    def test_both_agents_are_killed_while_the_data_is_on_its_way(self):
        self.slow()
        guest = self.writer()
        migration = self.attached_on_the_way(guest, 'far')
        for name in ('depot', 'store', 'conductor-0'):
            self.cloud.daemons[name].kill()
        for name in ('conductor-0', 'store', 'depot'):
            self.cloud.restart(name)
        self.finish(guest, migration, 'far')

    def test_the_targets_array_dies_under_the_guest_while_the_data_is_on_its_way(self):
        """Given a guest that writes through the target, when the array's daemon dies and is back, the guest goes on, nothing is lost, and
        the migration's timeline says that the guest stood still, why, and that it went on."""
        self.slow()
        guest = self.writer()
        migration = self.attached_on_the_way(guest, 'far')
        self.arrays['far'].restart()
        written = guest.console.last_written()
        self.wait_for(lambda: guest.console.last_written() > written, 'a guest that writes on', 60)
        self.wait_for(lambda: any(f'instance {guest.name} at alpha stood still from' in words for words in self.notes(migration)),
                      'an event of the guest that stood still')
        self.finish(guest, migration, 'far')

    def notes(self, migration):
        """What the timeline says of guests."""
        return [event['reason'] for event in self.api.show(migration['id'])['events'] if event['what'] == 'guest_note']

    def test_the_sources_array_dies_under_the_guest_while_the_data_is_on_its_way(self):
        self.slow()
        guest = self.writer()
        migration = self.attached_on_the_way(guest, 'near')
        self.arrays['old'].restart()
        written = guest.console.last_written()
        self.wait_for(lambda: guest.console.last_written() > written, 'a guest that writes on', 60)
        self.finish(guest, migration, 'near')

    def test_the_guest_moves_to_another_host_with_the_volume_afterwards(self):
        """Given a volume that was attached on its way, when it has arrived, then its guest is migrated with it as with any other."""
        self.slow()
        guest = self.writer()
        migration = self.attached_on_the_way(guest, 'far')
        self.fast()
        self.do(migration)
        self.do(self.api.live_migrate(guest.uuid, 'beta'))
        written = guest.console.last_written()
        self.wait_for(lambda: guest.console.last_written() > written, 'a guest that writes on')
        self.finish(guest, migration, 'far')

    def test_what_is_refused_while_it_moves(self):
        self.slow()
        migration = self.attachable('far')
        for request in (lambda: self.api.volume_extend(self.volume, 2 * self.size), lambda: self.api.volume_delete(self.volume),
                        lambda: self.api.volume_migrate(self.volume, self.targets['near'])):
            self.assertRaises(exceptions.Conflict, request)
        self.fast()
        self.do(migration)
        self.assert_at('far')


class HostCopy(VolumeCase):
    """The generic copy, where no driver is asked."""

    def test_a_forced_copy_is_the_volume(self):
        options = {'force_host_copy': True, 'verification': 'full'}
        ended = self.do(self.api.volume_migrate(self.volume, self.targets['far'], options=options))
        steps = [event['step'] for event in ended['events']]
        self.assertEqual((True, False, False), tuple(s in steps for s in ('copy_volume', 'migrate_volume', 'migrate_volume_target')))
        self.assert_at('far')

    def test_between_two_pools_of_one_array(self):
        """Given a volume that is to go to another pool of its array, then the array moves it, and serves its guests throughout."""
        guest = self.writer()
        self.do(self.api.volume_create('another', self.size, 'store@old#fast'))
        self.do(self.api.volume_attach('another', guest.uuid))
        guest.console.wait_written(2, 30)
        ended = self.do(self.api.volume_migrate(self.volume, self.targets['here']))
        steps = [event['step'] for event in ended['events']]
        self.assertEqual((True, False, False), tuple(s in steps for s in ('migrate_volume', 'migrate_volume_target', 'copy_volume')))
        written = guest.console.last_written()
        self.wait_for(lambda: guest.console.last_written() > written, 'a guest that writes on')
        self.do(self.api.volume_detach('another', guest.uuid))
        self.do(self.api.volume_delete('another'))
        self.assert_at('here')

    def test_the_copying_agent_is_killed_and_the_copy_goes_on(self):
        migration = self.api.volume_migrate(self.volume, self.targets['far'], options={'force_host_copy': True, 'bandwidth': 8 * MIB})
        self.wait_for(lambda: self.arrays['far'].files('fast'), 'the LUN at the target')
        self.wait_for(lambda: any(e['step'] == 'copy_volume' for e in self.api.show(migration['id'])['events']), 'the copy')
        self.cloud.daemons['depot'].kill()
        self.cloud.restart('depot')
        self.do(migration)
        self.assert_at('far')

    def test_a_copy_that_is_aborted_leaves_the_volume_where_it_is_and_nothing_else(self):
        migration = self.api.volume_migrate(self.volume, self.targets['far'], options={'force_host_copy': True, 'bandwidth': 4 * MIB})
        self.wait_for(lambda: any(e['step'] == 'copy_volume' for e in self.api.show(migration['id'])['events']), 'the copy')
        self.api.abort(migration['id'])
        ended = self.cloud.ended(migration)
        self.assertEqual('cancelled', ended['status'], ended)
        self.assertEqual(([], self.source), ([n for n in self.arrays['far'].files('fast') if n.endswith('.raw')], self.file()))
        self.assertEqual(('available', ''), (self.show()['status'], self.show()['locked_by']))
        self.do(self.api.volume_migrate(self.volume, self.targets['far']))
        self.assert_at('far')
