"""Connections, transactions and time.

`Database.run(work)` is the only way to the database: one transaction, committed at its end, run again as a whole after a deadlock or
a lost connection. `work` must therefore have no effect but on the database. A commit whose answer was lost is run again too; the
guarded updates (epoch, primary keys) then find their own work and change nothing twice.
"""
import contextlib
import threading

import sqlalchemy as sa
from oslo_db import api as db_api
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import engines
from sqlalchemy.ext import compiler
from sqlalchemy.sql import expression

from migrator import exceptions
from migrator.conductor.db.outage import Outage

#: What a database says that cannot be reached, or that is too busy.
NOT_NOW = (db_exception.DBConnectionError, db_exception.DBNonExistentDatabase, db_exception.DBDeadlock, sa.exc.TimeoutError)

#: Seconds that a statement waits for a row that another transaction has locked, before its own is run again.
LOCK_SECONDS = 5

#: Seconds after which the database ends a transaction in which nothing happens: a process that stands still in the midst of one must not
#: hold its rows for as long as it stands. MySQL has no such limit, MariaDB and PostgreSQL do.
IDLE_SECONDS = 10

#: Why a database does not do now what it may do later.
SILENT, READ_ONLY, LOCKED = 'does not answer', 'takes no writes at present', 'has the rows locked for somebody else'

#: What MariaDB or PostgreSQL says that is a replica about to take over, or a primary that was replaced; and that has waited for
#: LOCK_SECONDS, where oslo.db does not take that for a deadlock.
_READ_ONLY_CODES, _LOCKED_CODES = (1290, 1792, 1836, '25006'), ('55P03',)


class now_ms(expression.FunctionElement):  # noqa: N801 (reads as an SQL function)
    """The database's clock in milliseconds since 1970."""

    type = sa.BigInteger()
    inherit_cache = True


@compiler.compiles(now_ms, 'sqlite')
def _now_sqlite(_element, _compiler, **_kw):
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiler.compiles(now_ms, 'mysql')
@compiler.compiles(now_ms, 'mariadb')
def _now_mysql(_element, _compiler, **_kw):
    return 'CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)'


@compiler.compiles(now_ms, 'postgresql')
def _now_postgresql(_element, _compiler, **_kw):
    return 'CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)'


class Database:
    """One connection pool."""

    def __init__(self, url, max_pool_size=20, max_overflow=40, max_retries=6):
        """url: an SQLAlchemy URL. max_retries: how often a transaction is tried again before Unavailable is raised."""
        self.engine = engines.create_engine(_whole_unicode(url), max_pool_size=max_pool_size, max_overflow=max_overflow, max_retries=0)
        name = self.engine.dialect.name
        if name == 'sqlite':
            _prepare_sqlite(self.engine)
        elif name in ('mysql', 'mariadb'):
            sa.event.listen(self.engine, 'connect', _prepare_mysql)
        elif name == 'postgresql':
            sa.event.listen(self.engine, 'connect', _prepare_postgresql)
        self._outage = Outage()
        self._turn = _turn_of(self.engine.url) if name == 'sqlite' else contextlib.nullcontext()
        self._run = db_api.wrap_db_retry(max_retries=max_retries, retry_interval=0.05, inc_retry_interval=True, max_retry_interval=2,
                                         retry_on_disconnect=True, retry_on_deadlock=True, jitter=True,
                                         exception_checker=_passing)(self._once)

    def _once(self, work):
        asked = self._outage.asked()
        try:
            with self._turn, self.engine.begin() as tx:
                try:
                    done = work(tx)
                except (db_exception.DBError, sa.exc.DBAPIError) as error:
                    if obstacle(error) is READ_ONLY:
                        tx.invalidate(error)        # another server may answer to the name by now
                    raise
        except (db_exception.DBError, sa.exc.SQLAlchemyError) as error:
            if lost(error):
                self._outage.away(error)
            raise
        self._outage.answered(asked)
        return done

    def run(self, work):
        """Run work(connection) in one transaction and return what it returns. Raises Unavailable if the database does not do it now."""
        try:
            return self._run(work)
        except (db_exception.DBError, sa.exc.SQLAlchemyError) as error:
            why = obstacle(error)
            if not why:
                raise
            if not lost(error):
                self._outage.hindered(why, error)
            raise exceptions.Unavailable(f'the database {why} ({type(error).__name__})') from error

    def dispose(self):
        """Close all connections."""
        self.engine.dispose()


