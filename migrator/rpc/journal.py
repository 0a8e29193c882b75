"""What an agent must not forget when it dies: its operations, the highest epoch of each migration, and aborts.

One SQLite file per agent, every commit on the disk before it returns. Its methods block and may be called from any native thread;
callers with green threads go through `concurrency.run_native`. A file that cannot be read is put aside, loudly, and the agent starts
with an empty one: the conductor then asks the hypervisors what is true, which is what it does after any doubt.
"""
import contextlib
import dataclasses
import json
import os
import sqlite3
import time

from oslo_log import log

from migrator import concurrency, exceptions
from migrator.states import OperationState

LOG = log.getLogger(__name__)

#: Seconds for which a finished and acknowledged operation, an epoch or an abort is remembered after it was last of use.
KEEP_SECONDS = 7 * 24 * 3600.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operation (
    op_id TEXT PRIMARY KEY, migration_id TEXT NOT NULL, epoch INTEGER NOT NULL, method TEXT NOT NULL, digest TEXT NOT NULL,
    process_id TEXT NOT NULL, state TEXT NOT NULL, result TEXT NOT NULL DEFAULT '{}', error_type TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '', reported INTEGER NOT NULL DEFAULT 0, started REAL NOT NULL, finished REAL);
CREATE INDEX IF NOT EXISTS operation_unreported ON operation (reported, state);
CREATE TABLE IF NOT EXISTS epoch (migration_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seen REAL NOT NULL);
CREATE TABLE IF NOT EXISTS aborted (migration_id TEXT PRIMARY KEY, seen REAL NOT NULL);
"""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation as the journal has it. Times are seconds of the wall clock."""

    op_id: str
    migration_id: str
    epoch: int
    method: str
    digest: str
    process_id: str
    state: OperationState = OperationState.RUNNING
    result: dict = dataclasses.field(default_factory=dict)
    error_type: str = ''
    error: str = ''
    reported: bool = False
    started: float = 0.0
    finished: float | None = None


_COLUMNS = ', '.join(field.name for field in dataclasses.fields(Operation))


