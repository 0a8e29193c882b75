"""The database restarted, gone, failing over, losing connections and deadlocking, with migrations at every step."""
import contextlib
import threading
import time

import sqlalchemy as sa

from tests.faults.outages import MINUTE, OutageCase


class DatabaseCases:
    """What is done to either database. The classes below say in whose words."""

    own_broker = False

    #: Take all connections but one's own away; begin and end a time in which nothing can be written.
    KILL, READ_ONLY, WRITABLE = (), (), ()
    #: Tells in its last column how many deadlocks there were.
    DEADLOCKS = ''

    @classmethod
    def execute(cls, *statements):
        """Run statements as the database's administrator; returns the last one's rows."""
        engine = sa.create_engine(cls.admin_url, isolation_level='AUTOCOMMIT', poolclass=sa.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                result = connection.execute(sa.text(statement))
            return result.all() if result.returns_rows else []

    def test_restarted(self):
        """Given migrations at every step, when the database is stopped in order and started again, then all end well."""
        self.outage(lambda: self.server.request('halt'), lambda: self.server.request('revive'), 0)

    def test_killed_and_gone_for_a_minute(self):
        """Given migrations at every step, when the database crashes and is back after a minute, then all end well."""
        self.outage(lambda: self.server.request('crash'), lambda: self.server.request('revive'), MINUTE)
        for name, daemon in self.cluster.daemons.items():
            if name.startswith('conductor'):        # told of once, not by everybody who met it; flickering while it starts counts as new
                said = daemon.output()
                self.assertIn(said.count('The database does not answer;'), (1, 2, 3), said)
                self.assertIn('The database answers again', said)
                self.assertNotIn('DB exceeded retry limit', said)

    def test_fails_over(self):
        """Given migrations, when the server dies and what takes its place can first only be read, then all end well."""
        def take_over():
            self.server.request('crash')
            self.server.request('revive')
            self.execute(*self.READ_ONLY)
            self.lose_connections()     # of those that were quick enough to open one before
        self.outage(take_over, lambda: self.execute(*self.WRITABLE), 4)
        said = ''.join(daemon.output() for daemon in self.cluster.daemons.values())
        self.assertIn('The database takes no writes at present', said)

    def test_loses_connections_again_and_again(self):
        """Given migrations, when all connections are taken away ten times a second, then all end well."""
        self.outage(self.lose_connections, self.lose_connections, 4, going_on=self.lose_connections)

    def lose_connections(self):
        """Take away every connection of the daemons and of the tests."""
        for statement, in self.execute(self.KILL):
            with contextlib.suppress(sa.exc.DBAPIError):       # that one has just gone by itself
                self.execute(statement)

    def test_deadlocks_and_waits_for_locks(self):
        """Given migrations, when others lock the same rows in the opposite order, and hold them for long, then all end well."""
        before, stop = self.deadlocks(), threading.Event()
        busy = threading.Thread(target=self.obstruct, args=(stop, lambda: self.deadlocks() > before))
        self.outage(busy.start, stop.set, 6)
        busy.join(60)
        self.assertGreater(self.deadlocks(), before, 'no deadlock came about')

    def deadlocks(self):
        """How many deadlocks the server has resolved so far, whomever it chose for it."""
        return int(self.execute(self.DEADLOCKS)[0][-1])

    def obstruct(self, stop, enough, patience=20.0):
        """Hosts first and migrations then, where the engine takes migrations first; and keep them for a while.

        Goes on until `stop` is set, and then for up to `patience` seconds more until `enough`: what is let go at the end of the outage
        makes for more transitions.
        """
        engine = sa.create_engine(self.cluster.database_url, poolclass=sa.NullPool)
        last = float('inf')
        while not stop.is_set() or (time.monotonic() < last and not enough()):
            if stop.is_set():
                last = min(last, time.monotonic() + patience)
            with contextlib.suppress(sa.exc.DBAPIError), engine.begin() as tx:
                tx.execute(sa.text('SELECT host FROM service ORDER BY host DESC FOR UPDATE'))
                time.sleep(0.2)
                tx.execute(sa.text("SELECT id FROM migration WHERE status NOT IN ('completed') ORDER BY id DESC FOR UPDATE"))
                time.sleep(0.5)
            time.sleep(0.05)


class TestMariaDB(DatabaseCases, OutageCase):
    """On MariaDB."""

    KILL = 'SELECT concat("KILL ", id) FROM information_schema.processlist WHERE id <> connection_id() AND user <> "system user"'
    # The server starts without checking rights; read_only binds only those who lack them.
    READ_ONLY, WRITABLE = ('SET GLOBAL read_only = 1', 'FLUSH PRIVILEGES'), ('SET GLOBAL read_only = 0',)
    DEADLOCKS = "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"

    @classmethod
    def account(cls, url):
        """An account that may do everything in its own database and nothing else."""
        cls.execute('FLUSH PRIVILEGES', "ALTER USER root@localhost IDENTIFIED VIA mysql_native_password USING PASSWORD('')",
                    'CREATE USER daemons@localhost', f'GRANT ALL ON {sa.make_url(url).database}.* TO daemons@localhost')
        return sa.make_url(url).set(username='daemons').render_as_string(hide_password=False)


class TestPostgreSQL(DatabaseCases, OutageCase):
    """On PostgreSQL."""

    database = 'postgresql'
    KILL = ("SELECT 'SELECT pg_terminate_backend(' || pid || ')' FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'")
    READ_ONLY = ('ALTER SYSTEM SET default_transaction_read_only = on', 'SELECT pg_reload_conf()')
    WRITABLE = ('ALTER SYSTEM SET default_transaction_read_only = off', 'SELECT pg_reload_conf()')
    DEADLOCKS = 'SELECT sum(deadlocks) FROM pg_stat_database'

    @classmethod
    def account(cls, url):
        """An account of no special rights; the administrator keeps the connections that are reserved for it."""
        cls.execute('CREATE ROLE daemons LOGIN', f'ALTER DATABASE {sa.make_url(url).database} OWNER TO daemons')
        return sa.make_url(url).set(username='daemons').render_as_string(hide_password=False)
