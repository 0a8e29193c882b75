"""Keeps requests under way on many connections, listens to the agent, holds the rate, and tells how far it is."""
import json
import os
import select
import signal
import sys
import time
import traceback

import nbd

from .link import Failure

#: Seconds between two lines of progress.
PROGRESS = 0.5

#: Seconds of silence after which connections are read without being told that there is something to read. TLS takes what comes from the
#: socket, the server's session tickets and an answer behind them in one go, and libnbd 1.14 waits for a socket on which nothing more
#: will come (seen in 7 of 95 verifications, while a connection was being made). To look in vain is harmless.
LOOK_AGAIN = 1.0


class Commands:
    """Standard input: a new rate, or the end."""

    def __init__(self, rate):
        self.rate = rate
        self._pending = b''

    def read(self):
        """Take in what has come; SystemExit at the end of input."""
        data = os.read(0, 4096)
        if not data:
            sys.exit(2)
        *lines, self._pending = (self._pending + data).split(b'\n')
        for line in lines:
            self.rate = max(0, int(json.loads(line)['rate']))


class Throttle:
    """Lets bytes pass at a rate that may change at any time."""

    def __init__(self, commands, clock=time.monotonic):
        self._commands = commands
        self._clock = clock
        self._at = clock()
        self._credit = 0.0

    def pause(self):
        """Seconds to wait before the next request; 0.0 when it may go now."""
        rate, now = self._commands.rate, self._clock()
        if not rate:
            self._at, self._credit = now, 0.0
            return 0.0
        self._credit = min(self._credit + (now - self._at) * rate, rate * 0.1)      # no burst longer than a tenth of a second
        self._at = now
        return 0.0 if self._credit >= 0 else min(0.2, -self._credit / rate + 0.001)

    def took(self, size):
        """A request of that size was made."""
        if self._commands.rate:
            self._credit -= size


class Connection:
    """A connection as the loop knows it. number: of its socket, which changes while it tries one address after the other."""

    def __init__(self, link, handle, poll):
        self.link, self.handle, self._poll = link, handle, poll
        self.number, self._events = -1, 0
        self.is_ready = False

    def listen(self):
        """Have the next poll wait for what the connection wants."""
        direction = self.handle.aio_get_direction()
        events = (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) | \
                 (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0)
        if not self.is_ready and (number := self.handle.aio_get_fd()) != self.number:
            self.number, self._events = number, events
            self._poll.register(number, events)
        elif events != self._events:
            self._events = events
            self._poll.modify(self.number, events)

    def work(self, events):
        """Let it read or write. Raises nbd.Error."""
        direction = self.handle.aio_get_direction()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and direction & nbd.AIO_DIRECTION_READ:
            self.handle.aio_notify_read()
        elif events & (select.POLLOUT | select.POLLERR) and direction & nbd.AIO_DIRECTION_WRITE:
            self.handle.aio_notify_write()


class Loop:
    """The connections of both ends and the requests that are under way. patience: seconds without any answer after which it is given up.

    total, done: bytes, for the progress.
    """

    def __init__(self, links, commands, patience):
        self.commands, self._patience = commands, patience
        self.throttle = Throttle(commands)
        self.total = self.done = self.moved = self.in_flight = 0
        self._failed = None
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._connections = []
        self._told = self._answered = time.monotonic()
        self._moved_told = 0
        for link in links:
            self._open(link)
        while not all(link.handles for link in links):
            self.turn(1.0)

    def _open(self, link):
        self._connections.append(Connection(link, link.open(), self._poll))

    def request(self, begin, link):
        """Begin a request: begin(handle) makes it, and its completion calls `finished`."""
        if not self.in_flight:
            self._answered = time.monotonic()
        self.in_flight += 1
        try:
            begin(link.handle())
        except nbd.Error as error:
            raise link.failure(error) from error

    def finished(self, link, error):
        """A request ended. error: the c_int that libnbd gives to completions. Returns whether it succeeded."""
        self.in_flight -= 1
        self._answered = time.monotonic()
        if error.value:
            self.fail(link.failure(error.value))
        return not error.value

    def fail(self, failure):
        """Let the next turn raise that; for completions, which cannot raise themselves."""
        self._failed = self._failed or failure

    def turn(self, wait):
        """Let connections work for at most `wait` seconds, until one of them did something. Raises Failure for a failed request."""
        signal.setitimer(signal.ITIMER_REAL, 2 * self._patience)      # should the loop itself hang, the process ends
        for connection in self._connections:
            connection.listen()
        by_number = {connection.number: connection for connection in self._connections}
        for number, events in self._poll.poll(wait * 1000):
            if number:
                self._work(by_number[number], events)
            else:
                self.commands.read()
        now = time.monotonic()
        waiting = self.in_flight or not all(connection.is_ready for connection in self._connections)
        if waiting and now - self._answered > LOOK_AGAIN:
            for connection in list(self._connections):
                self._work(connection, select.POLLIN)
        if self._failed is not None:
            raise self._failed
        waiting = self.in_flight or not all(connection.link.handles for connection in self._connections)
        if waiting and now - self._answered > self._patience:
            raise Failure('', f'neither end has answered for {self._patience:g} s')
        if now - self._told >= PROGRESS and self.total:
            self.tell()

    def _work(self, connection, events):
        link, handle, words = connection.link, connection.handle, 'the connection was lost'
        try:
            connection.work(events)
        except nbd.Error as error:
            words = link.failure(error) if connection.is_ready else link.unreachable(error)
        if not connection.is_ready and handle.aio_is_ready():
            connection.is_ready, self._answered = True, time.monotonic()
            for _ in range(link.join(handle)):
                self._open(link)
        elif isinstance(words, Failure) or handle.aio_is_dead() or handle.aio_is_closed():
            if connection.is_ready or not link.handles:
                raise words if isinstance(words, Failure) else Failure(link.name, words, lost=True)
            self._connections.remove(connection)    # one more than the end wants to have; the others will do
            self._poll.unregister(connection.number)

    def close(self):
        """Take leave of both ends, so that neither counts this process as connected once it has ended."""
        for connection in self._connections:
            if connection.is_ready:
                try:
                    connection.handle.shutdown()
                except nbd.Error as error:          # everything that was asked for has been answered before
                    print(f'{connection.link.name}: {error.string}', file=sys.stderr)

    def tell(self):
        """Say how far it is."""
        now = time.monotonic()
        rate = (self.moved - self._moved_told) / max(1e-6, now - self._told)
        say(done=self.done, total=self.total, moved=self.moved, rate=int(rate))
        self._told, self._moved_told = now, self.moved


def die(kind, error, trace):
    """For sys.excepthook, to which libnbd hands what a completion raised before it goes on as if nothing had been: nothing goes on."""
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(70)


def say(**words):
    """Write one line for the agent."""
    print(json.dumps(words), flush=True)
