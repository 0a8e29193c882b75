"""What the engine relies on, on SQLite, MariaDB and PostgreSQL alike: guarded updates, locks, counters, the clock, repetition."""
import subprocess
import sys
import threading
import time
import uuid

import sqlalchemy as sa
import testscenarios
from alembic import autogenerate
from alembic.runtime import migration as runtime
from oslo_db import exception as db_exception

from migrator import concurrency, exceptions
from migrator.conductor.cursor import Cursor, Phase
from migrator.conductor.db import catalogue, debts, hosts, ledger, promises, schema, tables
from migrator.conductor.db.database import Database, now_ms
from migrator.conductor.engine import Engine
from migrator.conductor.inventory import Inventory
from migrator.conductor.requests import Requests
from migrator.rpc import facts
from migrator.rpc.context import MigratorContext
from migrator.states import GuestState, Status
from tests import base, services

GUEST = '11111111-1111-4111-8111-111111111111'


class DatabaseTestCase(testscenarios.WithScenarios, base.TestCase):

    timeout = 240
    scenarios = [(kind, {'kind': kind}) for kind in ('sqlite', 'mysql', 'postgresql')]
    upgraded = True

    def setUp(self):
        super().setUp()
        self.url = self.useFixture(services.Database(self.kind)).url
        self.database = self.connect()
        if self.upgraded:
            schema.upgrade(self.database)

    def connect(self):
        """Give another pool of connections."""
        database = Database(self.url)
        self.addCleanup(database.dispose)
        return database

    def run_(self, statement, **values):
        """Run a function of the statement modules in a transaction of its own."""
        return self.database.run(lambda tx: statement(tx, **values))

    def at_once(self, number, call):
        """Call call(index) in so many threads at the same moment; returns results and errors."""
        barrier = threading.Barrier(number)

        def one(index):
            barrier.wait(30)
            try:
                return call(index)
            except Exception as error:      # noqa: BLE001 - each test says which ones it expects
                return error
        return [handle.wait(120) for handle in [concurrency.spawn(one, index) for index in range(number)]]

    def migration(self, cursor=None, **values):
        """Write a migration; returns its id."""
        row = {'id': str(uuid.uuid4()), 'kind': 'live_migration', 'instance_uuid': GUEST, 'instance_name': 'web', 'source_host': 'alpha',
               'destination_host': 'beta', 'request_id': str(uuid.uuid4()), 'request': {}, 'policy': {}, 'plan': {}, 'facts': {},
               'progress': {}, 'reason': '', 'created_at': 1, 'updated_at': 1, **ledger.cursor_values(cursor or Cursor()), **values}
        self.run_(lambda tx: ledger.insert(tx, row))
        return row['id']

    def beat(self, *names, guests=(), **more):
        """Let hosts be heard of."""
        for name in names:
            self.number = getattr(self, 'number', 0) + 1
            Inventory(self.database).heartbeat(facts.Heartbeat(host=name, process_id='p', sequence=self.number, full=True, guests=guests,
                                                               monotonic=1.0, facts=facts.Host(hypervisor_name=name), **more))

    def count(self, table, *where):
        return self.run_(lambda tx: tx.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar())


class SchemaTest(DatabaseTestCase):

    upgraded = False

    def test_upgrade_from_nothing_and_again(self):
        self.assertRaises(exceptions.SchemaMismatch, schema.check, self.database)
        self.assertEqual(schema.head(), schema.upgrade(self.database))
        other = self.connect()
        started = time.monotonic()
        self.assertEqual(schema.head(), schema.upgrade(other))      # while the first one's connections are still open
        self.assertLess(time.monotonic() - started, 20)
        schema.check(other)

    def test_upgrades_at_once(self):
        command = [sys.executable, '-m', 'migrator.cmd.manage', '--database', self.url, 'db', 'upgrade']
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
        said = [process.communicate(timeout=120)[0] for process in running]
        self.assertEqual([0, 0, 0], [process.returncode for process in running], said)
        schema.check(self.database)

    def test_the_schema_is_the_model(self):
        schema.upgrade(self.database)
        with self.database.engine.connect() as connection:
            context = runtime.MigrationContext.configure(connection, opts={'compare_type': True, 'compare_server_default': True})
            self.assertEqual([], autogenerate.compare_metadata(context, tables.metadata))


