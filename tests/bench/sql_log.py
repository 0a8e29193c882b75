"""What the database server was asked, by its own log, put together to transactions and told apart by what they were for.

Nothing is measured by subtraction: a transaction belongs to a migration because a statement of it names the migration, its request or
its guest. Heartbeats and sweeps go on whether anything migrates or not, so they are told apart by what only they do.
"""
import collections
import dataclasses
import pathlib
import re

import sqlalchemy as sa

#: What a driver or the pool sends of its own accord when it opens or looks after a connection.
_HOUSEKEEPING = re.compile(r"(SET |SHOW |SELECT @@|SELECT VERSION\(\)|SELECT DATABASE\(\)|SELECT 1$|SELECT 'x' AS |SELECT CAST\('|select "
                           r'pg_catalog\.version|select current_schema|SELECT t\.oid|SELECT pg_type|SELECT typname)', re.IGNORECASE)
_BEGIN = re.compile(r'(BEGIN|START TRANSACTION)\b', re.IGNORECASE)
_END = re.compile(r'(COMMIT|ROLLBACK)\b', re.IGNORECASE)
#: What a sweep looks for, each time or each few seconds: what is due, debts, and the oldest agent's version.
_SWEEP = re.compile(r'SELECT migration\.id\s+FROM migration\s+WHERE migration\.next_wakeup <=|FROM debt\s+(INNER )?JOIN service\b|'
                    r'SELECT DISTINCT service\.rpc_version\b', re.IGNORECASE)
_HEARTBEAT = re.compile(r'(UPDATE service SET (?=.*\bprocess_id)|INSERT INTO service\b|UPDATE migration SET progress=(CAST\()?\(?CASE\b)',
                        re.IGNORECASE | re.DOTALL)
_UUID = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')
_SHORT = (re.compile(r'(?P<verb>INSERT) INTO (?P<table>\w+)', re.IGNORECASE), re.compile(r'(?P<verb>UPDATE) (?P<table>\w+)', re.IGNORECASE),
          re.compile(r'(?P<verb>DELETE) FROM (?P<table>\w+)', re.IGNORECASE),
          re.compile(r'(?P<verb>SELECT)\b.*?\s(?:FROM|JOIN)\s+(?!AS\b)(?P<table>\w+)', re.IGNORECASE | re.DOTALL))
_PARENTHESES = re.compile(r'\([^()]*\)')

HEARTBEAT, SWEEP, HOUSEKEEPING, OURS, OTHERS, NAMELESS = 'heartbeat', 'sweep', 'housekeeping', 'migration', 'others', 'nameless'


@dataclasses.dataclass(frozen=True)
class Statement:
    """One statement. connection: the server's number of it."""

    connection: int
    text: str


@dataclasses.dataclass(frozen=True)
class Transaction:
    """Statements of one connection up to a commit or rollback, without these two. committed: False for a rollback, or none of both."""

    connection: int
    statements: tuple[str, ...]
    committed: bool

    def text(self):
        """All of it."""
        return '\n'.join(self.statements)

    def words(self):
        """What it did, in short."""
        return ', '.join(short(statement) for statement in self.statements) + ('' if self.committed else ' (not committed)')


def group(statements):
    """Put statements together to transactions, in the order of their ends; those that have not ended come last."""
    pending, done = collections.defaultdict(list), []
    for statement in statements:
        text = statement.text.strip()
        if _END.match(text):
            said = tuple(pending.pop(statement.connection, ()))
            if said:
                done.append(Transaction(statement.connection, said, text[:6].upper() == 'COMMIT'))
        elif _HOUSEKEEPING.match(text):
            done.append(Transaction(statement.connection, (text,), False))
        elif not _BEGIN.match(text):
            pending[statement.connection].append(text)
    return done + [Transaction(connection, tuple(said), False) for connection, said in pending.items()]


def kind_of(transaction, ids):
    """Say what a transaction was for: one of the constants above. ids: of the migration that is measured, its request and its guest."""
    if _HOUSEKEEPING.match(transaction.statements[0]):
        return HOUSEKEEPING
    text = transaction.text()
    if any(_HEARTBEAT.match(statement) for statement in transaction.statements):
        return HEARTBEAT
    if any(_SWEEP.search(statement) for statement in transaction.statements):
        return SWEEP
    if any(one in text for one in ids):
        return OURS
    return OTHERS if _UUID.search(text) else NAMELESS


def attribute(transactions, ids):
    """Tell transactions apart; returns {kind: [Transaction]} with every kind in it."""
    found = {kind: [] for kind in (OURS, NAMELESS, HEARTBEAT, SWEEP, OTHERS, HOUSEKEEPING)}
    for transaction in transactions:
        found[kind_of(transaction, ids)].append(transaction)
    return found


