"""Volumes moved between real arrays by real daemons, with a client that reads and writes them; each way that real drivers offer.

A client holds what a guest would: the export of an attachment. What it wrote is kept in a model, and at the end the volume is compared
with it block by block.
"""
import os
import pathlib
import random
import subprocess
import threading

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import Status
from tests import base, services
from tests.cluster import Cluster
from tests.lab.array import Array

MIB = 1 << 20
BLOCK = 64 << 10


class Client:
    """Writes random blocks through an NBD export as fast as it is let, and knows what must be there. data: what is there already."""

    def __init__(self, uri, data):
        self.model = bytearray(data)
        self.blocks = 0
        self._uri = uri
        self._stop = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        chance = random.Random(self._uri)
        with subprocess.Popen(['qemu-io', '-f', 'raw', self._uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            while not self._stop.is_set() and self._error is None:
                number, byte = chance.randrange(len(self.model) // BLOCK), chance.randrange(1, 256)
                client.stdin.write(f'write -P {byte} {number * BLOCK} {BLOCK}\n')
                client.stdin.flush()
                said = client.stdout.readline()
                if f'wrote {BLOCK}/{BLOCK}' not in said:
                    self._error = said
                    break
                client.stdout.readline()        # how fast that was
                self.model[number * BLOCK:(number + 1) * BLOCK] = bytes([byte]) * BLOCK
                self.blocks += 1
            client.communicate('flush\nquit\n', timeout=60)

    def finish(self):
        """Flush and let go; returns what must be there."""
        self._stop.set()
        self._thread.join(90)
        if self._thread.is_alive() or self._error is not None:
            raise AssertionError(f'the client could not write: {self._error or "it does not end"}')
        return bytes(self.model)


class RealArraysCase(base.TestCase):
    """Two agents: `east` with the arrays a and c, `west` with b; and a simulated guest that volumes are attached to."""

    timeout = 300
    form = 'raw'

    def setUp(self):
        super().setUp()
        urls = self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url
        self.arrays = {name: self.useFixture(Array(name, ('fast', 'slow'))) for name in 'abc'}
        made = {name: {'driver': 'qsd', 'pools': ','.join(f'{pool}:{path}' for pool, path in array.pools.items()), 'format': self.form,
                       'qmp_socket': array.socket, 'listen_address': array.address, 'listen_port': array.port}
                for name, array in self.arrays.items()}
        self.cluster = self.useFixture(Cluster(*urls, hosts=('one',), arrays={
            'east': {'a': made['a'], 'c': made['c']}, 'west': {'b': made['b']}}))
        self.api = self.cluster.api

    def volume(self, size, filled):
        """Make a volume at east@a with `filled` bytes of random data in front, zeros behind. Returns what is in it."""
        ended = self.cluster.ended(self.api.volume_create('data', size, 'east@a#fast'))
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        data = os.urandom(filled) + bytes(size - filled)
        with open(self.file(), 'r+b') as stream:
            stream.write(data[:filled])
        return data

    def file(self):
        """Where the catalogue has the volume's data."""
        row = self.api.volume_show('data')
        backend, _, pool = row['pool'].partition('@')[2].partition('#')
        return pathlib.Path(self.arrays[backend].pools[pool]) / f'{row["lun"]}.{self.form}'

    def migrate(self, destination, status=Status.COMPLETED, **options):
        """Move it and wait for the end; returns the migration with its timeline."""
        ended = self.cluster.ended(self.api.volume_migrate('data', destination, options=options), timeout=120)
        self.assertEqual(status, ended['status'], ended)
        return ended

    def steps(self, migration):
        """The operations that it went through."""
        return list(dict.fromkeys(e['step'] for e in migration['events'] if e['what'] == 'start'))

    def assert_is(self, data, at):
        """The volume is at one array alone, with this in it, and nothing is held, exported or owed."""
        self.assertEqual(at, self.api.volume_show('data')['pool'].partition('#')[0])
        self.assertTrue(self.file().read_bytes() == data, 'the data is not what was written')
        files = [file for array in self.arrays.values() for pool in array.pools for file in array.files(pool)]
        self.assertEqual(1, len([file for file in files if file.endswith('.raw')]), files)
        self.assertEqual([], self.cluster.rows(tables.resource_lock))
        self.assertEqual([], [debt for debt in self.cluster.rows(tables.debt) if debt.paid_at is None])

    def attach(self):
        """Attach it to the guest; returns the export's URI."""
        ended = self.cluster.ended(self.api.volume_attach('data', self.guest))
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        return self.api.volume_show('data')['attachments'][0]['uri']


class RealArraysTest(RealArraysCase):
    """Each way that real drivers offer."""

    def test_written_to_while_its_data_is_still_on_its_way(self):
        """Given a volume that the target has taken over, when a guest gets it before its data is there, and writes throughout, then
        nothing that it wrote, and nothing that was there, is missing at the end. By two agents, and by one."""
        self.guest = self.cluster.create('one')
        data = self.volume(512 * MIB, 512 * MIB)
        for destination in ('west@b', 'east@c'):
            moving = self.api.volume_migrate('data', destination)
            self.cluster.wait_for(lambda: self.api.volume_show('data')['migration_status'] == 'migrating_attachable', 'the take-over')
            client = Client(self.attach(), data)
            self.cluster.wait_for(lambda client=client: client.blocks, 'the first write')
            self.assertEqual('migrating_attachable', self.api.volume_show('data')['migration_status'], 'it was too fast to prove anything')
            for refused in (lambda: self.api.volume_extend('data', 1 << 30), lambda: self.api.volume_delete('data'),
                            lambda: self.api.volume_migrate('data', 'east@a')):
                self.assertRaises(exceptions.ResourceLocked, refused)
            ended = self.cluster.ended(moving, timeout=120)
            self.assertEqual(Status.COMPLETED, ended['status'], ended)
            self.assertIn('complete_migration_target', self.steps(ended))
            written = client.blocks
            self.cluster.wait_for(lambda client=client, n=written: client.blocks > n, 'a write after the switch')
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