class ClockTest(DatabaseTestCase):

    upgraded = False

    def now(self, tx):
        return tx.execute(sa.select(now_ms())).scalar()

    def test_it_is_about_the_machines(self):
        self.assertLess(abs(self.run_(self.now) - time.time() * 1000), 2000)

    def test_it_shows_milliseconds_and_moves_within_a_transaction(self):
        def sample(tx):
            found = []
            for _ in range(10):
                found.append(self.now(tx))
                time.sleep(0.003)
            return found
        found = self.run_(sample)
        self.assertEqual(sorted(found), found)
        self.assertGreater(len(set(found)), 5, found)
        self.assertTrue(all(isinstance(n, int) for n in found))


class GuardTest(DatabaseTestCase):

    def test_of_many_who_move_a_workflow_one_does(self):
        known = self.migration()
        record = self.run_(lambda tx: ledger.load(tx, known))

        def move(index):
            self.database.run(lambda tx: ledger.store(tx, record, Cursor(Status.CHECKING, Phase.CALLING), f'by {index}', record.now))
            return index
        answers = self.at_once(10, move)
        won = [a for a in answers if isinstance(a, int)]
        self.assertEqual((1, 9), (len(won), sum(isinstance(a, ledger.EpochConflict) for a in answers)), answers)
        after = self.run_(lambda tx: ledger.load(tx, known)).row
        self.assertEqual((record.row.epoch + 1, f'by {won[0]}'), (after.epoch, after.reason))

    def test_a_conflict_takes_everything_of_its_transaction_back(self):
        known = self.migration()
        record = self.run_(lambda tx: ledger.load(tx, known))
        self.run_(lambda tx: ledger.store(tx, record, record.cursor, 'first', None))

        def second(tx):
            ledger.note(tx, known, record.now, record.cursor, 'start', 'never seen')
            ledger.lock(tx, 'instance:x', known)
            ledger.store(tx, record, record.cursor, 'second', None)
        self.assertRaises(ledger.EpochConflict, self.run_, second)
        self.assertEqual((0, 0), (self.count(tables.event), self.count(tables.resource_lock)))

    def test_a_lock_has_one_holder(self):
        owners = [self.migration() for _ in range(8)]
        answers = self.at_once(8, lambda n: self.run_(lambda tx: ledger.lock(tx, 'instance:x', owners[n])))
        self.assertEqual(1, answers.count(None), answers)
        self.assertEqual(7, sum(isinstance(a, db_exception.DBDuplicateEntry) for a in answers), answers)
        holder = self.run_(lambda tx: ledger.lock_holder(tx, 'instance:x'))
        self.assertEqual(owners[answers.index(None)], holder.id)
        self.run_(lambda tx: ledger.unlock_all(tx, holder.id))
        self.assertIsNone(self.run_(lambda tx: ledger.lock_holder(tx, 'instance:x')))

    def test_places_are_never_more_than_the_cap(self):
        self.beat('alpha', 'beta', 'gamma')
        pairs = (('alpha', 'beta'), ('beta', 'alpha'), ('beta', 'gamma'), ('gamma', 'alpha'))

        def take(index):
            names = pairs[index % 4]
            return names if self.run_(lambda tx: hosts.take_places(tx, hosts.get_many(tx, names).values(), 3)) else None
        answers = self.at_once(20, take)
        self.assertEqual([], [a for a in answers if isinstance(a, Exception)])
        taken = [name for names in answers if names for name in names]
        found = {row.host: row.places for row in self.run_(hosts.listing)}
        self.assertEqual({name: taken.count(name) for name in found}, found)
        self.assertEqual(3, max(found.values()))

    def test_places_go_back_to_nothing_and_not_below(self):
        self.beat('alpha', 'beta')
        names = ['alpha', 'beta']
        self.assertTrue(self.run_(lambda tx: hosts.take_places(tx, hosts.get_many(tx, names).values(), 1)))
        self.assertFalse(self.run_(lambda tx: hosts.take_places(tx, hosts.get_many(tx, names).values(), 1)))
        for _ in range(2):
            self.run_(lambda tx: hosts.give_places(tx, names))
        self.assertEqual([0, 0], [row.places for row in self.run_(hosts.listing)])


