"""migrator-manage: the schema is brought up, old migrations go, what runs or owes stays, and errors are one line."""
import subprocess
import sys

import sqlalchemy as sa

from migrator.conductor.db import schema, tables
from migrator.conductor.db.database import Database, now_ms
from tests import base

DAY_MS = 86_400_000


class ManageTest(base.TestCase):
    """The command, on a SQLite file."""

    def setUp(self):
        super().setUp()
        self.url = f'sqlite:///{self.temp_dir}/migrator.db'

    def run_command(self, *words, url=None):
        """Run the command; returns exit code, output and errors."""
        done = subprocess.run([sys.executable, '-m', 'migrator.cmd.manage', '--database', url or self.url, *words],
                              capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    def open(self):
        """Open the database."""
        database = Database(self.url)
        self.addCleanup(database.dispose)
        return database

    def add(self, database, migration_id, status, days_ago):
        """Write a migration that ended so many days ago (None: it runs), with an event."""
        def write(tx):
            now = tx.execute(sa.select(now_ms())).scalar()
            values = {c.name: {} if isinstance(c.type, sa.JSON) else 0 if isinstance(c.type, (sa.Integer, sa.BigInteger)) else ''
                      for c in tables.migration.columns if not c.nullable and not isinstance(c.type, sa.Boolean)}
            ended = None if days_ago is None else now - int(days_ago * DAY_MS)
            values.update(id=migration_id, request_id=migration_id, status=status, finished_at=ended)
            tx.execute(sa.insert(tables.migration).values(**values))
            tx.execute(sa.insert(tables.event).values(migration_id=migration_id, at=now, status=status, what='end'))
        database.run(write)

    def left(self, database):
        """Name the migrations and the owners of events that are left."""
        return database.run(lambda tx: (set(tx.execute(sa.select(tables.migration.c.id)).scalars()),
                                        set(tx.execute(sa.select(tables.event.c.migration_id)).scalars())))

    def test_upgrade_brings_up_an_empty_database_and_is_harmless_after_that(self):
        """Given no schema, when upgraded twice, then it is this code's, and the second time nothing changes."""
        self.assertEqual((0, f'schema version {schema.head()} (was none)\n', ''), self.run_command('db', 'upgrade'))
        self.assertEqual((0, f'schema version {schema.head()}\n', ''), self.run_command('db', 'upgrade'))
        self.assertIn(f'database: {schema.head()}, code: {schema.head()}', self.run_command('db', 'version')[1])

    def test_purge_takes_what_ended_long_ago_and_leaves_what_runs_or_owes(self):
        """Given old and new, ended and running migrations, and an old one that owes, then only the old and settled one goes."""
        self.run_command('db', 'upgrade')
        database = self.open()
        for name, status, days in (('old', 'completed', 40), ('new', 'failed', 1), ('runs', 'running', None), ('owes', 'failed', 40)):
            self.add(database, name, status, days)
        database.run(lambda tx: tx.execute(sa.insert(tables.debt).values(
            id='d', host='h', instance_uuid='i', migration_id='owes', action='a', arguments={}, reason='', attempt=1, next_wakeup=0,
            created_at=0)))
        self.assertEqual((0, '1 migrations deleted\n', ''), self.run_command('db', 'purge', '--older-than', '30'))
        self.assertEqual(({'new', 'runs', 'owes'},) * 2, self.left(database))

    def test_purge_needs_a_schema(self):
        """Given an empty database, then the error names what to do, and nothing is made."""
        code, _, said = self.run_command('db', 'purge', '--older-than', '1')
        self.assertEqual(4, code)
        self.assertIn('migrator-manage: SchemaMismatch: ', said)
        self.assertIn('migrator-manage db upgrade', said)
        self.assertEqual(1, len(said.splitlines()))

    def test_a_database_that_cannot_be_reached_is_one_line(self):
        """Given a path that does not exist, then one line on standard error and the exit code for what is unavailable."""
        code, _, said = self.run_command('db', 'version', url='sqlite:////nowhere/at/all.db')
        self.assertEqual(6, code)
        self.assertTrue(said.splitlines()[-1].startswith('migrator-manage: Unavailable: '), said)

    def test_bad_numbers_of_days_are_refused(self):
        """Given days that are none, then the usage is shown and nothing is deleted."""
        for days in ('-1', 'x', '1e9'):
            code, _, said = self.run_command('db', 'purge', '--older-than', days)
            self.assertEqual(2, code)
            self.assertIn('--older-than', said)
