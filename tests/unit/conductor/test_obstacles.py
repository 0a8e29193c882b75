"""What a database's error means for whoever wanted something of it."""
import sqlalchemy as sa
from oslo_db import exception as db_exception

from migrator.conductor.db import database
from migrator.conductor.db.outage import Outage
from tests import base


class Said(Exception):
    """What a database's client raises."""

    def __init__(self, *args, pgcode=None):
        super().__init__(*args)
        self.pgcode = pgcode


class TestObstacle(base.TestCase):
    def test_a_server_that_takes_no_writes(self):
        """Given what MariaDB and PostgreSQL say when they may only be read, then that is what is said."""
        for said in (Said(1290, 'running with --read-only'), Said(1792, 'READ ONLY transaction'), Said('read-only', pgcode='25006')):
            error = sa.exc.InternalError('UPDATE migration', {}, said)
            self.assertEqual(database.READ_ONLY, database.obstacle(error))
            self.assertEqual(database.READ_ONLY, database.obstacle(db_exception.DBError(error)))

    def test_rows_that_somebody_else_has_locked(self):
        """Given that PostgreSQL waited for a lock for too long, then that is what is said."""
        error = sa.exc.OperationalError('UPDATE migration', {}, Said('lock timeout', pgcode='55P03'))
        self.assertEqual(database.LOCKED, database.obstacle(error))

    def test_a_server_that_cannot_be_reached(self):
        """Given that the connecting failed, or that oslo.db saw a lost connection, then the database does not answer."""
        for error in (sa.exc.OperationalError(None, None, Said('Connection refused')), db_exception.DBConnectionError(Said('gone')),
                      db_exception.DBDeadlock(Said('deadlock'))):
            self.assertEqual(database.SILENT, database.obstacle(error))

    def test_a_defect_is_none(self):
        """Given a statement that is wrong, then there is no obstacle: it would fail again."""
        for error in (sa.exc.OperationalError('SELECT x', {}, Said(1054, 'unknown column')), db_exception.DBDuplicateEntry(),
                      sa.exc.IntegrityError('INSERT', {}, Said('null', pgcode='23502'))):
            self.assertEqual('', database.obstacle(error))

    def test_no_connection_is_told_from_a_busy_database(self):
        """Given errors of the network, then the connection is lost; a deadlock or a full pool are something else."""
        for error in (sa.exc.OperationalError(None, None, Said('Connection refused')), db_exception.DBConnectionError(Said('gone'))):
            self.assertTrue(database.lost(error))
        for error in (db_exception.DBDeadlock(Said('deadlock')), sa.exc.TimeoutError(), db_exception.DBDuplicateEntry()):
            self.assertFalse(database.lost(error))


class TestOutage(base.TestCase):
    def setUp(self):
        super().setUp()
        self.now = 100.0
        self.outage = Outage(lambda: self.now)
        self.error = db_exception.DBConnectionError(sa.exc.OperationalError('SELECT 1', {}, Said(2003, "Can't\nconnect")))

    def lines(self):
        """What was logged of it."""
        return [line for line in self.log.output.splitlines() if 'The database' in line]

    def test_one_line_when_it_begins_and_one_when_it_is_over(self):
        """Given many that meet an outage, then it is told of once, in the words of the database's client, and its end once."""
        for _ in range(50):
            self.now += 1.0
            self.outage.away(self.error)
        self.outage.answered(100.5)         # asked for before it began
        self.assertEqual(1, len(self.lines()))
        self.outage.answered(self.now)
        self.outage.answered(self.now)
        begun, over = self.lines()
        self.assertIn("tried again until it does: Said: (2003, \"Can't", begun)
        self.assertIn('answers again, after 49.0 s', over)

    def test_one_that_flickers_is_not_told_of_each_time(self):
        """Given a database that comes and goes, then a line each few seconds is enough; one that stays away is told of."""
        for _ in range(20):
            self.now += 0.1
            self.outage.away(self.error)
            self.outage.answered(self.now)
        self.assertEqual(2, len(self.lines()))
        self.outage.away(self.error)
        self.now += 10.0
        self.outage.away(self.error)
        self.assertEqual(3, len(self.lines()))

    def test_what_is_no_outage_is_told_of_once_a_minute(self):
        """Given a database that takes no writes, then that is said, and said again when it goes on."""
        for _ in range(100):
            self.outage.hindered(database.READ_ONLY, self.error)
            self.now += 1.0
        self.assertEqual(2, len(self.lines()))
        self.assertIn('The database takes no writes at present: Said', self.lines()[0])
