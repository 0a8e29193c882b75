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
        self._digests, self._next, self._sum = {}, 0, hashlib.sha256()     # a chunk's digest waits for those before it
        self._sampled, self._spare = False, []      # memory to be used again
        self._different = []

    def run(self, samples=0, seed=''):
        """Compare. samples: how many chunks, chosen by `seed`; 0 is all. Returns (hexadecimal digest of what was compared, bytes).

        The digest is SHA-256 over the offset and SHA-256 of each chunk that was compared, in order. Raises Differs.
        """
        self._sampled = bool(samples)
        places = self._sample(samples, random.Random(seed)) if samples else self._places()
        self._loop.total = sum(map(self._length, places)) if samples else self._size
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
        self._loop.done = self._loop.total
        return self._sum.hexdigest(), self._loop.moved

    def _length(self, place):
        return min(CHUNK, self._size - place)

    def _sample(self, count, chance):
        """List so many of the places, the first and the last among them; never has all of them in memory."""
        kept, first, last = [], None, None
        for number, place in enumerate(self._places()):
            first, last = place if first is None else first, place
            if number < count:
                kept.append(place)
            elif (instead := chance.randrange(number + 1)) < count:
                kept[instead] = place
        ends = {first, last} - {None}
        return sorted(ends | set(sorted(set(kept) - ends)[:max(0, count - len(ends))]))

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
        pair = self._spare.pop() if length == CHUNK and self._spare else [bytearray(length) for _ in self._links]
        left = [len(self._links)]
        self._loop.throttle.took(length)
        for link, data in zip(self._links, pair, strict=True):
            self._read(link, nbd.Buffer.from_buffer(data), offset, lambda: self._came(left, number, offset, pair))

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
        ours, theirs = pair
        if ours != theirs:
            self._different.append(offset)
        self._loop.moved += len(ours)
        self._digests[number] = offset, hashlib.sha256(ours).digest()
        if len(ours) == CHUNK:
            self._spare.append(pair)
        while self._next in self._digests:
            place, digest = self._digests.pop(self._next)
            self._sum.update(place.to_bytes(8, 'big') + digest)
            self._next += 1
            # Of a sample it counts how much of it is done, else up to where: what reads as zeros is done, too.
            self._loop.done = self._loop.moved if self._sampled else place + self._length(place)