class RequestTest(DatabaseTestCase):

    def setUp(self):
        super().setUp()
        self.options('conductor', host_down_after=600)
        self.beat('beta', 'gamma')
        self.beat('alpha', guests=(facts.Guest(uuid=GUEST, name='web', state=GuestState.RUNNING, memory_mib=64),))
        settings = self.conf.conf.conductor
        self.requests = Requests(self.database, Engine(self.database, None), settings)

    def ask(self, destination, request_id):
        row, _transition = self.requests.live_migrate(MigratorContext(overwrite=False), 'web', destination, request_id, {})
        return row.id

    def test_the_same_request_at_once_is_one_migration(self):
        answers = self.at_once(8, lambda _: self.ask('beta', 'req-1'))
        self.assertEqual(1, len(set(answers)), answers)
        self.assertEqual((1, 1, 1), (self.count(tables.migration), self.count(tables.resource_lock), self.count(tables.event)))
        self.assertEqual({'alpha': 1, 'beta': 1, 'gamma': 0}, {row.host: row.places for row in self.run_(hosts.listing)})

    def test_of_different_requests_for_one_guest_one_wins(self):
        answers = self.at_once(8, lambda n: self.ask(('beta', 'gamma')[n % 2], f'req-{n}'))
        won = [a for a in answers if isinstance(a, str)]
        self.assertEqual((1, 7), (len(won), sum(isinstance(a, exceptions.AlreadyMigrating) for a in answers)), answers)
        self.assertEqual((1, 1), (self.count(tables.migration), self.count(tables.resource_lock)))
        self.assertEqual(2, sum(row.places for row in self.run_(hosts.listing)))


class RetryTest(DatabaseTestCase):

    def test_a_deadlock_is_tried_again_and_both_get_through(self):
        first, second = self.migration(), self.migration()
        met, attempts = threading.Barrier(2), []

        def cross(mine, other):
            def work(tx):
                attempts.append(mine)
                tx.execute(sa.update(tables.migration).where(tables.migration.c.id == mine).values(epoch=tables.migration.c.epoch + 1))
                if len(attempts) <= 2 and self.kind != 'sqlite':    # SQLite lets in one writer at a time, so they never meet
                    met.wait(20)
                tx.execute(sa.update(tables.migration).where(tables.migration.c.id == other).values(epoch=tables.migration.c.epoch + 10))
            self.database.run(work)
        answers = self.at_once(2, lambda n: cross(*((first, second), (second, first))[n]))
        self.assertEqual([None, None], answers)
        self.assertEqual([12, 12], [self.run_(lambda tx, m=m: ledger.load(tx, m)).row.epoch for m in (first, second)])
        self.assertEqual(2 if self.kind == 'sqlite' else 3, len(attempts))

    def test_readers_and_writers_do_not_starve(self):
        known = self.migration()

        def work(index):
            for _ in range(15):
                self.run_(lambda tx: ledger.progress(tx, 'alpha', {known: {'by': index}}) if index % 2 else ledger.load(tx, known))
        self.assertEqual([None] * 10, self.at_once(10, work))

    def test_a_connection_that_breaks_is_replaced(self):
        if self.kind == 'sqlite':
            self.assertEqual(0, self.count(tables.migration))       # a file has no connection that could break
            return
        suicide = {'mysql': 'KILL CONNECTION_ID()', 'postgresql': 'SELECT pg_terminate_backend(pg_backend_pid())'}[self.kind]
        attempts = []

        def work(tx):
            attempts.append(1)
            if len(attempts) == 1:
                tx.execute(sa.text(suicide))
            return tx.execute(sa.select(now_ms())).scalar()
        self.assertGreater(self.database.run(work), 0)
        self.assertEqual(2, len(attempts))
        for words in ('The database does not answer', 'The database answers again'):
            self.assertEqual(1, self.log.output.count(words), words)

    def test_an_error_of_the_work_itself_is_not_repeated(self):
        attempts = []

        def work(tx):
            attempts.append(1)
            ledger.load(tx, 'nothing')
        self.assertRaises(exceptions.MigrationNotFound, self.database.run, work)
        self.assertEqual(1, len(attempts))


class KeptTest(DatabaseTestCase):
    """What was acknowledged is there after the server was killed, however the server is set."""

    def setUp(self):
        super().setUp()
        self.server = None
        if self.kind != 'sqlite':
            self.server = services.Server(services.DATABASES[self.kind][0])
            self.addCleanup(self.server.stop)
            self.url = self.useFixture(services.Database(self.kind, self.server)).url
            self.database = self.connect()
            schema.upgrade(self.database)

    def test_a_commit_outlives_the_server(self):
        """Given a server that would write commits later, when it is killed right after one, then the migration is there."""
        for _ in range(3 if self.server else 1):
            known = self.migration()
            if self.server:
                self.server.request('crash')
                self.server.request('revive')
            self.assertEqual(1, self.count(tables.migration, tables.migration.c.id == known))

    def test_settings_that_lose_commits_are_told(self):
        """Given settings that lose commits, then each is named; given none of them, nothing is."""
        if self.kind == 'mysql':
            self.assertEqual((), promises.broken(self.database))
            for value, victim in ((0, 'the server'), (2, 'its machine')):
                self.run_(lambda tx, v=value: tx.execute(sa.text(f'SET GLOBAL innodb_flush_log_at_trx_commit = {v}')))
                words, = promises.broken(self.database)
                self.assertIn(f'a second of commits is lost if {victim} dies', words)
        elif self.kind == 'postgresql':     # pifpaf trades fsync for speed
            self.assertEqual(['fsync', 'full_page_writes'], [words.split(' = ')[0] for words in promises.broken(self.database)])
            self.assertEqual('on', self.run_(lambda tx: tx.execute(sa.text('SHOW synchronous_commit')).scalar()))
        else:
            self.assertEqual((), promises.broken(self.database))


