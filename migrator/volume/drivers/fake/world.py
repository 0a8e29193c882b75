"""The simulated arrays seen from above: what tests and the demo script and ask, and clients of exports.

    arrays = Arrays('/tmp/arrays.db')             # the same text as the option `world` of the backends
    arrays.inject('one@fast', 'export', 'fail')
    arrays.write(connection.uri, 0, 4096, 0x5a)
"""
import contextlib
import dataclasses
import time

from migrator import exceptions
from migrator.simulated import faults, store
from migrator.volume.drivers.fake import blocks


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a driver's method that changes something. array: host@backend. result: ok, declined, or an error's name."""

    at: float
    array: str
    method: str
    lun: str
    owner: str
    result: str


class Arrays:
    """All simulated arrays of one world. Its methods may be called from any thread that may use SQLite."""

    def __init__(self, name=''):
        """name: a file's path, or '' or 'memory:NAME' for a world in this process."""
        self.name = name
        self.store = store.open_store(name, blocks.SCHEMA)

    def forget(self):
        """Close the world; one in memory is gone. Other users of it in this process must be stopped before."""
        store.forget(self.name, blocks.SCHEMA)

    # --- clients ---

    def write(self, uri, offset, length, byte):
        """Write `byte` over whole blocks, as a client of an export. Raises DriverError where it cannot be written."""
        if offset % blocks.BLOCK or length % blocks.BLOCK:
            raise exceptions.InvalidRequest(f'simulated writes are of whole blocks of {blocks.BLOCK} bytes')
        with self.store.write() as db:
            blocks.write(db, uri, offset // blocks.BLOCK, bytes([byte]) * (length // blocks.BLOCK))

    def read(self, uri):
        """Give one byte for each block, as a client of an export. Raises DriverError where it cannot be read."""
        with self.store.read() as db:
            return blocks.read(db, uri)[0]

    @contextlib.contextmanager
    def holding(self, uri):
        """Keep a client connected to an export for the length of a with block."""
        with self.store.write() as db:
            export = blocks.reach(db, uri)
            blocks.connect(db, export, 1)
        try:
            yield
        finally:
            with self.store.write() as db:
                blocks.connect(db, export, -1)

    # --- scripts ---

    def inject(self, array, method, action, times=1):
        """Order a fault (simulated.faults) for the next `times` calls of a driver's method, `copy` or `verify`; -1: all."""
        faults.check_action(action)
        with self.store.write() as db:
            db.execute('INSERT INTO fault (host, method, action, times) VALUES (?, ?, ?, ?)', (array, method, action, times))

    def release(self):
        """Take back all faults; calls that hang go on."""
        with self.store.write() as db:
            db.execute('DELETE FROM fault')

    def kill(self, array):
        """The array answers nobody any more; its LUNs stay."""
        with self.store.write() as db:
            db.execute('UPDATE array SET up = 0 WHERE name = ?', (array,))

    def start(self, array):
        """The array answers again; its mirrors begin anew."""
        with self.store.write() as db:
            db.execute('UPDATE array SET up = 1 WHERE name = ?', (array,))
            blocks.restart(db, array, time.time())

    # --- questions ---

    def luns(self, array=None):
        """What LUNs there are, as (array, pool, name, owner)."""
        with self.store.read() as db:
            rows = db.execute('SELECT * FROM lun WHERE ? IS NULL OR array = ? ORDER BY array, pool, name', (array, array)).fetchall()
            return [(row['array'], row['pool'], row['name'], row['owner']) for row in rows]

    def exports(self, array=None):
        """What exports there are, as (array, LUN, export)."""
        with self.store.read() as db:
            rows = db.execute('SELECT * FROM export WHERE ? IS NULL OR array = ? ORDER BY array, lun, name', (array, array)).fetchall()
            return [(row['array'], row['lun'], row['name']) for row in rows]

    def content(self, array, pool, lun):
        """What the LUN itself holds, one byte for each block; None if there is no such LUN."""
        with self.store.read() as db:
            row = blocks.get(db, array, pool, lun)
            return row['data'] if row else None

    def put(self, array, pool, lun, data):
        """Put data into a LUN behind everybody's back, one byte for each block from the first on."""
        with self.store.write() as db:
            blocks.put(db, blocks.get(db, array, pool, lun), 0, data)

    def history(self, array=None, method=None):
        """Calls of mutating driver methods, oldest first, as `Call`s."""
        with self.store.read() as db:
            rows = db.execute('SELECT at, array, method, lun, owner, result FROM history WHERE (? IS NULL OR array = ?) AND '
                              '(? IS NULL OR method = ?) ORDER BY id', (array, array, method, method)).fetchall()
            return [Call(*row) for row in rows]
