"""An outage is one line in the log; a defect keeps its traceback."""
import io
import logging

import amqp.exceptions
from oslo_db import exception as db_exception
from oslo_messaging import exceptions as messaging_exceptions

from migrator import log_lines
from tests import base


class TestOneLine(base.TestCase):
    def logged(self, name, error):
        """What a handler writes when a library logs an error with its traceback."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.addFilter(log_lines.OneLine())
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        try:
            raise error
        except Exception:
            logger.exception('could not reach %s', 'it')
        return stream.getvalue()

    def test_a_lost_broker_is_one_line(self):
        """Given a library that logs a lost connection with its traceback, then one line is left, with the error's words."""
        for error in (ConnectionRefusedError(111, 'refused\nby it'), amqp.exceptions.ConnectionForced('shutdown'),
                      messaging_exceptions.MessagingTimeout('late')):
            said = self.logged('oslo.messaging._drivers.impl_rabbit', error)
            self.assertEqual(1, said.count('\n'), said)
            self.assertIn(f'could not reach it: {type(error).__name__}: ', said)

    def test_what_is_raised_as_well_is_left_out(self):
        """Given libraries that log a lost database for each transaction, and raise it, then nothing is left; a defect is."""
        lost = db_exception.DBConnectionError(ConnectionRefusedError(111, 'refused'))
        for name in ('oslo_db.api', 'sqlalchemy.pool.impl.QueuePool'):
            self.assertEqual('', self.logged(name, lost))
            self.assertIn('Traceback', self.logged(name, KeyError('x')))
        self.assertEqual(1, self.logged('oslo_db.sqlalchemy.exc_filters', lost).count('\n'))

    def test_a_defect_keeps_its_traceback(self):
        """Given an error that does not come from outside, or our own logger, then the traceback stays."""
        self.assertIn('Traceback', self.logged('oslo_messaging.rpc.server', KeyError('x')))
        self.assertIn('Traceback', self.logged('migrator.rpc.server', ConnectionRefusedError(111, 'refused')))
