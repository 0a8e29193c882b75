"""Threads, green or native: the only module that knows of eventlet.

Every daemon calls `setup()` before it imports anything else. By default that patches the standard library with eventlet, so that
`threading.Thread`, `queue.Queue` and sockets all over the project are green; with `MIGRATOR_CONCURRENCY=threading` in the
environment, or where `setup()` was never called (unit tests), the same code runs on plain threads. What must not be green - a C
library that blocks, fsync, a callback from a thread that the hub does not know - goes through `run_native`, `native_thread` and
the native primitives below. A native thread must never touch a green lock, because waking a greenlet from another thread hangs both.
"""
import atexit
import collections
import importlib
import logging
import os
import queue  # noqa: F401 - so that _original finds it when nothing is patched
import sys
import threading
import time
import warnings

THREADPOOL_SIZE = 64

_eventlet = None  # the eventlet package once setup() has patched


def setup(mode=None):
    """Choose the concurrency model; the first thing that a daemon does.

    mode: 'eventlet' or 'threading'; None takes MIGRATOR_CONCURRENCY, else eventlet. Returns the mode in force. Idempotent: the
    first call decides, for a patched process cannot be unpatched. Raises ValueError for an unknown mode.
    """
    global _eventlet
    if _eventlet is not None:
        return 'eventlet'
    mode = mode or os.environ.get('MIGRATOR_CONCURRENCY') or 'eventlet'
    if mode not in ('eventlet', 'threading'):
        raise ValueError(f'MIGRATOR_CONCURRENCY must be eventlet or threading, not {mode!r}')
    if mode == 'threading':
        return mode
    # Both are read when eventlet is imported. Its resolver ignores nsswitch.conf and is weak on IPv6, as others found out before.
    os.environ.setdefault('EVENTLET_THREADPOOL_SIZE', str(THREADPOOL_SIZE))
    os.environ.setdefault('EVENTLET_NO_GREENDNS', 'yes')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the field is leaving eventlet is known; see the design
        _eventlet = importlib.import_module('eventlet')
    _eventlet.monkey_patch()
    # At exit eventlet joins its native threads: a process in the middle of a hypervisor's call of ten minutes would not end.
    atexit.unregister(importlib.import_module('eventlet.tpool').killall)
    _make_psycopg_green()
    return mode


def mend_logging():
    """Make it safe to log from native threads; call it after oslo.log was set up.

    oslo.log makes the handlers' locks, which are held across I/O, fit for both kinds of threads, but leaves the module's own lock
    green. That one is held for instants and never across a switch, so a native one serves greenlets as well.
    """
    if _eventlet is not None:
        logging._lock = _original('threading').RLock()


def is_green():
    """True when eventlet has patched this process."""
    return _eventlet is not None


def _make_psycopg_green():
    """Let psycopg2, which waits in C, give way to other greenlets while a query runs; no psycopg2, nothing to do."""
    try:
        patcher = importlib.import_module('eventlet.support.psycopg2_patcher')
    except ImportError:  # an agent, or a conductor on another database
        return
    patcher.make_psycopg_green()


def _original(name):
    """Give the unpatched standard module of that name."""
    return _eventlet.patcher.original(name) if _eventlet else sys.modules[name]


def native_lock():
    """Make a lock that native threads may share. Hold it for microseconds only: a greenlet that waits for it stops the hub."""
    return _original('threading').Lock()


def native_event():
    """Make an event between native threads; wait for it only in a native thread."""
    return _original('threading').Event()


def native_sleep(seconds):
    """Sleep in a native thread."""
    _original('time').sleep(seconds)


def native_queue():
    """Make a FIFO that any thread may put into and that native threads may get from; a greenlet uses `get_nowait` only."""
    return _original('queue').SimpleQueue()


def native_unix_socket():
    """Make an unconnected UNIX stream socket for use in native threads."""
    module = _original('socket')
    return module.socket(module.AF_UNIX)


