"""What an outage brings is one readable line in the log: libraries' tracebacks of lost connections are left out.

oslo.messaging and oslo.db log with a traceback that a broker or database went away, hundreds of lines that tell where in the library
it was noticed. A defect keeps its traceback: only errors that come from the outside, logged by the libraries that talk to it, lose theirs.
"""
import logging

#: Who logs (the first part of a logger's name), and whose errors are meant (the first part of a class's module).
LIBRARIES = ('oslo_messaging', 'oslo', 'oslo_db', 'amqp', 'kombu', 'sqlalchemy')
OUTSIDE = ('oslo_messaging', 'oslo_db', 'amqp', 'kombu', 'sqlalchemy', 'pymysql', 'psycopg2')

#: Who logs an error for each transaction and raises it as well: whoever asked says once for all of them what is the matter.
TWICE = ('oslo_db.api', 'sqlalchemy.pool')


class OneLine(logging.Filter):
    """Turns a record with such a traceback into one line that ends with the error, or into none if the error is told elsewhere."""

    def filter(self, record):
        """Change the record if need be; returns whether it is to be logged."""
        if record.exc_info and record.exc_info[1] is not None and record.name.split('.')[0] in LIBRARIES and outside(record.exc_info[1]):
            if record.name.startswith(TWICE):
                return False
            error = record.exc_info[1]
            words = ' '.join(str(error).split()) or 'no details'
            record.msg, record.args = '%s: %s: %.300s', (record.getMessage(), type(error).__name__, words)
            record.exc_info = record.exc_text = None
        return True


def outside(error):
    """Whether the error tells of what is outside of this process: the network, the broker, the database."""
    return isinstance(error, OSError) or any(c.__module__.split('.')[0] in OUTSIDE for c in type(error).__mro__)


def setup():
    """Have all handlers do so. Called once, when logging has been set up."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(OneLine())
