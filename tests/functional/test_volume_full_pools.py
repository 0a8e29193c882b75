"""Volumes on real arrays whose pools are full, or would be if what is sparse did not stay so: through real daemons."""
import contextlib
import errno
import os
import pathlib
import subprocess

from migrator import exceptions
from migrator.states import Status
from tests.functional.real_arrays import MIB, Client, RealArraysCase

#: All of it (--full) is a volume of 8 GiB with 1 GiB of data. CI has the same proportions at an eighth of the size: the copies take as long
#: as their data, and a runner's disk has better things to do.
SPARSE_SIZE = (8 << 30) if os.environ.get('MIGRATOR_TEST_FULL') == '1' else (1 << 30)
PIECE = 16 * MIB


class FullPoolsTest(RealArraysCase):
    """Given an array `b` whose pool has 96 MiB."""

    def prepare(self):
        self.pool = pathlib.Path(self.arrays['b'].pools['fast'])
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=96M', 'tmpfs', self.pool], check=True, timeout=30)
        self.addCleanup(subprocess.run, ['umount', '--lazy', self.pool], check=True, timeout=30)

    def fill(self):
        """Let somebody else take all that is left of the pool; returns the file."""
        filler = self.pool / 'somebody-else'
        with open(filler, 'wb', buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError as error:
                self.assertEqual(errno.ENOSPC, error.errno)
        return filler

    def has_room(self):
        """Whether the volume may be moved to the pool, as far as the conductors know."""
        with contextlib.suppress(exceptions.NoRoom):
            return self.api.volume_migrate('data', 'west@b#fast', options={'dry_run': True})['possible']
        return False

    def at_target(self):
        """How many bytes of data the pool has of LUNs."""
        return sum(path.stat().st_blocks * 512 for path in self.pool.glob('*.raw'))

    def test_a_volume_that_is_too_large_for_it(self):
        """Given a volume that the pool has no room for, though nothing was written to it, then it is refused at once, in either way."""
        data = self.volume(128 * MIB, 0)
        for options in ({}, {'force_host_copy': True}, {'dry_run': True}):
            said = self.assertRaises(exceptions.NoRoom, self.api.volume_migrate, 'data', 'west@b#fast', options=options)
            self.assertIn('the volume needs 128.0 MiB', str(said))
        self.assertEqual((set(), []), (self.arrays['b'].files(), self.api.list({'kind': 'volume_migration'})))
        self.assert_is(data, 'east@a')

    def test_a_copy_for_which_the_room_runs_out(self):
        """Given a copy under way, when its pool is full, then it fails and says so; the source has lost nothing, the target has nothing,
        and once there is room again the volume can be moved there."""
        data = self.volume(64 * MIB, 48 * MIB)
        moving = self.api.volume_migrate('data', 'west@b#fast', options={'force_host_copy': True, 'bandwidth': MIB})
        self.cluster.wait_for(lambda: self.at_target() >= MIB, 'some of the copy')
        filler = self.fill()
        ended = self.cluster.ended(moving, timeout=120)
        self.assertEqual(Status.FAILED, ended['status'], ended)
        self.assertIn('No space left', ended['reason'], ended)
        self.cluster.wait_for(lambda: self.arrays['b'].files() == {filler.name}, 'nothing but what somebody else has')
        filler.unlink()
        self.assert_is(data, 'east@a')
        self.cluster.wait_for(self.has_room, 'room that is known of')
        self.migrate('west@b#fast', force_host_copy=True)
        self.assert_is(data, 'west@b')

    def test_a_take_over_for_which_the_room_runs_out(self):
        """Given a volume that is written to through its target while the data follows, when the target's pool is full, then both LUNs stay,
        the target is in charge and takes every write; and once there is room, it is completed."""
        self.guest = self.cluster.create('one')
        data = self.volume(64 * MIB, 64 * MIB)
        source = self.file()
        moving = self.api.volume_migrate('data', 'west@b#fast', options={'bandwidth': MIB})
        self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
        client = Client(self.attach(), data)
        self.cluster.wait_for(lambda: client.blocks, 'the first write')
        filler = self.fill()
        self.api.set_bandwidth(moving['id'], 0)
        self.cluster.wait_for(lambda: self.api.show(moving['id'])['status'] == Status.NEEDS_OPERATOR, 'the failure', 60)
        written = client.blocks
        self.cluster.wait_for(lambda: client.blocks > written + 10, 'writes')
        self.assertEqual(('west@b#fast', True, True), (self.api.volume_show('data')['pool'], source.exists(), self.file().exists()))
        self.assertIn('No space left', self.api.show(moving['id'])['reason'])
        filler.unlink()
        self.api.recover(moving['id'])
        ended = self.cluster.ended(moving, timeout=120)
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        data = client.finish()
        self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_detach('data', self.guest))['status'])
        self.assert_is(data, 'west@b')


class SparseVolumeTest(RealArraysCase):

    def test_an_eighth_of_it_is_data_wherever_it_goes(self):
        """Given a volume of which an eighth was ever written, all over it, when it is copied by a host and then taken over by an array,
        each copy is equal and takes the room of what was written."""
        data = os.urandom(PIECE)
        self.volume(SPARSE_SIZE, 0)
        with open(self.file(), 'r+b') as stream:
            for offset in range(0, SPARSE_SIZE, 8 * PIECE):
                stream.seek(offset)
                stream.write(data)
        for where, options in (('west@b', {'force_host_copy': True}), ('east@c', {})):
            source = self.file()
            ended = self.migrate(where, **options)
            self.assertEqual('force_host_copy' in options, 'copy_volume' in self.steps(ended))
            self.assertFalse(source.exists())
            self.assertLessEqual(self.file().stat().st_blocks * 512, SPARSE_SIZE // 8 + PIECE, 'it is not thin any more')
            with open(self.file(), 'rb') as stream:
                for offset in range(0, SPARSE_SIZE, PIECE):
                    wanted = bytes(PIECE) if offset % (8 * PIECE) else data
                    self.assertTrue(stream.read(PIECE) == wanted, f'the data differs behind {offset}')
