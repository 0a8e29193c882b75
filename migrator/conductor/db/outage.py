"""What a database's outage is in the log: one line when it begins, one when it is over. All threads that meet it share them."""
import threading
import time

from oslo_log import log

LOG = log.getLogger(__name__)

#: Seconds between the beginnings of two outages that are told of: one that flickers is not worth a line each time.
FLICKER = 5.0

#: Seconds after which any other obstacle that goes on is told of again.
REMIND = 60.0


class Outage:
    """Remembers whether a database answers. clock: seconds, monotonic."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._since = None              # when it did not answer first, None while it does
        self._told = False              # whether that was said
        self._said = {}                 # what was said -> when

    def away(self, error):
        """It did not answer, and said `error`, or somebody in between did."""
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since, self._told = now, False
            tell = not self._told and self._due('away', now, FLICKER)
            self._told = self._told or tell
        if tell:
            LOG.error('The database does not answer; it is tried again until it does: %s', words(error))

    def asked(self):
        """Give the moment at which it is asked for something, for `answered`."""
        return self._clock()

    def answered(self, asked):
        """It did what it was asked for. asked: when; what it was asked for before an outage and did just in time is no end of that."""
        if self._since is None:         # as nearly always; whoever comes second sees it under the lock
            return
        with self._lock:
            since, told = self._since, self._told
            if since is None or asked < since:
                return
            self._since = None
        if told:
            LOG.warning('The database answers again, after %.1f s', self._clock() - since)

    def hindered(self, why, error):
        """It answered that it does not do it now. why: in words that follow `The database`."""
        with self._lock:
            tell = self._due(why, self._clock(), REMIND)
        if tell:
            LOG.error('The database %s: %s', why, words(error))

    def _due(self, what, now, pause):
        if what in self._said and now - self._said[what] < pause:
            return False
        self._said[what] = now
        return True


def words(error):
    """Give what the client of the database said, on one line; of what SQLAlchemy and oslo.db wrapped around it nothing is left."""
    for name in ('inner_exception', 'orig'):
        error = getattr(error, name, None) or error
    return f'{type(error).__name__}: {" ".join(str(error).split()) or "no details":.300}'
