"""Where the simulated world lies: one SQLite database, in a file that many processes share or in the memory of one.

Only the file outlives an agent that is killed, as a real hypervisor does. `read` and `write` are transactions; a write takes
SQLite's write lock at once, so what it read stays true until it commits. Runs in native threads under eventlet, hence native locks.

A store may be closed while others use it: simulated calls that hang outlive their agent. Python 3.11 dies of a segmentation fault when a
connection is closed while another thread is in SQLite with it, so a connection is closed by whoever holds it, and by nobody else.
"""
import contextlib
import os
import sqlite3

from migrator import concurrency, exceptions

#: What every world has, besides what its kind needs: the ordered faults.
FAULTS = 'CREATE TABLE IF NOT EXISTS fault (id INTEGER PRIMARY KEY, host TEXT, method TEXT, action TEXT, times INT);'

BUSY_SECONDS = 30


class FileStore:
    """A world in a file. Each transaction borrows a connection; list.append and list.pop are atomic, so the pool needs no lock."""

    def __init__(self, path, schema):
        self.path = path
        self._schema = schema
        self._idle = []
        self._closed = False
        self._watch_lock = concurrency.native_lock()
        with self._borrowed() as db, _in_words(path):
            self._make(db)
        self._watch = self._connect()

    @contextlib.contextmanager
    def read(self):
        """A consistent view; gives the connection. Raises DriverError when the file cannot be used."""
        with self._borrowed() as db, _transaction(db, 'BEGIN'):
            yield db

    @contextlib.contextmanager
    def write(self):
        """A transaction that excludes other writers; rolled back when the block raises. Gives the connection."""
        with self._borrowed() as db, _transaction(db, 'BEGIN IMMEDIATE'):
            yield db

    def version(self):
        """A number that differs once anyone has written since the last call. For one thread only."""
        with self._watch_lock, _in_words(self.path):
            _refuse_if(self._closed, self.path)
            return self._watch.execute('PRAGMA data_version').fetchone()[0]

    def close(self):
        """Close it; connections that are in use are closed when they are given back. Idempotent."""
        with self._watch_lock:
            self._closed = True
            self._watch.close()
        self._close_idle()

    def _close_idle(self):
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _borrowed(self):
        _refuse_if(self._closed, self.path)
        try:
            db = self._idle.pop()
        except IndexError:
            db = self._connect()
        try:
            yield db
        finally:
            self._idle.append(db)
            if self._closed:
                self._close_idle()

    def _make(self, db):
        """Make the tables. Processes that open a new file at once meet here, and a change to WAL does not wait for the others."""
        for attempt in range(200):
            try:
                db.execute('PRAGMA journal_mode=WAL')
                break
            except sqlite3.OperationalError:
                if attempt == 199:
                    raise
                concurrency.native_sleep(0.02)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'fault'").fetchone() is None:
            db.executescript(f'BEGIN IMMEDIATE; {self._schema} {FAULTS} COMMIT;')

    def _connect(self):
        with _in_words(self.path):
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute('PRAGMA synchronous=OFF')  # what is written survives a killed process, which is all that a simulation needs
        return db


class MemoryStore:
    """A world in this process. One connection, held for the microseconds of a transaction."""

    def __init__(self, path, schema):
        self.path = path
        self._lock = concurrency.native_lock()
        self._written = 0
        self._closed = False
        self._db = sqlite3.connect(':memory:', isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.executescript(schema + FAULTS)

    @contextlib.contextmanager
    def read(self):
        """A consistent view; gives the connection."""
        with self._lock:
            _refuse_if(self._closed, self.path)
            yield self._db

    @contextlib.contextmanager
    def write(self):
        """A transaction; rolled back when the block raises. Gives the connection."""
        with self._lock:
            _refuse_if(self._closed, self.path)
            with _transaction(self._db, 'BEGIN'):
                yield self._db
            self._written += 1

    def version(self):
        """A number that differs once anyone has written since the last call."""
        return self._written

    def close(self):
        """Forget the world, once nobody is in it. Idempotent."""
        with self._lock:
            self._closed = True
            self._db.close()


def _refuse_if(closed, path):
    if closed:
        raise exceptions.DriverError(f'the simulated world {path} was closed')


@contextlib.contextmanager
def _in_words(path):
    try:
        yield
    except sqlite3.OperationalError as error:
        raise exceptions.DriverError(f'the simulated world {path} cannot be used: {error}') from None


@contextlib.contextmanager
def _transaction(db, begin):
    try:
        with _in_words('database'):
            db.execute(begin)
            yield
            db.execute('COMMIT')
    finally:
        if db.in_transaction:
            db.execute('ROLLBACK')


_STORES = {}


def open_store(name, schema):
    """Give the store of a world: a file's path, '' or 'memory:NAME'. The same name and schema give the same store within a process.

    schema: SQL that makes the tables of this kind of world, each IF NOT EXISTS. A file is of one kind.
    """
    memory, key = _key(name, schema)
    if key not in _STORES:
        _STORES.setdefault(key, (MemoryStore if memory else FileStore)(key[0], schema))
    return _STORES[key]


def forget(name, schema):
    """Close a world and forget it; one in memory is gone then. For tests."""
    store = _STORES.pop(_key(name, schema)[1], None)
    if store is not None:
        store.close()


def _key(name, schema):
    memory = not name or name.startswith('memory:')
    return memory, (name or 'memory:' if memory else os.path.abspath(name), schema)
