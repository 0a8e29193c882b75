"""Up to where a destination is durable, in a file that says of which copy, so that no other one is gone on with by mistake."""
import fcntl
import json
import os
import time

VERSION = 1

#: Seconds for which a copier waits for another one, whose agent has died, to be gone.
LEFT_OVER = 10.0


class Busy(Exception):
    """Another copier works on this copy."""


class Checkpoint:
    """The checkpoint of one copy. identity: both ends by name, whatever their addresses; size: bytes of the source."""

    def __init__(self, path, identity, size):
        self._path = path
        self._of = {'version': VERSION, 'identity': identity, 'size': size}

    def read(self):
        """Give the offset; 0 without a checkpoint of this very copy."""
        try:
            with open(self._path, encoding='utf-8') as stream:
                known = json.load(stream)
        except (FileNotFoundError, ValueError):
            return 0
        if not isinstance(known, dict) or {key: known.get(key) for key in self._of} != self._of:
            return 0
        done = known.get('done')
        return done if isinstance(done, int) and 0 <= done <= self._of['size'] else 0

    def write(self, done):
        """Make it durable; the file is the old one or the new one, never a half. Raises OSError."""
        temporary = f'{self._path}.new'
        with open(temporary, 'w', encoding='utf-8') as stream:
            json.dump({**self._of, 'done': done}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, self._path)
        directory = os.open(os.path.dirname(self._path) or '.', os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def lock(path, patience=LEFT_OVER, clock=time.monotonic, sleep=time.sleep):
    """Keep other copiers away from this checkpoint for as long as this process lives; returns the open file. Raises Busy."""
    stream = open(f'{path}.lock', 'w', encoding='utf-8')        # noqa: SIM115 - it is held until the process ends
    deadline = clock() + patience
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock() >= deadline:
                stream.close()
                raise Busy('another copier works on it') from None
            sleep(0.1)
        else:
            return stream
