"""What all daemons have in common: one process per state, a signal that ends it in order, a line that says that it is ready."""
import abc
import contextlib
import fcntl
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import uuid

from oslo_log import log

from migrator import concurrency, exceptions

LOG = log.getLogger(__name__)

_BOOT_ID = pathlib.Path('/proc/sys/kernel/random/boot_id')
_WAKE = b'\0'  # on the signal socket: no signal, but the start has ended

#: Seconds of the time for an orderly end that are kept for closing connections, once the work was waited for.
RESERVE = 5.0


class Service(abc.ABC):
    """One daemon. name: 'migrator-compute' and the like. host: our name among our kind. grace: seconds that its orderly end may take.

    process_id is new with each process; host_boot_id with each start of the machine.
    """

    def __init__(self, name, host, grace=40.0):
        self.name = name
        self.host = host
        self.grace = grace
        self._ends_at = None
        self.process_id = str(uuid.uuid4())
        self.host_boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ''

    @abc.abstractmethod
    def start(self):
        """Begin to serve; returns when requests are answered. May wait for the broker or the hypervisor for as long as it takes."""

    def stop(self):
        """Take no new work, finish or hand over what runs, and end. Called once, also when `start` has not returned or has failed.

        Takes `grace` seconds at most, and a few more where something hangs.
        """
        self._ends_at = time.monotonic() + self.grace
        self.drain()

    @abc.abstractmethod
    def drain(self):
        """Do what `stop` says; `left` and `left_for_work` tell how long each part of it may take."""

    def left(self, most=float('inf')):
        """Seconds that the orderly end may still take, `most` at most."""
        return max(0.1, min(most, self._ends_at - time.monotonic()))

    def left_for_work(self):
        """Seconds for which the orderly end may still wait for work."""
        return max(0.0, self._ends_at - time.monotonic() - min(RESERVE, self.grace / 2))


@contextlib.contextmanager
def only_one(path):
    """Hold the lock file at `path` for the length of a with block. Raises Conflict if another process holds it.

    The kernel lets go of it when the process dies, however it dies.
    """
    os.makedirs(os.path.dirname(path) or '.', mode=0o750, exist_ok=True)
    with open(path, 'a+', encoding='ascii') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise exceptions.Conflict(f'another process ({file.read(20).strip() or "unknown"}) uses {path}') from None
        file.truncate(0)
        file.write(f'{os.getpid()}\n')
        file.flush()
        yield


def run(service):
    """Run a daemon until SIGTERM or SIGINT; returns the exit code: 0, or 1 if it did not start.

    The signal drains it. A second one ends it at once, and so does the end of the time that draining may take.
    """
    heard, said = socket.socketpair()  # a signal wakes whoever reads here, green or not; an Event may not be set in a handler
    said.setblocking(False)
    handler = _Once()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    signal.set_wakeup_fd(said.fileno())
    starting = concurrency.spawn(_start, service, said)
    byte = heard.recv(1)
    failed = byte == _WAKE and not _started(service, starting)
    while byte == _WAKE and not failed:
        byte = heard.recv(1)
    LOG.info('%s %s %s', service.name, service.host, 'ends, for it could not start' if failed else f'ends on signal {byte[0]}')
    within(service.grace + RESERVE, 'the orderly end', service.stop)
    LOG.info('%s %s has ended', service.name, service.host)
    return 1 if failed else 0


class _Once:
    """Signal handler: the first signal is left to the wake-up socket, the second, of whichever kind, ends the process."""

    def __init__(self):
        self._before = False

    def __call__(self, number, frame):
        if self._before:
            os._exit(128 + number)
        self._before = True


def _start(service, said):
    try:
        service.start()
    finally:
        said.send(_WAKE)


def _started(service, starting):
    """Tell how the start went, in the log; returns whether it succeeded."""
    try:
        starting.wait(10)  # its last act was to wake us
    except exceptions.MigratorError as error:
        LOG.error('%s %s cannot start: %s', service.name, service.host, error)
        return False
    except Exception:
        LOG.exception('%s %s cannot start', service.name, service.host)
        return False
    LOG.info('%s %s is ready', service.name, service.host)
    return True


def within(seconds, what, fn, *args):
    """Run `fn` for up to `seconds`; what takes longer, or fails, is logged as `what` and left behind. For the end of a process."""
    try:
        concurrency.spawn(fn, *args).wait(seconds)
    except TimeoutError:
        LOG.warning('%s takes longer than %g s and is left behind', what, seconds)
    except Exception:
        LOG.exception('%s failed', what)


def leave(code):
    """End the process now, with what was written flushed. A thread that sits in a hypervisor's call of many minutes, or in a
    connection to a broker that is gone, must not keep a drained daemon alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.current_thread() is threading.main_thread():
        os._exit(code)
    raise SystemExit(code)
