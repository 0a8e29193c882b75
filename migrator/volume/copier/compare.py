"""The comparison of both ends: everything that does not read as zeros at both, or a sample of it."""
import hashlib
import random

import nbd

from .link import Extents

CHUNK = 512 << 10
IN_FLIGHT = 24


class Differs(Exception):
    """The ends differ. args: the offset of the first chunk that was seen to."""


class Comparison:
    """One comparison. loop: a Loop whose total is set here."""

    def __init__(self, source, destination, loop):
        self._links, self._loop = (source, destination), loop
        self._size = source.size
        self._digests, self._next, self._sum = {}, 0, hashlib.sha256()
        self._different = []

    def run(self, samples=0, seed=''):
        """Compare. samples: how many chunks, chosen by `seed`; 0 is all. Returns (hexadecimal digest of what was compared, bytes).

        The digest is SHA-256 over the offset and SHA-256 of each chunk that was compared, in order. Raises Differs.
        """
        places = list(self._places())
        if samples and samples < len(places):
            ends = {places[0], places[-1]}
            places = sorted(ends | set(random.Random(seed).sample(places, max(0, samples - len(ends)))))
        self._loop.total, self._loop.done = sum(self._length(place) for place in places), 0
        waiting = iter(enumerate(places))
        upcoming = next(waiting, None)
        while (upcoming is not None or self._loop.in_flight) and not self._different:
            pause = 0.0
            while upcoming is not None and self._loop.in_flight < 2 * IN_FLIGHT:
                pause = self._loop.throttle.pause()
                if pause:
                    break
                self._begin(*upcoming)
                upcoming = next(waiting, None)
            self._loop.turn(pause or 1.0)
        if self._different:
            raise Differs(min(self._different))
        return self._sum.hexdigest(), self._loop.total

    def _length(self, place):
        return min(CHUNK, self._size - place)

    def _places(self):
        """Yield the chunks that do not read as zeros at both ends."""
        extents = [Extents(link, self._loop, 0, self._size) for link in self._links]
        at, wanted = 0, -1
        while at < self._size:
            known = [one.at(at) for one in extents]
            if None in known:
                self._loop.turn(1.0)
                continue
            end = min(one[0] for one in known)
            if not all(zero for _, zero in known):
                for place in range(at // CHUNK * CHUNK, end, CHUNK):
                    if place > wanted:
                        wanted = place
                        yield place
            at = end

    def _begin(self, number, offset):
        length = self._length(offset)
        pair, left = [nbd.Buffer(length) for _ in self._links], [len(self._links)]
        self._loop.throttle.took(length)
        for link, buffer in zip(self._links, pair, strict=True):
            self._read(link, buffer, offset, lambda: self._came(left, number, offset, pair))

    def _read(self, link, buffer, offset, came):
        def read(error):
            if self._loop.finished(link, error):
                came()
            return 1
        self._loop.request(lambda handle: handle.aio_pread(buffer, offset, read), link)

    def _came(self, left, number, offset, pair):
        left[0] -= 1
        if left[0]:
            return
        ours, theirs = (buffer.to_bytearray() for buffer in pair)
        if ours != theirs:
            self._different.append(offset)
        self._digests[number] = offset.to_bytes(8, 'big') + hashlib.sha256(ours).digest()
        while self._next in self._digests:
            self._sum.update(self._digests.pop(self._next))
            self._next += 1
        self._loop.done += len(ours)
        self._loop.moved += len(ours)
