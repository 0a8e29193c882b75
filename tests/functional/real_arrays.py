"""Volumes on real arrays with real daemons, and a client that writes to them: what tests of the whole are made of.

A client holds what a guest would: the export of an attachment. What it wrote is kept in a model, and at the end the volume is compared
with it block by block.
"""
import os
import pathlib
import random
import subprocess
import threading
import time

from migrator.conductor.db import tables
from migrator.states import Status
from tests import base, services
from tests.cluster import Cluster
from tests.lab.array import Array

MIB = 1 << 20
BLOCK = 64 << 10
#: Seconds between two writes of a client: 12 MiB a second, and time for the daemons whose work it is to move the volume under it.
PAUSE = 0.005


class Client:
    """Writes random blocks through an NBD export, and knows what must be there. data: what is there already.

    patience: seconds for which a write that fails is tried again on a new connection, as for a guest that stands still meanwhile; 0 lets
    no write fail. What was acknowledged is what counts: a write that was not is repeated until it is.
    """

    def __init__(self, uri, data, patience=0):
        self.model = bytearray(data)
        self.blocks = 0
        self._uri = uri
        self._patience = patience
        self._stop = threading.Event()
        self._error = None
        self._process = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        chance = random.Random(self._uri)
        while not self._stop.wait(PAUSE) and self._error is None:
            number, byte = chance.randrange(len(self.model) // BLOCK), chance.randrange(1, 256)
            deadline = time.monotonic() + self._patience
            said = self._write(number, byte)
            while said and time.monotonic() < deadline:
                time.sleep(0.1)
                said = self._write(number, byte)
            if said:
                self._error = said
                break
            self.model[number * BLOCK:(number + 1) * BLOCK] = bytes([byte]) * BLOCK
            self.blocks += 1
        if self._process is not None:
            self._process.communicate('flush\nquit\n', timeout=60)

    def _write(self, number, byte):
        """Write a block; returns '' once it is acknowledged, else what was said instead; the connection is given up then."""
        if self._process is None:
            quiet = subprocess.DEVNULL if self._patience else None
            self._process = subprocess.Popen(['qemu-io', '-f', 'raw', self._uri], text=True, stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=quiet)
        try:
            self._process.stdin.write(f'write -P {byte} {number * BLOCK} {BLOCK}\n')
            self._process.stdin.flush()
            said = self._process.stdout.readline()
            if f'wrote {BLOCK}/{BLOCK}' in said:
                self._process.stdout.readline()         # how fast that was
                return ''
        except BrokenPipeError as error:
            said = str(error)
        self._process.kill()
        self._process.communicate(timeout=10)
        self._process = None
        return said or 'it cannot be reached'

    def finish(self):
        """Flush and let go; returns what must be there."""
        self._stop.set()
        self._thread.join(90 + self._patience)
        if self._thread.is_alive() or self._error is not None:
            raise AssertionError(f'the client could not write: {self._error or "it does not end"}')
        return bytes(self.model)


class RealArraysCase(base.TestCase):
    """Two agents: `east` with the arrays a and c, `west` with b; and a simulated guest that volumes are attached to."""

    timeout = 300
    form = 'raw'
    #: What the daemons' configuration has besides, {section: {option: value}}.
    options_of_daemons = {}
    #: A module that runs the daemons in another way, '' for none.
    runner = ''

    def setUp(self):
        super().setUp()
        urls = self.useFixture(services.Broker()).url, self.useFixture(services.Database('mysql')).url
        self.arrays = {name: self.useFixture(Array(name, ('fast', 'slow'))) for name in 'abc'}
        self.prepare()
        self.cluster = self.useFixture(Cluster(*urls, hosts=('one',), arrays={
            'east': {name: self.backend(name) for name in 'ac'}, 'west': {'b': self.backend('b'), **self.others()}},
            options=self.options_of_daemons, runner=self.runner))
        self.api = self.cluster.api

    def backend(self, name, **options):
        """Describe an array as a backend."""
        array = self.arrays[name]
        return {'driver': 'qsd', 'pools': ','.join(f'{pool}:{path}' for pool, path in array.pools.items()), 'format': self.form,
                'qmp_socket': array.socket, 'tls_credentials': array.keys or '', 'listen_address': array.address,
                'listen_port': array.port, **options}

    def prepare(self):
        """What a test does to the arrays before there are agents."""

    def others(self):
        """Describe further backends of the agent `west`, by name."""
        return {}

    def volume(self, size, filled, **options):
        """Make a volume at east@a with `filled` bytes of random data in front, zeros behind. Returns what is in it."""
        ended = self.cluster.ended(self.api.volume_create('data', size, 'east@a#fast', **options))
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

    def way(self):
        """How the volume was moved last, and why so."""
        shown = self.api.volume_show('data')['migration']
        return shown['way'], shown['why']

    def steps(self, migration):
        """The operations that it went through."""
        return list(dict.fromkeys(e['step'] for e in migration['events'] if e['what'] == 'start'))

    def assert_is(self, data, at):
        """The volume is at one array alone, with this in it, and nothing is held, exported or owed."""
        self.assertEqual(at, self.api.volume_show('data')['pool'].partition('#')[0])
        self.assertTrue(self.file().read_bytes() == data, 'the data is not what was written')
        files = [file for array in self.arrays.values() for pool in array.pools for file in array.files(pool)]
        self.assertEqual(1, len([file for file in files if file.endswith('.raw')]), files)
        self.assertEqual(dict.fromkeys(self.arrays, []), self.exports())
        self.assertEqual([], self.cluster.rows(tables.resource_lock))
        self.assertEqual([], [debt for debt in self.cluster.rows(tables.debt) if debt.paid_at is None])

    def exports(self):
        """What each storage daemon itself says that it exports."""
        return {name: array.exports() for name, array in self.arrays.items()}

    def at_arrays(self):
        """All that each array has, as it stands on disk, what it serves, and what it works on."""
        def stands(path):
            about = path.stat()
            return about.st_ino, about.st_size, about.st_blocks, about.st_mtime_ns
        return {name: ({str(path): stands(path) for pool in array.pools.values() for path in pathlib.Path(pool).iterdir()}, array.exports(),
                       array.ask('query-jobs')) for name, array in self.arrays.items()}

    def as_it_is(self, without=()):
        """All that the arrays and the database have of volumes, but for some tables, to be compared later: nothing may have changed."""
        about = tables.migration, tables.event, tables.volume, tables.attachment, tables.resource_lock, tables.reservation, tables.debt
        return self.at_arrays(), {table.name: sorted(map(str, self.cluster.rows(table))) for table in about if table not in without}

    def attach(self):
        """Attach it to the guest; returns the export's URI."""
        ended = self.cluster.ended(self.api.volume_attach('data', self.guest))
        self.assertEqual(Status.COMPLETED, ended['status'], ended)
        return self.api.volume_show('data')['attachments'][0]['uri']