def short(statement):
    """Name a statement by its verb and table."""
    plain, found = statement.strip(), 1
    while found:
        plain, found = _PARENTHESES.subn('', plain)
    for pattern in _SHORT:
        match = pattern.match(plain)
        if match:
            return f'{match["verb"].upper()} {match["table"]}'
    return plain.split('\n')[0][:40]


class MariaDBLog:
    """The general log of a MariaDB or MySQL server, in its table. A context manager: the server logs while it is open."""

    def __init__(self, url):
        """url: of any database of the server, for an account that may do everything."""
        self._engine = sa.create_engine(url, isolation_level='AUTOCOMMIT', poolclass=sa.NullPool)

    def __enter__(self):
        self._do("SET GLOBAL log_output = 'TABLE'")
        self.clear()
        return self

    def __exit__(self, *_):
        self._do('SET GLOBAL general_log = 0')
        self._engine.dispose()

    def clear(self):
        """Forget what was logged."""
        self._do('SET GLOBAL general_log = 0', 'TRUNCATE mysql.general_log', 'SET GLOBAL general_log = 1')

    def statements(self, without=()):
        """Give the Statements since the start, in order. without: numbers of connections that are left out; our own are anyway."""
        with self._engine.connect() as connection:
            own = connection.exec_driver_sql('SELECT CONNECTION_ID()').scalar()
            rows = connection.exec_driver_sql(
                "SELECT thread_id, argument FROM mysql.general_log WHERE command_type IN ('Query', 'Execute')")
            found = [Statement(row[0], row[1].decode(errors='replace') if isinstance(row[1], bytes) else row[1]) for row in rows]
        administration = {s.connection for s in found if 'general_log' in s.text}
        return [s for s in found if s.connection not in {own, *administration, *without}]

    def _do(self, *words):
        with self._engine.connect() as connection:
            for one in words:
                connection.exec_driver_sql(one)


class PostgreSQLLog:
    """The log file of a PostgreSQL server that tests/service_keeper.py started. A context manager, as MariaDBLog."""

    PREFIX = 'migrator-sql %p: '
    _LINE = re.compile(r'migrator-sql (\d+): (\w+):  (.*)', re.DOTALL)
    _STATEMENT = re.compile(r'(?:statement|execute [^:]*): (.*)', re.DOTALL)

    def __init__(self, url):
        """url: of any database of the server, for its superuser."""
        self._engine = sa.create_engine(url, isolation_level='AUTOCOMMIT', poolclass=sa.NullPool)
        self._start = 0

    def __enter__(self):
        with self._engine.connect() as connection:
            self._path = pathlib.Path(connection.exec_driver_sql('SHOW data_directory').scalar()) / 'server.log'
            connection.exec_driver_sql(f"ALTER SYSTEM SET log_line_prefix = '{self.PREFIX.replace('%', '%%')}'")
            connection.exec_driver_sql("ALTER SYSTEM SET log_statement = 'all'")
            connection.exec_driver_sql('SELECT pg_reload_conf()')
        self.clear()
        return self

    def __exit__(self, *_):
        with self._engine.connect() as connection:
            connection.exec_driver_sql('ALTER SYSTEM RESET log_statement')
            connection.exec_driver_sql('SELECT pg_reload_conf()')
        self._engine.dispose()

    def clear(self):
        """Forget what was logged."""
        self._start = self._path.stat().st_size

    def statements(self, without=()):
        """Give the Statements since the start, in order. without: as for MariaDBLog."""
        with open(self._path, 'rb') as file:
            file.seek(self._start)
            found = list(self.parse(file.read().decode(errors='replace')))
        administration = {s.connection for s in found if 'log_statement' in s.text}
        return [s for s in found if s.connection not in {*administration, *without}]

    @classmethod
    def parse(cls, text):
        """Read a log; a statement of several lines goes on with lines that begin with a tab."""
        entries = []
        for line in text.splitlines():
            if line.startswith('\t') and entries:
                entries[-1] += '\n' + line[1:]
            else:
                entries.append(line)
        for entry in entries:
            match = cls._LINE.match(entry)
            said = match and match[2] == 'LOG' and cls._STATEMENT.match(match[3])
            if said:
                yield Statement(int(match[1]), said[1])


def log_of(url):
    """Make the log of a database's server; None where there is no server (SQLite)."""
    kind = sa.make_url(url).get_backend_name()
    return {'mysql': MariaDBLog, 'mariadb': MariaDBLog, 'postgresql': PostgreSQLLog}[kind](url) if kind != 'sqlite' else None
