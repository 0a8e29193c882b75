"""The connection to one libvirtd: opened once, opened again when libvirtd was restarted, its errors put into words.

Used by several native threads at once; libvirt's connections allow that. libvirt's event loop runs in one native thread per process:
it answers keepalives, so that a libvirtd that hangs is noticed, and delivers the statistics of finished jobs.
"""
import contextlib

import libvirt

from migrator import concurrency, exceptions

#: libvirtd is asked after so many seconds of silence, and given up after so many unanswered questions.
KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 5, 4

#: An open connection has no keepalives yet, so opening one is waited for no longer than this.
OPEN_SECONDS = 10

_loop_lock = concurrency.native_lock()
_loop_runs = False


def _start_event_loop():
    """Start libvirt's event loop once in this process; it must be registered before the first connection is opened."""
    global _loop_runs
    with _loop_lock:
        if _loop_runs:
            return
        # Without a handler the library prints every error to stderr, even those that are expected and handled.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        concurrency.native_thread(_run_event_loop)
        _loop_runs = True


def _run_event_loop():
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            concurrency.native_sleep(1)  # poll() failed; trying at once would only burn a CPU


def in_words(error, what=''):
    """Turn libvirt's error into a DriverError with its words; `what` says what was being done."""
    words = error.get_error_message() or str(error)
    return exceptions.DriverError(f'{what}: {words}' if what else words)


@contextlib.contextmanager
def translated(what=''):
    """Raise DriverError in words for any error of libvirt in the block."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise in_words(error, what) from error


def has_code(error, *codes):
    """True when libvirt's error has one of the codes."""
    return error.get_error_code() in codes


class _Opening:
    """One attempt to connect, in a thread of its own: a libvirtd that hangs would hold its caller for ever."""

    def __init__(self, uri):
        self._uri = uri
        self.connection = None
        self.error = None
        self.done = concurrency.native_event()
        concurrency.native_thread(self._open)

    def _open(self):
        try:
            connection = libvirt.open(self._uri)
            connection.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
            self.connection = connection
        except libvirt.libvirtError as error:
            self.error = error
        finally:
            self.done.set()


class Connection:
    """One libvirtd by its URI."""

    def __init__(self, uri):
        self._uri = uri
        self._lock = concurrency.native_lock()
        self._connection = None
        self._opening = None
        self._stopped = True

    def open(self):
        """Connect. Idempotent. Raises DriverError in words."""
        _start_event_loop()
        self._stopped = False
        self._current()

    def close(self):
        """Disconnect. Idempotent."""
        with self._lock:
            connection, self._connection, self._stopped = self._connection, None, True
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):  # it may be broken, which is what close is to leave behind
                connection.close()

    def run(self, function, *args):
        """Call function(connection, *args) and return its result.

        If libvirtd turns out to have gone away, it is tried once more on a new connection, so `function` must be idempotent.
        Raises DriverError in words for libvirt's errors that `function` lets through.
        """
        connection = self._current()
        try:
            return function(connection, *args)
        except libvirt.libvirtError as error:
            if self._alive(connection):
                raise in_words(error) from error
        self._forget(connection)
        return self.run_once(function, *args)

    def run_once(self, function, *args):
        """Call function(connection, *args) and return its result, never repeated; DriverError in words."""
        connection = self._current()
        with translated():
            return function(connection, *args)

    def run_apart(self, function, *args):
        """As run_once, on a new connection of its own: for what lasts and must not be repeated, but may come after a long silence.

        On a connection on which one thread waits for an answer, the calls of other threads may be stuck until the next keepalive
        wakes it, 5 s each (seen with libvirt 9.0): during a migration nothing else could be asked.
        """
        with self._lock:
            if self._stopped:
                raise exceptions.DriverError('the driver is not connected to libvirtd')
        connection = self._opened(_Opening(self._uri))
        try:
            with translated():
                return function(connection, *args)
        finally:
            with contextlib.suppress(libvirt.libvirtError):  # it may be broken, and what it was for is over
                connection.close()

    def _current(self):
        """Give a living connection. All who need a new one wait for the same attempt, so that threads do not pile up."""
        with self._lock:
            if self._stopped:
                raise exceptions.DriverError('the driver is not connected to libvirtd')
            if self._connection is not None and self._alive(self._connection):
                return self._connection
            if self._opening is None:
                self._opening = _Opening(self._uri)
            opening = self._opening
        try:
            return self._opened(opening)
        finally:
            with self._lock:
                if self._opening is opening and opening.done.is_set():
                    self._connection, self._opening = opening.connection, None

    def _opened(self, opening):
        """Wait for the end of an attempt; returns its connection. Raises DriverError in words."""
        if not opening.done.wait(OPEN_SECONDS):
            raise exceptions.DriverError(f'libvirtd at {self._uri} does not answer')
        if opening.error is not None:
            raise in_words(opening.error, f'libvirtd at {self._uri} cannot be reached') from opening.error
        return opening.connection

    def _forget(self, connection):
        with self._lock:
            if self._connection is connection:
                self._connection = None

    @staticmethod
    def _alive(connection):
        try:
            return bool(connection.isAlive())
        except libvirt.libvirtError:
            return False
