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
from oslo_log import log
from sqlalchemy.ext import compiler
from sqlalchemy.sql import expression

from migrator import exceptions

LOG = log.getLogger(__name__)

#: What a database says that cannot be reached, or that is too busy.
NOT_NOW = (db_exception.DBConnectionError, db_exception.DBNonExistentDatabase, db_exception.DBDeadlock, sa.exc.TimeoutError)


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
            sa.event.listen(self.engine, 'connect', _read_committed)
        self._turn = _turn_of(self.engine.url) if name == 'sqlite' else contextlib.nullcontext()
        self._run = db_api.wrap_db_retry(max_retries=max_retries, retry_interval=0.05, inc_retry_interval=True, max_retry_interval=2,
                                         retry_on_disconnect=True, retry_on_deadlock=True, jitter=True)(self._once)

    def _once(self, work):
        with self._turn, self.engine.begin() as tx:
            return work(tx)

    def run(self, work):
        """Run work(connection) in one transaction and return what it returns. Raises Unavailable if the database does not answer."""
        try:
            return self._run(work)
        except NOT_NOW as error:
            LOG.error('The database does not answer: %s', type(error).__name__)
            raise exceptions.Unavailable(f'the database does not answer ({type(error).__name__})') from error

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


def _read_committed(connection, _record):
    """Guarded updates need no gap locks; without them conductors do not deadlock on neighbouring rows."""
    with connection.cursor() as cursor:
        cursor.execute('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED')
        # In a zone with summer time the server's local clock, and what is reckoned from it, jumps by an hour twice a year.
        cursor.execute("SET SESSION time_zone = '+00:00'")
