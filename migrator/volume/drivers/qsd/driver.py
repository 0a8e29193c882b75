"""The volume driver `qsd`: an array on a qemu-storage-daemon. See the package's docstring for how it survives restarts."""
import contextlib

from oslo_log import log

from migrator import concurrency, config, exceptions
from migrator.rpc import volume_facts as facts
from migrator.states import LunState
from migrator.volume import reach
from migrator.volume.array import Array
from migrator.volume.drivers.qsd.takeover import Takeover
from migrator.volume.drivers.qsd.unserved import Unserved
from migrator.volume.lun_files import LunFiles, locator
from migrator.volume.qmp import Monitor
from migrator.volume.records import Mirror, Record

LOG = log.getLogger(__name__)


class QsdDriver(LunFiles):
    """LUNs as raw or qcow2 files, exported over NBD, with take-over of other arrays' LUNs."""

    options = config.QSD_OPTS

    def __init__(self, conf, host, backend):
        super().__init__(conf, host, backend)
        self.capabilities = (*(('take_over',) if conf.take_over != 'no' else ()), 'move_between_pools', 'thin')
        self._format = conf.format
        self._monitor = Monitor(conf.qmp_socket, conf.array_timeout)
        self._unserved = Unserved()
        self._stopping = concurrency.native_event()
        self._unwanted = set()       # migrations that were interrupted
        self._takeover = Takeover(self._array, self._records, self._locked, conf.array_patience, conf.array_timeout / 2,
                                  self._stopping)

    def start(self):
        """Meet the daemon, end what an agent before us left in the midst of a switch, and bring back what is not served: the daemon forgot
        it, or the agent before us could not serve it."""
        self._stopping.clear()
        self._records.tidy()
        with self._monitor.session() as session:
            array = Array(session, self._records, self.conf.tls_credentials)
            self._takeover.settle_all(array)
            self._restore(array)

    def stop(self):
        """Let the take-overs go on without us; but those whose clients are held back are ended first."""
        self._stopping.set()
        try:
            with self._monitor.session() as session:        # its turn comes when no switch is under way
                self._takeover.settle_all(Array(session, self._records, self.conf.tls_credentials))
        except exceptions.DriverError as error:
            LOG.warning('whether a switch is under way is seen when the agent is back: %s', error)

    # --- what is there ---

    def pools(self):
        """Describe the pools; a daemon that was restarted gets back what it served."""
        with self._array() as array:
            self._takeover.settle_all(array)
            self._retry(array)
            return tuple(self._pool(name, directory) for name, directory in self._records.pools.items())

    def list(self):
        """List the LUNs that have a record."""
        with self._array():
            return tuple(self._describe(record) for record in self._records.all())

    def connection(self, record, export):
        """How an export of a LUN is reached."""
        tls = bool(self.conf.tls_credentials)
        uri = f'{"nbds" if tls else "nbd"}://{self.conf.listen_address}:{self.conf.listen_port}/{export}'
        return facts.Connection(uri, record.exports[export], record.size, tls)

    def unexport(self, pool, lun, export, force=False):
        """Stop serving a LUN; not while that would hold up all others, unless by force."""
        with self._array() as array:
            record = self._records.get(pool, lun)
            if record is not None and not force and array.has_export(export):
                array.check_remote(record)
        return super().unexport(pool, lun, export, force)

    def delete(self, pool, lun, owner=''):
        """Remove the file, then the record; what was moved here from another pool, and not to the end, comes no further first."""
        with self._array():
            record = self._records.get(pool, lun)
        if record is not None and record.mirror is not None and record.mirror.origin is not None and record.owner == owner:
            self._takeover.cancel(pool, lun, owner)
        return super().delete(pool, lun, owner)

    # --- migration ---

    def migrate_volume(self, lun, target):
        """Move a LUN to another pool of this array, by the array itself; decline anything else. It is a take-over whose remote is the other
        file: one who dies meanwhile, the daemon too, is asked again, and goes on or begins anew."""
        if (target.host, target.backend) != (self.host, self.backend):
            return False, {}
        record = self._begin(Record(target.pool, target.lun, self._format, target.size, target.migration_id,
                                    mirror=Mirror.within(lun.pool, lun.name, target.bandwidth)))
        self._await_all(target)
        return True, {'locator': locator(record)}

    def migrate_volume_target(self, lun, connection, target):
        """Take over a LUN that can be written at its own array; decline anything else, and what is on this array: a daemon that connects
        to itself waits for ever for its own answer. With the option take_over=sync it returns once all data is here; one who dies
        meanwhile is asked again, and goes on."""
        if self.conf.take_over == 'no' or not connection.writable or (connection.tls and not self.conf.tls_credentials):
            return False, False, {}
        wanted = Record(target.pool, target.lun, self._format, target.size, target.migration_id,
                        mirror=Mirror(connection.uri, connection.tls, rate=target.bandwidth))
        with self._array() as array:
            if self._is_own(array, connection):
                return False, False, {}
        record = self._begin(wanted)
        at_once = self.conf.take_over == 'sync'
        if at_once:
            self._await_all(target)
        return True, not at_once, {'locator': locator(record)}

    def interrupt(self, migration_id):
        """Let `_await_all` give up; the mirror ends with what it was to fill, in the undo."""
        self._unwanted.add(migration_id)

    def _await_all(self, target):
        """Return when all data is here."""
        try:
            self._takeover.complete(target.pool, target.lun, target.bandwidth, lambda: target.migration_id in self._unwanted)
        finally:
            self._unwanted.discard(target.migration_id)

    def _begin(self, wanted):
        """Make a LUN and its mirror, or go on with them; returns the Record. What cannot be begun leaves nothing."""
        with self._locked(wanted.pool, wanted.name), self._array() as array:
            record = self._make(wanted)
            try:
                array.bring_back(record)
            except exceptions.DriverError:
                if array.job(record) is None and not record.exports:
                    array.drop_nodes(record)
                    self._remove(record)
                raise
            return self._takeover.limit(array, record, wanted.mirror.rate)

    def set_mirror_rate(self, pool, lun, bytes_per_second):
        """Change the limit of the mirror, and of those that follow it after a restart of the daemon."""
        with self._locked(pool, lun), self._array() as array:
            record = self._records.get(pool, lun)
            if record is None or record.mirror is None:
                return False
            self._takeover.limit(array, record, bytes_per_second)
        return True

    def complete_migration_target(self, target):
        """Wait until the local file is complete and served."""
        self._takeover.complete(target.pool, target.lun, target.bandwidth)
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

    def _settled(self, array, record):
        """Give the record when the marker, if there is one, is true: it decides which data a new client gets."""
        return self._takeover.settle(array, record)

    def _is_own(self, array, connection):
        """True if an export is of this daemon, maybe of another backend of it, or reached by another name or a forwarded address."""
        _, port, export = reach.parts(connection.uri)
        if reach.same_place(connection.uri, self.conf.listen_address, self.conf.listen_port):
            return True
        return int(port) == self.conf.listen_port and array.has_export(export)

    @contextlib.contextmanager
    def _array(self, _pool='', _lun=''):
        """Open a session with the daemon, which has by then got back what can be brought back."""
        with self._monitor.session() as session:
            array = Array(session, self._records, self.conf.tls_credentials)
            if not array.restored:
                self._restore(array)
            yield array

    def _restore(self, array):
        """Serve every LUN as recorded. What cannot be is tried again, and keeps no other one waiting."""
        self._unserved.clear()
        self._bring_back_all(array)
        array.mark_restored()

    def _bring_back_all(self, array, *pools):
        """Serve the LUNs of some pools or of all; last those that need another array, which may be silent."""
        records, unreadable = self._records.look(*pools)
        for pool in pools:
            if (pool, '') not in unreadable and self._unserved.served((pool, '')):
                LOG.info('pool %s is there again', pool)
        for key, why in unreadable.items():
            self._failed(key, why)
        for record in sorted(records, key=lambda record: record.mirror is not None):
            self._bring_back(array, record.pool, record.name)

    def _retry(self, array):
        """Try those again that could not be served, each after a pause that grows."""
        for pool, lun in self._unserved.due():
            if lun:
                self._bring_back(array, pool, lun)
            else:
                self._bring_back_all(array, pool)

    def _bring_back(self, array, pool, lun):
        try:
            record = self._records.get(pool, lun)
            if record is not None and record.state is LunState.READY:
                array.bring_back(record)
        except exceptions.AgentError as error:
            self._failed((pool, lun), str(error))
        else:
            if self._unserved.served((pool, lun)):
                LOG.info('LUN %s of pool %s is served again', lun, pool)

    def _failed(self, key, why):
        """Note what cannot be served, a LUN or a whole pool; the log has it once."""
        if self._unserved.failed(key, why):
            LOG.error('%s cannot be served: %s', f'LUN {key[1]} of pool {key[0]}' if key[1] else f'what pool {key[0]} has', why)
