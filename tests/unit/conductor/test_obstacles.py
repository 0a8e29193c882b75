"""What a database's error means for whoever wanted something of it."""
import sqlalchemy as sa
from oslo_db import exception as db_exception

from migrator.conductor.db import database
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
