"""Statements of a server's log become transactions, and transactions are told apart by what they were for."""
from tests import base
from tests.bench import cost, sql_log
from tests.bench.sql_log import HEARTBEAT, HOUSEKEEPING, NAMELESS, OTHERS, OURS, SWEEP, Statement

MIGRATION, REQUEST, GUEST = (f'{n}{n}{n}{n}{n}{n}{n}{n}-1111-4111-8111-111111111111' for n in '123')
IDS = (MIGRATION, REQUEST, GUEST)
STRANGER = '99999999-1111-4111-8111-111111111111'
BEAT = "UPDATE service SET process_id='55555555-1111-4111-8111-111111111111', sequence=7 WHERE service.host = 'a'"


def logged(*entries):
    """Make Statements of (connection, text) pairs."""
    return [Statement(connection, text) for connection, text in entries]


class TestGroup(base.TestCase):
    """Grouping by connection and transaction."""

    def test_connections_that_take_turns(self):
        """Given two connections whose statements alternate, then each transaction has its own, in the order of their ends."""
        found = sql_log.group(logged((1, 'SELECT a'), (2, 'SELECT b'), (1, 'UPDATE c'), (2, 'COMMIT'), (1, 'COMMIT')))
        self.assertEqual([(2, ('SELECT b',), True), (1, ('SELECT a', 'UPDATE c'), True)],
                         [(t.connection, t.statements, t.committed) for t in found])

    def test_begin_is_no_statement_and_rollback_no_commit(self):
        """Given a rolled back transaction, then it is there with its statements, and not committed."""
        found = sql_log.group(logged((1, 'BEGIN'), (1, 'SELECT a'), (1, 'ROLLBACK'),
                                       (1, 'START TRANSACTION'), (1, 'SELECT b'), (1, 'commit')))
        self.assertEqual([(('SELECT a',), False), (('SELECT b',), True)], [(t.statements, t.committed) for t in found])

    def test_empty_transactions_vanish(self):
        """Given a commit of nothing, then there is no transaction."""
        self.assertEqual([], sql_log.group(logged((1, 'COMMIT'), (1, 'BEGIN'), (1, 'ROLLBACK'))))

    def test_what_has_not_ended_is_not_lost(self):
        """Given a statement without an end, then it comes last, not committed."""
        found = sql_log.group(logged((1, 'SELECT a'), (2, 'SELECT b'), (2, 'COMMIT')))
        self.assertEqual([(2, True), (1, False)], [(t.connection, t.committed) for t in found])

    def test_housekeeping_of_connections_is_apart(self):
        """Given what drivers send when they connect, then it joins no transaction."""
        found = sql_log.group(logged((1, 'SELECT a'), (1, 'SET NAMES utf8'), (1, 'select pg_catalog.version()'), (1, 'COMMIT')))
        self.assertEqual([('SET NAMES utf8',), ('select pg_catalog.version()',), ('SELECT a',)], [t.statements for t in found])


