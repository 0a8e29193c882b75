"""What a simulated array has in place of the copier's program: the same words in and out, and the data goes within the world."""
import hashlib
import json
import os

from migrator import concurrency, exceptions
from migrator.volume.drivers.fake import blocks

#: In how many parts a copy is made; each is recorded once it is there.
PARTS = 8


class SimulatedChild:
    """In place of volume.child.Child. command: as for the program. seconds: that a copy without limit takes."""

    def __init__(self, store, command, faults, seconds):
        self._store, self._faults, self._seconds = store, faults, seconds
        self._do, self._source, self._destination = command[2:5]
        self._checkpoint = command[5] if self._do == 'copy' else ''
        self._identity = command[command.index('--identity') + 1] if '--identity' in command else ''
        self._rate = int(command[command.index('--rate') + 1])
        self._killed = concurrency.native_event()
        self._code = 0

    def lines(self):
        """Do the work, and yield what the program would say; bytes."""
        try:
            self._faults.before(self._do)
            for words in self._copy() if self._do == 'copy' else self._verify():
                yield json.dumps(words).encode()
        except exceptions.DriverError as error:
            self._code = 1
            end = 'source' if self._source in str(error) else 'destination'
            yield json.dumps({'ended': 'error', 'end': end, 'errno': 111, 'error': str(error)}).encode()

    def tell(self, line):
        """Take a new rate."""
        self._rate = json.loads(line)['rate']

    def kill(self):
        """End it at once."""
        self._killed.set()

    def end(self):
        """Let go of it. Returns (exit code, '')."""
        self.kill()
        return self._code, ''

    def _copy(self):
        with self._store.read() as db:
            size = blocks.read(db, self._source)[1]
        number = -(-size // blocks.BLOCK)
        step, done, moved = max(1, -(-number // PARTS)), self._read(), 0
        begun = done
        while done < number:
            if self._killed.wait(self._pause(min(step, number - done), number)):
                self._code = -9
                return
            with self._store.write() as db:
                part = blocks.read(db, self._source)[0][done:done + step]
                blocks.write(db, self._destination, done, part)
            done, moved = done + len(part), moved + len(part) * blocks.BLOCK
            self._write(done)
            yield {'done': min(size, done * blocks.BLOCK), 'total': size, 'moved': moved, 'rate': self._rate}
        yield {'ended': 'complete', 'moved': moved, 'start': begun * blocks.BLOCK}

    def _pause(self, part, number):
        """Seconds that a part takes."""
        return part * blocks.BLOCK / self._rate if self._rate else self._seconds * part / number

    def _verify(self):
        if self._killed.is_set():
            self._code = -9
            return
        with self._store.read() as db:
            data = [blocks.read(db, uri)[0] for uri in (self._source, self._destination)]
        different = [n for n, pair in enumerate(zip(*data, strict=False)) if pair[0] != pair[1]]
        if different:
            self._code = 3
            yield {'ended': 'different', 'offset': different[0] * blocks.BLOCK}
        else:
            yield {'ended': 'complete', 'digest': hashlib.sha256(data[0]).hexdigest(), 'compared': len(data[0]) * blocks.BLOCK}

    def _read(self):
        """Give the number of blocks that are there by the checkpoint of this very copy."""
        try:
            with open(self._checkpoint, encoding='utf-8') as stream:
                known = json.load(stream)
        except (FileNotFoundError, ValueError):
            return 0
        return known['done'] if known['identity'] == self._identity else 0

    def _write(self, done):
        temporary = f'{self._checkpoint}.new'
        with open(temporary, 'w', encoding='utf-8') as stream:
            json.dump({'identity': self._identity, 'done': done}, stream)
        os.rename(temporary, self._checkpoint)
