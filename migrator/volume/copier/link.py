"""One end of a copy: a few connections to one NBD export, and what it says of its zeros."""
import collections
import errno
import os

import nbd

#: Connections to an export that allows several.
CONNECTIONS = 4

#: What requests end with when their connection does.
LOST = (errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED, errno.ETIMEDOUT)

#: Bytes of which the allocation is asked for at once, and how far ahead of the copy.
ASKED = 1 << 30


class Failure(Exception):
    """One end failed. end: 'source' or 'destination', '' is neither; errno: 0 when there is none; lost: it is its connection that failed,
    which may be had again."""

    def __init__(self, end, words, number=0, lost=False):
        super().__init__(words)
        self.end, self.errno, self.lost = end, number, lost or number in LOST


class Link:
    """One end: the connections to it that are ready. name: 'source' or 'destination'. A Loop opens them, and gives them to `join`."""

    def __init__(self, name, uri):
        self.name = name
        self.handles = []
        self._uri, self._next = uri, 0

    def open(self):
        """Begin a connection; the first one learns what is allocated. Returns the handle. Raises Failure."""
        handle = nbd.NBD()
        handle.set_uri_allow_local_file(True)       # the TLS credentials that the configuration names
        if not self.handles:
            handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.set_pread_initialize(False)          # a buffer is used only after its request succeeded
        try:
            handle.aio_connect_uri(self._uri)
        except nbd.Error as error:
            raise self.unreachable(error) from error
        return handle

    def join(self, handle):
        """A connection is ready. Returns how many more there should be."""
        self.handles.append(handle)
        if len(self.handles) > 1:
            return 0
        self.size = handle.get_size()
        self.can_zero, self.can_flush = handle.can_zero(), handle.can_flush()
        self.has_extents = handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        return CONNECTIONS - 1 if handle.can_multi_conn() else 0

    def failure(self, error):
        """Turn a nbd.Error, or an errno, into a Failure."""
        if isinstance(error, int):
            return Failure(self.name, os.strerror(error), error)
        return Failure(self.name, error.string, error.errnum or 0)

    def unreachable(self, error):
        """The same, for a connection that cannot be made."""
        return Failure(self.name, error.string, error.errnum or 0, lost=True)

    def handle(self):
        """Give the connections in turn."""
        self._next = (self._next + 1) % len(self.handles)
        return self.handles[self._next]

    def read(self, offset, length):
        """Read, waiting for it."""
        try:
            return self.handles[0].pread(length, offset)
        except nbd.Error as error:
            raise self.failure(error) from error


class Extents:
    """What a link says of its zeros, from an offset onwards, asked for ahead. loop: a Loop; end: up to where it is wanted."""

    def __init__(self, link, loop, offset, end):
        self._link, self._loop, self._end = link, loop, end
        self._known = offset                        # up to where it was answered
        self._found = collections.deque()           # (end, reads as zeros), in order
        self._under_way = False

    def at(self, offset):
        """Give (up to where, whether it reads as zeros) at an offset that never decreases; None while that is not known yet."""
        if not self._link.has_extents:
            return self._end, False
        while self._found and self._found[0][0] <= offset:
            self._found.popleft()
        if not self._under_way and self._known < self._end and self._known - offset < ASKED:
            self._ask()
        return self._found[0] if self._found else None

    def _ask(self):
        self._under_way = True
        entries = []

        def answered(error):
            self._under_way = False
            if not self._loop.finished(self._link, error):
                return 1
            begin = self._known
            for size, flags in zip(entries[::2], entries[1::2], strict=True):
                self._known = min(self._known + size, self._end)
                self._found.append((self._known, bool(flags & nbd.STATE_ZERO)))
            if self._known == begin:
                self._loop.fail(Failure(self._link.name, f'it does not say what is allocated at {begin}'))
            return 1
        self._loop.request(lambda _: self._link.handles[0].aio_block_status(
            min(ASKED, self._end - self._known), self._known,
            lambda _context, _offset, found, _error: entries.extend(found), answered), self._link)