def native_connection(host, port, timeout):
    """Connect to a TCP port within `timeout` seconds, which then hold for each read and write too; a socket for use in native threads."""
    return _original('socket').create_connection((host, port), timeout=timeout)


def native_addresses(host):
    """Resolve a name to its addresses, a set of words; OSError if nobody knows it. For use in native threads."""
    return {found[4][0] for found in _original('socket').getaddrinfo(host, None)}


def native_thread(fn, *args, **kwargs):
    """Start a real, daemonic thread, such as libvirt's event loop; returns its Thread. It must not touch green primitives."""
    thread = _original('threading').Thread(target=fn, args=args, kwargs=kwargs, daemon=True)
    thread.start()
    return thread


def run_native(fn, *args, **kwargs):
    """Run a blocking call in a native thread and wait for it, letting other greenlets run; returns its result or raises its error.

    With plain threads, and when called in a native thread already, it is a direct call. At most EVENTLET_THREADPOOL_SIZE (64) run at
    once; more wait for their turn.
    """
    if _eventlet is None:
        return fn(*args, **kwargs)
    return importlib.import_module('eventlet.tpool').execute(fn, *args, **kwargs)


class Handle:
    """What became of a spawned call."""

    def __init__(self):
        self._done = threading.Event()
        self._result = None
        self._error = None

    @property
    def done(self):
        """True once the call has returned or raised."""
        return self._done.is_set()

    def wait(self, timeout=None):
        """Wait up to `timeout` seconds (None: for ever); returns the call's result, raises its error, or TimeoutError."""
        if not self._done.wait(timeout):
            raise TimeoutError(f'not done within {timeout} s')
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, fn, args, kwargs):
        try:
            self._result = fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._error = error
        finally:
            self._done.set()


def spawn(fn, *args, **kwargs):
    """Run `fn` in a (green) thread of its own; returns a Handle. The thread does not keep the process alive."""
    handle = Handle()
    threading.Thread(target=handle._run, args=(fn, args, kwargs), name=getattr(fn, '__name__', 'spawned'), daemon=True).start()
    return handle


class Pool:
    """At most `size` (green) threads at once.

    A full pool refuses what `try_spawn` brings, so that the caller can say so, and keeps what `queue` brings until a thread is free.
    """

    def __init__(self, size):
        self.size = size
        self._running = 0
        self._waiting = collections.deque()
        self._changed = threading.Condition()

    @property
    def running(self):
        """How many calls run now."""
        return self._running

    def try_spawn(self, fn, *args, **kwargs):
        """Run `fn` if there is room; returns False, and runs nothing, if there is none. An error in `fn` goes to sys.excepthook's
        thread equivalent, so `fn` is expected to handle its own."""
        with self._changed:
            if self._running >= self.size:
                return False
            self._running += 1
        return self._start(fn, args, kwargs)

    def queue(self, fn, *args, **kwargs):
        """Run `fn` as soon as there is room, in the order of asking. What waits comes before whatever `try_spawn` brings.

        Returns False, and will run nothing, if the system has no thread to give. Errors in `fn` as for try_spawn.
        """
        with self._changed:
            if self._running >= self.size:
                self._waiting.append((fn, args, kwargs))
                return True
            self._running += 1
        return self._start(fn, args, kwargs)

    def _start(self, fn, args, kwargs):
        try:
            threading.Thread(target=self._run, args=(fn, args, kwargs), name=getattr(fn, '__name__', 'pooled'), daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self._leave()
            return False
        return True

    def wait_all(self, timeout=None):
        """Wait until nothing runs; returns False if that took longer than `timeout` seconds (None: no limit)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._running:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _run(self, *call):
        while call:
            fn, args, kwargs = call
            try:
                fn(*args, **kwargs)
            except Exception:  # noqa: BLE001 - handed to whoever looks after threads that die; this one goes on with what waits
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            except BaseException:
                self._leave()
                raise
            call = self._following()

    def _following(self):
        """Take the first call that waits, or give the place back."""
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            self._leave()
        return None

    def _leave(self):
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
