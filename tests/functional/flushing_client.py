"""A guest of an array that knows what it was told to be durable: it speaks NBD by itself, so that each answer is its own."""
import contextlib
import random
import re
import socket
import struct
import threading

from tests.lab.processes import wait_until

BLOCK = 16 << 10
WRITE, FLUSH = 1, 3


class Link:
    """One connection to an export. Raises OSError when the array hangs up or answers with an error."""

    def __init__(self, uri, timeout=60):
        host, port, export = re.match(r'nbd://([^/:]+):(\d+)/(.+)\Z', uri).groups()
        self._socket = socket.create_connection((host, int(port)), timeout)
        try:
            self._receive(18)                                   # the greeting
            self._socket.sendall(struct.pack('>I8sII', 3, b'IHAVEOPT', 1, len(export)) + export.encode())
            self._receive(10)                                   # size and flags; an export that is not there is hung up on
        except OSError:
            self.close()
            raise

    def ask(self, kind, offset=0, data=b''):
        """Send a request and wait for its answer."""
        self._socket.sendall(struct.pack('>IHHQQI', 0x25609513, 0, kind, 0, offset, len(data)) + data)
        magic, error, _ = struct.unpack('>IIQ', self._receive(16))
        if magic != 0x67446698 or error:
            raise OSError(error, 'the array refused')

    def close(self):
        """Hang up."""
        self._socket.close()

    def _receive(self, length):
        found = b''
        while len(found) < length:
            more = self._socket.recv(length - len(found))
            if not more:
                raise ConnectionResetError('the array hung up')
            found += more
        return found


class FlushingClient:
    """Writes a block, flushes, and goes on with the next one, over restarts of the array. connection: the export. size: bytes it uses."""

    def __init__(self, connection, size):
        self.flushed = {}        # offset -> byte that was acknowledged and flushed last
        self.sent = {}           # offset -> bytes that were sent since, and may be there or not
        self.count = 0
        self._uri = connection.uri
        self._blocks = size // BLOCK
        self._stop = threading.Event()
        self.begin()

    def begin(self):
        """Write, again after `finish` if that was called."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        chance = random.Random(self._blocks)
        while not self._stop.is_set():
            with contextlib.suppress(OSError), contextlib.closing(Link(self._uri)) as link:     # it connects again, as a guest's disk does
                while not self._stop.is_set():
                    self._write(link, chance.randrange(self._blocks) * BLOCK, chance.randrange(1, 256))
            self._stop.wait(0.02)

    def _write(self, link, offset, byte):
        self.sent.setdefault(offset, set()).add(byte)
        link.ask(WRITE, offset, bytes([byte]) * BLOCK)
        link.ask(FLUSH)
        self.flushed[offset] = byte
        del self.sent[offset]
        self.count += 1

    def await_writes(self, number=3):
        """Wait until it has written and flushed some blocks more."""
        until = self.count + number
        wait_until(lambda: self.count >= until, 20, 'a client that goes on')

    def finish(self):
        """Let it end behind its block."""
        self._stop.set()
        self._thread.join(70)

    def missing(self, data):
        """List the blocks [(offset, what it flushed, first byte there)] that differ from what was flushed."""
        return [(offset, byte, data[offset]) for offset, byte in sorted(self.flushed.items())
                if data[offset:offset + BLOCK] not in [bytes([b]) * BLOCK for b in {byte} | self.sent.get(offset, set())]]
