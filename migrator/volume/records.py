"""What is true of each LUN, in one durable file beside it: who made it, its exports, and whence it is mirrored.

Written whole, flushed and renamed, so that a crash leaves the old or the new record and never half of one. A LUN without a record
does not exist: the record is written before the LUN's file is made, and removed after it.
"""
import dataclasses
import errno
import json
import os
import tempfile

from oslo_log import log

from migrator import exceptions
from migrator.rpc import volume_facts
from migrator.states import LunState

LOG = log.getLogger(__name__)

VERSION = 1
SUFFIX = '.lun'

#: How the origin of a LUN is written that comes from another pool of its own array.
WITHIN = 'lun:'

#: A file in each pool that has LUNs: room that is given up when the pool is full. Without it a LUN that has filled its pool could never be
#: removed, for its exports end first, and that is written down.
SPARE = '.lun-spare'
SPARE_BYTES = 16384
#: By these a file system says that it is full.
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Mirror:
    """A LUN that is taken over from another array, or moved here from another pool of this one. local_is_complete: the local copy may be
    served without the remote. rate: limit in bytes a second, 0 is none."""

    uri: str
    tls: bool = False
    local_is_complete: bool = False
    rate: int = 0

    @classmethod
    def within(cls, pool, name, rate=0):
        """Give the Mirror of a LUN that comes from another pool of the same array."""
        return cls(f'{WITHIN}{pool}/{name}', rate=rate)

    @property
    def origin(self):
        """(pool, name) of the LUN of the same array that it comes from; None if it comes from another array."""
        return tuple(self.uri.removeprefix(WITHIN).split('/', 1)) if self.uri.startswith(WITHIN) else None


@dataclasses.dataclass(frozen=True)
class Record:
    """One LUN. exports: name -> writable."""

    pool: str
    name: str
    format: str
    size: int
    owner: str = ''
    state: LunState = LunState.MAKING
    exports: dict = dataclasses.field(default_factory=dict)
    port: int = 0                     # where its exports are reached, for an array that serves each LUN at a port of its own
    mirror: Mirror | None = None


class Records:
    """The records of one array. pools: {pool: directory}."""

    def __init__(self, pools):
        self.pools = pools

    def path(self, record):
        """Where the LUN's data is."""
        return self._place(record.pool, record.name) + '.' + record.format

    def get(self, pool, name):
        """Read a record; None if there is no such LUN. Raises DriverError when it cannot be read."""
        path = self._place(pool, name) + SUFFIX
        try:
            with open(path, encoding='utf-8') as stream:
                return parse(json.load(stream), path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise exceptions.DriverError(f'{path} cannot be read: {error}') from error

    def all(self):
        """Read every record; one that cannot be read raises DriverError, for its LUN may be in use."""
        found = []
        for pool, directory in self.pools.items():
            try:
                names = sorted(os.listdir(directory))
            except OSError as error:
                raise exceptions.DriverError(f'pool {pool}: {directory} cannot be read: {error.strerror}') from error
            records = (self.get(pool, n.removesuffix(SUFFIX)) for n in names if n.endswith(SUFFIX) and not n.startswith('.'))
            found += [r for r in records if r is not None]
        return found

    def put(self, record):
        """Make a record durable; returns it."""
        place = self._place(record.pool, record.name) + SUFFIX
        text = json.dumps({'version': VERSION, **dataclasses.asdict(record)})
        directory = self.pools[record.pool]
        try:
            try:
                _write(place, text)
            except OSError as error:
                if error.errno not in FULL or not _give_up_spare(directory):
                    raise
                _write(place, text)
            sync(directory)
            _keep_spare(directory)
        except OSError as error:
            raise no_room(error, f'the record of LUN {record.name}') from error
        return record

    def flush(self, record):
        """Make a LUN's data durable, and that its file is there."""
        path = self.path(record)
        try:
            with open(path, 'r+b') as stream:
                os.fsync(stream.fileno())
            sync(os.path.dirname(path))
        except OSError as error:
            raise no_room(error, f'LUN {record.name}') from error

    def remove(self, record):
        """Forget a LUN, after its file was removed; durable. Not there is success."""
        place = self._place(record.pool, record.name) + SUFFIX
        try:
            os.unlink(place)
        except FileNotFoundError:
            return
        directory = self.pools[record.pool]
        if not any(name.endswith(SUFFIX) for name in os.listdir(directory)):
            _give_up_spare(directory)
        sync(directory)

    def _place(self, pool, name):
        if pool not in self.pools:
            raise exceptions.InvalidRequest(f'there is no pool {pool!r:.80}')
        if not volume_facts.LUN.match(name):
            raise exceptions.InvalidRequest(f'{name!r:.80} is no name of a LUN')
        return os.path.join(self.pools[pool], name)


def parse(data, path):
    """Turn a record's JSON into a Record; ValueError for another version or shape."""
    try:
        if data.pop('version') != VERSION:
            raise ValueError('it was written by another version of migrator')
        mirror = data.pop('mirror')
        return Record(**{**data, 'state': LunState(data['state']), 'mirror': Mirror(**mirror) if mirror else None})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no record of a LUN: {error}') from error


def _write(place, text):
    """Replace a file by one with this text, which is durable. Its name is not, until the directory is flushed."""
    descriptor, temporary = tempfile.mkstemp(prefix='.lun-', dir=os.path.dirname(place))
    try:
        with os.fdopen(descriptor, 'w', encoding='utf-8') as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, place)
    except OSError:
        os.unlink(temporary)
        raise


def _keep_spare(directory):
    """Have the spare file, as soon as there is room for it. What it has is not zeros, which some file systems would not store."""
    path = os.path.join(directory, SPARE)
    if os.path.exists(path):
        return
    try:
        with open(path, 'wb') as stream:
            stream.write(b'room' * (SPARE_BYTES // 4))
    except OSError as error:
        LOG.info('%s has no spare room: %s', directory, error)
        _give_up_spare(directory)                       # half of one would be taken for a whole one


def _give_up_spare(directory):
    """Remove the spare file; whether there was one."""
    try:
        os.unlink(os.path.join(directory, SPARE))
    except FileNotFoundError:
        return False
    return True


def no_room(error, what):
    """Turn an OSError into the typed error that a caller understands."""
    kind = exceptions.NoSpace if error.errno in FULL else exceptions.DriverError
    return kind(f'{what} cannot be written: {error.strerror or error}')


def sync(directory):
    """Make a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
