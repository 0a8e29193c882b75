"""Copy one NBD export to another: checkpointed, throttled, sparse; or compare the two. A program of its own, run by the volume agent.

    copier.py copy SOURCE DESTINATION CHECKPOINT [--zeroed] [--rate BYTES] [--segment BYTES]
    copier.py verify SOURCE DESTINATION [--samples N --seed TEXT] [--rate BYTES]

It runs under the system's Python, which has libnbd's binding, imports nothing of migrator, and ends when its standard input does: a copy
without an agent behind it stops, and is gone on with from the checkpoint. Lines of JSON go both ways. In: {"rate": bytes a second, 0 is
unlimited}. Out: {"done", "total", "moved", "rate"} now and then, at last {"ended": "complete"} (exit code 0), {"ended": "different",
"offset"} (3) or {"ended": "error", "error"} (1).

The checkpoint says up to where the destination was *flushed*; what lies behind it is copied again. With --zeroed the destination is
known to read as zeros behind the checkpoint, and zeros are not written to it; else they are written as zeros, so that a
dirty destination reads right. (Anchors: nbdcopy alone can neither resume nor change its rate.)
"""
import argparse
import json
import os
import random
import select
import sys
import time

import nbd

#: Bytes of one request, and how many requests are under way at once.
CHUNK = 512 << 10
IN_FLIGHT = 32

#: Seconds between two lines of progress.
PROGRESS = 0.5

SECTOR = 512


class Link:
    """One end: a few connections to one export."""

    def __init__(self, uri, extents, connections=4):
        self.handles = [self._connect(uri, extents)]
        first = self.handles[0]
        self.size = first.get_size()
        self.can_zero = first.can_zero()
        self.can_flush = first.can_flush()
        self.has_extents = extents and first.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        if first.can_multi_conn():
            self.handles += [self._connect(uri, False) for _ in range(connections - 1)]
        self._next = 0

    @staticmethod
    def _connect(uri, extents):
        handle = nbd.NBD()
        handle.set_uri_allow_local_file(True)       # the TLS credentials that the configuration names
        if extents:
            handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_uri(uri)
        return handle

    def handle(self):
        """Give the connections in turn."""
        self._next = (self._next + 1) % len(self.handles)
        return self.handles[self._next]

    def extents(self, offset, length):
        """Yield (offset, length, reads as zeros) over a range."""
        if not self.has_extents:
            yield offset, length, False
            return
        end = offset + length
        while offset < end:
            entries = self._status(offset, end - offset)
            before = offset
            for size, flags in zip(entries[::2], entries[1::2], strict=True):
                size = min(size, end - offset)
                if size:
                    yield offset, size, bool(flags & nbd.STATE_ZERO)
                offset += size
            if offset == before:
                raise RuntimeError(f'the source does not say what is allocated at {offset}')

    def _status(self, offset, length):
        entries = []
        self.handles[0].block_status(length, offset, lambda _context, _offset, found, _error: entries.extend(found))
        return entries


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
        rate = self._commands.rate
        if not rate:
            return 0.0
        now = self._clock()
        self._credit = min(self._credit + (now - self._at) * rate, rate * 0.1)      # no burst longer than a tenth of a second
        self._at = now
        return 0.0 if self._credit > 0 else min(0.2, -self._credit / rate + 0.001)

    def took(self, size):
        """A request of that size was made."""
        if self._commands.rate:
            self._credit -= size