class RowsTest(DatabaseTestCase):

    def progress_of(self, known):
        return self.run_(lambda tx: tx.execute(sa.select(tables.migration.c.progress).where(tables.migration.c.id == known)).scalar())

    def test_the_progress_of_all_migrations_of_a_heartbeat_is_one_statement(self):
        mine, other, ended = self.migration(), self.migration(), self.migration(Cursor(status=Status.COMPLETED))
        foreign = self.migration(source_host='gamma')
        jobs = {known: {'active': True, 'iteration': n, 'words': 'ä"\\\'%'} for n, known in enumerate((mine, other, ended, foreign))}
        asked = []
        sa.event.listen(self.database.engine, 'before_cursor_execute', lambda *said: asked.append(said[2]))
        self.run_(ledger.progress, host='alpha', jobs=jobs, quiet=1000)
        self.assertEqual(1, len([text for text in asked if text.startswith('UPDATE migration')]))
        self.assertEqual([jobs[mine], jobs[other], {}, {}], [self.progress_of(known) for known in (mine, other, ended, foreign)])

    def test_two_first_heartbeats_of_a_host_at_once(self):
        def first(index):
            return Inventory(self.database).heartbeat(facts.Heartbeat(
                host='delta', process_id='p', sequence=index + 1, full=True, monotonic=1.0 + index,
                guests=(facts.Guest(uuid=GUEST, name='web'),), facts=facts.Host(hypervisor_name='delta')))
        self.assertEqual([{'resync': False}] * 6, self.at_once(6, first))
        self.assertEqual((1, 1), (self.count(tables.service), self.count(tables.instance)))

    def test_a_large_list_in_parts_on_every_database(self):
        uuids = sorted(str(uuid.uuid4()) for _ in range(40))
        listed = [facts.Guest(uuid=known, name='w') for known in uuids]
        self.beat('alpha', guests=tuple(listed))
        inventory = Inventory(self.database)
        for number, (some, above, upto) in enumerate(((listed[5:20], '', uuids[19]), (listed[20:30], uuids[19], ''))):
            inventory.heartbeat(facts.Heartbeat(host='alpha', process_id='q', sequence=number + 1, complete=True, guests=tuple(some),
                                                above=above, upto=upto, monotonic=2.0))
        query = sa.select(tables.instance.c.uuid).where(tables.instance.c.state == 'unknown')
        unknown = self.run_(lambda tx: tx.execute(query).scalars().all())
        self.assertEqual([*uuids[:5], *uuids[30:]], sorted(unknown))

    def test_due_are_those_whose_time_has_come_longest_first(self):
        now = self.run_(lambda tx: tx.execute(sa.select(now_ms())).scalar())
        late, later, future = (self.migration(next_wakeup=now + ms) for ms in (-5000, -9000, 60_000))
        ended = self.migration(next_wakeup=None)
        self.assertEqual([later, late], self.run_(lambda tx: ledger.due(tx, 10)))
        self.assertEqual([later], self.run_(lambda tx: ledger.due(tx, 1)))
        self.assertEqual([later, late], self.run_(lambda tx: ledger.due(tx, 10, horizon=3600)))
        self.assertEqual([later, late, future], self.run_(lambda tx: ledger.due(tx, 10, horizon=30)))
        self.assertEqual(4, self.count(tables.migration, tables.migration.c.id.in_([late, later, future, ended])))

    def test_words_of_any_script_and_length(self):
        words = '移行 ⟶ 🚚 ' * 3000
        known = self.migration()
        record = self.run_(lambda tx: ledger.load(tx, known))
        cursor = Cursor(Status.FAILED, Phase.ENDED, error=words)

        def write(tx):
            ledger.store(tx, record, cursor, words, None)
            ledger.note(tx, known, record.now, cursor, 'end', words, 'Jürgen', 'req-ü')
        self.run_(write)
        row = self.run_(lambda tx: ledger.load(tx, known)).row
        for stored in (row.reason, row.error, self.run_(lambda tx: ledger.events(tx, known))[0].reason):
            self.assertTrue(words.startswith(stored))
            self.assertGreaterEqual(len(stored), 4000)

    def test_names_and_requests_differ_by_case(self):
        self.beat('alpha', 'Alpha')
        self.migration(request_id='req-a')
        other = self.migration(request_id='Req-A')
        self.assertEqual(other, self.run_(lambda tx: ledger.by_request(tx, 'Req-A')).id)
        self.assertIsNone(self.run_(lambda tx: ledger.by_request(tx, 'REQ-A')))
        self.assertEqual(['Alpha', 'alpha'], sorted(row.host for row in self.run_(hosts.listing)))

    def test_a_guest_with_a_very_long_name(self):
        self.beat('alpha', guests=(facts.Guest(uuid=GUEST, name='ü' * 300, state=GuestState.RUNNING),))
        self.beat('alpha', guests=(facts.Guest(uuid=GUEST, name='ü' * 300, state=GuestState.RUNNING),))
        self.assertEqual('ü' * 128, self.run_(lambda tx: catalogue.get(tx, GUEST)).name)

    def test_a_debt_is_claimed_by_one_and_paid_once(self):
        self.beat('beta')
        known = self.migration(Cursor(Status.COMPLETED, Phase.ENDED))
        record = self.run_(lambda tx: ledger.load(tx, known))
        self.run_(lambda tx: debts.insert(tx, record, 'beta', 'post_live_migration_at_source', {'plan': {}}, 'it was away'))
        row = self.run_(lambda tx: debts.due(tx, 60, horizon=90))[0]
        claims = self.at_once(8, lambda _: self.run_(lambda tx: debts.claim(tx, row, 60_000)))
        self.assertEqual((1, 7), (claims.count(True), claims.count(False)), claims)
        self.assertEqual([], self.run_(lambda tx: debts.due(tx, 60)))
        self.run_(lambda tx: debts.again(tx, row.id, row.attempt + 1, 'late report', 0))
        self.assertEqual(row.attempt, self.run_(lambda tx: debts.get(tx, row.id)).attempt)
        self.run_(lambda tx: debts.again(tx, row.id, row.attempt, 'it failed', 0))
        self.assertEqual(row.attempt + 1, self.run_(lambda tx: debts.due(tx, 60))[0].attempt)
        self.run_(lambda tx: debts.paid(tx, row.id))
        self.assertEqual([], self.run_(lambda tx: debts.of_instance(tx, GUEST)))

    def test_a_debt_waits_for_its_host(self):
        self.beat('beta')
        known = self.migration()
        record = self.run_(lambda tx: ledger.load(tx, known))
        self.run_(lambda tx: debts.insert(tx, record, 'beta', 'post_live_migration_at_source', {}, 'it was away'))
        self.run_(lambda tx: tx.execute(sa.update(tables.service).values(last_seen=now_ms() - 61_000)))
        self.assertEqual([], self.run_(lambda tx: debts.due(tx, 60)))
        self.beat('beta')
        self.assertEqual(1, len(self.run_(lambda tx: debts.due(tx, 60))))

    def test_purge(self):
        now = self.run_(lambda tx: tx.execute(sa.select(now_ms())).scalar())
        ended = Cursor(Status.COMPLETED, Phase.ENDED, 'live_migration', attempt=1)
        old, young, owing, paid = (self.migration(ended, finished_at=now - ms) for ms in (9000, 100, 9000, 9000))
        live = self.migration(Cursor(Status.RUNNING, Phase.OPERATION))
        for known in (old, young, owing, paid, live):
            record = self.run_(lambda tx, known=known: ledger.load(tx, known))
            self.run_(lambda tx, record=record: ledger.note(tx, record.row.id, 1, record.cursor, 'start', 'x'))
            if known in (owing, paid):
                self.run_(lambda tx, record=record: debts.insert(tx, record, 'beta', 'post_live_migration_at_source', {}, 'x'))
        self.run_(lambda tx: tx.execute(sa.update(tables.debt).where(tables.debt.c.migration_id == paid).values(paid_at=now)))
        self.assertEqual(2, self.run_(lambda tx: ledger.purge(tx, 5000)))
        for table in (tables.migration, tables.event):
            self.assertEqual(3, self.count(table), table.name)
        self.assertEqual(1, self.count(tables.debt))
        self.assertEqual(0, self.run_(lambda tx: ledger.purge(tx, 5000)))
