"""The copy itself: requests in order, many under way, what is whole flushed and recorded."""
import collections
import random
import time

import nbd

from .link import Extents, Failure

#: Bytes of one request, of one request for zeros, and how many requests are under way at once.
CHUNK = 512 << 10
ZEROS = 64 << 20
IN_FLIGHT = 48

#: Places before the checkpoint that are compared before a copy is gone on with.
LOOKS = 8


class Piece:
    """A stretch of the source that is being copied. end: behind its last byte."""

    __slots__ = ('end', 'whole')

    def __init__(self, end):
        self.end, self.whole = end, False


class Duplicate:
    """One copy. start: where it begins; zeroed: all behind that is known to read as zeros; record: seconds between two records."""

    def __init__(self, source, destination, checkpoint, loop, start, zeroed, record):
        self._source, self._destination, self._checkpoint, self._loop = source, destination, checkpoint, loop
        self._zeroed, self._interval = zeroed, record
        self._size, self._at = source.size, start
        self._of_source = Extents(source, loop, start, self._size)
        self._of_destination = None if zeroed else Extents(destination, loop, start, self._size)
        self._pieces = collections.deque()          # in order of the source
        self._ready = []                            # (offset, buffer, piece, the destination reads as zeros) that was read
        self._written = start                       # everything before it was written
        self._flushing = 0                          # what the flush that is under way will have made durable
        self._recorded = time.monotonic()
        self._spare = []                            # buffers to be used again

    def run(self):
        """Copy everything behind the start."""
        loop = self._loop
        while loop.done < self._size:
            while self._ready:
                self._write(*self._ready.pop())
            wait = self._begin()
            self._record()
            if loop.done < self._size:
                loop.turn(0.0 if self._ready else wait)

    def _begin(self):
        """Begin as many requests as may be. Returns the seconds to wait at most before it should be tried again."""
        while self._at < self._size and self._loop.in_flight < IN_FLIGHT:
            pause = self._loop.throttle.pause()
            if pause:
                return pause
            at, here = self._at, self._of_source.at(self._at)
            there = (self._size, True) if self._zeroed else self._of_destination.at(at)
            if here is None or there is None:
                break                               # it was asked for
            if here[1]:
                end = min(here[0], there[0])
                if not there[1]:
                    end = min(end, at + (ZEROS if self._destination.can_zero else CHUNK))
                self._zero(at, end - at, self._piece(end), there[1])
            else:
                end = min(here[0], at + self._chunk())
                self._read(at, end - at, self._piece(end), there[1] and there[0] >= end)
        return self._interval

    def _chunk(self):
        rate = self._loop.commands.rate
        return CHUNK if not rate else min(CHUNK, max(64 << 10, rate // 8 // 4096 * 4096))

    def _piece(self, end):
        self._at = end
        self._pieces.append(Piece(end))
        return self._pieces[-1]

    def _read(self, offset, length, piece, clean):
        buffer = self._spare.pop() if length == CHUNK and self._spare else nbd.Buffer(length)
        self._loop.throttle.took(length)

        def read(error):
            if self._loop.finished(self._source, error):
                self._ready.append((offset, buffer, piece, clean))
            return 1
        self._loop.request(lambda handle: handle.aio_pread(buffer, offset, read), self._source)

    def _write(self, offset, buffer, piece, clean):
        if buffer.is_zero():
            self._zero(offset, len(buffer), piece, clean)
            return
        self._loop.moved += len(buffer)

        def written(error):
            piece.whole = self._loop.finished(self._destination, error)
            if len(buffer) == CHUNK:
                self._spare.append(buffer)
            return 1
        self._loop.request(lambda handle: handle.aio_pwrite(buffer, offset, written), self._destination)

    def _zero(self, offset, length, piece, clean):
        if clean:
            piece.whole = True
            return

        def zeroed(error):
            piece.whole = self._loop.finished(self._destination, error)
            return 1

        def begin(handle):
            if self._destination.can_zero:
                handle.aio_zero(length, offset, zeroed)
            else:
                handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(length)), offset, zeroed)
        self._loop.request(begin, self._destination)

    def _record(self):
        """Flush what is whole now and then, and at the end, and write down what was flushed."""
        while self._pieces and self._pieces[0].whole:
            self._written = self._pieces.popleft().end
        if self._flushing or self._written == self._loop.done:
            return
        if self._written < self._size and time.monotonic() - self._recorded < self._interval:
            return
        self._flushing = self._written
        if not self._destination.can_flush:
            self._flushed()
            return

        def flushed(error):
            if self._loop.finished(self._destination, error):
                self._flushed()
            return 1
        self._loop.request(lambda handle: handle.aio_flush(flushed), self._destination)

    def _flushed(self):
        try:
            self._checkpoint.write(self._flushing)
        except OSError as error:
            self._loop.fail(Failure('', f'the checkpoint cannot be written: {error}', 0))
        self._loop.done, self._flushing, self._recorded = self._flushing, 0, time.monotonic()


def looks_copied(source, destination, done):
    """Compare a few places before `done`, so that a checkpoint which outlived its destination is not believed."""
    places = {max(0, done - CHUNK), 0, *(random.randrange(0, done) // CHUNK * CHUNK for _ in range(LOOKS))}
    for place in sorted(places):
        length = min(CHUNK, done - place)
        if source.read(place, length) != destination.read(place, length):
            return False
    return True