class Loop:
    """Keeps requests under way on many connections, and tells how far it is."""

    def __init__(self, links, commands, total, done):
        self.commands = commands
        self.throttle = Throttle(commands)
        self.handles = [handle for link in links for handle in link.handles]
        self.total, self.done, self.moved = total, done, 0
        self.in_flight = 0
        self.error = 0
        self._began = self._told = time.monotonic()
        self._moved_told = 0

    def finished(self, error):
        """A request ended; error: errno or 0."""
        self.in_flight -= 1
        self.error = self.error or error

    def turn(self, wait):
        """Let connections work for at most `wait` seconds, until one of them did something. Raises OSError for a failed request."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        by_number = {}
        for handle in self.handles:
            direction = handle.aio_get_direction()
            events = (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) | \
                     (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0)
            number = handle.aio_get_fd()
            by_number[number] = handle
            poll.register(number, events)
        for number, events in poll.poll(wait * 1000):
            if number == 0:
                self.commands.read()
                continue
            handle = by_number[number]
            direction = handle.aio_get_direction()
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and direction & nbd.AIO_DIRECTION_READ:
                handle.aio_notify_read()
            elif events & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
                handle.aio_notify_write()
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.tell()

    def tell(self, last=False):
        """Say how far it is, now and then."""
        now = time.monotonic()
        if last or now - self._told >= PROGRESS:
            rate = (self.moved - self._moved_told) / max(1e-6, now - self._told)
            say(done=self.done, total=self.total, moved=self.moved, rate=int(rate))
            self._told, self._moved_told = now, self.moved


class Copy:
    """One copy. Segments are begun in order, overlap, and are recorded in order once flushed."""

    def __init__(self, source, destination, checkpoint, zeroed, commands, segment):
        self.source, self.destination = source, destination
        self.checkpoint, self.zeroed, self.segment = checkpoint, zeroed, segment
        self.start = checkpoint.read()
        self.loop = Loop((source, destination), commands, source.size, self.start)
        self.open = {}            # end of a segment -> requests of it that are under way or still to be made
        self.ready = []           # (offset, buffer, segment) that was read and is to be written
        self.flushing = 0         # up to where the flush that is under way will have made the destination durable

    def run(self):
        """Copy everything behind the checkpoint."""
        work = self._work()
        pending = next(work, None)
        while pending or self.loop.in_flight or self.ready or self.loop.done < self.source.size:
            while self.ready:
                self._write(*self.ready.pop())
            wait = 1.0
            while pending and self.loop.in_flight < IN_FLIGHT:
                pause = self.loop.throttle.pause()
                if pause:
                    wait = pause
                    break
                self._begin(*pending)
                pending = next(work, None)
            self._record()
            if self.loop.in_flight or wait < 1.0:
                self.loop.turn(0.0 if self.ready else wait)
        self.loop.tell(last=True)

    def _work(self):
        """Yield (offset, length, zeros, segment) in order; a segment is open until all of it was written."""
        for begin in range(self.start, self.source.size, self.segment):
            end = min(begin + self.segment, self.source.size)
            self.open[end] = 1
            for offset, length, zeros in self.source.extents(begin, end - begin):
                step = length if zeros else CHUNK
                for at in range(offset, offset + length, step):
                    self.open[end] += 1
                    yield at, min(step, offset + length - at), zeros, end
            self.open[end] -= 1

    def _begin(self, offset, length, zeros, segment):
        if zeros:
            self._zero(offset, length, segment)
            return
        buffer = nbd.Buffer(length)
        self.loop.in_flight += 1
        self.loop.throttle.took(length)

        def read(error):
            self.loop.finished(error)
            self.ready.append((offset, buffer, segment))
            return 1
        self.source.handle().aio_pread(buffer, offset, read)

    def _write(self, offset, buffer, segment):
        if buffer.is_zero():
            self._zero(offset, len(buffer), segment)
            return
        self.loop.in_flight += 1
        self.loop.moved += len(buffer)

        def written(error, _buffer=buffer):
            self.loop.finished(error)
            self.open[segment] -= 1
            return 1
        self.destination.handle().aio_pwrite(buffer, offset, written)

    def _zero(self, offset, length, segment):
        if self.zeroed:
            self.open[segment] -= 1
            return
        self.loop.in_flight += 1

        def zeroed(error):
            self.loop.finished(error)
            self.open[segment] -= 1
            return 1
        if self.destination.can_zero:
            self.destination.handle().aio_zero(length, offset, zeroed)
        else:
            self.destination.handle().aio_pwrite(nbd.Buffer.from_bytearray(bytearray(length)), offset, zeroed)

    def _record(self):
        """Flush when a segment is whole, and write down what was flushed."""
        if self.flushing:
            return
        whole = self.loop.done
        for end in sorted(self.open):
            if self.open[end]:
                break
            whole = end
        if whole == self.loop.done:
            return
        self.flushing = whole
        self.loop.in_flight += 1

        def flushed(error):
            self.loop.finished(error)
            if not error:
                for end in [e for e in self.open if e <= self.flushing]:
                    del self.open[end]
                self.loop.done = self.flushing
                self.checkpoint.write(self.loop.done)
            self.flushing = 0
            return 1
        if self.destination.can_flush:
            self.destination.handle().aio_flush(flushed)
        else:
            flushed(0)


class Checkpoint:
    """Up to where the destination is durable, in a file that names both ends, so that no other copy is gone on with by mistake."""

    def __init__(self, path, source, destination, size):
        self._path = path
        self._of = {'source': source, 'destination': destination, 'size': size}

    def read(self):
        """Give the offset; 0 without a checkpoint of this very copy."""
        try:
            with open(self._path, encoding='utf-8') as stream:
                known = json.load(stream)
        except (FileNotFoundError, ValueError):
            return 0
        return known['done'] if {k: known.get(k) for k in self._of} == self._of else 0

    def write(self, done):
        """Make it durable."""
        temporary = f'{self._path}.new'
        with open(temporary, 'w', encoding='utf-8') as stream:
            json.dump({**self._of, 'done': done}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, self._path)


def copy(options, commands):
    """Run a copy; returns the exit code."""
    source, destination = Link(options.source, True), Link(options.destination, False)
    if destination.size < source.size:
        raise RuntimeError(f'the destination has {destination.size} bytes, the source {source.size}')
    checkpoint = Checkpoint(options.checkpoint, options.source, options.destination, source.size)
    Copy(source, destination, checkpoint, options.zeroed, commands, options.segment).run()
    say(ended='complete')
    return 0


def verify(options, commands):
    """Compare both ends, wholly or at random places that the seed repeats; returns the exit code."""
    source, destination = Link(options.source, False), Link(options.destination, False)
    places = list(range(0, source.size, CHUNK))
    if options.samples and options.samples < len(places):
        places = sorted(random.Random(options.seed).sample(places, options.samples))
    loop = Loop((source, destination), commands, len(places) * CHUNK, 0)
    different = []

    def compare(offset, pair):
        if pair[0].to_bytearray() != pair[1].to_bytearray():
            different.append(offset)
        loop.done += CHUNK
        loop.moved += CHUNK

    def begin(offset):
        length = min(CHUNK, source.size - offset)
        pair, left = (nbd.Buffer(length), nbd.Buffer(length)), [2]
        for link, buffer in zip((source, destination), pair, strict=True):
            def done(error, _buffer=buffer):
                loop.finished(error)
                left[0] -= 1
                if not left[0]:
                    compare(offset, pair)
                return 1
            loop.in_flight += 1
            link.handle().aio_pread(buffer, offset, done)
        loop.throttle.took(length)

    places.reverse()
    while (places or loop.in_flight) and not different:
        pause = 0.0
        while places and loop.in_flight < IN_FLIGHT:
            pause = loop.throttle.pause()
            if pause:
                break
            begin(places.pop())
        loop.turn(pause or 1.0)
    if different:
        say(ended='different', offset=min(different))
        return 3
    loop.tell(last=True)
    say(ended='complete')
    return 0


def say(**words):
    """Write one line for the agent."""
    print(json.dumps(words), flush=True)


def main():
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    sub = parser.add_subparsers(required=True)
    for name, do in (('copy', copy), ('verify', verify)):
        one = sub.add_parser(name)
        one.set_defaults(do=do)
        one.add_argument('source')
        one.add_argument('destination')
        one.add_argument('--rate', type=int, default=0)
        if do is copy:
            one.add_argument('checkpoint')
            one.add_argument('--zeroed', action='store_true')
            one.add_argument('--segment', type=int, default=64 << 20)
        else:
            one.add_argument('--samples', type=int, default=0)
            one.add_argument('--seed', default='')
    options = parser.parse_args()
    try:
        return options.do(options, Commands(options.rate))
    except (OSError, RuntimeError, nbd.Error) as error:
        say(ended='error', error=str(error))
        return 1


if __name__ == '__main__':
    sys.exit(main())
