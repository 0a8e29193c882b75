"""The volume driver `file`. See the package's docstring."""
import contextlib
import dataclasses
import os

from oslo_log import log

from migrator import concurrency, config, exceptions
from migrator.rpc import volume_facts as facts
from migrator.states import LunState
from migrator.volume.drivers.file.served import Served
from migrator.volume.lun_files import Busy, LunFiles

LOG = log.getLogger(__name__)


class FileDriver(LunFiles):
    """LUNs as raw files, each served at a port of its own."""

    options = config.FILE_OPTS
    capabilities = ('thin',)

    def __init__(self, conf, host, backend):
        super().__init__(conf, host, backend)
        self._unserved = {}              # (pool, lun) -> why it cannot be served
        self._ports = {}                 # (pool, lun) -> port that it was given and may not have recorded yet
        self._taken = set()              # ports that others use, as was found out
        self._ports_lock = concurrency.native_lock()

    def start(self):
        """Serve what is recorded."""
        try:
            os.makedirs(self.conf.run_directory, mode=0o750, exist_ok=True)
        except OSError as error:
            raise exceptions.DriverError(f'{self.conf.run_directory} cannot be made: {error.strerror}') from error
        self._records.tidy()
        for record in self._records.look()[0]:
            if not record.exports:
                self._served(record.pool, record.name).drop_nodes(record)       # what an agent left that died in an unexport
        self.pools()

    def stop(self):
        """The daemons go on."""

    def pools(self):
        """Describe the pools; what is recorded and not served is served again."""
        records, failed = self._records.look()
        for record in records:
            if record.exports and record.state is LunState.READY:
                self._serve(record, failed)
        for key, why in failed.items():
            if self._unserved.get(key) != why:
                LOG.error('LUN %s of pool %s cannot be served: %s', *reversed(key), why)
        for pool, lun in self._unserved.keys() - failed.keys():
            LOG.info('LUN %s of pool %s is served again', lun, pool)
        self._unserved = failed
        return tuple(self._pool(name, directory) for name, directory in self._records.pools.items())

    def _serve(self, record, failed):
        """Serve one LUN as it is recorded by now, unless somebody works on it: he sees to that. failed: gets why it cannot be."""
        key = record.pool, record.name
        try:
            with self._locked(*key, patience=0):
                record = self._records.get(*key)
                served = self._served(*key)
                if record is not None and record.exports and (key in self._unserved or not served.alive()):
                    served.bring_back(record)
        except Busy:
            LOG.debug('LUN %s is being worked on', record.name)
        except exceptions.AgentError as error:
            failed[key] = str(error)

    def list(self):
        """List the LUNs that have a record."""
        return tuple(self._describe(record) for record in self._records.all())

    def connection(self, record, export):
        """How an export of a LUN is reached."""
        return facts.Connection(f'nbd://{self.conf.listen_address}:{record.port}/{export}', record.exports[export], record.size)

    def export(self, pool, lun, export, writable):
        """Serve a LUN, at the next port if another program has the one that was chosen."""
        while True:
            try:
                return super().export(pool, lun, export, writable)
            except exceptions.DriverError as error:
                port = self._ports.get((pool, lun))
                if 'Address already in use' not in str(error) or port is None or port in self._taken:
                    raise
                LOG.warning('port %d is used by another program: %s', port, error)
                self._taken.add(port)

    def unexport(self, pool, lun, export, force=False):
        """Stop serving a LUN; with the last export its daemon ends, and then the port is free."""
        result = super().unexport(pool, lun, export, force)
        self._give_back(pool, lun)
        return result

    def delete(self, pool, lun, owner=''):
        """Remove a LUN, and a daemon that an interrupted unexport left."""
        result = super().delete(pool, lun, owner)
        self._give_back(pool, lun)
        return result

    # --- inside ---

    def _give_back(self, pool, lun):
        """Let others have the port of a LUN that is not served any more."""
        with self._locked(pool, lun):
            record = self._records.get(pool, lun)
            if record is None or not record.port:
                with self._ports_lock:
                    self._ports.pop((pool, lun), None)

    def _served(self, pool, lun):
        return Served(pool, lun, self._records, self.conf, self.backend)

    @contextlib.contextmanager
    def _array(self, pool, lun):
        """Give what serves the LUN; its daemon runs only while there are exports."""
        yield self._served(pool, lun)

    def _exported(self, record, export, writable):
        """Give the record with one more export, and the port at which it is reached."""
        record = super()._exported(record, export, writable)
        return record if record.port else dataclasses.replace(record, port=self._free_port(record))

    def _unexported(self, record, export):
        """Give the record without an export; with the last one the port goes back."""
        record = super()._unexported(record, export)
        return record if record.exports else dataclasses.replace(record, port=0)

    def _free_port(self, record):
        """Give the LUN a port that no other LUN has, and that is not known to be somebody else's. Raises DriverError if there is none."""
        with self._ports_lock:
            recorded = {other.port for other in self._records.look()[0] if (other.pool, other.name) != (record.pool, record.name)}
            self._ports = {key: port for key, port in self._ports.items() if key != (record.pool, record.name)}
            used = recorded | set(self._ports.values()) | self._taken
            free = next((port for port in range(self.conf.first_port, self.conf.last_port + 1) if port not in used), None)
            if free is None:
                raise exceptions.DriverError(f'all ports from {self.conf.first_port} to {self.conf.last_port} are taken')
            self._ports[record.pool, record.name] = free
            return free
