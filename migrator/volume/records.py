"""What is true of each LUN, in one durable file beside it: who made it, its exports, and whence it is mirrored.

Written whole, flushed and renamed, so that a crash leaves the old or the new record and never half of one. A LUN without a record
does not exist: the record is written before the LUN's file is made, and removed after it.
"""
import dataclasses
import json
import os

from oslo_log import log

from migrator import exceptions
from migrator.rpc import volume_facts
from migrator.states import LunState
from migrator.volume import durable
from migrator.volume.durable import FULL, no_room, sync, write
from migrator.volume.pools import Pools

LOG = log.getLogger(__name__)

VERSION = 1
SUFFIX = '.lun'

#: How the origin of a LUN is written that comes from another pool of its own array.
WITHIN = 'lun:'

#: A file in each pool that has LUNs: room that is given up when the pool is full. Without it a LUN that has filled its pool could never be
#: removed, for its exports end first, and that is written down.
SPARE = '.lun-spare'
SPARE_BYTES = 16384

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
    """The records of one array. pools: {pool: directory}. memory: see pools.Pools, which says why a pool may not be there."""

    def __init__(self, pools, memory=lambda: ''):
        self.pools = Pools(pools, memory)

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
        found, unreadable = self.look()
        for why in unreadable.values():
            raise exceptions.DriverError(why)
        return found

    def look(self, *pools):
        """Read what can be read, of some pools or of all. Returns the Records, and {(pool, name): why it cannot be read}; the name is '' if
        nothing of the pool can be."""
        found, unreadable = [], {}
        for pool in pools or self.pools:
            try:
                names = sorted(os.listdir(self.pools[pool]))
            except exceptions.DriverError as error:
                unreadable[pool, ''] = str(error)
                continue
            except OSError as error:
                unreadable[pool, ''] = f'pool {pool} cannot be read: {error}'
                continue
            for name in (n.removesuffix(SUFFIX) for n in names if n.endswith(SUFFIX) and not n.startswith('.')):
                try:
                    found.append(self.get(pool, name))
                except exceptions.MigratorError as error:
                    unreadable[pool, name] = str(error)
        return [record for record in found if record is not None], unreadable

    def tidy(self):
        """Remove what somebody left who died while he wrote a record. Only while nobody writes any."""
        for pool in self.pools:
            try:
                durable.tidy(self.pools[pool])
            except (exceptions.DriverError, OSError) as error:
                LOG.warning('what is left of records in pool %s is not removed: %s', pool, error)

    def put(self, record):
        """Make a record durable; returns it."""
        place = self._place(record.pool, record.name) + SUFFIX
        text = json.dumps({'version': VERSION, **dataclasses.asdict(record)})
        directory = self.pools[record.pool]

        def store():
            self.pools.claim(record.pool)
            write(place, text)
        try:
            try:
                store()
            except OSError as error:
                if error.errno not in FULL or not _give_up_spare(directory):
                    raise
                store()
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
        record = Record(**{**data, 'state': LunState(data['state']), 'mirror': Mirror(**mirror) if mirror else None})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no record of a LUN: {error}') from error
    odd = [part for part in (record, record.mirror) if part is not None for field in dataclasses.fields(part)
           if not isinstance(getattr(part, field.name), field.type)]
    if odd or not all(isinstance(writable, bool) for writable in record.exports.values()):
        raise ValueError(f'{path} is no record of a LUN: something in it is of another kind')
    return record


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
