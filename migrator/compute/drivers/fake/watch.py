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


class _Waiter:
    """One call that waits: for which job, on whose behalf, and whether it was told to give up."""

    def __init__(self, job_id, who):
        self.job_id, self.who = job_id, who
        self.event = concurrency.native_event()
        self.released = False


class Watcher:
    """Wakes those who wait for jobs of one store."""

    def __init__(self, store):
        self._store = store
        self._lock = concurrency.native_lock()
        self._woken = concurrency.native_event()
        self._wishes = 0        # counts what asks for a look at once; an event alone could be cleared unseen
        self._waiting = set()
        self._running = False

    def wait(self, job_id, who):
        """Wait in a native thread until the job has ended or `release(who)` was called; returns the job's row as it is then."""
        waiter = _Waiter(job_id, who)
        with self._lock:
            self._waiting.add(waiter)
            self._wishes += 1
            if not self._running:
                self._running = True
                concurrency.native_thread(self._watch)
        self._woken.set()
        try:
            while True:
                waiter.event.wait()
                waiter.event.clear()
                jobs.settle_due(self._store)
                with self._store.read() as db:
                    job = db.execute('SELECT * FROM job WHERE id = ?', (job_id,)).fetchone()
                if waiter.released or job['state'] != 'active':
                    return job
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def release(self, who):
        """Let everyone who waits as `who` give up, whatever became of the job."""
        with self._lock:
            for waiter in self._waiting:
                if waiter.who is who:
                    waiter.released = True
                    waiter.event.set()

    def poke(self):
        """Look now: a job was changed by this process."""
        with self._lock:
            self._wishes += 1
        self._woken.set()

    def _watch(self):
        seen, due = None, 0.0
        while self._someone_waits():
            self._woken.clear()
            try:
                now = (self._wishes, self._store.version())
                if now != seen or time.time() >= due:
                    due, seen = self._look(), now
            except exceptions.DriverError:
                self._wake_all()  # the world cannot be read: each who waits meets the error itself
            self._woken.wait(min(LOOK_SECONDS, max(0.001, due - time.time())))

    def _wake_all(self):
        with self._lock:
            for waiter in self._waiting:
                waiter.event.set()

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
        with self._lock:
            waiting = list(self._waiting)  # before the jobs are read: a job that starts meanwhile must not seem ended
        with self._store.read() as db:
            running = {row['id']: row['ends'] for row in db.execute("SELECT id, ends FROM job WHERE state = 'active'")}
        due = now + 3600
        for waiter in waiting:
            ends = running.get(waiter.job_id, 0.0)
            if ends is not None and ends <= now:
                waiter.event.set()
            elif ends is not None:
                due = min(due, ends)
        return due


_WATCHERS = weakref.WeakKeyDictionary()


def watcher_of(store):
    """The one watcher of a store in this process."""
    return _WATCHERS.setdefault(store, Watcher(store))
