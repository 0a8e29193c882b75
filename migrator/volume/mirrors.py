"""Which LUNs arrays are filling, for which migrations: to tell how far they are, to limit them, and to interrupt who waits."""
import contextlib
import threading

from migrator.volume.pace import Paces


class Mirrors:
    """Migration id -> the LUN (LunRef) at the target that its data comes to, as long as it does."""

    def __init__(self):
        self._lock = threading.Lock()
        self._luns = {}
        self._paces = Paces()
        self._waiting = {}       # migration id -> the driver that was asked to move it, until it answers

    def begin(self, migration_id, where):
        """Know of one."""
        with self._lock:
            self._luns[migration_id] = where

    def end(self, migration_id):
        """Forget one; it may be unknown."""
        with self._lock:
            self._luns.pop(migration_id, None)
            self._paces.forget(migration_id)

    def of(self, migration_id):
        """Give the LunRef, or None."""
        with self._lock:
            return self._luns.get(migration_id)

    def all(self):
        """Name the migrations."""
        with self._lock:
            return set(self._luns)

    def with_rate(self, migration_id, progress):
        """Give a Progress with the rate that follows from those before it; as it is if the migration has ended meanwhile."""
        with self._lock:
            return self._paces.with_rate(migration_id, progress) if migration_id in self._luns else progress

    @contextlib.contextmanager
    def asked(self, migration_id, driver, where=None):
        """While a driver is asked to move a volume, which may return only with all the data. where: None if the target is elsewhere."""
        if where is not None:
            self.begin(migration_id, where)
        with self._lock:
            self._waiting[migration_id] = driver
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[migration_id]
            self.end(migration_id)

    def interrupt(self, migration_id):
        """Have the driver that is asked to move it give up; whether one is asked."""
        with self._lock:
            driver = self._waiting.get(migration_id)
            if driver is not None:
                driver.interrupt(migration_id)
        return driver is not None