#: File -> lock of those transactions of this process that have their turn in it.
_TURNS = {}


def _turn_of(url):
    """Give the lock that transactions on a SQLite file take before they begin.

    SQLite has one writer at a time, and it waits for its turn in C: a green thread that waits so stops all others, among them the one
    that it waits for, if that gave way in the middle of its transaction (seen: 30 s of silence, then `database is locked`). This lock is
    waited for as every other of its kind.
    """
    return _TURNS.setdefault(url.database, threading.Lock())


def obstacle(error):
    """Say in words why the database did not do it now, though it may later; '' if the error is of another kind. Pure."""
    if isinstance(error, NOT_NOW):
        return SILENT
    said = getattr(error, 'orig', None) or getattr(getattr(error, 'inner_exception', None), 'orig', None)
    code = getattr(said, 'pgcode', None) or next(iter(getattr(said, 'args', ())), None)
    if code in _READ_ONLY_CODES:
        return READ_ONLY
    if code in _LOCKED_CODES:
        return LOCKED
    # Without a statement it was the connecting, or the commit, that failed. What PostgreSQL's client says then oslo.db does not recognise.
    return SILENT if isinstance(error, sa.exc.OperationalError) and error.statement is None else ''


def lost(error):
    """Whether there is no connection to the database. Pure."""
    if isinstance(error, NOT_NOW):
        return isinstance(error, (db_exception.DBConnectionError, db_exception.DBNonExistentDatabase))
    return obstacle(error) is SILENT


def _passing(error):
    """Whether to try again at once, beside what oslo.db itself takes for passing. Who takes no writes goes on like that for longer."""
    return not isinstance(error, NOT_NOW) and obstacle(error) in (SILENT, LOCKED)


def _whole_unicode(url):
    """MySQL's `utf8`, which oslo.db takes unless told otherwise, has no room for characters beyond the first 65536."""
    url = sa.make_url(url)
    if url.get_backend_name() in ('mysql', 'mariadb') and 'charset' not in url.query:
        return url.update_query_dict({'charset': 'utf8mb4'})
    return url


def _prepare_sqlite(engine):
    """Begin every transaction as a writer: a reader that turns writer later fails at once instead of waiting for its turn.

    oslo.db begins with a plain BEGIN unless it finds its mark `in_transaction`; the mark is therefore always there.
    """
    @sa.event.listens_for(engine, 'connect')
    def on_connect(connection, record):
        record.info['in_transaction'] = True
        connection.isolation_level = None
        connection.execute('PRAGMA journal_mode=WAL')
        connection.execute('PRAGMA busy_timeout=30000')

    @sa.event.listens_for(engine, 'begin')
    def on_begin(connection):
        connection.exec_driver_sql('BEGIN IMMEDIATE')

    @sa.event.listens_for(engine, 'rollback')
    @sa.event.listens_for(engine, 'commit')
    def on_end(connection):
        connection.info['in_transaction'] = True


def _prepare_mysql(connection, _record):
    """Guarded updates need no gap locks; without them conductors do not deadlock on neighbouring rows."""
    idle = f', idle_transaction_timeout = {IDLE_SECONDS}' if 'MariaDB' in connection.get_server_info() else ''
    with connection.cursor() as cursor:
        cursor.execute('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED')
        # In a zone with summer time the server's local clock, and what is reckoned from it, jumps by an hour twice a year.
        cursor.execute(f"SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = {LOCK_SECONDS}{idle}")


def _prepare_postgresql(connection, _record):
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION lock_timeout = '{LOCK_SECONDS}s'; "
                       f"SET SESSION idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'; "
                       # What was acknowledged must not be gone when the server dies; stricter values are left alone. See `promises`.
                       "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
    connection.commit()     # what is set in a transaction that is rolled back is not set
