"""Which workflows this process works on at this moment, so that its orderly end can wait for them, and let go of the rest."""
import collections
import contextlib
import threading


class Claims:
    """Counts the work on each workflow. It is no lock: what protects a row is its epoch."""

    def __init__(self):
        self._at_work = collections.Counter()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, migration_id):
        """Work on a workflow for the length of a with block."""
        with self._changed:
            self._at_work[migration_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work[migration_id] -= 1
                if not self._at_work[migration_id]:
                    del self._at_work[migration_id]
                self._changed.notify_all()

    def held(self):
        """List the workflows that are being worked on."""
        with self._changed:
            return list(self._at_work)

    def wait_none(self, timeout):
        """Wait until nothing is being worked on; returns False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work, timeout)
