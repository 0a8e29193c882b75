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

SCHEMA = """
CREATE TABLE IF NOT EXISTS host (name TEXT PRIMARY KEY, memory_mib INT, cpus INT, version INT, down INT DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS storage (host TEXT, directory TEXT, identity TEXT, PRIMARY KEY (host, directory)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS guest (host TEXT, uuid TEXT, name TEXT, state TEXT, reason TEXT DEFAULT '', memory_mib INT, vcpus INT,
    disks TEXT, persistent INT DEFAULT 1, managed INT DEFAULT 0, spec TEXT DEFAULT '', dirty_rate INT, deaf INT DEFAULT 0,
    migration TEXT DEFAULT '', writes INT DEFAULT 0, since REAL, PRIMARY KEY (host, uuid)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS guest_by_uuid ON guest (uuid);
CREATE TABLE IF NOT EXISTS file (identity TEXT, uuid TEXT, name TEXT, owner TEXT DEFAULT '', format TEXT DEFAULT '',
    size INT DEFAULT 0, backing TEXT DEFAULT '', content INT DEFAULT 0, complete INT DEFAULT 1, stamp TEXT DEFAULT '',
    PRIMARY KEY (identity, uuid, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_by_uuid ON file (uuid);
CREATE TABLE IF NOT EXISTS truth (uuid TEXT PRIMARY KEY, writes INT, disks TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, uuid TEXT, source TEXT, destination TEXT, migration TEXT, copied TEXT, started REAL,
    ends REAL, finished REAL, memory INT, disk INT, bandwidth INT, dirty_rate INT, minimum REAL, paused_after REAL,
    user_paused INT DEFAULT 0, state TEXT DEFAULT 'active', error TEXT DEFAULT '', history INT);
CREATE INDEX IF NOT EXISTS job_active ON job (uuid) WHERE state = 'active';
CREATE INDEX IF NOT EXISTS job_due ON job (ends) WHERE state = 'active';
CREATE INDEX IF NOT EXISTS job_by_migration ON job (migration);
CREATE TABLE IF NOT EXISTS fault (id INTEGER PRIMARY KEY, host TEXT, method TEXT, action TEXT, times INT);
CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY, at REAL, process INT, host TEXT, method TEXT, uuid TEXT, migration TEXT,
    result TEXT, changed INT);
CREATE INDEX IF NOT EXISTS history_by_uuid ON history (uuid);
CREATE TABLE IF NOT EXISTS dead_export (uri TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS violation (id INTEGER PRIMARY KEY, at REAL, uuid TEXT, words TEXT);
"""
BUSY_SECONDS = 30


class FileStore:
    """A world in a file. Each transaction borrows a connection; list.append and list.pop are atomic, so the pool needs no lock."""

    def __init__(self, path):
        self.path = path
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

    @staticmethod
    def _make(db):
        """Make the tables. Processes that open a new file at once meet here, and a change to WAL does not wait for the others."""
        for attempt in range(200):
            try:
                db.execute('PRAGMA journal_mode=WAL')
                break
            except sqlite3.OperationalError:
                if attempt == 199:
                    raise
                concurrency.native_sleep(0.02)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'violation'").fetchone() is None:
            db.executescript(f'BEGIN IMMEDIATE; {SCHEMA} COMMIT;')

    def _connect(self):
        with _in_words(self.path):
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute('PRAGMA synchronous=OFF')  # what is written survives a killed process, which is all that a simulation needs
        return db


class MemoryStore:
    """A world in this process. One connection, held for the microseconds of a transaction."""

    def __init__(self, path):
        self.path = path
        self._lock = concurrency.native_lock()
        self._written = 0
        self._closed = False
        self._db = sqlite3.connect(':memory:', isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.executescript(SCHEMA)

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


def open_store(name):
    """Give the store of a world: a file's path, '' or 'memory:NAME'. The same name gives the same store within a process."""
    memory = not name or name.startswith('memory:')
    key = name or 'memory:' if memory else os.path.abspath(name)
    if key not in _STORES:
        _STORES.setdefault(key, MemoryStore(key) if memory else FileStore(key))
    return _STORES[key]


def forget(name):
    """Close a world and forget it; one in memory is gone then. For tests."""
    memory = not name or name.startswith('memory:')
    store = _STORES.pop(name or 'memory:' if memory else os.path.abspath(name), None)
    if store is not None:
        store.close()
