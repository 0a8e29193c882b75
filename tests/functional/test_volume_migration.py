"""Volumes moved between real arrays by real daemons, with a client that reads and writes them; each way that real drivers offer."""
import subprocess
import threading

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import Status
from tests.functional.real_arrays import MIB, Client, RealArraysCase


class RealArraysTest(RealArraysCase):
    """Each way that real drivers offer."""

    def test_written_to_while_its_data_is_still_on_its_way(self):
        """Given a volume that the target has taken over, when a guest gets it before its data is there, and writes throughout, then
        nothing that it wrote, and nothing that was there, is missing at the end. By two agents, and by one."""
        self.guest = self.cluster.create('one')
        data = self.volume(128 * MIB, 128 * MIB)
        for destination in ('west@b', 'east@c', 'east@a'):
            moving = self.api.volume_migrate('data', destination, options={'bandwidth': 2 * MIB})
            self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
            client = Client(self.attach(), data)
            self.cluster.wait_for(lambda client=client: client.blocks, 'the first write')
            for refused in (lambda: self.api.volume_extend('data', 1 << 30), lambda: self.api.volume_delete('data'),
                            lambda: self.api.volume_migrate('data', 'west@b')):
                self.assertRaises(exceptions.ResourceLocked, refused)
            self.assertEqual('migrating_attachable', self.api.volume_show('data')['migration_status'], 'it was too fast to prove anything')
            self.api.set_bandwidth(moving['id'], 0)
            ended = self.cluster.ended(moving, timeout=120)
            self.assertEqual(Status.COMPLETED, ended['status'], ended)
            self.assertIn('complete_migration_target', self.steps(ended))
            written = client.blocks
            self.cluster.wait_for(lambda client=client, n=written: client.blocks > n, 'a write after the switch')
            attached = {**dict.fromkeys(self.arrays, []), destination[-1]: [self.file().name]}
            self.assertEqual(attached, self.exports(), 'the attachment, from the local file, and nothing else')
            data = client.finish()
            self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_detach('data', self.guest))['status'])
            self.assert_is(data, destination)

    def test_a_host_copy(self):
        """Given a sparse volume, when a copy is forced, then no driver is asked, and what was not written stays unallocated."""
        data = self.volume(256 * MIB, 32 * MIB)
        ended = self.migrate('west@b', force_host_copy=True, verification='full')
        self.assertEqual(['export_volume', 'create_target_volume', 'copy_volume', 'verify_volume', 'delete_source_volume'],
                         self.steps(ended))
        self.assertLess(self.file().stat().st_blocks * 512, 48 * MIB)
        self.assert_is(data, 'west@b')

    def test_between_two_pools_of_one_array(self):
        """Given an array that cannot take over what is its own, when a volume is to go to its other pool, then both drivers are asked and
        decline, the volume is copied, and the array goes on to serve others."""
        data = self.volume(64 * MIB, 32 * MIB)
        ended = self.migrate('east@a#slow')
        self.assertEqual(['migrate_volume', 'migrate_volume_target', 'copy_volume'],
                         [step for step in self.steps(ended) if step in ('migrate_volume', 'migrate_volume_target', 'copy_volume')])
        self.assertEqual('east@a#slow', self.api.volume_show('data')['pool'])
        self.assert_is(data, 'east@a')

    def test_an_array_that_dies_while_it_takes_over(self):
        """Given a take-over whose data is on its way, when the target's array dies and comes back, then it fetches the rest."""
        data = self.volume(512 * MIB, 512 * MIB)
        moving = self.api.volume_migrate('data', 'west@b')
        self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
        self.arrays['b'].restart()
        ended = self.cluster.ended(moving, timeout=120)
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        self.assert_is(data, 'west@b')

    def test_two_requests_for_one_volume(self):
        """Given two requests at the same time, then one wins, and the other is told which."""
        data = self.volume(64 * MIB, 64 * MIB)
        answers = []

        def ask(destination):
            try:
                answers.append(self.api.volume_migrate('data', destination)['id'])
            except exceptions.ResourceLocked as error:
                answers.append(str(error))
        asking = [threading.Thread(target=ask, args=(destination,)) for destination in ('west@b', 'east@c')]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
        won = next(answer for answer in answers if len(answer) == 36)
        self.assertIn(won, next(answer for answer in answers if answer != won))
        ended = self.cluster.ended({'id': won}, timeout=120)
        self.assert_is(data, f'{ended["destination_host"]}@{"b" if ended["destination_host"] == "west" else "c"}')


class SnapshotsTest(RealArraysCase):
    """LUNs as qcow2 files, which may have snapshots inside."""

    form = 'qcow2'

    def test_a_volume_with_snapshots_stays_where_it_is(self):
        """Given a volume with a snapshot that somebody made, when it is to move in either way, then that is refused in words before
        anything is made; without the snapshot it moves."""
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_create('data', 64 * MIB, 'east@a#fast'))['status'])
        source = self.file()
        subprocess.run(['qemu-img', 'snapshot', '-c', 'kept', source], check=True, timeout=60)
        for forced in (False, True):
            ended = self.cluster.ended(self.api.volume_migrate('data', 'west@b', options={'force_host_copy': forced}))
            self.assertNotEqual(Status.COMPLETED, ended['status'])
            self.assertIn('1 snapshots', str(ended))
            self.assertEqual(set(), self.arrays['b'].files())
            self.assertEqual(('available', source), (self.api.volume_show('data')['status'], self.file()))
            self.assertEqual([], self.cluster.rows(tables.resource_lock))
        subprocess.run(['qemu-img', 'snapshot', '-d', 'kept', source], check=True, timeout=60)
        self.migrate('west@b#fast')
        self.assertEqual((False, True), (source.exists(), self.file().exists()))
        self.assertIn(self.file().name, self.arrays['b'].files())