class Journal:
    """The journal of one agent; see the module's description. Thread-safe."""

    def __init__(self, path, clock=time.time):
        """Open or make the file at `path`. Operations that were running become INTERRUPTED: whoever ran them is gone."""
        self._path = path
        self._clock = clock
        self._lock = concurrency.native_lock()
        os.makedirs(os.path.dirname(path) or '.', mode=0o750, exist_ok=True)
        try:
            self._db = self._open()
        except sqlite3.OperationalError:  # locked, not permitted, a full disk, another schema: nothing that a new file would mend
            raise
        except sqlite3.DatabaseError as error:
            self._put_aside(error)
            self._db = self._open()

    def _open(self):
        db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            db.execute('PRAGMA journal_mode=WAL')
            db.execute('PRAGMA synchronous=FULL')
            damage = db.execute('PRAGMA quick_check(1)').fetchone()[0]
            if damage != 'ok':
                raise sqlite3.DatabaseError(damage)
            db.executescript(_SCHEMA)
            db.execute(f'SELECT {_COLUMNS} FROM operation LIMIT 1')
            db.execute('UPDATE operation SET state = ?, error = ?, finished = ? WHERE state = ?',
                       (OperationState.INTERRUPTED, 'the agent ended while it ran', self._clock(), OperationState.RUNNING))
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self, error):
        aside = f'{self._path}.corrupt-{time.strftime("%Y%m%dT%H%M%S")}'
        LOG.error('THE JOURNAL %s CANNOT BE READ (%s). It is kept as %s; the agent goes on with an empty one and has forgotten which '
                  'operations it ran.', self._path, error, aside)
        for suffix in ('', '-wal', '-shm'):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path + suffix, aside + suffix)

    def close(self):
        """Close the file; nothing can be recorded afterwards."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self):
        """All of the block is on disk afterwards, or nothing of it. Raises JournalError in words where the disk is full or fails."""
        try:
            with self._lock:
                self._db.execute('BEGIN IMMEDIATE')
                try:
                    yield self._db
                    self._db.execute('COMMIT')
                except BaseException:
                    if self._db.in_transaction:                      # SQLite itself has rolled back when the disk was full
                        self._db.execute('ROLLBACK')
                    raise
        except sqlite3.OperationalError as error:
            raise exceptions.JournalError(f'the journal {self._path} cannot be written: {error}') from error

    def begin(self, operation):
        """Record that `operation` is about to run, and its epoch as seen. Raises sqlite3.IntegrityError if the op_id is known."""
        now = self._clock()
        with self._transaction() as db:
            db.execute('INSERT INTO operation (op_id, migration_id, epoch, method, digest, process_id, state, started) '
                       'VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
                       (operation.op_id, operation.migration_id, operation.epoch, operation.method, operation.digest,
                        operation.process_id, OperationState.RUNNING, now))
            self._see(db, operation.migration_id, operation.epoch)

    def forget(self, op_id):
        """Remove an operation that could not be begun after all."""
        with self._transaction() as db:
            db.execute('DELETE FROM operation WHERE op_id = ?', (op_id,))

    def finish(self, op_id, state, result=None, error_type='', error=''):
        """Record an outcome; a finished operation keeps its first one. result: JSON values."""
        with self._transaction() as db:
            db.execute('UPDATE operation SET state = ?, result = ?, error_type = ?, error = ?, finished = ? WHERE op_id = ? AND state = ?',
                       (state, json.dumps(result or {}), error_type, error, self._clock(), op_id, OperationState.RUNNING))

    def amend(self, op_id, result):
        """Record what is known of an operation that was interrupted, unless the conductor has acknowledged it. result: JSON values."""
        with self._transaction() as db:
            db.execute('UPDATE operation SET result = ? WHERE op_id = ? AND state = ? AND reported = 0',
                       (json.dumps(result), op_id, OperationState.INTERRUPTED))

    def acknowledge(self, op_id):
        """Record that the conductor knows the outcome."""
        with self._transaction() as db:
            db.execute('UPDATE operation SET reported = 1 WHERE op_id = ?', (op_id,))

    def get(self, op_id):
        """Give the Operation, or None."""
        found = self._select('op_id = ?', op_id)
        return found[0] if found else None

    def unreported(self):
        """List finished operations that the conductor has not acknowledged, oldest first."""
        return self._select('reported = 0 AND state <> ? ORDER BY finished', OperationState.RUNNING)

    def unheard(self, age):
        """List finished operations that the conductor has not acknowledged for `age` seconds."""
        return self._select('reported = 0 AND state <> ? AND finished <= ?', OperationState.RUNNING, self._clock() - age)

    def highest_epoch(self, migration_id):
        """Give the highest epoch that was seen of a migration, -1 if none was."""
        with self._lock:
            row = self._db.execute('SELECT epoch FROM epoch WHERE migration_id = ?', (migration_id,)).fetchone()
        return row[0] if row else -1

    def latest_attempt(self, owner, method):
        """Give the highest attempt at an operation that was begun, 0 if none was. owner: a migration's or a debt's id."""
        prefix = f'{owner}/{method}/'
        with self._lock:
            rows = self._db.execute('SELECT op_id FROM operation WHERE op_id > ? AND op_id < ?', (prefix, f'{owner}/{method}0')).fetchall()
        return max((int(row[0].removeprefix(prefix)) for row in rows), default=0)

    def see_epoch(self, migration_id, epoch):
        """Record that an epoch of a migration was seen, so that older requests are refused from now on. Idempotent."""
        with self._transaction() as db:
            self._see(db, migration_id, epoch)

    def _see(self, db, migration_id, epoch):
        db.execute('INSERT INTO epoch VALUES (?, ?, ?) ON CONFLICT (migration_id) '
                   'DO UPDATE SET epoch = max(epoch, excluded.epoch), seen = excluded.seen', (migration_id, epoch, self._clock()))

    def abort(self, migration_id):
        """Record that a migration's job must not begin any more. Idempotent."""
        with self._transaction() as db:
            db.execute('INSERT INTO aborted VALUES (?, ?) ON CONFLICT (migration_id) DO NOTHING', (migration_id, self._clock()))

    def aborted(self, migration_id):
        """True if `abort` was called for the migration."""
        with self._lock:
            return self._db.execute('SELECT 1 FROM aborted WHERE migration_id = ?', (migration_id,)).fetchone() is not None

    def prune(self, keep=KEEP_SECONDS):
        """Remove what was finished and acknowledged more than `keep` seconds ago; epochs and aborts of that age with it, unless an
        operation of theirs is left. Returns how many operations went."""
        limit = self._clock() - keep
        with self._transaction() as db:
            gone = db.execute('DELETE FROM operation WHERE reported = 1 AND finished < ?', (limit,)).rowcount
            for table in ('epoch', 'aborted'):
                db.execute(f'DELETE FROM {table} WHERE seen < ? AND migration_id NOT IN (SELECT migration_id FROM operation)', (limit,))
        return gone

    def _select(self, condition, *values):
        with self._lock:
            rows = self._db.execute(f'SELECT {_COLUMNS} FROM operation WHERE {condition}', values).fetchall()
        return [_operation(row) for row in rows]


def _operation(row):
    values = dict(zip((field.name for field in dataclasses.fields(Operation)), row, strict=True))
    values.update(state=OperationState(values['state']), result=json.loads(values['result']), reported=bool(values['reported']))
    return Operation(**values)
