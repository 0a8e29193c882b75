"""The base of drivers whose LUNs are files: what is on disk, recorded first, and the checks before anything is changed.

Who serves the files is the driver's matter: `_array` gives what has the methods of `migrator.volume.array.Array` for one LUN.
"""
import contextlib
import dataclasses
import os

from migrator import concurrency, exceptions, programs
from migrator.rpc import volume_facts as facts
from migrator.states import LunState
from migrator.volume import driver
from migrator.volume.durable import no_room, sync
from migrator.volume.records import Record, Records

replace = dataclasses.replace

#: Seconds for which qemu-img may make an empty file.
QEMU_IMG_SECONDS = 60

#: Where the header of a qcow2 file has `nb_snapshots`, four bytes, big-endian (QEMU's docs/interop/qcow2.txt).
NB_SNAPSHOTS = 60


class LunFiles(driver.VolumeDriver):
    """LUNs as files in the directories of the option `pools`."""

    #: Format of new LUNs.
    _format = 'raw'

    def __init__(self, conf, host, backend):
        super().__init__(conf, host, backend)
        self._records = Records(dict(conf.pools), self._memory)
        self._locks = {}
        self._locks_lock = concurrency.native_lock()

    def _memory(self):
        """Name the file that remembers the pools."""
        return os.path.join(self.state_path, f'{self.host}-{self.backend}-pools.json') if self.state_path else ''

    # --- who serves them ---

    def _array(self, pool, lun):
        """Give a context manager with what serves the LUN."""
        raise NotImplementedError

    def connection(self, record, export):
        """Say how an export of a LUN is reached."""
        raise NotImplementedError

    def _settled(self, _array, record):
        """Give a LUN's record when no change is half done that decides whence it is served."""
        return record

    def _exported(self, record, export, writable):
        """Give the record with one more export."""
        return replace(record, exports={**record.exports, export: writable})

    def _unexported(self, record, export):
        """Give the record without an export."""
        return replace(record, exports={n: w for n, w in record.exports.items() if n != export})

    # --- what is there ---

    @staticmethod
    def _pool(name, directory):
        try:
            room = os.statvfs(directory)
        except OSError as error:
            raise exceptions.DriverError(f'pool {name}: {directory}: {error.strerror}') from error
        return facts.Pool(name, room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)

    def show(self, pool, lun):
        """Describe one LUN, if the array answers."""
        with self._array(pool, lun):
            record = self._records.get(pool, lun)
            return facts.Lun(pool, lun) if record is None else self._describe(record)

    def _describe(self, record):
        state = LunState.MIRRORING if record.mirror and record.state is LunState.READY else record.state
        try:
            allocated = os.stat(self._records.path(record)).st_blocks * 512
        except FileNotFoundError:
            allocated = 0
        return facts.Lun(record.pool, record.name, state, record.size, allocated, record.format, record.owner,
                         self._snapshots(record), tuple(facts.Export(name, writable) for name, writable in sorted(record.exports.items())),
                         mirror=record.mirror.uri if record.mirror else '', locator=locator(record))

    def _snapshots(self, record):
        """Count the snapshots inside a qcow2 file, whoever made them: they are not moved with it."""
        if record.format != 'qcow2':
            return 0
        try:
            with open(self._records.path(record), 'rb') as stream:
                header = stream.read(NB_SNAPSHOTS + 4)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise exceptions.DriverError(f'LUN {record.name} cannot be read: {error.strerror}') from error
        return int.from_bytes(header[NB_SNAPSHOTS:], 'big')

    # --- life of a LUN ---

    def create(self, pool, lun, size, owner):
        """Make a file that reads as zeros."""
        with self._locked(pool, lun):
            return locator(self._make(Record(pool, lun, self._format, size, owner)))

    def _make(self, wanted):
        """Make the file of a LUN, record first; returns the Record. What an earlier try of the same owner left is gone on with."""
        known = self._records.get(wanted.pool, wanted.name)
        if known is not None:
            if known.owner != wanted.owner or known.size != wanted.size:
                raise exceptions.NameTaken(f'LUN {wanted.name} is there already: made by {known.owner or "somebody"}, {known.size} bytes')
            if known.state is LunState.READY:
                return known
        room = self._pool(wanted.pool, self._records.pools.get(wanted.pool, '')) if known is None else None
        if room is not None and wanted.size > room.free:
            raise exceptions.NoSpace(f'pool {wanted.pool} has {room.free} bytes free, LUN {wanted.name} wants {wanted.size}')
        self._records.put(replace(wanted, state=LunState.MAKING))
        try:
            self._make_file(wanted)
            return self._records.put(replace(wanted, state=LunState.READY))
        except exceptions.DriverError:
            self._remove(wanted)
            raise

    def _make_file(self, record):
        path = self._records.path(record)
        try:
            if record.format == 'raw':
                with open(path, 'wb', opener=_private) as stream:
                    stream.truncate(record.size)
                    os.fsync(stream.fileno())
            else:
                os.close(_private(path, os.O_CREAT | os.O_WRONLY))      # qemu-img keeps the mode of what is there
                programs.run(['qemu-img', 'create', '-q', '-f', record.format, path, str(record.size)], QEMU_IMG_SECONDS)
            sync(os.path.dirname(path))
        except OSError as error:
            raise no_room(error, f'LUN {record.name}') from error

    def _remove(self, record):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._records.path(record))
        sync(self._records.pools[record.pool])
        self._records.remove(record)

    def delete(self, pool, lun, owner=''):
        """Remove the file, then the record."""
        with self._locked(pool, lun), self._array(pool, lun) as array:
            record = self._records.get(pool, lun)
            if record is None:
                return {}
            if owner and record.owner != owner:
                raise exceptions.PreconditionFailed(f'LUN {lun} was not made by {owner}')
            if record.exports:
                raise exceptions.PreconditionFailed(f'LUN {lun} is exported as {", ".join(sorted(record.exports))}')
            if array.job(record) is not None or record.mirror is not None:
                raise exceptions.PreconditionFailed(f'LUN {lun} is being taken over')
            array.drop_nodes(record)
            self._remove(record)
            return {}

    def extend(self, pool, lun, size):
        """Grow a LUN that is not exported for writing."""
        with self._locked(pool, lun), self._array(pool, lun) as array:
            record = self._known(pool, lun)
            if size < record.size:
                raise exceptions.InvalidRequest(f'LUN {lun} has {record.size} bytes and cannot shrink to {size}')
            if record.mirror is not None or any(record.exports.values()):
                raise exceptions.PreconditionFailed(f'LUN {lun} is {"being taken over" if record.mirror else "exported for writing"}')
            if size - record.size > self._pool(pool, self._records.pools[pool]).free:
                raise exceptions.NoSpace(f'pool {pool} has no room for {size - record.size} bytes more')
            array.resize(record, size)
            self._records.put(replace(record, size=size))
            return {}

    def export(self, pool, lun, export, writable):
        """Serve a LUN; the record first, so that a restarted daemon serves it too."""
        if not facts.LUN.match(export):
            raise exceptions.InvalidRequest(f'{export!r:.80} is no name of an export')
        with self._locked(pool, lun), self._array(pool, lun) as array:
            record = self._settled(array, self._known(pool, lun))
            known = record.exports.get(export)
            if known is not None and known != writable:
                raise exceptions.PreconditionFailed(f'export {export} is {"writable" if known else "read-only"} and does not change')
            before, record = record, self._records.put(self._exported(record, export, writable))
            try:
                array.export(record, export, writable)
            except exceptions.AgentError:
                self._records.put(before)
                raise
            return self.connection(record, export)

    def unexport(self, pool, lun, export, force=False):
        """Stop serving a LUN, and see that a restarted daemon does not."""
        with self._locked(pool, lun), self._array(pool, lun) as array:
            record = self._records.get(pool, lun)
            array.unexport(export, force)
            if record is not None and export in record.exports:
                record = self._records.put(self._unexported(record, export))
            if record is not None and not record.exports and record.mirror is None:
                array.drop_nodes(record)        # nothing uses the file: let go of it
            return {}

    # --- inside ---

    def _known(self, pool, lun):
        record = self._records.get(pool, lun)
        if record is None or record.state is not LunState.READY:
            raise exceptions.LunNotFound(f'there is no LUN {lun} in pool {pool}')
        return record

    @contextlib.contextmanager
    def _locked(self, pool, lun, patience=None):
        """Let one thread at a time work on a LUN. patience: seconds to wait for another one, None is the option array_patience."""
        with self._locks_lock:
            lock = self._locks.setdefault((pool, lun), concurrency.native_lock())
        if not lock.acquire(timeout=self.conf.array_patience if patience is None else patience):
            raise Busy(f'LUN {lun} is being worked on')
        try:
            yield
        finally:
            lock.release()


def _private(path, flags):
    """Open a LUN's file, made for the agent and its group alone: it has what guests have written."""
    return os.open(path, flags, 0o660)


class Busy(exceptions.DriverError):
    """Somebody else works on the LUN."""


def locator(record):
    """What the catalogue keeps to find the LUN again."""
    return {'lun': record.name, 'format': record.format}
