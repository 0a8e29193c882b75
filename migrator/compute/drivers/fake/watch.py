"""Waiting for the end of simulated jobs: one native thread per process watches for all who wait, so that waiting costs nothing.

Other processes change the world too (an abort by a test, the clock of another host), hence a look at SQLite's change counter ten
times a second; only if it moved, or a job is due, is anything read.
"""
import time
import weakref

from migrator import concurrency, exceptions
from migrator.compute.drivers.fake import jobs

LOOK_SECONDS = 0.1
IDLE_SECONDS = 5.0


class Watcher:
    """Wakes those who wait for jobs of one store."""

    def __init__(self, store):
        self._store = store
        self._lock = concurrency.native_lock()
        self._woken = concurrency.native_event()
        self._waiting = {}      # token -> (job id, who waits, event)
        self._running = False

    def wait(self, job_id, who):
        """Wait in a native thread until the job has ended or `release(who)` was called; returns the job's row as it is then."""
        event, token = concurrency.native_event(), object()
        with self._lock:
            self._waiting[token] = (job_id, who, event)
            if not self._running:
                self._running = True
                concurrency.native_thread(self._watch)
        self._woken.set()
        event.wait()
        with self._lock:
            self._waiting.pop(token, None)
        jobs.settle_due(self._store)
        with self._store.read() as db:
            return db.execute('SELECT * FROM job WHERE id = ?', (job_id,)).fetchone()

    def release(self, who=None):
        """Wake everyone who waits as `who` (None: everyone), whatever became of the job."""
        with self._lock:
            for _, waits, event in self._waiting.values():
                if who is None or waits is who:
                    event.set()

    def poke(self):
        """Look now: a job was changed by this process."""
        self._woken.set()

    def _watch(self):
        seen, due = None, 0.0
        while self._someone_waits():
            fresh = self._woken.is_set()
            self._woken.clear()
            try:
                version = self._store.version()
                if fresh or version != seen or time.time() >= due:
                    due, seen = self._look(), version
            except exceptions.DriverError:
                self.release()  # the world cannot be read: each who waits meets the error itself
            self._woken.wait(min(LOOK_SECONDS, max(0.001, due - time.time())))

    def _someone_waits(self):
        """False once nobody has waited for a while; the thread ends then. The store is not touched meanwhile, it may be closed."""
        if not self._waiting:
            self._woken.wait(IDLE_SECONDS)
        with self._lock:
            self._running = bool(self._waiting)
            return self._running

    def _look(self):
        """Wake those whose jobs have ended; returns when the next of the others is due (seconds since the epoch)."""
        now = time.time()
        with self._store.read() as db:
            running = {row['id']: row['ends'] for row in db.execute("SELECT id, ends FROM job WHERE state = 'active'")}
        due = now + 3600
        with self._lock:
            for job_id, _, event in self._waiting.values():
                ends = running.get(job_id, 0.0)
                if ends is not None and ends <= now:
                    event.set()
                elif ends is not None:
                    due = min(due, ends)
        return due


_WATCHERS = weakref.WeakKeyDictionary()


def watcher_of(store):
    """The one watcher of a store in this process."""
    return _WATCHERS.setdefault(store, Watcher(store))