class TestAttribution(base.TestCase):
    """What a transaction was for."""

    def kind(self, *statements):
        """Tell the kind of one transaction."""
        return sql_log.kind_of(sql_log.Transaction(1, statements, True), IDS)

    def test_by_any_of_the_ids(self):
        """Given a transaction that names the migration, its request or its guest, then it is the migration's."""
        for one in IDS:
            self.assertEqual(OURS, self.kind('SELECT 2', f"UPDATE x SET y = '{one}'"))
        self.assertEqual(OTHERS, self.kind(f"UPDATE x SET y = '{STRANGER}'"))
        self.assertEqual(NAMELESS, self.kind("SELECT y FROM x WHERE z IN ('a', 'b')"))

    def test_heartbeats_are_told_before_ids(self):
        """Given a heartbeat that names the guest and the migration, then it is a heartbeat."""
        self.assertEqual(HEARTBEAT, self.kind('SELECT service.host FROM service FOR UPDATE', BEAT,
                                              f"UPDATE instance SET state='running' WHERE instance.uuid = '{GUEST}'"))
        for told in ('CASE migration.id', 'CAST(CASE migration.id', 'CAST((CASE migration.id'):
            self.assertEqual(HEARTBEAT, self.kind(f"UPDATE migration SET progress={told} WHEN '{MIGRATION}' THEN '{{}}' END"))
        self.assertEqual(OURS, self.kind(f"UPDATE migration SET progress='{{}}' WHERE migration.id = '{MIGRATION}'"))
        self.assertEqual(HEARTBEAT, self.kind(f"INSERT INTO service (host, process_id) VALUES ('a', '{GUEST}')"))

    def test_taking_places_is_no_heartbeat(self):
        """Given an update of places for a migration, then it is the migration's."""
        self.assertEqual(OURS, self.kind("UPDATE service SET places=(service.places + 1) WHERE service.host IN ('a')",
                                         f"INSERT INTO migration (id) VALUES ('{MIGRATION}')"))

    def test_sweeps(self):
        """Given the searches for what is due, then they are sweeps, on either database."""
        self.assertEqual(SWEEP, self.kind('SELECT migration.id \nFROM migration \nWHERE migration.next_wakeup <= now()'))
        self.assertEqual(SWEEP, self.kind('SELECT debt.id FROM debt INNER JOIN service ON service.host = debt.host'))
        self.assertEqual(SWEEP, self.kind('SELECT debt.id \nFROM debt JOIN service ON service.host = debt.host'))
        self.assertEqual(SWEEP, self.kind('SELECT DISTINCT service.rpc_version \nFROM service \nWHERE service.last_seen > 1'))

    def test_attribute_keeps_every_transaction(self):
        """Given transactions of all kinds, then each is in one place."""
        made = [sql_log.Transaction(n, (text,), True) for n, text in enumerate(
            ('SET x', BEAT, f"DELETE FROM x WHERE y = '{GUEST}'", f"SELECT '{STRANGER}' FROM x", 'SELECT y FROM x'))]
        told = sql_log.attribute(made, IDS)
        self.assertEqual([1, 1, 1, 0, 1, 1], [len(told[kind]) for kind in (OURS, NAMELESS, HEARTBEAT, SWEEP, OTHERS, HOUSEKEEPING)])

    def test_cost(self):
        """Given a migration's transactions and a nameless one between others', then both kinds of ours are counted, and no others; nor what
        the end of the log has cut short."""
        counted = cost.database(sql_log.group(logged(
            (1, 'SELECT migration.id FROM migration'), (1, f"UPDATE migration SET x = '{MIGRATION}'"), (1, 'COMMIT'),
            (2, BEAT), (2, 'COMMIT'), (3, 'SELECT y FROM x'), (3, 'COMMIT'), (4, f"SELECT '{STRANGER}'"), (4, 'COMMIT'),
            (5, f"SELECT '{GUEST}'"), (5, 'ROLLBACK'), (6, 'SELECT service.host FROM service'))), IDS)
        self.assertEqual((4, 2), (counted['statements'], counted['commits']))
        self.assertEqual('2: SELECT migration, UPDATE migration', counted['transactions'][0])
        self.assertEqual({'transactions': 1, 'statements': 1}, counted['apart'][HEARTBEAT])


class TestShort(base.TestCase):
    """Names of statements."""

    def test_verb_and_table(self):
        """Given statements with functions and subqueries, then the verb and the first real table name them."""
        for name, text in (
                ('INSERT event', "INSERT INTO event (a) VALUES ('SELECT b FROM c')"), ('UPDATE service', 'UPDATE service SET places=1'),
                ('DELETE resource_lock', 'DELETE FROM resource_lock WHERE x'),
                ('SELECT migration', 'SELECT migration.id, CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT) AS now \nFROM migration'),
                ('SELECT migration', 'SELECT a.now, migration.id FROM (SELECT now() AS now) AS a LEFT OUTER JOIN migration ON x'),
                ('SELECT 3', 'SELECT 3')):
            self.assertEqual(name, sql_log.short(text))


class TestPostgreSQLLog(base.TestCase):
    """The text of PostgreSQL's log."""

    def test_statements_of_several_lines(self):
        """Given statements over several lines, errors and notices between them, then statements alone are read, whole."""
        found = list(sql_log.PostgreSQLLog.parse(
            'migrator-sql 41: LOG:  statement: BEGIN\n'
            'migrator-sql 42: LOG:  execute <unnamed>: SELECT 1\n'
            'migrator-sql 41: LOG:  statement: SELECT a\n\tFROM b\n\tWHERE c\n'
            'migrator-sql 41: ERROR:  relation "b" does not exist\n'
            'migrator-sql 41: STATEMENT:  SELECT a\n\tFROM b\n'
            'migrator-sql 43: LOG:  checkpoint starting\n'
            'LOG:  parameter changed\n'))
        self.assertEqual([(41, 'BEGIN'), (42, 'SELECT 1'), (41, 'SELECT a\nFROM b\nWHERE c')], [(s.connection, s.text) for s in found])
