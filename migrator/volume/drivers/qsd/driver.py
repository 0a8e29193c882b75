"""The volume driver `qsd`: an array on a qemu-storage-daemon. See the package's docstring for how it survives restarts."""
import contextlib
import dataclasses
import os

from oslo_log import log

from migrator import concurrency, config, exceptions, programs
from migrator.rpc import volume_facts as facts
from migrator.states import LunState
from migrator.volume import driver
from migrator.volume.drivers.qsd.array import Array
from migrator.volume.drivers.qsd.qmp import Monitor
from migrator.volume.drivers.qsd.records import Mirror, Record, Records, no_room, sync
from migrator.volume.drivers.qsd.takeover import Takeover

LOG = log.getLogger(__name__)

replace = dataclasses.replace

#: Seconds for which qemu-img may make an empty file.
QEMU_IMG_SECONDS = 60


class QsdDriver(driver.VolumeDriver):
    """LUNs as raw or qcow2 files, exported over NBD, with take-over of other arrays' LUNs."""

    options = config.QSD_OPTS
    capabilities = ('take_over', 'thin')

    def __init__(self, conf, host, backend):
        super().__init__(conf, host, backend)
        self._records = Records(dict(conf.pools))
        self._monitor = Monitor(conf.qmp_socket, conf.array_timeout)
        self._locks = {}
        self._locks_lock = concurrency.native_lock()
        self._unserved = {}              # (pool, lun) -> why it could not be brought back
        self._stopping = concurrency.native_event()
        self._takeover = Takeover(self._array, self._records, self._locked, conf.array_patience, self._stopping)

    def start(self):
        """Meet the daemon, and bring back what it forgot."""
        self._stopping.clear()
        with self._array():
            pass

    def stop(self):
        """Let the take-overs go on without us."""
        self._stopping.set()

    # --- what is there ---

    def pools(self):
        """Describe the pools; a daemon that was restarted gets back what it served."""
        with self._array():
            return tuple(self._pool(name, directory) for name, directory in self._records.pools.items())

    @staticmethod
    def _pool(name, directory):
        try:
            room = os.statvfs(directory)
        except OSError as error:
            raise exceptions.DriverError(f'pool {name}: {directory}: {error.strerror}') from error
        return facts.Pool(name, room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)

    def list(self):
        """List the LUNs that have a record."""
        with self._array():
            return tuple(self._describe(record) for record in self._records.all())

    def show(self, pool, lun):
        """Describe one LUN, if the array answers."""
        with self._array():
            record = self._records.get(pool, lun)
            return facts.Lun(pool, lun) if record is None else self._describe(record)

    def _describe(self, record):
        state = LunState.MIRRORING if record.mirror and record.state is LunState.READY else record.state
        try:
            allocated = os.stat(self._records.path(record)).st_blocks * 512
        except FileNotFoundError:
            allocated = 0
        return facts.Lun(record.pool, record.name, state, record.size, allocated, record.format, record.owner,
                         exports=tuple(facts.Export(name, writable) for name, writable in sorted(record.exports.items())),
                         mirror=record.mirror.uri if record.mirror else '', locator=locator(record))

    # --- life of a LUN ---

    def create(self, pool, lun, size, owner):
        """Make a file that reads as zeros."""
        with self._locked(pool, lun):
            return locator(self._make(Record(pool, lun, self.conf.format, size, owner)))

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
                with open(path, 'wb') as stream:
                    stream.truncate(record.size)
                    os.fsync(stream.fileno())
            else:
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
        with self._locked(pool, lun), self._array() as array:
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
        with self._locked(pool, lun), self._array() as array:
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
        with self._locked(pool, lun), self._array() as array:
            record = self._known(pool, lun)
            known = record.exports.get(export)
            if known is not None and known != writable:
                raise exceptions.PreconditionFailed(f'export {export} is {"writable" if known else "read-only"} and does not change')
            before, record = record, self._records.put(replace(record, exports={**record.exports, export: writable}))
            try:
                array.export(record, export, writable)
            except exceptions.AgentError:
                self._records.put(before)
                raise
            return self.connection(record, export)

    def connection(self, record, export):
        """How an export of a LUN is reached."""
        tls = bool(self.conf.tls_credentials)
        uri = f'{"nbds" if tls else "nbd"}://{self.conf.listen_address}:{self.conf.listen_port}/{export}'
        return facts.Connection(uri, record.exports[export], record.size, tls)

    def unexport(self, pool, lun, export, force=False):
        """Stop serving a LUN, and see that a restarted daemon does not."""
        with self._locked(pool, lun), self._array() as array:
            record = self._records.get(pool, lun)
            array.unexport(export, force)
            if record is not None and export in record.exports:
                record = self._records.put(replace(record, exports={n: w for n, w in record.exports.items() if n != export}))
            if record is not None and not record.exports and record.mirror is None:
                array.drop_nodes(record)        # nothing uses the file: let go of it
            return {}

    # --- migration ---

    def migrate_volume_target(self, lun, connection, target):
        """Take over a LUN that can be written at its own array; decline anything else."""
        if not connection.writable or (connection.tls and not self.conf.tls_credentials):
            return False, False, {}
        wanted = Record(target.pool, target.lun, self.conf.format, target.size, target.migration_id,
                        mirror=Mirror(connection.uri, connection.tls))
        with self._locked(target.pool, target.lun), self._array() as array:
            record = self._make(wanted)
            try:
                array.bring_back(record)
            except exceptions.DriverError:
                if array.job(record) is None and not record.exports:
                    array.drop_nodes(record)
                    self._remove(record)
                raise
        return True, True, {'locator': locator(record)}

    def complete_migration_target(self, target):
        """Wait until the local file is complete and served."""
        self._takeover.complete(target.pool, target.lun)
        return {}

    def cancel_migration_target(self, target):
        """Undo a take-over."""
        record = self._takeover.cancel(target.pool, target.lun, target.migration_id)
        if record is not None:
            self.delete(target.pool, target.lun, target.migration_id)
        return {}

    def progress(self, pool, lun):
        """Tell how far the mirror is."""
        try:
            with self._array() as array:
                record = self._records.get(pool, lun)
                job = array.job(record) if record is not None else None
        except exceptions.MigratorError as error:
            LOG.debug('no progress of %s: %s', lun, error)
            return facts.Progress()
        if job is None:
            return facts.Progress()
        return facts.Progress(True, job['total-progress'], job['current-progress'], ready=job['ready'])

    # --- inside ---

    def _known(self, pool, lun):
        record = self._records.get(pool, lun)
        if record is None or record.state is not LunState.READY:
            raise exceptions.LunNotFound(f'there is no LUN {lun} in pool {pool}')
        return record

    @contextlib.contextmanager
    def _locked(self, pool, lun):
        """Let one thread at a time work on a LUN."""
        with self._locks_lock:
            lock = self._locks.setdefault((pool, lun), concurrency.native_lock())
        if not lock.acquire(timeout=self.conf.array_patience):
            raise exceptions.DriverError(f'LUN {lun} is being worked on')
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _array(self):
        """Open a session with the daemon, which has by then got back all that could be brought back."""
        with self._monitor.session() as session:
            array = Array(session, self._records, self.conf.tls_credentials)
            if not array.restored or self._unserved:
                self._restore(array)
            yield array

    def _restore(self, array):
        """Serve every LUN as recorded. One that cannot be is tried again at the next session; the others need not wait for it."""
        failed = {}
        for record in self._records.all():
            if record.state is LunState.READY:
                try:
                    array.bring_back(record)
                except exceptions.AgentError as error:
                    failed[record.pool, record.name] = str(error)
        for (pool, lun), why in failed.items():
            if self._unserved.get((pool, lun)) != why:
                LOG.error('LUN %s of pool %s cannot be served: %s', lun, pool, why)
        for pool, lun in self._unserved.keys() - failed.keys():
            LOG.info('LUN %s of pool %s is served again', lun, pool)
        self._unserved = failed
        array.mark_restored()


def locator(record):
    """What the catalogue keeps to find the LUN again."""
    return {'lun': record.name, 'format': record.format}
